"""What a fake machine is, in a folder: its files, and what its guest had in memory if it had any.

FOLDER/saved    both; of a machine that was placed there, until it is started
FOLDER/memory   it has a memory
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hyperfleet.vmm import shortage
from hyperfleet.vmm.fake_guest import FakeGuest, Socket

_SAVED, _MEMORY = "saved", "memory"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest goes on from."""

    boot_id: str
    sockets: list[Socket]


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A machine at one moment."""

    files: dict[str, bytes]
    memory: Memory | None


def memory_of(guest: FakeGuest) -> Memory:
    """What is in a guest's memory: its processes end with it."""
    return Memory(boot_id=guest.boot_id, sockets=guest.sockets)


def has_memory(folder: Path) -> bool:
    """Whether there is a memory."""
    return (folder / _MEMORY).exists()


def note_memory(folder: Path) -> None:
    """There is one from now on."""
    (folder / _MEMORY).touch()


def forget_memory(folder: Path) -> None:
    """There is none any more."""
    (folder / _MEMORY).unlink(missing_ok=True)


def write(folder: Path, saved: Saved) -> None:
    """Puts a machine into a folder.

    Raises:
        CapacityError: no room on the host's disk.
    """
    with shortage.told(folder):
        (folder / _SAVED).write_bytes(msgspec.msgpack.encode(saved))
        if saved.memory is not None:
            note_memory(folder)


def read(folder: Path) -> Saved | None:
    """The machine that was put into a folder."""
    try:
        return msgspec.msgpack.decode((folder / _SAVED).read_bytes(), type=Saved)
    except FileNotFoundError:
        return None


def take(folder: Path) -> Saved | None:
    """The same, once."""
    saved = read(folder)
    (folder / _SAVED).unlink(missing_ok=True)
    return saved
