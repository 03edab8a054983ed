"""Templates: machines that stand where their agent waits to be told who they are, to be cloned.

templates/KEY/       memory (sparse), state, about.json; made aside, named when it is whole
templates/KEY.new/   being made, or what a making that was cut off has left

On disk they outlive the control plane; the memory of one that is used is loaded once and shared by
its clones. There are only so many: the one that was not used for longest makes room.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hyperfleet import durable
from hyperfleet.errors import HyperfleetError, NotFoundError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import TemplateInfo
from hyperfleet.vmm import memory_file, template_maker
from hyperfleet.vmm.cgroup import Cgroups, without
from hyperfleet.vmm.shape import Shape

_log = logging.getLogger(__name__)

_NEW = ".new"
_MEMORY, _STATE, _ABOUT = "memory", "state", "about.json"


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a template. `seconds`: what its making took."""

    shape: Shape
    made_at: datetime
    seconds: float


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """One that is loaded. `memory`: a sealed descriptor."""

    key: str
    memory: int
    state: bytes


class Templates:
    """Those of one home. `most`: how many are kept; 0: none, and what is there is removed."""

    def __init__(
        self,
        home: Path,
        *,
        most: int,
        confine: Callable[[], Path],
        cgroups: Cgroups | None = None,
        limit: float = 60.0,
    ) -> None:
        """`confine`: where `hyperfleet-confine` is. `limit`: seconds for making one.

        `cgroups`: in which they are made; opened by the driver.
        """
        self._folder = home.absolute() / "templates"
        self._most = most
        self._confine = confine
        self._cgroups = cgroups or without()
        self._limit = limit
        self._loaded: dict[str, Template] = {}
        # One at a time: they are made, loaded and removed by turns.
        self._turn = asyncio.Lock()
        # Shapes of which none could be made; tried again by the next server.
        self._hopeless: set[str] = set()

    async def open(self) -> None:
        """Removes what a making that was cut off has left, and what is outdated."""
        if not self._folder.is_dir():
            return
        for directory in sorted(self._folder.iterdir()):
            key = directory.name.removesuffix(_NEW)
            if directory.name.endswith(_NEW):
                await template_maker.remove(_template_id(key), directory, self._cgroups)
            elif self._most == 0 or not _is_current(directory):
                await self._remove(key)

    def close(self) -> None:
        """Lets go of the memory; clones keep what they have of it."""
        for template in self._loaded.values():
            os.close(template.memory)
        self._loaded.clear()

    async def take(self, shape: Shape) -> Template | None:
        """The template of a shape, loaded; None: there is none.

        Its `memory` is the caller's to close.
        """
        if self._most == 0:
            return None
        try:
            key = shape.key()
        except OSError:
            return None
        async with self._turn:
            template = self._loaded.get(key)
            directory = self._folder / key
            if template is None and directory.is_dir():
                try:
                    template = await asyncio.to_thread(_load, directory)
                except (OSError, HyperfleetError, ValueError) as error:
                    _log.warning("template %s can't be read and is removed: %s", key, error)
                    await self._remove(key)
                    return None
                self._loaded[key] = template
            if template is None:
                return None
            # Another descriptor: the template may be removed before its clone is started.
            template = msgspec.structs.replace(template, memory=os.dup(template.memory))
        await asyncio.to_thread(_touch, directory)
        return template

    def lacks(self, shape: Shape) -> bool:
        """Whether there is none of a shape, and could be."""
        try:
            return self._lacks(shape.key())
        except OSError:
            return False

    async def prepare(self, shape: Shape) -> None:
        """Makes the template of a shape, if there is none.

        Raises:
            GuestError, CapacityError: it can't be made.
        """
        key = shape.key()
        async with self._turn:
            if not self._lacks(key):
                return
            began = time.monotonic()
            try:
                await self._make(shape, key)
            except HyperfleetError:
                self._hopeless.add(key)
                raise
            _log.info("template %s was made in %.1f s", key, time.monotonic() - began)
            for old in self._by_use()[self._most :]:
                await self._remove(old.name)

    async def discard(self, key: str) -> None:
        """Removes a template that has not been of use.

        None is made of that shape by this server any more.
        """
        self._hopeless.add(key)
        async with self._turn:
            await self._remove(key)

    async def remove(self, key: str) -> None:
        """Removes a template that somebody has no use for. The next start may have one made.

        Raises:
            NotFoundError: there is none of that name.
        """
        async with self._turn:
            if key not in {directory.name for directory in self._by_use()}:
                raise NotFoundError(f"there is no template {key[:100]!r}")
            await self._remove(key)

    def kept(self) -> list[TemplateInfo]:
        """All that are kept, the last used first."""
        found = []
        for directory in self._by_use():
            try:
                about = _about(directory)
                stat = (directory / _MEMORY).stat()
                used = directory.stat().st_mtime
            except (OSError, ValueError):
                continue
            shape = about.shape
            found.append(
                TemplateInfo(
                    id=directory.name,
                    kernel_image_path=str(shape.kernel),
                    kernel_args=shape.kernel_args,
                    vcpu_count=shape.vcpu_count,
                    mem_size_mib=shape.mem_size_mib,
                    size_bytes=stat.st_blocks * 512,
                    made_in_ms=round(about.seconds * 1000),
                    made_at=about.made_at,
                    used_at=datetime.fromtimestamp(used, UTC),
                )
            )
        return found

    def _lacks(self, key: str) -> bool:
        return self._most > 0 and key not in self._hopeless and not (self._folder / key).is_dir()

    async def _make(self, shape: Shape, key: str) -> None:
        began = time.monotonic()
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f"{key}{_NEW}"
        made = await template_maker.make(
            shape,
            _template_id(key),
            new,
            confine=self._confine,
            cgroups=self._cgroups,
            limit=self._limit,
        )
        about = _About(shape=shape, made_at=datetime.now(UTC), seconds=time.monotonic() - began)
        try:
            if shape.key() != key:
                # Something of it was changed meanwhile: it is of neither.
                os.close(made.memory)
                return
            await asyncio.to_thread(_keep, new, self._folder / key, made, about)
        except BaseException:
            os.close(made.memory)
            raise
        self._loaded[key] = Template(key=key, memory=made.memory, state=made.state)

    async def _remove(self, key: str) -> None:
        template = self._loaded.pop(key, None)
        if template is not None:
            os.close(template.memory)
        await asyncio.to_thread(shutil.rmtree, self._folder / key, ignore_errors=True)

    def _by_use(self) -> list[Path]:
        try:
            entries = [path for path in self._folder.iterdir() if not path.name.endswith(_NEW)]
            return sorted(entries, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        except OSError:
            return []


def _template_id(key: str) -> str:
    return f"template-{key}"


def _keep(new: Path, place: Path, made: template_maker.Made, about: _About) -> None:
    """Writes a template aside and names it; durable when this returns. Blocks."""
    new.mkdir(mode=0o700)
    try:
        with (new / _MEMORY).open("wb") as file:
            memory_file.copy(made.memory, file.fileno())
            os.fsync(file.fileno())
        for name, data in ((_STATE, made.state), (_ABOUT, _encode(about))):
            durable.write(new / name, data)
        durable.sync_folder(new)
        reach(Point.TEMPLATE_WRITTEN)
        new.rename(place)
        durable.sync_folder(place.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _load(directory: Path) -> Template:
    """Reads a template into memory. Blocks.

    Raises:
        OSError, ValueError: it is not whole.
        CapacityError: the host has no descriptor left.
    """
    about = _about(directory)
    size = about.shape.mem_size_mib << 20
    state = (directory / _STATE).read_bytes()
    with (directory / _MEMORY).open("rb") as file:
        if os.fstat(file.fileno()).st_size != size or not state:
            raise ValueError("it is cut short")
        memory = memory_file.create(f"template {directory.name}", 0)
        try:
            memory_file.copy(file.fileno(), memory)
            memory_file.seal(memory)
        except BaseException:
            os.close(memory)
            raise
    return Template(key=directory.name, memory=memory, state=state)


def _is_current(directory: Path) -> bool:
    try:
        return _about(directory).shape.key() == directory.name
    except (OSError, ValueError):
        return False


def _about(directory: Path) -> _About:
    try:
        data = (directory / _ABOUT).read_bytes()
        return msgspec.json.decode(data, type=_About, dec_hook=lambda kind, value: kind(value))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def _encode(about: _About) -> bytes:
    return msgspec.json.encode(about, enc_hook=str)


def _touch(directory: Path) -> None:
    """Notes that it was used."""
    try:
        os.utime(directory)
    except OSError as error:
        _log.warning("template %s: its use could not be noted: %s", directory.name, error)
