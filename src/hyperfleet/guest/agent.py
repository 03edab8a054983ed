"""Client of a machine's agent, over the byte stream that a driver's `channel` gives.

One task reads the stream and hands each message to the call it belongs to; calls write for
themselves. Whatever breaks the protocol closes the channel: the guest is hostile, and a stream that
is out of step once is of no more use. The next session starts clean.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from hyperfleet.errors import GuestError, OperationTimeoutError, TooLargeError
from hyperfleet.guest.calls import (
    BrokenProtocolError,
    Call,
    ExecCall,
    ListenersCall,
    ProcessCall,
    RelayCall,
    SimpleCall,
    StreamCall,
    WatchCall,
    card,
    printable,
)
from hyperfleet.guest.handshake import Handshake
from hyperfleet.guest.stream import WINDOW, Stream, asked_for
from hyperfleet.guest.values import (
    ExecRequest,
    ExecResult,
    GuestNetwork,
    Listener,
    Mount,
    News,
    ProcessRequest,
)
from hyperfleet.machine import Restart
from hyperfleet.wire import WireError, slip
from hyperfleet.wire import guest as wire

T = TypeVar("T")

# Seconds for a call that has no time of its own.
_CALL_TIMEOUT = 10.0
# Seconds that the agent gets to tell of a process it has killed at its time limit.
_KILL_TAKES = 5.0
_READ_BYTES = 64 * 1024
_KILL_SIGNAL = 9
_MAX_NAME = 64
_MAX_ID = 2**32 - 1
# Calls under way, those given up and not answered yet counted; bytes that wait for the guest to
# read them. A guest that lets either grow so far is not served further.
_MAX_CALLS = 4096
_MAX_UNSENT = 4 * 1024 * 1024


class Agent:
    """A session with an agent. Made by `connect`; all its calls may run at once.

    When the channel is lost, every call under way and every later one raises GuestError.
    """

    agent_version: str
    boot_id: str

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        """For `connect` alone."""
        self._reader = reader
        self._writer = writer
        self._frames = slip.Reader()
        self._handshake = Handshake(self.say)
        self._calls: dict[int, Call[Any]] = {}
        self._last_id = 0
        self._lost: GuestError | None = None
        self._closed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        reader: StreamReader,
        writer: StreamWriter,
        *,
        timeout: float,  # noqa: ASYNC109
    ) -> Agent:
        """Opens a session on a stream just connected, within `timeout` seconds.

        The stream is the agent's from here on: `close` closes it, and so does a failure here.

        Raises:
            OperationTimeoutError: no agent answered in time.
            GuestError: it speaks another version of the protocol, or the channel was lost.
        """
        agent = cls(reader, writer)
        agent._reading = asyncio.create_task(agent._read(), name="guest agent: read")
        try:
            async with asyncio.timeout(timeout):
                welcome = await agent._handshake.shake()
        except TimeoutError:
            await agent.close()
            message = f"the guest's agent did not answer within {timeout:g} s"
            raise OperationTimeoutError(message) from None
        except BaseException:
            await agent.close()
            raise
        agent.agent_version = printable(welcome.agent[:_MAX_NAME])
        agent.boot_id = printable(welcome.boot_id[:_MAX_NAME])
        return agent

    async def configure(
        self,
        hostname: str,
        network: GuestNetwork | None,
        timeout: float = _CALL_TIMEOUT,  # noqa: ASYNC109
        *,
        disks: Iterable[Mount] = (),
    ) -> None:
        """Tells the guest its name, its network cards' addresses, its disks, and the time.

        With the first time it mounts its root disk.

        Raises:
            GuestError: the guest could not do it, or the channel was lost.
            OperationTimeoutError: it did not answer.
        """
        config = wire.Config(
            hostname=hostname,
            time_ns=time.time_ns(),
            network=card(network),
            outward=card(network.outward) if network is not None else None,
            disks=tuple(wire.Disk(serial=disk.serial, path=disk.path) for disk in disks),
        )
        call = SimpleCall(_future())
        self.begin(call, lambda call_id: wire.Configure(id=call_id, config=config))
        await self.end(call, timeout)

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Runs a process to its end.

        A program that is missing or can't be run comes back as a shell has it: exit code 127 or
        126 and a line on stderr. Cancelling kills the process and all of its group.

        Raises:
            OperationTimeoutError: the time limit came; the group has been killed.
            TooLargeError: arguments and environment are over the bound of one frame.
            GuestError: it could not be started, or the channel was lost.
        """
        asked = wire.ExecCall(
            argv=request.argv,
            env=tuple(request.env.items()),
            cwd=request.cwd,
            timeout_ms=max(1, round(request.timeout * 1000)),
            stdin=bool(request.stdin),
            output_limit=request.output_limit,
        )
        begun = time.monotonic()
        call = ExecCall(_future(), request.output_limit)
        call_id = self.begin(call, lambda call_id: wire.Exec(id=call_id, exec=asked))
        feeding = asyncio.create_task(
            self.feed(call_id, call, request.stdin, eof=bool(request.stdin))
        )
        try:
            async with asyncio.timeout(request.timeout + _KILL_TAKES):
                exited = await call.answer
        except TimeoutError:
            self._kill(call_id)
            raise _out_of_time(request.timeout) from None
        except asyncio.CancelledError:
            self._kill(call_id)
            raise
        finally:
            feeding.cancel()
        if exited.timed_out:
            raise _out_of_time(request.timeout)
        return ExecResult(
            exit_code=exited.exit_code,
            signal=exited.signal,
            stdout=bytes(call.stdout),
            stderr=bytes(call.stderr),
            truncated=exited.truncated,
            duration_ms=_milliseconds_since(begun),
        )

    def run(self, request: ProcessRequest) -> Stream:
        """Runs a process whose streams are carried while it runs.

        A program that is missing or can't be run ends as in `exec`.

        Raises:
            TooLargeError: arguments and environment are over the bound of one frame.
            GuestError: the channel was lost.
        """
        asked = msgspec.structs.replace(asked_for(request), output_window=WINDOW)
        call = StreamCall(_future(), WINDOW)
        call.takes_input = request.stdin
        call_id = self.begin(call, lambda call_id: wire.Exec(id=call_id, exec=asked))
        return Stream(self, call_id, call, at_terminal=request.terminal is not None)

    async def listeners(self, timeout: float = 5) -> list[Listener]:  # noqa: ASYNC109
        """Every listening TCP port of the guest, the agent's own apart.

        Raises:
            OperationTimeoutError: no answer within `timeout` seconds.
            GuestError: the channel was lost.
        """
        call = ListenersCall(_future())
        self.begin(call, lambda call_id: wire.Ports(id=call_id))
        return await self.end(call, timeout)

    async def supervise(
        self, argv: tuple[str, ...], env: dict[str, str], cwd: str | None, restart: Restart
    ) -> None:
        """Has the guest run the machine's command until it ends; nothing if it has done so before.

        Returns when it has taken that on; what becomes of it, `watch` tells.

        Raises:
            GuestError: the guest has no disk, its agent is too old, or the channel was lost.
            OperationTimeoutError: it did not answer.
        """
        command = wire.CommandCall(
            argv=argv, env=tuple(env.items()), cwd=cwd, restart=restart.value
        )
        call = SimpleCall(_future())
        self.begin(call, lambda call_id: wire.Supervise(id=call_id, command=command))
        await self.end(call, _CALL_TIMEOUT)

    async def watch(self, seen: int) -> News:
        """Returns when something has happened: sockets listen anew, or the command's state changed.

        `seen` is the number of the last news, 0 at first. There is no time limit: in a guest that
        can't tell, they never come.

        Raises:
            GuestError: the agent is too old, or the channel was lost (`lost`).
        """
        call = WatchCall(_future())
        self.begin(call, lambda call_id: wire.Watch(id=call_id, seen=seen))
        return await call.answer

    async def relay(self, address: str, port: int) -> int:
        """A port on the guest's address that leads to its server at `address`:`port`.

        Raises:
            GuestError: the agent could not make it, or the channel was lost.
            OperationTimeoutError: it did not answer.
        """
        call = RelayCall(_future())
        self.begin(call, lambda call_id: wire.RelayCall(id=call_id, address=address, port=port))
        return await self.end(call, _CALL_TIMEOUT)

    async def shutdown(self, grace: float) -> None:
        """Asks the guest to end all processes and power off.

        `grace` seconds after TERM comes KILL. Returns when the agent has taken it on;
        that the machine is off, its process tells.

        Raises:
            GuestError: the channel was lost before.
            OperationTimeoutError: it did not answer.
        """
        grace_ms = round(grace * 1000)
        call = SimpleCall(_future())
        self.begin(call, lambda call_id: wire.Shutdown(id=call_id, grace_ms=grace_ms))
        await self.end(call, _CALL_TIMEOUT)

    async def sync(self) -> None:
        """Returns when what the guest has written is on its disks.

        Raises:
            GuestError: the channel was lost, or the agent is too old.
            OperationTimeoutError: it did not answer.
        """
        call = SimpleCall(_future())
        self.begin(call, lambda call_id: wire.Sync(id=call_id))
        await self.end(call, _CALL_TIMEOUT)

    async def ping(self, timeout: float) -> None:  # noqa: ASYNC109
        """Returns when the agent has answered.

        Raises:
            OperationTimeoutError: it did not within `timeout` seconds.
            GuestError: the channel was lost.
        """
        call = SimpleCall(_future())
        self.begin(call, lambda call_id: wire.Ping(id=call_id))
        await self.end(call, timeout)

    async def close(self) -> None:
        """Closes the channel. The guest's processes run on; calls under way raise GuestError."""
        self._lose(GuestError("the channel to the guest's agent was closed"))
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @property
    def lost(self) -> bool:
        """Whether the channel is lost or closed; calls would fail."""
        return self._closed.is_set()

    @property
    def fault(self) -> str | None:
        """What the guest did against the protocol, when the channel was given up for that."""
        return self._lost.message if isinstance(self._lost, BrokenProtocolError) else None

    async def closed(self) -> None:
        """Returns when the channel is lost or closed."""
        await self._closed.wait()

    def begin(self, call: Call[Any], message: Callable[[int], wire.ToGuest]) -> int:
        """Sends a call with an id that is free in this session, and enters it. Gives the id.

        For `guest.kept` and here alone, as `end` is.
        """
        if len(self._calls) >= _MAX_CALLS:
            raise GuestError(f"the guest's agent has left {_MAX_CALLS} calls unanswered")
        if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT:
            raise GuestError("the guest's agent does not read what it is asked")
        call_id = self._last_id
        while call_id == self._last_id or call_id in self._calls:
            call_id = call_id % _MAX_ID + 1
        self.say(message(call_id))
        self._last_id = call_id
        self._calls[call_id] = call
        return call_id

    async def end(self, call: Call[T], limit: float = _CALL_TIMEOUT) -> T:
        """What a call that was begun comes to."""
        # The entry stays when the wait is given up: the answer that still comes is then known.
        try:
            async with asyncio.timeout(limit):
                return await call.answer
        except TimeoutError:
            text = f"the guest's agent did not answer within {limit:g} s"
            raise OperationTimeoutError(text) from None

    async def feed(self, call_id: int, call: ProcessCall, data: bytes, *, eof: bool) -> None:
        """Sends standard input as far as the process takes it; for `Stream` and here alone.

        Returns when all is sent, or nobody takes it any more.
        """
        unsent = memoryview(data)
        ended = not (unsent or eof)
        with contextlib.suppress(GuestError, OSError):
            while not ended and call.takes_input and not call.answer.done():
                room = min(wire.MAX_CHUNK, call.input_window - call.under_way)
                if room <= 0:
                    call.credit.clear()
                    await call.credit.wait()
                    continue
                piece, unsent = bytes(unsent[:room]), unsent[room:]
                ended = not unsent
                call.under_way += len(piece)
                self.say(wire.Stdin(id=call_id, data=piece, eof=eof and ended))
                await self._writer.drain()

    def _kill(self, call_id: int) -> None:
        # Lost: the guest's agent ends the process at its time limit.
        with contextlib.suppress(GuestError):
            self.say(wire.Kill(id=call_id, signal=_KILL_SIGNAL))

    def say(self, message: wire.ToGuest) -> None:
        """Sends one message; for `Stream` and here alone.

        Raises:
            GuestError: the channel is lost.
            TooLargeError: it is over the bound of one frame.
        """
        if self._lost is not None:
            raise GuestError(self._lost.message)
        payload = wire.encode(message)
        if len(payload) > slip.MAX_PAYLOAD:
            raise TooLargeError(
                f"command, environment and directory come to {len(payload)} bytes, "
                f"over {slip.MAX_PAYLOAD}"
            )
        self._writer.write(slip.frame(payload))

    async def _read(self) -> None:
        """Reads until the channel is lost, by its own end, by an error, or by what came."""
        error = GuestError("the channel to the guest's agent was lost")
        try:
            while data := await self._reader.read(_READ_BYTES):
                self._handshake.count(len(data))
                for payload in self._frames.feed(data):
                    self._take(payload)
                if self._handshake.done and self._frames.overlong:
                    # Its end need not come.
                    raise BrokenProtocolError(f"frame is larger than {slip.MAX_PAYLOAD} bytes")
                await asyncio.sleep(0)  # `read` does not pause while there are bytes.
        except GuestError as reason:
            error = reason
        except WireError as reason:
            error = BrokenProtocolError(reason.message)
        except OSError as reason:
            error = GuestError(f"the channel to the guest's agent was lost: {reason}")
        finally:
            self._lose(error)

    def _take(self, payload: bytes | WireError) -> None:
        if not self._handshake.done:
            self._handshake.take(payload)
            return
        if isinstance(payload, WireError):
            raise payload
        message = wire.decode_from_guest(payload)
        if isinstance(message, wire.Welcome):
            self._handshake.take_again(message)
            return
        if isinstance(message, wire.Refused) and message.id == 0:
            reason = f"{printable(message.code)}: {printable(message.message)}"
            raise GuestError(f"the guest's agent did not understand the host: {reason}")
        call = self._calls.get(message.id)
        if call is None:
            raise BrokenProtocolError("an answer to a call that was never made")
        if call.take(message):
            del self._calls[message.id]

    def _lose(self, error: GuestError) -> None:
        if self._lost is not None:
            return
        self._lost = error
        self._handshake.lose(error)
        for call in self._calls.values():
            call.fail(GuestError(error.message))
        self._calls.clear()
        self._writer.close()
        self._closed.set()


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _milliseconds_since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)


def _out_of_time(limit: float) -> OperationTimeoutError:
    return OperationTimeoutError(f"the process was killed at its time limit of {limit:g} s")
