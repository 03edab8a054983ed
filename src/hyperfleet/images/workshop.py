"""Makes artefacts whole or not at all, once for each recipe.

An artefact is made in a folder of its own, put in its place by a rename, and its recipe is written
beside it as `NAME.recipe`. It is made again only when the recipe is another one. One set-up works
in a home at a time.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from hyperfleet.errors import SetupError
from hyperfleet.failpoints import Point, reach

Inputs = Mapping[str, str | list[str]]

# Where each version of a disk lies, in the home.
VERSIONS = "disks"
# In the scratch folder, while a version is put in place: the disk's name and the version's.
_PLACING = "placing"


class Workshop:
    """The home's artefacts while `open_workshop` holds it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.scratch = home / ".making"

    def recipe(self, name: str) -> dict[str, object] | None:
        """What the artefact was made from, or None where there is none or no whole one."""
        if not (self.home / name).exists():
            return None
        try:
            recipe = msgspec.json.decode(
                self._recipe_path(name).read_bytes(), type=dict[str, object]
            )
        except (OSError, msgspec.DecodeError):
            return None
        stamp = recipe.pop("sha256", None)
        return recipe if stamp == _stamp(recipe) else None

    def is_made(self, name: str, inputs: Inputs) -> bool:
        """Whether the artefact is there and was made from just these inputs."""
        return self.recipe(name) == dict(inputs)

    def publish(self, made: Path, name: str, inputs: Inputs) -> None:
        """Puts `made`, which lies in `scratch`, in place under `name`.

        A crash anywhere in between leaves the old artefact, or the new one without a recipe
        (then it is made again), never half of one.
        """
        place = self.home / name
        self._withdraw_recipe(made, name)
        if place.is_dir() and not place.is_symlink():
            place.rename(self.scratch / f"old-{name}")
            reach(Point.SETUP_CLEARED)
        made.rename(place)
        reach(Point.SETUP_PLACED)
        self._record(name, inputs)

    def publish_version(self, made: Path, name: str, inputs: Inputs) -> Path | None:
        """As `publish`, under a name of its own in `disks/` that `name` becomes a link to.

        For what others stand on: a machine's disk holds what differs from its base, and is lost
        when the base changes under it. Returns the version that `name` led to before, which stays.
        """
        place = self.home / name
        before = place.resolve() if place.is_symlink() and place.exists() else None
        version = self.home / VERSIONS / f"{place.stem}-{secrets.token_hex(4)}{place.suffix}"
        version.parent.mkdir(exist_ok=True)
        self._withdraw_recipe(made, name)
        placing = self.scratch / _PLACING
        placing.write_text(f"{name}\n{version.name}\n")
        _flush(placing)
        _flush(self.scratch)
        made.rename(version)
        _flush(version.parent)
        reach(Point.SETUP_VERSIONED)
        self.link(name, f"{VERSIONS}/{version.name}")
        reach(Point.SETUP_LINKED)
        self._record(name, inputs)
        placing.unlink()
        return before

    def unused_versions(self) -> list[Path]:
        """Versions of disks that no name leads to, and on which nothing stands.

        What does keeps a link to it, or where links can't be made names it in its `base.json`.
        """
        versions = sorted((self.home / VERSIONS).glob("*"))
        led_to = {path.resolve() for path in self.home.iterdir() if path.is_symlink()}
        stands = [path.read_bytes() for path in self.home.glob("*/*/base.json")]
        return [
            version
            for version in versions
            if version.resolve() not in led_to
            and version.stat().st_nlink == 1
            and not any(version.name.encode() in record for record in stands)
        ]

    def link(self, name: str, target: str) -> None:
        """Makes `name` a symbolic link to `target`, relative to the home, in place of the old."""
        link = self.scratch / f"link-{name}"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.rename(self.home / name)

    def clear(self) -> None:
        """Takes away what a set-up that was killed has left, and makes the scratch folder anew."""
        with suppress(OSError, ValueError):
            name, version = (self.scratch / _PLACING).read_text().splitlines()
            if (self.home / name).resolve() != self.home.resolve() / VERSIONS / version:
                # Nothing leads to it, so no machine stands on it.
                (self.home / VERSIONS / version).unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def folder(self, name: str) -> Path:
        """An empty folder to work in, gone when the set-up ends."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def _withdraw_recipe(self, made: Path, name: str) -> None:
        """Before `made` takes its place, which has no recipe until its own is written."""
        _flush(made)
        reach(Point.SETUP_MADE)
        self._recipe_path(name).unlink(missing_ok=True)
        reach(Point.SETUP_UNSIGNED)

    def _record(self, name: str, inputs: Inputs) -> None:
        recipe = self.scratch / f"{name}.recipe"
        text = {**inputs, "sha256": _stamp(inputs)}
        recipe.write_bytes(msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n")
        _flush(recipe)
        recipe.rename(self._recipe_path(name))
        _flush(self.home)
        reach(Point.SETUP_RECORDED)

    def _recipe_path(self, name: str) -> Path:
        return self.home / f"{name}.recipe"


@contextmanager
def open_workshop(home: Path) -> Iterator[Workshop]:
    """Holds the home for one set-up, with an empty scratch folder in it.

    Raises:
        SetupError: another set-up holds it, or the home can't be made or written.
    """
    workshop = Workshop(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / ".setup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SetupError(f"{home} can't be used as HYPERFLEET_HOME: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another `hyperfleet setup` works in {home}: wait for it") from None
        workshop.clear()
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop.scratch, ignore_errors=True)
    finally:
        os.close(lock)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        hasher = sha256()
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _stamp(inputs: Mapping[str, object]) -> str:
    return sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()


def _flush(path: Path) -> None:
    """Onto the disk, before a rename makes it count."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
