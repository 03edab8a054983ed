"""A machine's memory on disk, while the machine sleeps.

machines/ID/memory        its whole state, as QEMU writes it; there or not, never half
machines/ID/memory.json   which QEMU has written it, and how it was called

It may be gone on from once: the disk changes from then on, so it is removed before the guest runs.
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


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """`key`: of `Shape.line_key`."""

    key: str


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
            await migration.save(client, lambda stream: asyncio.to_thread(_copy, stream, new))
            await asyncio.to_thread(_name, new, directory)
    except BaseException:
        await asyncio.to_thread(new.unlink, missing_ok=True)
        raise


def open_for(directory: Path, key: str) -> int:
    """A descriptor of what was saved. The caller closes it.

    Raises:
        GuestError: it can't be gone on from by the QEMU that is here now.
    """
    try:
        about = msgspec.json.decode((directory / _ABOUT).read_bytes(), type=_About)
        if about.key == key:
            return os.open(directory / _MEMORY, os.O_RDONLY | os.O_CLOEXEC)
        why = "QEMU, Hyperfleet, or what network cards it gets here is not as it was then"
    except (OSError, msgspec.MsgspecError) as error:
        why = str(error)
    raise GuestError(f"what it had in memory when it fell asleep can't be gone on from: {why}")


def note_line(directory: Path, key: str) -> None:
    """Notes how the QEMU that is about to run here is called, for `write`."""
    (directory / _LINE).write_text(key)


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
        os.fsync(file.fileno())


def _name(new: Path, directory: Path) -> None:
    key = (directory / _LINE).read_text()
    durable.write(directory / _ABOUT, msgspec.json.encode(_About(key=key)))
    new.rename(directory / _MEMORY)
    durable.sync_folder(directory)
