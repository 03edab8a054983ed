"""Data disks of the fake driver: their files are beside them while no machine has them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hyperfleet.vmm import shortage
from hyperfleet.vmm.driver import DataDisk


def make(file: Path, size_mib: int) -> None:
    """Makes an empty one; raises as `Driver.make_disk`."""
    with shortage.told(file), file.open("xb") as made:
        made.truncate(size_mib << 20)


def mount(files: dict[str, bytes], disks: Iterable[DataDisk]) -> None:
    """What is on the disks is among a guest's files from now on."""
    for disk in disks:
        beside = _beside(disk)
        if beside.exists():
            found = msgspec.msgpack.decode(beside.read_bytes(), type=dict[str, bytes])
            files |= {posixpath.join(disk.mount_path, name): data for name, data in found.items()}


def unmount(files: dict[str, bytes], disks: Iterable[DataDisk]) -> None:
    """It is on the disks alone."""
    for disk in disks:
        start = f"{disk.mount_path.rstrip('/')}/"
        names = [name for name in files if name.startswith(start)]
        found = {name.removeprefix(start): files.pop(name) for name in names}
        if disk.file.exists():
            _beside(disk).write_bytes(msgspec.msgpack.encode(found))


def _beside(disk: DataDisk) -> Path:
    return disk.file.with_suffix(".fake")
