"""Processes in a guest that have a name: they outlive whoever is attached to them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta

from hyperfleet.errors import (
    ConflictError,
    GuestError,
    HyperfleetError,
    NotFoundError,
    ValidationError,
)
from hyperfleet.guest.calls import (
    BrokenProtocolError,
    Call,
    SimpleCall,
    StreamCall,
    ending_of,
    printable,
)
from hyperfleet.guest.stream import WINDOW, Session, Stream, asked_for
from hyperfleet.guest.values import Attachment, KeptProcess, ProcessEnd, ProcessRequest
from hyperfleet.wire import guest as wire

# A DNS label.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
# What the agent gets to tell that a call is attached to nothing any more.
_DETACH_TAKES_S = 5.0
_ERRORS: dict[str, type[HyperfleetError]] = {
    "name_taken": ConflictError,
    "replaced": ConflictError,
    "no_process": NotFoundError,
}
_TOO_OLD = "the machine's agent is too old to keep processes: stop the machine and start it again"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def keep(session: Session, name: str, request: ProcessRequest) -> KeptStream:
    """Runs a process and keeps it under `name`; it ends as in `Agent.run`.

    Raises:
        TooLargeError: arguments and environment are over the bound of one frame.
        GuestError: the channel was lost.
    """
    asked = asked_for(request)
    call = _AttachedCall()
    call_id = session.begin(
        call, lambda call_id: wire.Keep(id=call_id, name=name, output_window=WINDOW, exec=asked)
    )
    return KeptStream(session, call_id, call)


def attach(session: Session, name: str) -> KeptStream:
    """Attaches to the process that is kept under `name`; whoever is attached is told and left out.

    Raises:
        GuestError: the channel was lost.
    """
    call = _AttachedCall()
    call_id = session.begin(
        call, lambda call_id: wire.Attach(id=call_id, name=name, output_window=WINDOW)
    )
    return KeptStream(session, call_id, call)


async def kept(session: Session) -> list[KeptProcess]:
    """All kept processes, the oldest first.

    Raises:
        GuestError: the agent is too old, or the channel was lost.
        OperationTimeoutError: it did not answer.
    """
    call = _KeptCall(asyncio.get_running_loop().create_future())
    session.begin(call, lambda call_id: wire.Kept(id=call_id))
    return await session.end(call)


async def forget(session: Session, name: str) -> None:
    """Kills the process that is kept under `name`; the name is free.

    Raises:
        NotFoundError: there is none.
        GuestError, OperationTimeoutError: as `kept`.
    """
    call = _ForgetCall(asyncio.get_running_loop().create_future())
    session.begin(call, lambda call_id: wire.Forget(id=call_id, name=name))
    await session.end(call)


class KeptStream(Stream):
    """Made by `keep` and `attach`. One reader at a time, which says what it has `taken`.

    What is not taken comes again to who attaches next, also when the channel is lost. The errors
    of `read` and `ended` are NotFoundError (no process of that name) and ConflictError (the name is
    taken; another has attached) as well.
    """

    def __init__(self, session: Session, call_id: int, call: _AttachedCall) -> None:
        """For `keep` and `attach` alone."""
        super().__init__(session, call_id, call, at_terminal=False)
        self._attached_call = call
        self._not_taken = 0
        self._end_taken = False

    async def attached(self) -> Attachment | None:
        """How it was found; None: it could not be run, as a shell has it."""
        attachment = await asyncio.shield(self._attached_call.attachment)
        if attachment is None:
            # Raises what it was refused or lost by.
            self._call.answer.result()
        return attachment

    def taken(self, count: int) -> None:
        """So much of what was read is not needed again.

        Raises:
            ValidationError: it is more than was read.
            GuestError: the channel was lost.
        """
        if not 0 < count <= self._not_taken:
            raise ValidationError("more output is told as taken than was told")
        self._not_taken -= count
        if not self._call.answer.done():
            self._call.outstanding -= count
        if self._is_there:
            self._session.say(wire.OutputTaken(id=self._id, bytes=count))

    def end_taken(self) -> None:
        """Its end, which has been read, is not needed again: `abandon` has it forgotten."""
        self._end_taken = True

    def release(self) -> bool:
        """What is written from now on goes to the agent at once, which keeps it; True."""
        self._attached_call.release()
        return True

    async def abandon(self) -> None:
        """Nobody is attached any more: it is kept, and runs on."""
        with contextlib.suppress(HyperfleetError, TimeoutError):
            if self._end_taken and self.over:
                if self._is_there:
                    self._session.say(wire.EndTaken(id=self._id))
                return
            self.detached = True
            if self._is_there:
                self._session.say(wire.Detach(id=self._id))
            async with asyncio.timeout(_DETACH_TAKES_S):
                await self._drain()

    @property
    def _is_there(self) -> bool:
        """Whether the agent knows the call: nothing was refused, and the channel is not lost."""
        answer = self._call.answer
        return not answer.done() or (not answer.cancelled() and answer.exception() is None)

    def _has_read(self, count: int) -> None:
        self._not_taken += count


class _AttachedCall(StreamCall):
    """keep, attach: first it is told how its process was found."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop.create_future(), WINDOW)
        self.attachment: asyncio.Future[Attachment | None] = loop.create_future()
        # How much input is under way from earlier hosts is not known yet, so there may be none.
        self.under_way = wire.STDIN_WINDOW
        self._input_limit = wire.STDIN_WINDOW
        self._released = False
        self.answer.add_done_callback(self._unattached)

    def _unattached(self, _: asyncio.Future[ProcessEnd]) -> None:
        if not self.attachment.done():
            self.attachment.set_result(None)

    def release(self) -> None:
        """Input is held up by the agent's bound alone, when that is known."""
        self._released = True
        self.input_window = self._input_limit
        self.credit.set()

    def take(self, message: wire.FromGuest) -> bool:
        if isinstance(message, wire.Refused):
            return super().take(message)
        if isinstance(message, wire.Attached) == self.attachment.done():
            raise BrokenProtocolError("a call is attached once, before all else")
        if isinstance(message, wire.Attached):
            self._attach(message)
            return False
        if isinstance(message, wire.Done):
            self.fail(GuestError("nobody is attached to the process any more"))
            return True
        return super().take(message)

    def refused(self, message: wire.Refused) -> HyperfleetError:
        return _refusal(message)

    def _attach(self, message: wire.Attached) -> None:
        if message.dropped > message.offset or message.input > message.stdin_limit:
            raise BrokenProtocolError("a process was found as none can be")
        self.under_way = message.input
        self.takes_input = message.stdin
        self._input_limit = message.stdin_limit
        if self._released:
            self.input_window = self._input_limit
        self.credit.set()
        self.attachment.set_result(
            Attachment(
                offset=message.offset,
                dropped=message.dropped,
                stdin=message.stdin,
                terminal=message.terminal,
            )
        )


