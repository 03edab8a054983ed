"""What an owner does to its machine, step by step, each written down before it is done.

Every act may be cut off at any line, by a crash or by `close`; what the record then says is what
the next control plane mends from (`adopt`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from hyperfleet.errors import GuestError, HyperfleetError, OperationTimeoutError
from hyperfleet.fleet import console, discovery, layout
from hyperfleet.fleet.config import FleetConfig, ImagesLike
from hyperfleet.fleet.discovery import Sight
from hyperfleet.fleet.layout import Layout
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.looker import Looker, Slots
from hyperfleet.fleet.observer import Observer
from hyperfleet.fleet.state import State, now
from hyperfleet.guest.values import GuestNetwork
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import ExposedPort, MachineChange
from hyperfleet.network import user
from hyperfleet.store.interface import MachineStore
from hyperfleet.vmm.driver import Driver, Exit, LaunchSpec, Process

_log = logging.getLogger(__name__)

# From the agent's word that it shuts down to the process's end, beyond the grace.
_POWER_OFF_S = 10.0
# A channel that breaks is mostly the first sign of a process that ends.
_END_AFTER_BREAK_S = 2.0
# At a stop: a channel that is lost at this moment may come back, a machine without one is killed.
_AGENT_WAIT_S = 3.0
# After adoption: routes should be right when they are published, but not wait for one that hangs.
_FIRST_LOOK_S = 2.0
# A guest that floods its console fills the host's disk no further than in this time.
_CONSOLE_EVERY_S = 10.0


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What all owners of a fleet share."""

    driver: Driver
    store: MachineStore
    images: ImagesLike
    config: FleetConfig
    layout: Layout
    boots: asyncio.Semaphore
    slots: Slots
    observer: Observer


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's process with what hangs on it."""

    process: Process
    link: AgentLink
    looker: Looker

    async def let_go(self) -> None:
        """Closes everything of this side's; the process runs on."""
        await self.looker.end()
        await self.link.close()
        self.process.release()


