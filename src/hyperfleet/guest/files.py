"""Files in a guest, by the agent's own program, which is run there as any process.

So its output is held up when nobody reads and its input waits until it is taken: a file of any size
takes no memory here. The guest is hostile: what it says is bounded and checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from hyperfleet.errors import (
    ConflictError,
    GuestError,
    HyperfleetError,
    NotFoundError,
    ValidationError,
)
from hyperfleet.guest.calls import BrokenProtocolError, printable
from hyperfleet.guest.values import FileInfo, Piece, ProcessEnd, ProcessRequest
from hyperfleet.wire import WireError, length
from hyperfleet.wire import files as wire

# Entries of a folder that are told.
MOST_ENTRIES = 10_000
_PREFIX = 4
_PIECE = 64 * 1024
_MOST_COMPLAINT = 4096
_ERRORS: dict[str, type[HyperfleetError]] = {
    "not_found": NotFoundError,
    "is_folder": ConflictError,
    "not_folder": ConflictError,
    "not_empty": ConflictError,
    "busy": ConflictError,
    "invalid": ValidationError,
}


class Process(Protocol):
    """What is needed of `guest.stream.Stream`."""

    @property
    def over(self) -> bool:
        """Whether it has ended, and all its output has come."""

    async def read(self) -> Piece | None:
        """The next piece of its output; None when there will be no more."""

    async def ended(self) -> ProcessEnd:
        """How it ended."""

    async def write(self, data: bytes, *, eof: bool = False) -> None:
        """Gives it input, the last with `eof`."""

    async def abandon(self) -> None:
        """Ends it, if it has not ended."""


Run = Callable[[ProcessRequest], Awaitable[Process]]


class Contents:
    """A file, or a folder as a tar: what it is, then its bytes, once. Close it."""

    def __init__(self, info: FileInfo, said: _Said, *, size: int | None) -> None:
        """For `get` and `pack` alone."""
        self.info = info
        # Of all that `pieces` gives; None: not known before.
        self.size = size
        self._said = said

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it.

        Raises:
            GuestError: it has not come whole.
        """
        async for piece in self._said.rest(self.size):
            yield piece

    async def close(self) -> None:
        """Nobody wants the rest."""
        await self._said.close()


class Usage(msgspec.Struct, frozen=True):
    """Of a file system, bytes; `size` is what there can be."""

    size: int
    used: int


class Listing(msgspec.Struct, frozen=True):
    """A folder and what is in it, by name; `truncated`: there is more."""

    folder: FileInfo
    entries: tuple[FileInfo, ...]
    truncated: bool


class Files:
    """A machine's."""

    def __init__(self, run: Run) -> None:
        """`run` runs a process in the machine."""
        self._run = run

    async def get(self, path: str) -> Contents:
        """A file's bytes.

        Raises:
            NotFoundError, ConflictError, ValidationError, GuestError: it can't be; see `_ERRORS`.
        """
        return await self._open(path, "get")

    async def pack(self, path: str) -> Contents:
        """A folder as a tar; raises as `get` does."""
        return await self._open(path, "pack")

    async def put(
        self,
        path: str,
        content: AsyncIterable[bytes],
        *,
        size: int | None = None,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        parents: bool = False,
    ) -> FileInfo:
        """Makes a file, whole or not at all; one that is there stays until then.

        Args:
            path: where; a symbolic link is followed.
            content: its bytes.
            size: how many, where that is known: another number and nothing is made.
            mode: permission bits; None: as before, 0644 for a new one.
            owner: user and group id; None: as before, root for a new one.
            parents: makes the folders that lead to it.

        Raises:
            as `get`; and whatever `content` does.
        """
        asked = (
            "put-in" if parents else "put",
            path,
            "-" if size is None else str(size),
            "-" if mode is None else f"{mode:o}",
            "-" if owner is None else f"{owner[0]}:{owner[1]}",
        )
        async with _asking(self._run, path, *asked, stdin=True) as said:
            await said.feed(content)
            info = await said.entry()
            await said.end()
            return info

    async def unpack(self, path: str, content: AsyncIterable[bytes]) -> None:
        """Makes what a tar holds in a folder, which is made if need be.

        Raises:
            as `put`; ValidationError: it is no tar, or something of it would leave the folder.
        """
        async with _asking(self._run, path, "unpack", path, stdin=True) as said:
            await said.feed(content)
            await said.done()

    async def stat(self, path: str) -> FileInfo:
        """What is at a path, links followed; raises as `get`."""
        async with _asking(self._run, path, "stat", path) as said:
            info = await said.entry()
            await said.end()
            return info

    async def usage(self, path: str) -> Usage:
        """How full the file system is that `path` is on; raises as `get`."""
        async with _asking(self._run, path, "usage", path) as said:
            usage = await said.usage()
            await said.end()
            return usage

    async def list(self, path: str) -> Listing:
        """What is in a folder; raises as `get`."""
        async with _asking(self._run, path, "list", path, str(MOST_ENTRIES)) as said:
            folder = await said.entry()
            entries = []
            while isinstance(message := await said.message(), wire.Entry):
                entries.append(_info(message))
                if len(entries) > MOST_ENTRIES:
                    raise BrokenProtocolError("more entries than were asked for")
            if not isinstance(message, wire.Done):
                raise BrokenProtocolError("a list without an end")
            return Listing(folder, tuple(entries), message.truncated)

    async def delete(self, path: str, *, whole: bool) -> None:
        """Removes a file, an empty folder, or with `whole` all that is in one; raises as `get`."""
        async with _asking(self._run, path, "delete-all" if whole else "delete", path) as said:
            await said.done()

    async def _open(self, path: str, how: str) -> Contents:
        said = await _ask(self._run, path, how, path)
        try:
            info = await said.entry()
        except BaseException:
            await said.close()
            raise
        return Contents(info, said, size=info.size)


