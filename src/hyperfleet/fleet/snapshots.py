"""The snapshots of a home: each a folder, which is all that there is of it.

snapshots/NAME/           snapshot.json, and what a driver has copied
snapshots/NAME.new/       half-made
snapshots/NAME.deleted/   its end was decided
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hyperfleet import durable
from hyperfleet.errors import ConflictError, NotFoundError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import SnapshotInfo

_log = logging.getLogger(__name__)

_ABOUT = "snapshot.json"
_NEW, _DELETED = ".new", ".deleted"


class Snapshots:
    """Made, found, removed by name. Nothing is half there."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute() / "snapshots"
        # The oldest first.
        self._kept: dict[str, SnapshotInfo] = {}
        self._being_made: set[str] = set()
        # How many read it.
        self._in_use: dict[str, int] = {}

    def open(self) -> None:
        """Finds what there is, and removes what was left half-done. Blocks."""
        found = []
        for folder in self._home.iterdir() if self._home.exists() else ():
            if folder.suffix in (_NEW, _DELETED):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                found.append(_read(folder))
            except (OSError, msgspec.MsgspecError) as error:
                # It stays: somebody may mend it.
                _log.warning("snapshot %s can't be read: %s", folder.name, error)
        found.sort(key=lambda info: info.made_at)
        self._kept = {info.name: info for info in found}

    def list(self, machine_id: str | None = None) -> list[SnapshotInfo]:
        """All, or those of one machine, the oldest first."""
        every = self._kept.values()
        return [info for info in every if machine_id in (None, info.machine_id)]

    def get(self, name: str) -> SnapshotInfo:
        """One.

        Raises:
            NotFoundError: there is none of that name.
        """
        info = self._kept.get(name)
        if info is None:
            raise NotFoundError(f"Snapshot not found: {name[:100]}")
        return info

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """The folder to copy to; `keep` in the block makes it a snapshot, else it is removed.

        Raises:
            ConflictError: another has that name.
        """
        folder = self._home / f"{name}{_NEW}"
        if name in self._kept or name in self._being_made or (self._home / name).exists():
            raise ConflictError(f"name: another snapshot is called {name!r}")
        self._being_made.add(name)
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            self._being_made.discard(name)
            shutil.rmtree(folder, ignore_errors=True)

    async def keep(self, info: SnapshotInfo) -> SnapshotInfo:
        """What was copied is a snapshot from now on; durable when this returns. With its size."""
        folder = self._home / f"{info.name}{_NEW}"
        kept = await asyncio.to_thread(_complete, folder, info)
        reach(Point.SNAPSHOT_WRITTEN)
        await asyncio.to_thread(_rename, folder, self._home / info.name)
        self._kept[info.name] = kept
        return kept

    @contextmanager
    def using(self, name: str) -> Iterator[Path]:
        """The folder of one, which is not removed in the block.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.get(name)
        self._in_use[name] = self._in_use.get(name, 0) + 1
        try:
            yield self._home / name
        finally:
            self._in_use[name] -= 1
            if not self._in_use[name]:
                del self._in_use[name]

    async def remove(self, name: str) -> None:
        """Removes one. Machines that were made of it have all that they need.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: a machine is being made of it at this moment.
        """
        info = self.get(name)
        if name in self._in_use:
            raise ConflictError(f"snapshot {name!r} is being copied to a machine; try again then")
        doomed = self._home / f"{name}{_DELETED}"
        del self._kept[name]
        try:
            await asyncio.to_thread(_rename, self._home / name, doomed)
        except OSError:
            self._kept[name] = info
            raise
        await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)


def _read(folder: Path) -> SnapshotInfo:
    return msgspec.json.decode((folder / _ABOUT).read_bytes(), type=SnapshotInfo)


def _complete(folder: Path, info: SnapshotInfo) -> SnapshotInfo:
    # What is linked to is there anyway.
    stats = (path.stat() for path in folder.iterdir())
    size = sum(stat.st_blocks * 512 for stat in stats if stat.st_nlink == 1)
    info = msgspec.structs.replace(info, size_bytes=size)
    durable.write(folder / _ABOUT, msgspec.json.encode(info))
    durable.sync_tree(folder)
    return info


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    durable.sync_folder(target.parent)