class Acts:
    """One machine's acts. The owner calls them one at a time."""

    def __init__(
        self,
        state: State,
        tools: Tools,
        *,
        on_end: Callable[[Process, Exit], None],
        on_sight: Callable[[Process, Sight], None],
    ) -> None:
        """`on_end` hears of the end of a running machine's process, `on_sight` of each look."""
        self.running: Running | None = None
        self._state = state
        self._tools = tools
        self._on_end = on_end
        self._on_sight = on_sight
        self._watcher: asyncio.Task[None] | None = None
        # A process that another control plane began to boot.
        self._found: Process | None = None
        self._console_start = 0

    @property
    def launch(self) -> LaunchSpec:
        """What finds the machine's process and files."""
        machine = self._state.machine
        return layout.known_launch(machine, self._tools.layout.directory(machine.id))

    async def check(self) -> None:
        """Whether it could start.

        Raises:
            ValidationError: kernel or disk are not usable.
        """
        self._full_launch()

    async def prepare(self) -> None:
        """From at rest to starting; nothing runs yet.

        Raises:
            ValidationError: kernel or disk are not usable; nothing has changed.
        """
        self._full_launch()
        await self._state.go(Status.STARTING, error_message=None, pid=None)
        await self._state.publish()

    async def boot(self) -> None:
        """From starting to running.

        Raises:
            GuestError, OperationTimeoutError, ValidationError: it did not come up; it is failed.
        """
        observer, began = self._tools.observer, time.monotonic()
        try:
            async with self._tools.boots:
                await self._or_fail(self._start())
        except asyncio.CancelledError:
            observer.start_given_up()
            raise
        except Exception:
            observer.start_failed()
            raise
        observer.started(time.monotonic() - began)

    async def come_up(self) -> None:
        """The rest of a boot that another control plane began; raises as `boot` does."""
        process, self._found = self._found, None
        if process is not None:
            await self._or_fail(self._come_up(process))

    async def halt(self) -> None:
        """From whatever it is to stopped; clients are turned away first."""
        if self._state.status is not Status.STOPPING:
            await self._state.go(Status.STOPPING)
        await self._state.publish()
        running = await self._unhold()
        if running is not None:
            await self._power_off(running)
            await running.let_go()
        await self._tools.driver.sweep(self.launch)
        await self._state.fall(Status.STOPPED, pid=None, ports=self._no_ways())
        await self._state.publish()

    async def amend(self, change: MachineChange) -> None:
        """Written down first; a port that is not exposed any more is refused when this returns."""
        await self._state.amend(change)
        await self._state.publish()

    async def follow(self) -> None:
        """Ways in to the exposed ports and to no others; then what listens there.

        What can't be done now is done by the next look.
        """
        exposed = self._state.machine.spec.exposed_ports
        if self.running is None or self.running.looker.exposed == exposed:
            return
        looker = self.running.looker
        try:
            ways = await looker.aim(exposed)
            self._state.see(discovery.reached(self._state.machine.ports, ways))
            await self._state.publish()
            await looker.tidy()
            async with asyncio.timeout(_FIRST_LOOK_S):
                await self.note(await looker.look())
        except (HyperfleetError, TimeoutError) as error:
            _log.info("machine %s: its new ports are to be seen: %s", self._state.machine.id, error)

    async def settle(self, ended: Exit) -> None:
        """Its process has ended by itself."""
        running = await self._unhold()
        if running is not None:
            await running.let_go()
        if ended.powered_off:
            await self._tools.driver.sweep(self.launch)
            await self._state.fall(Status.STOPPED, pid=None, ports=self._no_ways())
            await self._state.publish()
        else:
            await self._fail(await self._with_reason(f"the machine died ({_describe(ended)})"))

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
        try:
            await self._tools.driver.sweep(self.launch)
            self._tools.layout.condemn(machine_id)
            await self._tools.store.remove(machine_id)
        except Exception:
            self._tools.layout.reprieve(machine_id)
            await self._state.publish()
            raise
        self._state.remove()
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
            await self._state.publish()
            return False
        try:
            process = await self._tools.driver.adopt(self.launch)
        except GuestError as error:
            await self._fail(f"its process could not be taken over: {error}")
            return False
        if status is Status.STOPPING:
            if process is not None:
                self._hold(process, {})
            await self._state.publish()
            return True
        if process is None:
            await self._fail(await self._lost())
            return False
        if status is Status.STARTING:
            self._found = process
            await self._state.publish()
            return True
        await self._take_over(process)
        return False

    async def let_go(self) -> None:
        """The control plane ends; the machine runs on."""
        running = await self._unhold()
        if running is not None:
            await running.let_go()
        if self._found is not None:
            self._found.release()
            self._found = None

    def _full_launch(self) -> LaunchSpec:
        machine = self._state.machine
        directory = self._tools.layout.directory(machine.id)
        return layout.launch_spec(machine, directory, self._tools.images)

    async def _start(self) -> None:
        launch = self._full_launch()
        self._console_start = console.size(self._tools.driver.console(launch))
        await self._come_up(await self._tools.driver.start(launch))

    async def _come_up(self, process: Process) -> None:
        deadline = self._tools.config.boot_deadline
        try:
            async with asyncio.timeout(deadline):
                await self._unless_ended(process, self._introduce(process, deadline))
        except TimeoutError as error:
            raise OperationTimeoutError(
                await self._with_reason(f"the machine did not come up within {deadline:g} s")
            ) from error
        except OperationTimeoutError as error:
            raise OperationTimeoutError(
                await self._with_reason(f"the machine did not come up: {error}")
            ) from error
        await self._state.go(
            Status.RUNNING,
            pid=process.pid,
            lifecycle=self._state.machine.lifecycle + 1,
            started_at=now(),
        )
        await self._state.publish()
        self._attend()

    async def _introduce(self, process: Process, deadline: float) -> None:
        """Agent found, guest told about itself, ports seen."""
        link = AgentLink(process)
        try:
            agent = await link.connect(deadline)
            network = GuestNetwork(address=user.GUEST_ADDRESS, gateway=user.GATEWAY, dns=user.DNS)
            await agent.configure(self._state.machine.spec.name, network)
        except BaseException:
            await link.close()
            raise
        self._hold(process, await process.forwards(), link)
        await self._first_look()

    async def _take_over(self, process: Process) -> None:
        """A machine that ran before this control plane did."""
        try:
            ways = await process.forwards()
        except GuestError as error:
            process.release()
            await self._fail(f"its process could not be taken over: {error}")
            return
        except asyncio.CancelledError:
            process.release()
            raise
        self._state.see(discovery.unseen(self._state.machine.spec.exposed_ports, ways))
        self._hold(process, ways)
        if self._state.status is Status.RUNNING:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LOOK_S):
                    await self._first_look()
        await self._state.publish()
        self._attend()

    def _hold(self, process: Process, ways: dict[int, str], link: AgentLink | None = None) -> None:
        if link is None:
            link = AgentLink(process)
            link.keep()
        looker = Looker(
            process,
            link,
            exposed=self._state.machine.spec.exposed_ports,
            known_ways=ways,
            interval=self._tools.config.poll_interval,
            slots=self._tools.slots,
            observer=self._tools.observer,
            on_sight=lambda sight: self._on_sight(process, sight),
        )
        self.running = Running(process=process, link=link, looker=looker)

    async def _first_look(self) -> None:
        """What listens already. A guest that can't tell is none the worse for it."""
        assert self.running is not None  # noqa: S101 - held just before
        with contextlib.suppress(HyperfleetError):
            sight = await self.running.looker.look()
            self._state.see(discovery.merge(self._no_ways(), sight, now()))

    def _attend(self) -> None:
        """From here on its ports are looked at, its console is bounded and its end is seen."""
        running = self.running
        assert running is not None  # noqa: S101 - held before
        running.looker.begin()

        async def watch() -> None:
            end = asyncio.create_task(running.process.wait())
            try:
                while not (await asyncio.wait((end,), timeout=_CONSOLE_EVERY_S))[0]:
                    self._bound_console()
                self._on_end(running.process, end.result())
            finally:
                end.cancel()

        self._watcher = asyncio.create_task(watch(), name=f"end of {self._state.machine.id}")

    def _bound_console(self) -> None:
        try:
            console.bound(self._tools.driver.console(self.launch))
        except OSError:
            _log.exception("machine %s: its console could not be cut", self._state.machine.id)

    async def _unhold(self) -> Running | None:
        """Nothing is looked at any more; what was held is the caller's."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait((watcher,))
        running, self.running = self.running, None
        if running is not None:
            await running.looker.end()
        return running

    async def _power_off(self, running: Running) -> None:
        """In order if the guest can, within its time; by force if not."""
        grace = self._tools.config.stop_grace
        with contextlib.suppress(TimeoutError, HyperfleetError):
            async with asyncio.timeout(grace + _POWER_OFF_S):
                agent = await running.link.agent(_AGENT_WAIT_S)
                # The guest may be gone before its answer is; one that gives none hangs.
                with contextlib.suppress(GuestError):
                    async with asyncio.timeout(max(grace, _AGENT_WAIT_S)):
                        await agent.shutdown(grace)
                await running.process.wait()
        await running.process.kill()

    async def _unless_ended(self, process: Process, act: Coroutine[Any, Any, None]) -> None:
        """Does `act`; gives up when the process ends, with the reason."""
        doing = asyncio.create_task(act)
        end = asyncio.create_task(process.wait())
        try:
            await asyncio.wait((doing, end), return_when=asyncio.FIRST_COMPLETED)
            if doing.done() and doing.exception() is not None:
                await asyncio.wait((end,), timeout=_END_AFTER_BREAK_S)
            if end.done():
                raise GuestError(
                    await self._with_reason(
                        f"the machine ended while it booted ({_describe(end.result())})"
                    )
                )
            await doing
        finally:
            doing.cancel()
            end.cancel()
            await asyncio.wait((doing, end))

    async def _or_fail(self, act: Coroutine[Any, Any, None]) -> None:
        try:
            await act
        except HyperfleetError as error:
            await self._fail(error.message)
            raise
        except Exception as error:
            await self._fail(f"internal error: {error!r}")
            raise

    async def _fail(self, message: str) -> None:
        """Nothing of it may run on when the record says that it is at rest."""
        running = await self._unhold()
        if running is not None:
            await running.let_go()
        try:
            await self._tools.driver.sweep(self.launch)
        except (HyperfleetError, OSError):
            _log.exception("machine %s: its process could not be ended", self._state.machine.id)
        await self._state.fall(
            Status.FAILED, error_message=message, pid=None, ports=self._no_ways()
        )
        await self._state.publish()

    async def _lost(self) -> str:
        if self._state.status is Status.STARTING:
            return "the control plane ended while the machine started; start it again"
        return await self._with_reason("the machine ended while no control plane ran")

    async def _with_reason(self, what: str) -> str:
        path = self._tools.driver.console(self.launch)
        words = await asyncio.to_thread(console.reason, path, self._console_start)
        return f"{what}; its console's last words:\n{words}" if words else what

    def _no_ways(self) -> tuple[ExposedPort, ...]:
        return discovery.unseen(self._state.machine.spec.exposed_ports, {})


def _describe(ended: Exit) -> str:
    if ended.powered_off:
        return "it powered off"
    if ended.signal is not None:
        return f"its process was killed by signal {ended.signal}"
    if ended.code is not None:
        return f"exit status {ended.code}"
    return "how is not known"
