"""The data disks of a home, and which machine has which: never two the same."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperfleet import durable
from hyperfleet.errors import ConflictError, NotFoundError, ValidationError
from hyperfleet.failpoints import Point
from hyperfleet.fleet.shelf import Shelf
from hyperfleet.fleet.state import now
from hyperfleet.guest.values import Mount
from hyperfleet.machine import DiskInfo, MachineDisk, new_machine_id
from hyperfleet.vmm.driver import DataDisk, Driver

_FILE = "disk"
_MIB = 1 << 20


class Disks(Shelf[DiskInfo]):
    """Each is a folder with its file, whose length is its size."""

    def __init__(self, home: Path, driver: Driver) -> None:
        super().__init__(home.absolute() / "data", DiskInfo, "disk", Point.DISK_WRITTEN)
        self._driver = driver
        # Disk -> machine, by name and id; and the other way.
        self._holders: dict[str, str] = {}
        self._held: dict[str, tuple[str, ...]] = {}

    async def create(self, name: str, size_mib: int) -> DiskInfo:
        """Makes one, empty.

        Raises:
            ConflictError: another has that name.
            GuestError, CapacityError: it could not be made.
        """
        info = DiskInfo(name=name, id=new_machine_id(), vmm=self._driver.name, made_at=now())
        with self.making(name) as folder:
            await self._driver.make_disk(folder / _FILE, size_mib)
            await self.keep(info)
        return info

    def holder(self, name: str) -> str | None:
        """The id of the machine that has it."""
        return self._holders.get(name)

    def size(self, name: str) -> tuple[int, int]:
        """Bytes that it can hold, and that it takes of the host's disk.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.get(name)
        stat = (self.folder / name / _FILE).stat()
        return stat.st_size, stat.st_blocks * 512

    async def grow(self, name: str, size_mib: int) -> None:
        """Makes it larger; its file system takes all of it when it is mounted next. Durable.

        Raises:
            NotFoundError: there is none of that name.
            ValidationError: it is larger, or the host has no files of that size.
        """
        size, _ = self.size(name)
        if size_mib * _MIB < size:
            raise ValidationError(f"size_mib must be at least {size // _MIB}: a disk only grows")
        await asyncio.to_thread(_lengthen, self.folder / name / _FILE, size_mib * _MIB)

    async def remove(self, name: str) -> None:
        """Removes one with all that is on it.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: a machine has it.
        """
        self.get(name)
        if (machine_id := self.holder(name)) is not None:
            raise ConflictError(
                f"disk {name!r} is attached to machine {machine_id}; detach it, or delete that"
            )
        await super().remove(name)

    @contextmanager
    def claiming(self, machine_id: str, disks: Iterable[MachineDisk]) -> Iterator[None]:
        """The machine has these from now on, and no others; as before if the block fails.

        Raises:
            ValidationError: there is no such disk.
            ConflictError: another machine has one.
        """
        wanted = [disk.disk for disk in disks]
        for name in wanted:
            self._must_be_free(name, machine_id)
        before = self._held.get(machine_id, ())
        self.assign(machine_id, wanted)
        try:
            yield
        except BaseException:
            self.assign(machine_id, before)
            raise

    def assign(self, machine_id: str, names: Iterable[str]) -> None:
        """As it is recorded: the machine has these and no others."""
        for name in self._held.pop(machine_id, ()):
            if self._holders.get(name) == machine_id:
                del self._holders[name]
        if held := tuple(names):
            self._held[machine_id] = held
            self._holders |= dict.fromkeys(held, machine_id)

    def files(self, disks: Iterable[MachineDisk]) -> tuple[DataDisk, ...]:
        """What a driver is told of a machine's.

        Raises:
            ValidationError: one is gone.
        """
        return tuple(
            DataDisk(
                serial=self._known(disk.disk).id,
                file=self.folder / disk.disk / _FILE,
                mount_path=disk.path,
            )
            for disk in disks
        )

    def mounts(self, disks: Iterable[MachineDisk]) -> tuple[Mount, ...]:
        """What a guest is told of its own; raises as `files` does."""
        return tuple(Mount(serial=self._known(disk.disk).id, path=disk.path) for disk in disks)

    def _must_be_free(self, name: str, machine_id: str) -> None:
        if self._known(name).vmm != self._driver.name:
            raise ValidationError(f"disks: {name!r} is no disk of the {self._driver.name} driver")
        if self._holders.get(name, machine_id) != machine_id:
            raise ConflictError(f"disks: {name!r} is attached to machine {self._holders[name]}")

    def _known(self, name: str) -> DiskInfo:
        try:
            return self.get(name)
        except NotFoundError as error:
            raise ValidationError(f"disks: there is no disk {name[:100]!r}") from error


def _lengthen(file: Path, size: int) -> None:
    try:
        os.truncate(file, size)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ValidationError(
                f"size_mib must be less than {size // _MIB}: this host's file system has no file of"
                " that size"
            ) from error
        raise
    durable.sync(file)
