"""A machine as it is, kept under a name; and put back."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec

from hyperfleet.errors import InvalidStateError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import discovery
from hyperfleet.fleet.acts import Acts
from hyperfleet.fleet.clock import set_clock
from hyperfleet.fleet.running import Running
from hyperfleet.fleet.snapshots import size_of
from hyperfleet.fleet.state import State, now
from hyperfleet.fleet.tools import Tools
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import SnapshotInfo
from hyperfleet.vmm.driver import LaunchSpec


class Snapshotting:
    """One machine's. The owner calls these one at a time."""

    def __init__(self, state: State, tools: Tools, acts: Acts) -> None:
        self._state = state
        self._tools = tools
        self._acts = acts

    async def save(self, name: str) -> SnapshotInfo:
        """Keeps the machine as it is now; it stands still meanwhile, with its connections.

        One that sleeps or is off is copied as it lies there.

        Raises:
            ConflictError: another snapshot has that name.
            InvalidStateError: it has a memory, and data disks.
            ValidationError: it has no disk yet.
            GuestError: it could not be done.
            CapacityError: no room on the host's disk.
        """
        machine = self._state.machine
        if machine.spec.disks and machine.status not in AT_REST:
            raise InvalidStateError(
                f"machine {machine.spec.name!r} has data disks, which go on without it: what it has"
                " in memory of them can't be kept; stop it first"
            )
        with (
            self._tools.snapshots.making(name) as folder,
            self._tools.disk_room.taking(await self._most(), f"snapshot {name!r}"),
        ):
            reach(Point.SNAPSHOT_BEGUN)
            running = self._acts.running
            if running is None:
                await self._tools.driver.copy(self._acts.launch.directory, folder)
            else:
                await self._take(running, folder)
            reach(Point.SNAPSHOT_TAKEN)
            info = SnapshotInfo(
                name=name,
                machine_id=machine.id,
                spec=machine.spec,
                vmm=machine.vmm,
                network=machine.network,
                has_memory=running is not None or machine.status is Status.SLEEPING,
                size_bytes=await asyncio.to_thread(size_of, folder),
                made_at=now(),
            )
            await self._tools.snapshots.keep(info)
            return info

    async def _take(self, running: Running, folder: Path) -> None:
        machine = self._state.machine
        if machine.status is not Status.RUNNING:
            await running.process.snapshot(folder)
            return
        await running.sync(machine.id)
        try:
            await running.process.snapshot(folder)
        finally:
            await set_clock(machine, running, self._tools)

    async def _most(self) -> int:
        """Bytes that a snapshot may take: a memory that is saved already is shared."""
        launch = self._acts.launch
        disk = await asyncio.to_thread(self._tools.driver.disk_bytes, launch)
        return disk + (0 if self._acts.running is None else launch.mem_size_mib << 20)

    async def fetch(self, name: str) -> None:
        """Copies a snapshot to beside the machine, which stays as it is.

        Raises:
            NotFoundError: there is no such snapshot.
            InvalidStateError: it is another machine's.
            ValidationError: what is in its memory can't be gone on from here.
            CapacityError: no room on the host's disk.
        """
        machine_id = self._state.machine.id
        info = self._tools.snapshots.get(name)
        if info.machine_id != machine_id:
            raise InvalidStateError(
                f"snapshot {name!r} is of machine {info.spec.name!r} ({info.machine_id}): "
                "make a new machine of it instead (clone)"
            )
        with self._tools.snapshots.using(name) as folder:
            if info.has_memory and self._state.machine.spec.disks:
                raise InvalidStateError(
                    f"snapshot {name!r} has a memory, which knows of no data disks: detach them"
                )
            if info.has_memory:
                await self._tools.driver.check_memory(folder, self._acts.launch)
            layout = self._tools.layout
            fresh = await asyncio.to_thread(layout.fresh, machine_id)
            try:
                await copy(self._tools, folder, fresh, self._acts.launch)
            except BaseException:
                await asyncio.to_thread(layout.forget, machine_id)
                raise
        reach(Point.RESTORE_COPIED)

    async def put_back(self) -> None:
        """Makes what was fetched the machine, which has no process now.

        It sleeps then if it has a memory, and is stopped if it has none.
        """
        machine_id, layout = self._state.machine.id, self._tools.layout
        reach(Point.RESTORE_CUT)
        await asyncio.to_thread(layout.decide, machine_id)
        reach(Point.RESTORE_DECIDED)
        await asyncio.to_thread(layout.swap, machine_id)
        reach(Point.RESTORE_PLACED)
        asleep = self._tools.driver.has_memory(self._acts.launch)
        exposed = self._state.machine.spec.exposed_ports
        await self._state.go(
            Status.SLEEPING if asleep else Status.STOPPED,
            error_message=None,
            pid=None,
            restarts=0,
            next_start_at=None,
            guest_fault=None,
            command=None,
            ports=discovery.unseen(exposed, {}),
        )
        await self._state.publish()
        await asyncio.to_thread(shutil.rmtree, layout.replaced(machine_id), ignore_errors=True)


async def copy(tools: Tools, snapshot: Path, fresh: Path, launch: LaunchSpec) -> None:
    """Copies what is in a snapshot's folder for the machine `launch`; its memory is shared.

    Raises:
        CapacityError: no room on the host's disk.
        ValidationError: there is no disk in it.
    """
    there = msgspec.structs.replace(launch, directory=snapshot)
    size = await asyncio.to_thread(tools.driver.disk_bytes, there)
    with tools.disk_room.taking(size, f"the disk of machine {launch.name!r}"):
        await tools.driver.copy(snapshot, fresh)