class _ForgetCall(SimpleCall):
    """forget."""

    def refused(self, message: wire.Refused) -> HyperfleetError:
        return _refusal(message)


class _KeptCall(Call[list[KeptProcess]]):
    """kept."""

    def refused(self, message: wire.Refused) -> HyperfleetError:
        return _refusal(message)

    def ending(self, message: wire.FromGuest) -> list[KeptProcess]:
        if not isinstance(message, wire.KeptProcesses):
            raise BrokenProtocolError(f"{type(message).__name__} is no answer to what was asked")
        return [_kept(found) for found in message.processes]


def _refusal(message: wire.Refused) -> HyperfleetError:
    if message.code == "unknown_message":
        return GuestError(_TOO_OLD)
    return _ERRORS.get(message.code, GuestError)(printable(message.message))


def _kept(found: wire.KeptProcessMessage) -> KeptProcess:
    if not _NAME.fullmatch(found.name):
        raise BrokenProtocolError("a process's name is none")
    exit_code, signal = None, None
    if found.code is not None or found.signal is not None:
        exit_code, signal = ending_of(found.code, found.signal)
    return KeptProcess(
        name=found.name,
        argv=found.argv,
        since=_EPOCH + timedelta(microseconds=found.since_ns // 1000),
        attached=found.attached,
        terminal=found.terminal,
        exit_code=exit_code,
        signal=signal,
        untaken=found.untaken,
        dropped=found.dropped,
    )
