"""Things of a user's that have a name and a folder, which is all that there is of each.

FOLDER/NAME/           a file that says what it is, and what it holds
FOLDER/NAME.new/       half-made
FOLDER/NAME.deleted/   its end was decided
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from hyperfleet import durable
from hyperfleet.errors import ConflictError, NotFoundError
from hyperfleet.failpoints import Point, reach

_log = logging.getLogger(__name__)

_NEW, _DELETED = ".new", ".deleted"


class Kept(Protocol):
    """What stands in the file of one."""

    @property
    def name(self) -> str:
        """A DNS label."""

    @property
    def made_at(self) -> datetime:
        """When it was made."""


T = TypeVar("T", bound=Kept)


class Shelf(Generic[T]):
    """All of one kind: made, found, removed by name. Nothing is half there."""

    def __init__(self, folder: Path, kind: type[T], word: str, written: Point) -> None:
        """`word` is what one is called: `snapshot`, whose file is `snapshot.json`.

        `written` is reached when all of one is written, and it has no name yet.
        """
        self.folder = folder
        self._kind = kind
        self._word = word
        self._written = written
        self._about = f"{word}.json"
        # The oldest first.
        self._kept: dict[str, T] = {}
        self._being_made: set[str] = set()
        # How many read it.
        self._in_use: dict[str, int] = {}

    def open(self) -> None:
        """Finds what there is, and removes what was left half-done. Blocks."""
        found = []
        for folder in self.folder.iterdir() if self.folder.exists() else ():
            if folder.suffix in (_NEW, _DELETED):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                about = (folder / self._about).read_bytes()
                found.append(msgspec.json.decode(about, type=self._kind))
            except (OSError, msgspec.MsgspecError) as error:
                # It stays: somebody may mend it.
                _log.warning("%s %s can't be read: %s", self._word, folder.name, error)
        self._kept = {one.name: one for one in sorted(found, key=lambda one: one.made_at)}

    def every(self) -> list[T]:
        """All, the oldest first."""
        return [*self._kept.values()]

    def get(self, name: str) -> T:
        """One.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._kept.get(name)
        if found is None:
            raise NotFoundError(f"{self._word.capitalize()} not found: {name[:100]}")
        return found

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """The folder to fill; `keep` in the block makes it one of them, else it is removed.

        Raises:
            ConflictError: another has that name.
        """
        folder = self._new(name)
        if name in self._kept or name in self._being_made or (self.folder / name).exists():
            raise ConflictError(f"name: another {self._word} is called {name!r}")
        self._being_made.add(name)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            self._being_made.discard(name)
            shutil.rmtree(folder, ignore_errors=True)

    async def keep(self, one: T) -> None:
        """What `making` has filled is one of them from now on; durable when this returns."""
        folder = self._new(one.name)
        await asyncio.to_thread(self._complete, folder, one)
        reach(self._written)
        await asyncio.to_thread(_rename, folder, self.folder / one.name)
        self._kept[one.name] = one

    @contextmanager
    def using(self, name: str) -> Iterator[Path]:
        """The folder of one, which is not removed in the block.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.get(name)
        self._in_use[name] = self._in_use.get(name, 0) + 1
        try:
            yield self.folder / name
        finally:
            self._in_use[name] -= 1
            if not self._in_use[name]:
                del self._in_use[name]

    async def remove(self, name: str) -> None:
        """Removes one.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is used at this moment.
        """
        one = self.get(name)
        if name in self._in_use:
            raise ConflictError(f"{self._word} {name!r} is used at this moment; try again then")
        doomed = self.folder / f"{name}{_DELETED}"
        del self._kept[name]
        try:
            await asyncio.to_thread(_rename, self.folder / name, doomed)
        except OSError:
            self._kept[name] = one
            raise
        await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)

    def _new(self, name: str) -> Path:
        return self.folder / f"{name}{_NEW}"

    def _complete(self, folder: Path, one: T) -> None:
        durable.write(folder / self._about, msgspec.json.encode(one))
        durable.sync_tree(folder)


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    durable.sync_folder(target.parent)
