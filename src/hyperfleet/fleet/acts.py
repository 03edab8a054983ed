"""What an owner does to its machine, step by step, each written down before it is done.

Every act may be cut off at any line, by a crash or by `close`; what the record then says is what
the next control plane mends from (`adopt`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from hyperfleet.errors import GuestError, HyperfleetError, InvalidStateError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import console, discovery, layout, revival
from hyperfleet.fleet.admission import Place
from hyperfleet.fleet.boot import Boot
from hyperfleet.fleet.discovery import Sight
from hyperfleet.fleet.holding import FIRST_LOOK_S, Holding
from hyperfleet.fleet.revival import End, Next
from hyperfleet.fleet.running import News, Running, describe
from hyperfleet.fleet.state import State, now
from hyperfleet.fleet.tools import Tools
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import How, MachineChange
from hyperfleet.vmm.driver import Exit, LaunchSpec, Process

_log = logging.getLogger(__name__)


# Bytes of a disk that was just made; what its guest writes comes later.
_DISK = 1 << 20


class Acts:
    """One machine's acts. The owner calls them one at a time."""

    def __init__(self, state: State, tools: Tools, news: News) -> None:
        self._state = state
        self._tools = tools
        self._holding = Holding(state, tools, news)
        # A process that another control plane began to boot.
        self._found: Process | None = None
        self._place: Place | None = None

    @property
    def running(self) -> Running | None:
        """Its process, while it is held."""
        return self._holding.running

    @property
    def launch(self) -> LaunchSpec:
        """What finds the machine's process and files."""
        return self._holding.launch

    async def tell_time(self) -> None:
        """Sets the guest's clock, beside whatever else is done."""
        await self._holding.tell_time()

    async def check(self) -> None:
        """Whether it could start.

        Raises:
            ValidationError: kernel or disk are not usable.
        """
        self._full_launch()

    async def prepare(self, key: str) -> None:
        """From at rest to starting; nothing runs yet. `key` is whose wish it is.

        Raises:
            ValidationError: kernel or disk are not usable; nothing has changed.
            CapacityError: there is no room for it now; nothing has changed.
        """
        self._full_launch()
        machine = self._state.machine
        # One that sleeps gives room back, and one that is restarted has had it.
        if machine.next_start_at is None and not self._tools.driver.has_memory(self.launch):
            self._tools.disk_room.must_have(_DISK, "the machine's disk")
        await self._be_starting(key, restarts=0)

    async def prepare_again(self) -> None:
        """The same for a start by itself. One that can't be is tried again, as one that failed.

        Raises:
            ValidationError: as `prepare`; it is failed.
        """
        restarts = self._state.machine.restarts + 1
        try:
            self._full_launch()
        except HyperfleetError as error:
            await self._fail(error.message, self._next(End.NO_BOOT, restarts))
            raise
        await self._be_starting(None, restarts=restarts)

    async def _be_starting(self, key: str | None, *, restarts: int) -> None:
        reach(Point.START_BEGUN)
        with self._tools.admission.admitting(self._state.machine, key) as place:
            await self._state.go(
                Status.STARTING,
                error_message=None,
                pid=None,
                restarts=restarts,
                next_start_at=None,
                host_boot=self._tools.config.host_boot,
                guest_fault=None,
                command=None,
            )
        self._place = place
        reach(Point.START_RECORDED)
        await self._state.publish()
        reach(Point.START_PUBLISHED)

    async def boot(self) -> None:
        """From starting to running.

        Raises:
            GuestError, OperationTimeoutError, ValidationError: it did not come up; it is failed.
        """
        observer = self._tools.observer
        assert self._place is not None  # noqa: S101 - `prepare` has taken it
        try:
            await self._place.turn()
            boot = self._boot()
            await self._or_fail(self._boot_with(boot, boot.start()))
        except asyncio.CancelledError:
            observer.start_given_up()
            raise
        except Exception:
            observer.start_failed()
            raise
        self._leave_place()
        if (start := self._state.machine.last_start) is not None:
            observer.started(start.duration_ms / 1000, start.how)
            if start.how is How.BOOT:
                self._tools.templating.want(self.launch)

    async def come_up(self) -> None:
        """The rest of a boot that another control plane began; raises as `boot` does."""
        process, self._found = self._found, None
        if process is not None:
            # One that was being woken or cloned may stand still.
            with contextlib.suppress(GuestError):
                await process.resume()
            boot = self._boot()
            await self._or_fail(self._boot_with(boot, boot.come_up(process)))

    async def halt(self) -> None:
        """From whatever it is to stopped, and stays so; clients are turned away first."""
        await self._halt(None)

    async def halt_to_start(self) -> None:
        """The same, and it is to be started at once: a crash does not make it forgotten."""
        await self._halt(now())

    async def cut(self) -> None:
        """The same at once: what it has in memory is not wanted any more."""
        await self._halt(None, at_once=True)

    async def stand_down(self) -> None:
        """It is not started by itself after all."""
        await self._state.go(Status.STOPPED, next_start_at=None, restarts=0)
        await self._state.publish()

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()

    async def _halt(self, next_start_at: datetime | None, *, at_once: bool = False) -> None:
        self._leave_place()
        reach(Point.STOP_BEGUN)
        await self._state.go(Status.STOPPING, next_start_at=next_start_at, restarts=0)
        reach(Point.STOP_RECORDED)
        await self._state.publish()
        reach(Point.STOP_PUBLISHED)
        running = await self.unhold()
        if running is not None:
            if at_once:
                await running.process.kill()
            else:
                await running.power_off(self._tools.config.stop_grace)
            reach(Point.STOP_ENDED)
            await running.let_go()
        await self._tools.driver.sweep(self.launch)
        await self._tools.driver.forget_memory(self.launch)
        reach(Point.STOP_SWEPT)
        await self._state.fall(Status.STOPPED, pid=None, ports=self._holding.no_ways())
        reach(Point.STOP_DONE)
        await self._state.publish()

    async def amend(self, change: MachineChange) -> None:
        """Written down first; a port that is not exposed any more is refused when this returns.

        Raises:
            ValidationError, InvalidStateError, ConflictError: it can't be; nothing has changed.
        """
        machine = self._state.machine
        if change.egress is not None and change.egress != machine.spec.egress:
            network = self._tools.networks.of(machine.network)
            network.check(change.egress, running=self._state.status not in AT_REST)
        if change.disks is None or change.disks == machine.spec.disks:
            await self._state.amend(change)
        else:
            if self._state.status not in AT_REST:
                raise InvalidStateError(
                    f"disks can't be changed while machine {machine.spec.name!r} is "
                    f"{self._state.status}: stop it first"
                )
            with self._tools.disks.claiming(machine.id, change.disks):
                await self._state.amend(change)
        reach(Point.CHANGE_RECORDED)
        await self._state.publish()
        reach(Point.CHANGE_PUBLISHED)

    async def follow(self) -> None:
        """What the guest may begin; ways in to the exposed ports alone, and what listens there.

        What can't be seen now is seen by the next look.

        Raises:
            GuestError: the guest can't be held to what is recorded.
        """
        network = self._state.machine.network
        await self._tools.networks.of(network).permit(self.launch)
        exposed = self._state.machine.spec.exposed_ports
        if self.running is None or self.running.looker.exposed == exposed:
            return
        looker = self.running.looker
        try:
            ways = await looker.aim(exposed)
            self._state.see(discovery.reached(self._state.machine.ports, ways))
            await self._state.publish()
            reach(Point.CHANGE_AIMED)
            await looker.tidy()
            if self._state.status is Status.PAUSED:
                return
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.note(await looker.look())
        except (HyperfleetError, TimeoutError) as error:
            _log.info("machine %s: its new ports are to be seen: %s", self._state.machine.id, error)

    async def settle(self, ended: Exit) -> None:
        """Its process has ended by itself."""
        reach(Point.DEATH_SEEN)
        running = await self.unhold()
        if running is not None:
            await running.let_go()
        if ended.powered_off:
            await self._tools.driver.sweep(self.launch)
            reach(Point.DEATH_SWEPT)
            await self._fall(Status.STOPPED, self._next(End.POWERED_OFF))
        else:
            since = running.console_start if running is not None else 0
            reason = await self._with_reason(f"the machine died ({describe(ended)})", since)
            await self._fail(reason, self._next(End.DIED))

    async def note(self, sight: Sight) -> None:
        """Routes follow what was seen."""
        before = self._state.machine.ports
        ports = discovery.merge(before, sight, now())
        if ports != before:
            self._state.see(ports)
            await self._state.publish()

    async def remove(self) -> None:
        """The machine, at rest, with all that is its own. Its end is decided before it begins."""
        machine_id = self._state.machine.id
        await self._state.withdraw()
        reach(Point.DELETE_WITHDRAWN)
        try:
            await self._tools.driver.sweep(self.launch)
            self._tools.layout.condemn(machine_id)
            reach(Point.DELETE_DECIDED)
            await self._tools.store.remove(machine_id)
            reach(Point.DELETE_FORGOTTEN)
        except Exception:
            self._tools.layout.reprieve(machine_id)
            await self._state.publish()
            raise
        self._state.remove()
        self._tools.admission.forget(machine_id)
        network = self._state.machine.network
        self._tools.networks.of(network).release(network, used=True)
        try:
            await self._tools.driver.remove(
                layout.nameless_launch(machine_id, self._tools.layout.doomed(machine_id))
            )
        except OSError:
            # It is out of sight; what is left of it goes when the home is opened again.
            _log.exception("machine %s: its directory could not be removed", machine_id)

    async def adopt(self) -> bool:
        """Finds what a control plane before this one left, and mends the record.

        Returns whether the machine was left in the middle of something, which is to be completed.
        """
        status = self._state.status
        if status in AT_REST:
            if self._tools.driver.has_memory(self.launch):
                # A snapshot was put back, and that was not written down any more.
                await self._state.go(Status.SLEEPING, error_message=None, next_start_at=None)
            await self._state.publish()
            return False
        try:
            process = await self._tools.driver.adopt(self.launch)
        except GuestError as error:
            await self._fail(f"its process could not be taken over: {error}", self._next(End.DIED))
            return False
        reach(Point.ADOPT_LOOKED)
        if status is Status.STOPPING:
            if process is not None:
                self._holding.hold(process, {})
            await self._state.publish()
            return True
        if process is None:
            await self._find_gone()
            return False
        if status is Status.SLEEPING:
            # Its memory was not saved yet.
            with contextlib.suppress(GuestError):
                await process.resume()
            await self._state.go(Status.RUNNING)
        if status is Status.STARTING:
            self._found = process
            await self._state.publish()
            return True
        await self._take_over(process)
        return False

    async def let_go(self) -> None:
        """The control plane ends; the machine runs on."""
        running = await self.unhold()
        if running is not None:
            await running.let_go()
        if self._found is not None:
            self._found.release()
            self._found = None

    def _full_launch(self) -> LaunchSpec:
        machine = self._state.machine
        directory = self._tools.layout.directory(machine.id)
        disks = self._tools.disks.files(machine.spec.disks)
        return layout.launch_spec(machine, directory, self._tools.images, disks)

    def _boot(self) -> Boot:
        return Boot(
            self._state.machine, self._tools, launch=self._full_launch, meet=self._holding.meet
        )

    async def _boot_with(self, boot: Boot, coming_up: Coroutine[Any, Any, Process]) -> None:
        process = await coming_up
        reach(Point.BOOT_SEEN)
        await self._state.go(
            Status.RUNNING,
            pid=process.pid,
            lifecycle=self._state.machine.lifecycle + 1,
            started_at=now(),
            last_start=boot.told(process),
        )
        reach(Point.BOOT_RECORDED)
        await self._state.publish()
        reach(Point.BOOT_PUBLISHED)
        self._holding.attend()

    async def _take_over(self, process: Process) -> None:
        """A machine that ran before this control plane did."""
        try:
            await self._holding.take_over(process)
        except GuestError as error:
            await self._fail(f"its process could not be taken over: {error}", self._next(End.DIED))

    async def unhold(self) -> Running | None:
        """Nothing is looked at any more; what was held is the caller's."""
        return await self._holding.unhold()

    async def _or_fail(self, act: Coroutine[Any, Any, None]) -> None:
        try:
            await act
        except HyperfleetError as error:
            await self._fail(error.message, self._next_if_by_itself())
            raise
        except Exception as error:
            await self._fail(f"internal error: {error!r}", self._next_if_by_itself())
            raise

    def _next_if_by_itself(self) -> Next | None:
        """A start that its user asked for ends with its failure; others may be tried again."""
        return self._next(End.NO_BOOT) if self._state.machine.restarts else None

    def _next(self, end: End, restarts: int | None = None) -> Next:
        limits = self._tools.config.revival
        return revival.after_end(self._state.machine, end, now(), limits, restarts=restarts)

    async def _fail(self, message: str, following: Next | None) -> None:
        """Nothing of it may run on when the record says that it is at rest."""
        self._leave_place()
        running = await self.unhold()
        if running is not None:
            await running.let_go()
        try:
            await self._tools.driver.sweep(self.launch)
        except (HyperfleetError, OSError):
            _log.exception("machine %s: its process could not be ended", self._state.machine.id)
        reach(Point.DEATH_SWEPT)
        if following is not None and following.given_up:
            message = f"given up after {following.restarts} restarts in a row: {message}"
        _log.warning("machine %s has failed: %s", self._state.machine.id, message)
        # What could not be woken sleeps on.
        asleep = self._tools.driver.has_memory(self.launch)
        status = Status.SLEEPING if asleep else Status.FAILED
        await self._fall(status, None if asleep else following, error_message=message)

    async def _fall(self, status: Status, following: Next | None, **changes: Any) -> None:
        """Down without its user's wish; what is next is in the same record."""
        changes |= {"pid": None, "ports": self._holding.no_ways(), "next_start_at": None}
        if following is not None:
            changes |= {"restarts": following.restarts, "next_start_at": following.start_at}
        await self._state.fall(status, **changes)
        reach(Point.DEATH_RECORDED)
        await self._state.publish()

    async def _find_gone(self) -> None:
        """It sleeps, or it is dead."""
        if self._tools.driver.has_memory(self.launch):
            await self._state.go(Status.SLEEPING, pid=None, ports=self._holding.no_ways())
            await self._state.publish()
        else:
            await self._find_dead()

    async def _find_dead(self) -> None:
        """It should run, and no process of it is there."""
        machine, config = self._state.machine, self._tools.config
        why = revival.why_dead(machine, config.host_boot)
        ended = self._tools.driver.last_exit(self.launch)
        if ended.out_of_memory is not None:
            why = f"{why}: {describe(ended)}"
        reason = await self._with_reason(why)
        following = revival.at_start(machine, config.host_boot, now(), config.revival)
        await self._fail(reason, following)

    async def _with_reason(self, what: str, since: int = 0) -> str:
        return await console.with_reason(what, self._tools.driver.console(self.launch), since)
