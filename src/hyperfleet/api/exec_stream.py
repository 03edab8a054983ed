"""Processes over a WebSocket: their input, output and end, at a terminal if asked.

What both sides say is in docs/reference/exec-stream.md. The client counts its input: what was sent
and not told as taken may be `MOST_INPUT` bytes, so that what else it says (signals, sizes, its
going away) is heard while a process does not read. Of a process that has a name the client tells
what output it has taken, and that it has heard of its end: the rest is kept for who attaches next.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Coroutine
from typing import Annotated, Any, NamedTuple

import msgspec
import pydantic
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.routing import compile_path
from starlette.types import Message

from hyperfleet.api.endpoints import ENDPOINTS
from hyperfleet.api.errors import respond
from hyperfleet.api.interface import ProcessStream
from hyperfleet.api.parts import Parts
from hyperfleet.api.request_log import log
from hyperfleet.api.route import KEY_SUBPROTOCOL, Guard, admit, check_query
from hyperfleet.api.stream_requests import MOST_CHARACTERS, StreamAttach, StreamExec
from hyperfleet.api.validation import explain, parse_json
from hyperfleet.errors import (
    ConflictError,
    HyperfleetError,
    NotFoundError,
    TooLargeError,
    ValidationError,
)
from hyperfleet.guest.values import Attachment, ProcessEnd, ProcessRequest

router = APIRouter()

_PATH = "/machines/{id}/exec"
_PATTERN = compile_path(_PATH)[0]

# Bytes of input that a client may have under way, and of one message.
MOST_INPUT = 1024 * 1024
# What a process that is kept gets of a client that has gone, to take what that has sent.
_HAND_OVER_S = 5.0
_STDOUT, _STDERR = b"\x01", b"\x02"
# Close codes (RFC 6455, 7.4.1).
_NORMAL, _POLICY, _FAILED = 1000, 1008, 1011

# Whose fault they are.
_THEIRS = ValidationError | TooLargeError | NotFoundError | ConflictError

_Characters = Annotated[int, msgspec.Meta(ge=1, le=MOST_CHARACTERS)]


class _Eof(msgspec.Struct, frozen=True, tag="eof", forbid_unknown_fields=True):
    """There is no more input."""


class _OutputTaken(msgspec.Struct, frozen=True, tag="output_taken", forbid_unknown_fields=True):
    """So much of the output of a process that has a name has been taken."""

    bytes: Annotated[int, msgspec.Meta(ge=1)]


class _EndTaken(msgspec.Struct, frozen=True, tag="end_taken", forbid_unknown_fields=True):
    """The end of a process that has a name has been heard."""


class _Resize(msgspec.Struct, frozen=True, tag="resize", forbid_unknown_fields=True):
    """The terminal has another size."""

    rows: _Characters
    columns: _Characters


class _Signal(msgspec.Struct, frozen=True, tag="signal", forbid_unknown_fields=True):
    """The process group gets a signal, by its name (INT) or its number."""

    signal: str | int

    @property
    def number(self) -> int:
        """Raises ValidationError: there is no such signal."""
        try:
            if isinstance(self.signal, int):
                return signal.Signals(self.signal).value
            return signal.Signals[f"SIG{self.signal.upper().removeprefix('SIG')}"].value
        except (KeyError, ValueError):
            raise ValidationError(
                "signal must be a signal's name, such as INT, or its number"
            ) from None


def is_stream(path: str) -> bool:
    """Whether this is where a WebSocket may be opened."""
    return _PATTERN.match(path) is not None


_Order = _Eof | _Resize | _Signal | _OutputTaken | _EndTaken
_orders: msgspec.json.Decoder[_Order] = msgspec.json.Decoder(_Order)


@router.websocket(_PATH, name="stream_exec")
async def stream_exec(websocket: WebSocket) -> None:
    """Runs one process, which ends with the connection if it has not ended before.

    Or one that has a name, which is kept, and which can be attached to.
    """
    guard: Guard = websocket.app.state.guard
    parts: Parts = websocket.app.state.parts
    ref = websocket.path_params["id"]
    try:
        await admit(websocket, ENDPOINTS["stream_exec"], guard)
        check_query(websocket, None)
        # Told before the connection is another one, where there is a status for it.
        parts.machines.get(ref)
    except HyperfleetError as error:
        await websocket.send_denial_response(respond(error))
        return
    offered = websocket.scope.get("subprotocols", [])
    spoken = [name for name in offered if not name.startswith(KEY_SUBPROTOCOL)]
    await websocket.accept(subprotocol=spoken[0] if spoken else None)
    began = time.monotonic()
    outcome = "gone"
    try:
        begun = await _begin(websocket, parts, guard, ref)
        if begun is not None:
            stream, kept = begun
            end = await _Carriage(websocket, stream).carry(kept)
            if end is not None:
                outcome = f"exit {end.exit_code}"
                # Whoever reads of it may rely on what goes before: a name that is free.
                await _reaches(websocket.close(_NORMAL))
    except HyperfleetError as error:
        outcome = error.code
        await _fail(websocket, error)
    except Exception:  # noqa: BLE001 - told to the client, and the log has it
        outcome = "INTERNAL_ERROR"
        log.exception("exec stream failed", path=websocket.url.path)
        await _fail(websocket, HyperfleetError("something went wrong; the server's log has it"))
    finally:
        log.info(
            "exec stream",
            path=websocket.url.path,
            outcome=outcome,
            ms=round((time.monotonic() - began) * 1000, 1),
        )


async def _begin(
    websocket: WebSocket, parts: Parts, guard: Guard, ref: str
) -> tuple[ProcessStream, _Place] | None:
    """The process that the first message asks for; None when the client has gone."""
    try:
        async with asyncio.timeout(guard.arrival_s):
            message = await websocket.receive()
    except TimeoutError:
        raise ValidationError(
            f"The first message, which names the process, did not come within {guard.arrival_s:g} s"
        ) from None
    if message["type"] != "websocket.receive":
        return None
    text = message.get("text")
    if text is None:
        raise ValidationError(
            "The first message must be text: a JSON object that names the process"
        )
    asked = _asked(text)
    processes = parts.machines.processes(ref)
    machine_id = parts.machines.get(ref).id
    if isinstance(asked, StreamAttach):
        place = _Place(machine_id, asked.attach)
        if (before := _carriages.get(place)) is not None:
            # What it was sent goes before what is sent from here on.
            await before.hand_over()
        return await processes.attach(asked.attach), place
    terminal = asked.terminal
    request = ProcessRequest(
        argv=asked.argv,
        cwd=asked.cwd,
        env=asked.env,
        stdin=asked.stdin,
        terminal=(terminal.rows, terminal.columns) if terminal is not None else None,
        timeout=asked.timeout,
        name=asked.name,
    )
    return await processes.run(request), _Place(machine_id, asked.name)


def _asked(text: str) -> StreamExec | StreamAttach:
    document = parse_json(text.encode("utf-8", "surrogatepass"))
    attaches = isinstance(document, dict) and "attach" in document
    model = StreamAttach if attaches else StreamExec
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        wrong: list[dict[str, Any]] = [
            {**one, "loc": ("body", *one["loc"])} for one in error.errors()
        ]
        raise ValidationError(explain(wrong, model, None)) from error


class _Place(NamedTuple):
    """Where a process is kept; without a name it is not."""

    machine_id: str
    name: str | None


# The last that was attached to each process that is kept.
_carriages: dict[_Place, _Carriage] = {}


class _Carriage:
    """Between one client and one process."""

    def __init__(self, websocket: WebSocket, stream: ProcessStream) -> None:
        self._websocket = websocket
        self._stream = stream
        # Input that the process has not taken; the last ends it.
        self._input: deque[tuple[bytes, bool]] = deque()
        self._waiting = 0
        self._ended = False
        self._gone = False
        self._news = asyncio.Event()
        # All that came is written.
        self._written = asyncio.Event()
        self._written.set()
        self._end_told = False
        self._end_taken = asyncio.Event()

    async def carry(self, place: _Place) -> ProcessEnd | None:
        """Carries until one of the two is done, and tells the agent that nobody is attached.

        What a client that goes has sent to a process that is kept, is handed to that before.

        Returns:
            How the process ended, when the client has been told; None: the client has gone.

        Raises:
            ValidationError, TooLargeError: the client said what is not to be said.
            NotFoundError, ConflictError: of a name: no process has it, or one has, or another
                client has attached to it.
            GuestError: the process could not be started, or was lost.
        """
        if place.name is not None:
            _carriages[place] = self
        telling = asyncio.create_task(self._tell())
        hearing = asyncio.create_task(self._hear())
        feeding = asyncio.create_task(self._feed())
        carrying = (telling, hearing)
        try:
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                return telling.result()
            # Raises what the client did wrong.
            hearing.result()
            return None
        finally:
            await _cancel(*carrying)
            self._gone = True
            await self.hand_over()
            await _cancel(feeding)
            if _carriages.get(place) is self:
                del _carriages[place]
            await self._stream.abandon()

    async def hand_over(self) -> None:
        """Has a process that is kept get what its client has sent, as far as it can be had to."""
        if self._stream.release():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HAND_OVER_S):
                    await self._written.wait()

    async def _tell(self) -> ProcessEnd | None:
        attachment = await self._stream.attached()
        if attachment is not None and not await self._say(_attached(attachment)):
            return None
        while (piece := await self._stream.read()) is not None:
            data = (_STDERR if piece.is_error else _STDOUT) + piece.data
            if not await _reaches(self._websocket.send_bytes(data)):
                return None
        end = await self._stream.ended()
        said = {
            "type": "exited",
            "exit_code": end.exit_code,
            "signal": end.signal,
            "timed_out": end.timed_out,
        }
        if await self._say(said) and attachment is not None:
            self._end_told = True
            await self._end_taken.wait()
        return end

    async def _say(self, said: dict[str, Any]) -> bool:
        return await _reaches(self._websocket.send_json(said))

    async def _hear(self) -> None:
        """Returns when the client has gone."""
        while True:
            message = await self._websocket.receive()
            if message["type"] != "websocket.receive":
                return
            self._take(message)

    def _take(self, message: Message) -> None:
        data = message.get("bytes")
        if data is not None:
            self._enqueue(data, last=False)
            return
        try:
            order = _orders.decode(message["text"])
        except msgspec.DecodeError as error:
            raise ValidationError(
                f"a text message is an order, such as eof, resize or signal; this is none: {error}"
            ) from error
        match order:
            case _Eof():
                self._enqueue(b"", last=True)
            case _Resize(rows=rows, columns=columns):
                self._stream.resize(rows, columns)
            case _Signal():
                self._stream.signal(order.number)
            case _OutputTaken(bytes=count):
                self._stream.taken(count)
            case _EndTaken():
                self._hear_end_taken()

    def _hear_end_taken(self) -> None:
        if not self._end_told:
            raise ValidationError("an end was told as taken that was not told")
        self._stream.end_taken()
        self._end_taken.set()

    def _enqueue(self, data: bytes, *, last: bool) -> None:
        if self._ended:
            raise ValidationError("there was input after its end")
        self._waiting += len(data)
        if self._waiting > MOST_INPUT:
            raise TooLargeError(
                f"over {MOST_INPUT} bytes of input wait: send more when it is told as taken"
            )
        self._ended = last
        self._input.append((data, last))
        self._written.clear()
        self._news.set()

    async def _feed(self) -> None:
        while True:
            while not self._input:
                self._written.set()
                self._news.clear()
                await self._news.wait()
            data, last = self._input.popleft()
            await self._stream.write(data, eof=last)
            self._waiting -= len(data)
            if data and not self._gone:
                await self._say({"type": "stdin_taken", "bytes": len(data)})


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _attached(attachment: Attachment) -> dict[str, Any]:
    return {"type": "attached", **msgspec.structs.asdict(attachment)}


async def _fail(websocket: WebSocket, error: HyperfleetError) -> None:
    """The last message, in the shape of every error; the client may have gone."""
    theirs = isinstance(error, _THEIRS)
    said = {"type": "error", "error": {"code": error.code, "message": error.message}}
    if await _reaches(websocket.send_json(said)):
        await _reaches(websocket.close(_POLICY if theirs else _FAILED))


async def _reaches(saying: Coroutine[Any, Any, None]) -> bool:
    """Says it; whether there was a client to say it to."""
    try:
        await saying
    except (WebSocketDisconnect, RuntimeError):
        return False
    return True
