"""A process in a guest whose streams are carried while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from hyperfleet.errors import GuestError
from hyperfleet.guest.calls import Call, ProcessCall, StreamCall
from hyperfleet.guest.values import Attachment, Piece, ProcessEnd, ProcessRequest
from hyperfleet.wire import guest as wire

T = TypeVar("T")

# Bytes of output that may be under way to us: what a process writes beyond them it is held up with.
WINDOW = 256 * 1024
# Taken output is granted anew in portions of this size: more than half is always free.
_PORTION = WINDOW // 4


# What a program at a terminal gets to end by itself when that is hung up.
_HANGUP_S = 2.0
# What the agent gets to tell the end of what it was to kill.
_KILL_TAKES_S = 5.0
_NO_LIMIT = 2**64 - 1


def asked_for(request: ProcessRequest) -> wire.ExecCall:
    """What the agent is asked for, its output not counted."""
    terminal = request.terminal
    return wire.ExecCall(
        argv=request.argv,
        env=tuple(request.env.items()),
        cwd=request.cwd,
        timeout_ms=0 if request.timeout is None else max(1, round(request.timeout * 1000)),
        stdin=request.stdin,
        output_limit=_NO_LIMIT,
        terminal=None if terminal is None else wire.Size(rows=terminal[0], columns=terminal[1]),
    )


class Session(Protocol):
    """What a stream needs of the agent."""

    def say(self, message: wire.ToGuest) -> None:
        """Sends one message; raises GuestError when the channel is lost."""

    async def feed(self, call_id: int, call: ProcessCall, data: bytes, *, eof: bool) -> None:
        """Sends standard input as far as it is taken."""

    def begin(self, call: Call[Any], message: Callable[[int], wire.ToGuest]) -> int:
        """Sends a call; gives its id."""

    async def end(self, call: Call[T]) -> T:
        """What it comes to."""


class Stream:
    """Made by `Agent.run`. One reader at a time.

    When the channel is lost the process is: a terminal is hung up, others run on unseen.
    """

    def __init__(
        self, session: Session, call_id: int, call: StreamCall, *, at_terminal: bool
    ) -> None:
        """For `Agent.run` alone."""
        self._at_terminal = at_terminal
        self._session = session
        self._id = call_id
        self._call = call
        self._not_granted = 0
        # Whether its process was left to run on.
        self.detached = False
        # Read by `ended`, if by anybody.
        call.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    @property
    def over(self) -> bool:
        """Whether it has ended, or was lost."""
        return self._call.answer.done()

    async def read(self) -> Piece | None:
        """The next piece of its output; None when there will be no more. Cancelled, loses nothing.

        Raises:
            GuestError: it could not be started, or the channel was lost.
        """
        call = self._call
        while not call.pieces:
            if call.answer.done():
                # Raises what it was lost by.
                call.answer.result()
                return None
            call.news.clear()
            await call.news.wait()
        piece = call.pieces.popleft()
        self._has_read(len(piece.data))
        return piece

    def _has_read(self, count: int) -> None:
        self._not_granted += count
        if self._not_granted >= _PORTION and not self._call.answer.done():
            taken, self._not_granted = self._not_granted, 0
            self._call.outstanding -= taken
            self._session.say(wire.OutputTaken(id=self._id, bytes=taken))

    async def attached(self) -> Attachment | None:
        """How a process that has a name was found, before all else is heard of it; None: no name.

        Raises:
            HyperfleetError: as `read` does.
        """
        return None

    def taken(self, count: int) -> None:
        """So much of what was read is not needed again; counts for processes that have a name."""

    def end_taken(self) -> None:
        """Nor is its end; for processes that have a name, which are forgotten then."""

    async def ended(self) -> ProcessEnd:
        """How it ended, when it has and all its output has come; `read` it or this never returns.

        Raises:
            GuestError: it could not be started, or the channel was lost.
        """
        return await asyncio.shield(self._call.answer)

    def when_over(self, hears: Callable[[ProcessEnd | None], None]) -> None:
        """Has `hears` called once: with how it ended, or None if that can't be known."""

        def tell(answer: asyncio.Future[ProcessEnd]) -> None:
            known = not answer.cancelled() and answer.exception() is None
            hears(answer.result() if known else None)

        self._call.answer.add_done_callback(tell)

    async def abandon(self) -> None:
        """Nobody wants it any more: a terminal is hung up, anything else killed.

        Returns when it has ended, or can't be reached, or its agent does not tell.
        """
        with contextlib.suppress(GuestError, TimeoutError):
            self.signal(signal.SIGHUP if self._at_terminal else signal.SIGKILL)
            try:
                async with asyncio.timeout(_HANGUP_S):
                    await self._drain()
            except TimeoutError:
                self.signal(signal.SIGKILL)
                async with asyncio.timeout(_KILL_TAKES_S):
                    await self._drain()

    async def _drain(self) -> None:
        while await self.read() is not None:
            pass

    async def write(self, data: bytes, *, eof: bool = False) -> None:
        """Gives it input, the last with `eof`; returns when it may have more.

        What comes after its end, or after its own closing of its input, is dropped.
        """
        await self._session.feed(self._id, self._call, data, eof=eof)

    def release(self) -> bool:
        """Whoever wrote has gone: whether what it has sent is to be written still, without waiting.

        Only for processes that have a name.
        """
        return False

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal, if it has one."""
        self._say(wire.Resize(id=self._id, size=wire.Size(rows=rows, columns=columns)))

    def signal(self, number: int) -> None:
        """Signals its process group; KILL reaches what has left it too."""
        self._say(wire.Kill(id=self._id, signal=number))

    def _say(self, message: wire.ToGuest) -> None:
        if not self._call.answer.done():
            self._session.say(message)
