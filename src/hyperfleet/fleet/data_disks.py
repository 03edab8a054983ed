"""What may be asked of data disks, and how full the disks of machines are."""

from __future__ import annotations

import asyncio
import contextlib

from hyperfleet.errors import HyperfleetError, InvalidStateError
from hyperfleet.fleet import layout, processes
from hyperfleet.fleet.disks import Disks
from hyperfleet.fleet.owner import Owner
from hyperfleet.fleet.roster import Roster
from hyperfleet.fleet.tools import Tools
from hyperfleet.guest.files import Usage
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import DataDiskState, DiskInfo, DiskUsage

# For a guest that is asked how full its disks are.
_USAGE_S = 5.0
_ROOT = "/"


class DataDisks:
    """All of a fleet's. `ref` of a machine is an id or a name."""

    def __init__(self, tools: Tools, roster: Roster) -> None:
        self._tools = tools
        self._disks: Disks = tools.disks
        self._roster = roster

    async def create(self, name: str, size_mib: int) -> DataDiskState:
        """Makes one, empty; it takes no room until something is written.

        Raises:
            ConflictError: another has that name.
            GuestError, CapacityError: it could not be made.
        """
        with self._tools.disk_room.taking(_empty(size_mib), f"disk {name!r}"):
            return self._told(await self._disks.create(name, size_mib))

    def every(self) -> list[DataDiskState]:
        """All, the oldest first."""
        return [self._told(info) for info in self._disks.every()]

    def get(self, name: str) -> DataDiskState:
        """One; NotFoundError: there is none of that name."""
        return self._told(self._disks.get(name))

    async def grow(self, name: str, size_mib: int) -> DataDiskState:
        """Makes it larger; a guest has all of it when it is mounted next.

        Raises:
            NotFoundError: there is none of that name.
            ValidationError: it is larger.
            InvalidStateError: its machine has it in use.
        """
        holder = self._disks.holder(name)
        owner = None if holder is None else self._roster.of_id(holder)
        if owner is not None and owner.state.status not in AT_REST:
            machine = owner.machine
            raise InvalidStateError(
                f"disk {name!r} is in use by machine {machine.spec.name!r}, which is "
                f"{machine.status}: stop that first"
            )
        await self._disks.grow(name, size_mib)
        return self.get(name)

    async def remove(self, name: str) -> None:
        """Removes one with all that is on it.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: a machine has it.
        """
        await self._disks.remove(name)

    async def usage(self, ref: str) -> list[DiskUsage]:
        """The disks of a machine, its own first, and how full they are.

        Raises:
            NotFoundError: there is no such machine.
        """
        owner = self._roster.find(ref)
        machine = owner.machine
        launch = layout.known_launch(machine, self._tools.layout.directory(machine.id))
        places = [(None, _ROOT), *((disk.disk, disk.path) for disk in machine.spec.disks)]
        found = []
        for name, path in places:
            if name is None:
                host = await asyncio.to_thread(self._tools.driver.disk_bytes, launch)
                size = None
            else:
                size, host = self._disks.size(name)
            used = None
            if (seen := await _seen(owner, path)) is not None:
                size, used = seen.size, seen.used
            found.append(DiskUsage(disk=name, path=path, size=size, used=used, host=host))
        return found

    def _told(self, info: DiskInfo) -> DataDiskState:
        size, host = self._disks.size(info.name)
        holder = self._disks.holder(info.name)
        owner = None if holder is None else self._roster.of_id(holder)
        return DataDiskState(
            info=info,
            size=size,
            host=host,
            machine_id=holder,
            machine_name=None if owner is None else owner.machine.spec.name,
        )


def _empty(size_mib: int) -> int:
    """The bytes of an empty file system of that size, or somewhat more: 11 MB of 1 TiB."""
    return (1 + (size_mib >> 16)) << 20


async def _seen(owner: Owner, path: str) -> Usage | None:
    """How full the guest says that it is there; None: it does not run, or does not tell."""
    if owner.machine.status is not Status.RUNNING:
        return None
    with contextlib.suppress(HyperfleetError, TimeoutError):
        async with asyncio.timeout(_USAGE_S):
            return await processes.files(owner).usage(path)
    return None