class _Said:
    """What the program says, message by message; then its bytes."""

    def __init__(self, process: Process, path: str) -> None:
        self._process = process
        self._path = path
        self._buffer = bytearray()
        self._complaint = b""

    async def message(self) -> wire.FileMessage:
        """The next message; a refusal is raised."""
        size = int.from_bytes(await self._exactly(_PREFIX), "big")
        if size > length.MAX_PAYLOAD:
            raise BrokenProtocolError("a message about a file that is too large")
        try:
            message = wire.decode(await self._exactly(size))
        except WireError as error:
            raise BrokenProtocolError(error.message) from error
        if isinstance(message, wire.Refused):
            kind = _ERRORS.get(message.code, GuestError)
            raise kind(f"{self._path}: {printable(message.message)}")
        return message

    async def entry(self) -> FileInfo:
        """The next message, which must be an entry."""
        message = await self.message()
        if not isinstance(message, wire.Entry):
            raise BrokenProtocolError("no entry where one was to come")
        return _info(message)

    async def usage(self) -> Usage:
        """The next message, which must be how full something is."""
        message = await self.message()
        if not isinstance(message, wire.Usage):
            raise BrokenProtocolError("no usage where one was to come")
        return Usage(size=message.size, used=message.used)

    async def done(self) -> None:
        """The next message, which must be the last."""
        if not isinstance(await self.message(), wire.Done):
            raise BrokenProtocolError("something else than an end")
        await self.end()

    async def end(self) -> None:
        """Nothing follows.

        Raises:
            GuestError: something does, or the program has failed.
        """
        async for _ in self.rest(0):
            raise BrokenProtocolError("more than was asked for")

    async def rest(self, size: int | None) -> AsyncIterator[bytes]:
        """All that follows; `size` bytes where that is known.

        Raises:
            GuestError: it is another number, or the program has failed.
        """
        came = 0
        while True:
            piece, self._buffer = bytes(self._buffer), bytearray()
            came += len(piece)
            if size is not None and came > size:
                raise BrokenProtocolError("a file longer than it was said to be")
            if piece:
                yield piece
            if not await self._more():
                break
        end = await self._process.ended()
        if end.exit_code != 0 or (size is not None and came < size):
            raise GuestError(f"{self._path} could not be read to its end")

    async def feed(self, content: AsyncIterable[bytes]) -> None:
        """Its input, whole, or as much of it as it takes: it may have refused."""
        async for piece in content:
            for at in range(0, len(piece), _PIECE):
                await self._process.write(piece[at : at + _PIECE])
            if self._process.over:
                return
        await self._process.write(b"", eof=True)

    async def close(self) -> None:
        """Ends the program, if it has not ended."""
        await self._process.abandon()

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not await self._more():
                raise GuestError(
                    f"{self._path}: the machine's agent has not said what became of it"
                    + (f": {printable(self._complaint.decode(errors='replace'))}").rstrip(": ")
                )
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> bool:
        """Whether another piece has come; what it complains of is kept apart."""
        piece = await self._process.read()
        if piece is None:
            return False
        if piece.is_error:
            self._complaint = (self._complaint + piece.data)[:_MOST_COMPLAINT]
        else:
            self._buffer += piece.data
        return True


async def _ask(run: Run, path: str, *arguments: str, stdin: bool = False) -> _Said:
    argv = (wire.PROGRAM, wire.SUBCOMMAND, *arguments)
    process = await run(ProcessRequest(argv=argv, stdin=stdin))
    return _Said(process, path)


@contextlib.asynccontextmanager
async def _asking(
    run: Run, path: str, *arguments: str, stdin: bool = False
) -> AsyncIterator[_Said]:
    """The same for a block, which ends the program if it has not ended."""
    said = await _ask(run, path, *arguments, stdin=stdin)
    try:
        yield said
    finally:
        await said.close()


def _info(entry: wire.Entry) -> FileInfo:
    return FileInfo(
        name=entry.name,
        kind=entry.kind.value,
        size=entry.size,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        target=entry.target,
    )
