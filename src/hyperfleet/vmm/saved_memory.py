"""A machine's memory on disk, while the machine sleeps, or in a snapshot.

memory        its whole state, as QEMU writes it; in a machine's folder there or not, never half
memory.json   which QEMU has written it, and how it was called

With one disk it may be gone on from once: that changes from then on, so it is removed before the
guest runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import msgspec
from qemu.qmp import QMPClient

from hyperfleet import durable
from hyperfleet.errors import GuestError
from hyperfleet.vmm import migration, shortage

_MEMORY, _ABOUT, _LINE = "memory", "memory.json", "line"
_NEW = ".new"
_PIECE = 1 << 20


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """How a QEMU was called. `key`: of `Shape.line_key`; `mtus`: of `Shape`."""

    key: str
    mtus: tuple[int | None, ...]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What has written a memory. `qemu`: its version."""

    line: Line
    qemu: str


def is_there(directory: Path) -> bool:
    """Whether a machine sleeps with its memory here."""
    return (directory / _MEMORY).exists()


async def write(client: QMPClient, directory: Path) -> None:
    """Saves a guest that stands still; durable when this returns, nothing is there if it fails.

    Raises:
        GuestError: QEMU could not write it.
        CapacityError: no room on the host's disk.
    """
    new = directory / f"{_MEMORY}{_NEW}"
    try:
        with shortage.told(directory):
            about = await _save(client, directory, new)
            await asyncio.to_thread(_name, new, about, directory)
    except BaseException:
        await asyncio.to_thread(new.unlink, missing_ok=True)
        raise


async def copy_to(client: QMPClient, directory: Path, into: Path) -> None:
    """The same of one that may run, into a folder of its own; not durable yet.

    It goes on while it is read if QEMU then sees what it writes; at the end it stands still.

    Raises as `write` does.
    """
    with shortage.told(into):
        live = await migration.sees_writes(client)
        about = await _save(client, directory, into / _MEMORY, live=live)
        (into / _ABOUT).write_bytes(about)


def link(source: Path, target: Path) -> None:
    """Has a memory that was saved in one folder in another as well, if there is one. Blocks.

    It is never written to, so both are the same file.
    """
    if is_there(source):
        (target / _ABOUT).write_bytes((source / _ABOUT).read_bytes())
        (target / _MEMORY).hardlink_to(source / _MEMORY)


def open_for(directory: Path, line: Line) -> int:
    """A descriptor of what was saved. The caller closes it.

    Raises:
        GuestError: it can't be gone on from by the QEMU that is here now.
    """
    try:
        about = about_of(directory)
        if about.line == line:
            return os.open(directory / _MEMORY, os.O_RDONLY | os.O_CLOEXEC)
        why = differs(about)
    except (OSError, msgspec.MsgspecError) as error:
        why = str(error)
    raise GuestError(f"what it had in memory when it fell asleep can't be gone on from: {why}")


def about_of(directory: Path) -> About:
    """What has written the memory that is there.

    Raises:
        OSError, MsgspecError: there is none, or it is not known.
    """
    return msgspec.json.decode((directory / _ABOUT).read_bytes(), type=About)


def differs(about: About) -> str:
    """Why it can't be gone on from, in words."""
    return (
        f"QEMU {about.qemu} has saved it, and QEMU, Hyperfleet, the processor or the network cards"
        " that it gets here are not as they were then"
    )


def note_line(directory: Path, line: Line) -> None:
    """Notes how the QEMU that is about to run here is called, for when it saves."""
    (directory / _LINE).write_bytes(msgspec.json.encode(line))


def remove_half(directory: Path) -> None:
    """Removes what a saving that was cut off has left."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (directory / f"{_MEMORY}{_NEW}").unlink()


def remove(directory: Path) -> None:
    """Forgets it, durably; no error where there is none."""
    try:
        (directory / _MEMORY).unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    durable.sync_folder(directory)
    (directory / _ABOUT).unlink(missing_ok=True)


async def _save(client: QMPClient, directory: Path, new: Path, *, live: bool = False) -> bytes:
    """Writes the memory to `new`; what `memory.json` is to say of it."""
    line = msgspec.json.decode((directory / _LINE).read_bytes(), type=Line)
    version = await client.execute("query-version")
    await migration.save(client, lambda stream: asyncio.to_thread(_copy, stream, new), live=live)
    return msgspec.json.encode(About(line=line, qemu=_version(version)))


def _version(answer: object) -> str:
    """See qapi/control.json, VersionInfo."""
    numbers = answer.get("qemu") if isinstance(answer, dict) else None
    if not isinstance(numbers, dict):
        return "of an unknown version"
    return ".".join(str(numbers.get(part)) for part in ("major", "minor", "micro"))


def _copy(stream: socket.socket, new: Path) -> None:
    stream.setblocking(True)
    # The machine's own user may look into the directory.
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        piece = bytearray(_PIECE)
        view = memoryview(piece)
        while count := stream.recv_into(piece):
            written = 0
            while written < count:
                written += file.write(view[written:count])


def _name(new: Path, about: bytes, directory: Path) -> None:
    durable.sync(new)
    durable.write(directory / _ABOUT, about)
    new.rename(directory / _MEMORY)
    durable.sync_folder(directory)
