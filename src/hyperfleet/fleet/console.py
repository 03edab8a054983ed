"""A machine's console: its tail for the user, and its last words as the reason of a failure."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hyperfleet.controls import without_controls

# A guest may write what it likes; nobody gets more of it at once.
_MOST_BYTES = 16 * 1024 * 1024
_KEPT_BYTES = 1024 * 1024
_LOOKED_AT_BYTES = 64 * 1024
_REASON_BYTES = 2048
# How often a console that somebody follows is looked at, and how much of it is read at once.
_FOLLOW_EVERY_S = 0.2
_PIECE_BYTES = 256 * 1024
_QUIET_S = 5.0
_LAST_LINES = 8
_LINE_CHARACTERS = 200

# The lines that say why, from the kernel and from the agent; the first ones count, since a panic
# may be the end of what another line began.
_TELLING = re.compile(
    r"Kernel panic|Out of memory|Initramfs unpacking failed|Failed to execute /init"
    r"|hyperfleet-agent: (?:cannot|panicked)"
)
_TELLING_LINES = 2


def size(path: Path) -> int:
    """Bytes so far; 0 when there is no console yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def tail(path: Path, lines: int | None) -> AsyncIterator[bytes]:
    """The console's last `lines` lines (None: all), at most the last 16 MiB, in pieces.

    Each is read when it is asked for, so that a reader who is slow holds no more than one.
    """
    end = size(path)
    async for piece in _before(path, end, lines):
        yield piece


async def follow(
    path: Path, lines: int | None, *, gone: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """What `tail` gives, then what is written from then on, until there is no such machine.

    Now and then a piece is empty: nothing has come for a while. Of what is written at the moment
    that a console is cut down to its bound, some may be left out.
    """
    place = size(path)
    async for piece in _before(path, place, lines):
        yield piece
    quiet = 0.0
    while not gone():
        end = size(path)
        if end > place:
            piece = await asyncio.to_thread(_after, path, place)
            place += len(piece)
            quiet = 0.0
            yield piece
            continue
        place = end
        await asyncio.sleep(_FOLLOW_EVERY_S)
        quiet += _FOLLOW_EVERY_S
        if quiet >= _QUIET_S:
            quiet = 0.0
            yield b""


def reason(path: Path, since: int = 0) -> str:
    """Why the guest died, as its console tells from byte `since` on. Blocks. May be empty."""
    return last_words(_read(path, since, _LOOKED_AT_BYTES))


async def with_reason(what: str, path: Path, since: int = 0) -> str:
    """What happened, with the console's last words if there are any, from byte `since` on."""
    words = await asyncio.to_thread(reason, path, since)
    return f"{what}; its console's last words:\n{words}" if words else what


def outgrown(path: Path) -> bool:
    """Whether `bound` would cut it."""
    return size(path) > _MOST_BYTES


def bound(path: Path) -> None:
    """Cuts a console that has outgrown its bound down to its last part. Blocks for some ms.

    QEMU appends (O_APPEND), so what it writes meanwhile is in order again after the cut.
    """
    if not outgrown(path):
        return
    kept = _read(path, 0, _KEPT_BYTES)
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(kept)


def last_words(console: bytes) -> str:
    """The first telling lines and the last ones; without controls, at most 2 KiB."""
    text = without_controls(console.decode(errors="replace").replace("\r", ""))
    lines = [line.rstrip()[:_LINE_CHARACTERS] for line in text.split("\n") if line.strip()]
    last = lines[-_LAST_LINES:]
    told = [line for line in lines if _TELLING.search(line)][:_TELLING_LINES]
    told = [line for line in told if line not in last]
    # Lines are short, so this cuts only where many bytes make a character.
    return "\n".join((*told, *last)).encode()[:_REASON_BYTES].decode(errors="ignore")


async def _before(path: Path, end: int, lines: int | None) -> AsyncIterator[bytes]:
    """The last lines of the first `end` bytes."""
    place = await asyncio.to_thread(_start_of, path, end, lines)
    while place < end:
        most = min(_PIECE_BYTES, end - place)
        piece = await asyncio.to_thread(_after, path, place, most)
        if not piece:
            # It was cut down meanwhile.
            return
        place += len(piece)
        yield piece


def _start_of(path: Path, end: int, lines: int | None) -> int:
    """Where the last lines of the first `end` bytes begin; looked for from their end on. Blocks."""
    first = max(0, end - _MOST_BYTES)
    if lines is None:
        return first
    # A line feed at the very end ends the last line, and begins none.
    place, last, wanted = end, end - 1, lines
    while place > first and wanted:
        begin = max(first, place - _PIECE_BYTES)
        piece = _after(path, begin, place - begin)
        at = len(piece)
        while (at := piece.rfind(b"\n", 0, at)) >= 0:
            if begin + at < last:
                wanted -= 1
                if not wanted:
                    return begin + at + 1
        place = begin
    return first if wanted else end


def _after(path: Path, place: int, most: int = _PIECE_BYTES) -> bytes:
    """What comes after byte `place`, up to `most` bytes of it."""
    try:
        with path.open("rb") as file:
            file.seek(place)
            return file.read(most)
    except FileNotFoundError:
        return b""


def _read(path: Path, since: int, most: int) -> bytes:
    """The last `most` bytes of what came after byte `since`."""
    end = size(path)
    # Shorter than it was: it was cut down since, and what is left came after.
    return _after(path, max(since if since <= end else 0, end - most), most)
