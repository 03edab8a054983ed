"""The snapshots of a home: what a driver has copied of a machine, each in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from hyperfleet.failpoints import Point
from hyperfleet.fleet.shelf import Shelf
from hyperfleet.machine import SnapshotInfo


class Snapshots(Shelf[SnapshotInfo]):
    """Machines that were made of one have all that they need."""

    def __init__(self, home: Path) -> None:
        folder = home.absolute() / "snapshots"
        super().__init__(folder, SnapshotInfo, "snapshot", Point.SNAPSHOT_WRITTEN)

    def list(self, machine_id: str | None = None) -> list[SnapshotInfo]:
        """All, or those of one machine, the oldest first."""
        return [info for info in self.every() if machine_id in (None, info.machine_id)]


def size_of(folder: Path) -> int:
    """Bytes that what is in it takes; what is linked to is there anyway."""
    stats = (path.stat() for path in folder.iterdir())
    return sum(stat.st_blocks * 512 for stat in stats if stat.st_nlink == 1)
