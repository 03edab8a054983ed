"""All machines of a home: found by id or name, made, listed; each one's owner does the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyperfleet.errors import (
    CapacityError,
    InvalidStateError,
)
from hyperfleet.fleet import console, discovery, layout, leftovers, processes
from hyperfleet.fleet.admission import Admission, Boots
from hyperfleet.fleet.config import FleetConfig, ImagesLike
from hyperfleet.fleet.consoles import Consoles
from hyperfleet.fleet.data_disks import DataDisks
from hyperfleet.fleet.disk_room import DiskRoom
from hyperfleet.fleet.disks import Disks
from hyperfleet.fleet.events import Events, Follower
from hyperfleet.fleet.host_clock import HostClock
from hyperfleet.fleet.layout import Layout
from hyperfleet.fleet.looker import Slots
from hyperfleet.fleet.making import Maker
from hyperfleet.fleet.observer import Observer
from hyperfleet.fleet.owner import Owner
from hyperfleet.fleet.processes import Processes
from hyperfleet.fleet.roster import Roster
from hyperfleet.fleet.snapshots import Snapshots
from hyperfleet.fleet.state import now
from hyperfleet.fleet.templating import Templating
from hyperfleet.fleet.tools import Tools
from hyperfleet.guest.files import Files
from hyperfleet.guest.values import (
    ExecRequest,
    ExecResult,
    Listener,
)
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    Cause,
    EventKind,
    ExposedPort,
    Machine,
    MachineChange,
    MachineSpec,
    SnapshotInfo,
)
from hyperfleet.network.interface import Networks
from hyperfleet.proxy.interface import Activity, Answer, RouteSink, Traffic
from hyperfleet.store.interface import MachineStore
from hyperfleet.vmm.driver import Driver

_log = logging.getLogger(__name__)

_ADOPTIONS_AT_ONCE = 64
# How long a look for a user (ports) may keep the answer back; the data plane has its own limit.
_PORTS_LOOK_S = 2.0
_PROBE_S = 5.0


class Fleet:
    """Owns the machines of one home. `ref` is an id or a name; an id wins."""

    def __init__(
        self,
        *,
        driver: Driver,
        networks: Networks,
        store: MachineStore,
        routes: RouteSink,
        images: ImagesLike,
        config: FleetConfig,
        traffic: Traffic,
        observer: Observer,
    ) -> None:
        self._layout = Layout(config.home)
        boots = Boots(config.boots_at_once, config.boot_queue)
        disk_room = DiskRoom(config.home, config.disk_reserve_mib)
        self._tools = Tools(
            driver=driver,
            networks=networks,
            store=store,
            images=images,
            config=config,
            layout=self._layout,
            admission=Admission(config.room, boots),
            slots=Slots(),
            consoles=Consoles(),
            observer=observer,
            traffic=traffic,
            templating=Templating(driver, boots, disk_room, config.template_wait),
            snapshots=Snapshots(config.home),
            disks=Disks(config.home, driver),
            disk_room=disk_room,
        )
        self._events = Events()
        self._roster = Roster()
        self.disks = DataDisks(self._tools, self._roster)
        self._maker = Maker(self._tools, self._roster, routes, self._events)
        self._clock = HostClock(
            self._roster.tell_time, note=config.home / "host-clock", host_boot=config.host_boot
        )

    async def open(self) -> None:
        """Loads the record, completes what was cut off, adopts what runs.

        Returns when every machine that runs can be reached (or has failed to answer for some
        seconds); boots that were cut off go on afterwards. Machines of another driver are listed
        and left alone.
        """
        self._layout.prepare()
        machines = await leftovers.complete(self._tools)
        await self._tools.networks.open(machines)
        await self._tools.driver.open()
        for machine in machines:
            self._maker.enter(machine)
        gate = asyncio.Semaphore(_ADOPTIONS_AT_ONCE)

        async def adopt(owner: Owner) -> None:
            async with gate:
                await owner.adopt()

        await _all(adopt(owner) for owner in self._roster if self._drives(owner))
        self._clock.begin()

    async def close(self) -> None:
        """Lets go of every machine; they run on."""
        self._clock.end()
        await self._tools.templating.close()
        await _all(owner.close() for owner in self._roster)
        await self._tools.consoles.close()
        await self._tools.driver.close()
        await self._tools.networks.close()

    async def create(self, spec: MachineSpec) -> Machine:
        """Records a new machine, pending.

        Raises:
            ConflictError: another has that name, or an id that equals it.
            ValidationError: more than this host has, less than a guest boots with, no such
                kernel or disk, a network that can't be had, or options for a port that is not
                exposed.
            CapacityError: no address is left for it.
        """
        return await self._maker.create(spec)

    async def snapshot(self, ref: str, name: str) -> SnapshotInfo:
        """Keeps the machine as it is now: its disk, and its memory if it has one. It goes on.

        Raises:
            NotFoundError: there is no such machine.
            ConflictError: another snapshot has that name.
            InvalidStateError: it was never started.
            GuestError, CapacityError: it could not be done.
        """
        return await self._driven(ref).snapshot(name)

    async def restore(self, ref: str, snapshot: str) -> Machine:
        """Makes the machine what it was when its snapshot was made; what it is now is lost.

        It sleeps then, or is stopped if the snapshot has no memory. Its ports, labels and rules
        stay as they are now.

        Raises:
            NotFoundError: there is no such machine, or snapshot.
            InvalidStateError: it is another machine's.
            ValidationError: its memory can't be gone on from here; the machine is as it was.
            CapacityError: no room on the host's disk.
        """
        return await self._driven(ref).restore(snapshot)

    async def clone(self, snapshot: str, name: str, change: MachineChange) -> Machine:
        """Makes a new machine of a snapshot, which sleeps, or is stopped if that has no memory.

        Raises:
            NotFoundError: there is no such snapshot.
            ConflictError, ValidationError, InvalidStateError, CapacityError: as `create` does, or
                the change can't be made of one that has a memory.
            GuestError: this host does not have what it is attached by.
        """
        return await self._maker.clone(snapshot, name, change)

    def snapshots(self, ref: str | None) -> Sequence[SnapshotInfo]:
        """All, or those of one machine, the oldest first; NotFoundError: there is no such one."""
        return self._tools.snapshots.list(None if ref is None else self.get(ref).id)

    def find_snapshot(self, name: str) -> SnapshotInfo:
        """One; NotFoundError: there is none of that name."""
        return self._tools.snapshots.get(name)

    async def remove_snapshot(self, name: str) -> None:
        """Removes one. Machines that were made of it stay whole.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is being copied.
        """
        await self._tools.snapshots.remove(name)

    def get(self, ref: str) -> Machine:
        """The machine.

        Raises:
            NotFoundError: there is none with that id or name.
        """
        return self._roster.find(ref).machine

    def machines(self) -> list[Machine]:
        """All of them, oldest first."""
        return self._roster.machines()

    def list(
        self,
        *,
        status: Status | None,
        labels: Sequence[tuple[str, str | None]],
        limit: int,
        offset: int,
    ) -> tuple[list[Machine], int]:
        """Machines of a status that bear all labels (a value of None: any value), oldest first.

        Returns `limit` of them from `offset` on, and how many there are in all.
        """
        return self._roster.page(status, labels, limit, offset)

    async def delete(self, ref: str, *, force: bool) -> None:
        """Returns when nothing of the machine is left.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it is not at rest, and not `force`.
        """
        owner = self._driven(ref)
        try:
            await owner.delete(force=force)
        finally:
            if owner.state.removed and self._roster.of_id(owner.machine.id) is owner:
                self._maker.leave(owner)
                self._events.add(EventKind.DELETED, owner.machine, Cause.REQUEST, now())

    async def start(self, ref: str, *, key: str = "") -> Machine:
        """Returns when its agent has answered; at once if it runs.

        Boots take turns by `key`, which tells those who ask apart.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it is paused, or was stopped meanwhile.
            ValidationError: its kernel or disk is not usable any more.
            CapacityError: the host has no room for it now, or too many boots wait.
            GuestError, OperationTimeoutError: it did not come up, and is failed.
        """
        return await self._driven(ref).start(key)

    async def stop(self, ref: str) -> Machine:
        """Returns when it is stopped; at once if it is.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it was never started, or has failed.
        """
        return await self._driven(ref).stop()

    async def restart(self, ref: str, *, key: str = "") -> Machine:
        """Stops it if it runs, starts it, and returns when its agent has answered.

        Many at once are one restart. A boot under way is given up for it.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it was stopped meanwhile.
            ValidationError: its kernel or disk is not usable any more; what ran runs on.
            GuestError, OperationTimeoutError: it did not come up, and is failed.
        """
        return await self._driven(ref).restart(key)

    async def pause(self, ref: str) -> Machine:
        """Has it stand still; returns when it does. Its connections are closed.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it does not run.
            GuestError: its process would not.
        """
        return await self._driven(ref).pause()

    async def resume(self, ref: str) -> Machine:
        """Has a paused machine run on, with its clock set; raises as `pause` does."""
        return await self._driven(ref).resume()

    async def sleep(self, ref: str) -> Machine:
        """Has its memory put on disk and its process end; `start` has it go on from there.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it does not run.
            GuestError, CapacityError: its memory could not be saved; it is as it was.
        """
        return await self._driven(ref).sleep()

    async def change(self, ref: str, change: MachineChange) -> Machine:
        """Other ports exposed, other labels; returns when routes, ways in and rules are so.

        A machine that starts or stops is changed when that is done.

        Raises:
            NotFoundError: there is no such machine.
            ValidationError: its network can't be held to that egress.
            InvalidStateError: it can't while it runs.
            GuestError: it is recorded, but the host refused to have it so before the next start.
        """
        return await self._driven(ref).change(change)

    async def wait(self, ref: str, status: Status, timeout: float) -> Machine:  # noqa: ASYNC109
        """Returns when the machine is `status`; `timeout` in seconds.

        Raises:
            NotFoundError: there is no such machine, or it was deleted meanwhile.
            OperationTimeoutError: it was not, in time.
        """
        return await self._roster.find(ref).state.reach(status, timeout)

    async def exec(self, ref: str, request: ExecRequest) -> ExecResult:
        """Runs a program in the machine, the request's environment over the machine's.

        Raises:
            NotFoundError: there is no such machine.
            InvalidStateError: it does not run.
            GuestError: its agent can't be reached, or refused.
            OperationTimeoutError: the program's time was up; it was killed.
        """
        return await processes.execute(self._driven(ref), request, self._tools.observer)

    def processes(self, ref: str) -> Processes:
        """Programs whose streams are carried; this and each call raises as `exec` does."""
        return Processes(self._driven(ref), self._tools.observer)

    def files(self, ref: str) -> Files:
        """What is on the machine's disk; this and each call raises as `exec` does."""
        return processes.files(self._driven(ref))

    async def ports(self, ref: str) -> tuple[tuple[ExposedPort, ...], tuple[Listener, ...]]:
        """The exposed ports, and what listens besides; as seen now if the agent answers.

        Raises:
            NotFoundError: there is no such machine.
        """
        owner = self._roster.find(ref)
        sight = await owner.look(_PORTS_LOOK_S)
        if sight is None:
            sight = owner.sight
        machine = owner.machine
        if sight is None:
            return machine.ports, ()
        ports = discovery.merge(machine.ports, sight, now())
        return ports, discovery.unexposed(sight.listeners, machine.spec.exposed_ports)

    async def is_idle(self, ref: str) -> bool:
        """Whether nobody has used it for its `sleep_after_s`; raises as `get` does."""
        return await self._roster.find(ref).idling.is_idle()

    async def activity(self, ref: str) -> Activity:
        """What goes on between clients and the machine now.

        Raises:
            NotFoundError: there is no such machine.
            CapacityError: the data plane can't be asked at this moment.
        """
        activity = await self._tools.traffic.activity(self.get(ref).id)
        if activity is None:
            raise CapacityError("The data plane does not answer at this moment; try again")
        return activity

    def console(self, ref: str, tail: int | None) -> AsyncIterator[bytes]:
        """What the machine wrote to its console; `tail` last lines of it, or all. In pieces.

        Raises:
            NotFoundError: there is no such machine.
        """
        return console.tail(self._console_of(self.get(ref)), tail)

    @contextmanager
    def follow(self, ref: str | None, after: str | None) -> Iterator[Follower]:
        """Hears what happens to a machine, or to all, from the event of the id `after` on.

        Raises:
            NotFoundError: there is no such machine.
            ValidationError: `after` is no id of an event.
            CapacityError: too many do.
        """
        machine_id = None if ref is None else self.get(ref).id
        with self._events.following(after, machine_id) as follower:
            yield follower

    def follow_console(self, ref: str, tail: int | None) -> AsyncIterator[bytes]:
        """The console's last lines (None: all of it), then what comes, until the machine is gone.

        Empty pieces come in between, so that whoever reads can see whether anybody still wants it.

        Raises:
            NotFoundError: there is no such machine.
        """
        owner = self._roster.find(ref)
        path = self._console_of(owner.machine)
        return console.follow(path, tail, gone=lambda: owner.state.removed)

    async def probe(self, machine_id: str, port: int) -> Answer | None:
        """Asks the machine's agent now whether an exposed port has a server.

        The routes follow by themselves; the answer does not wait for that. None: it could not be
        asked.
        """
        owner = self._roster.of_id(machine_id)
        if owner is None:
            return None
        sight = await owner.look(_PROBE_S)
        if sight is None or port not in sight.servers:
            return None
        listening = sight.servers[port] is not None
        return Answer(upstream=sight.upstreams[port] if listening else None)

    def _console_of(self, machine: Machine) -> Path:
        launch = layout.known_launch(machine, self._layout.directory(machine.id))
        return self._tools.driver.console(launch)

    def _drives(self, owner: Owner) -> bool:
        return owner.machine.vmm == self._tools.driver.name

    def _driven(self, ref: str) -> Owner:
        """The owner, where something is to be done with the machine."""
        owner = self._roster.find(ref)
        if not self._drives(owner):
            machine = owner.machine
            raise InvalidStateError(
                f"machine {machine.spec.name!r} belongs to the {machine.vmm} driver; this control "
                f"plane runs with {self._tools.driver.name} (HYPERFLEET_VMM)"
            )
        return owner


async def _all(acts: Iterable[Awaitable[None]]) -> None:
    """Does all to the end, then raises what went wrong first."""
    results = await asyncio.gather(*acts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
