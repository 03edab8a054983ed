"""Calls to the agent that are under way: what may come back for each, and what it comes to.

No I/O. The guest is hostile: an answer that the protocol does not allow raises BrokenProtocolError,
and whoever reads the channel gives it up.
"""

from __future__ import annotations

import ipaddress
import signal
from abc import ABC, abstractmethod
from asyncio import Event, Future
from collections import deque
from typing import Generic, TypeVar

from hyperfleet.errors import GuestError, HyperfleetError
from hyperfleet.guest.values import GuestNetwork, Listener, News, Piece, ProcessEnd
from hyperfleet.machine import CommandPhase, CommandState
from hyperfleet.wire import guest as wire

T = TypeVar("T")

_MAX_PORT = 65535
# What nearly all servers bind: to parse it each time is a tenth of what a look costs.
_EVERYDAY_ADDRESSES = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})
_MAX_EXIT_CODE = 255
_MAX_SIGNAL = 64
_FIRST_REALTIME_SIGNAL = 34
# A shell's exit code for what signal n killed, less n (POSIX XCU 2.8.2).
_SIGNALLED = 128
_MAX_TEXT = 1000
# A piece of output that has not been taken and is smaller has the next one added to it.
_CRUMB_BYTES = 4096
# The exit codes of a shell (POSIX XCU 2.8.2) for what the agent refuses.
SHELL_CODES = {"not_found": 127, "not_executable": 126}


class BrokenProtocolError(GuestError):
    """The guest said what no agent says. `what` may have its words in it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the guest broke the agent's protocol: {printable(what)}")


class Call(ABC, Generic[T]):
    """A call that ends with one message. `answer` is what it comes to."""

    def __init__(self, answer: Future[T]) -> None:
        self.answer = answer

    def take(self, message: wire.FromGuest) -> bool:
        """Takes the guest's next message for this call; True when it ended the call.

        Raises:
            BrokenProtocolError: this call can't get that message.
        """
        if isinstance(message, wire.Refused):
            self.fail(self.refused(message))
        else:
            value = self.ending(message)
            if not self.answer.done():
                self.answer.set_result(value)
        return True

    def refused(self, message: wire.Refused) -> HyperfleetError:
        """What a refusal means."""
        return GuestError(printable(message.message))

    @abstractmethod
    def ending(self, message: wire.FromGuest) -> T:
        """What the call's last message comes to."""

    def fail(self, error: HyperfleetError) -> None:
        """Ends the call with `error`, if it has not ended."""
        if not self.answer.done():
            self.answer.set_exception(error)


class SimpleCall(Call[None]):
    """configure, supervise, ping, shutdown."""

    def ending(self, message: wire.FromGuest) -> None:
        if not isinstance(message, wire.Done):
            raise _unexpected(message)


class ListenersCall(Call[list[Listener]]):
    """ports."""

    def ending(self, message: wire.FromGuest) -> list[Listener]:
        if not isinstance(message, wire.Listeners):
            raise _unexpected(message)
        return [_listener(found) for found in message.listeners]


class WatchCall(Call[News]):
    """watch."""

    def ending(self, message: wire.FromGuest) -> News:
        if not isinstance(message, wire.News):
            raise _unexpected(message)
        command = None if message.command is None else _command(message.command)
        return News(number=message.number, command=command)


class RelayCall(Call[int]):
    """relay."""

    def ending(self, message: wire.FromGuest) -> int:
        if not isinstance(message, wire.Relay):
            raise _unexpected(message)
        return _port(message.port)


class ProcessCall(Call[ProcessEnd]):
    """exec, of either kind: the credit for its input."""

    def __init__(self, answer: Future[ProcessEnd]) -> None:
        super().__init__(answer)
        # Bytes of standard input sent and not yet taken by the process.
        self.under_way = 0
        # How many there may be.
        self.input_window = wire.STDIN_WINDOW
        # What it is given else is dropped.
        self.takes_input = True
        self.credit = Event()
        # Whoever waits for it has nothing to wait for.
        answer.add_done_callback(lambda _: self.credit.set())

    def take(self, message: wire.FromGuest) -> bool:
        if isinstance(message, wire.Stdout | wire.Stderr):
            if not message.data:
                raise BrokenProtocolError("output of no bytes")
            self.keep(message.data, is_error=isinstance(message, wire.Stderr))
        elif isinstance(message, wire.StdinTaken):
            if not 0 < message.bytes <= self.under_way:
                raise BrokenProtocolError("more input taken than was sent")
            self.under_way -= message.bytes
            self.credit.set()
        elif isinstance(message, wire.Refused) and message.code in SHELL_CODES:
            self.complain(printable(message.message).encode() + b"\n")
            if not self.answer.done():
                end = ProcessEnd(exit_code=SHELL_CODES[message.code], signal=None)
                self.answer.set_result(end)
            return True
        else:
            return super().take(message)
        return False

    @abstractmethod
    def keep(self, data: bytes, *, is_error: bool) -> None:
        """Takes a piece of its output."""

    @abstractmethod
    def complain(self, words: bytes) -> None:
        """Adds a line of ours to its standard error, as a shell would."""

    def ending(self, message: wire.FromGuest) -> ProcessEnd:
        if not isinstance(message, wire.Exited):
            raise _unexpected(message)
        return _end(message)


class ExecCall(ProcessCall):
    """Its output is kept whole, at most `limit` bytes of each stream."""

    def __init__(self, answer: Future[ProcessEnd], limit: int) -> None:
        super().__init__(answer)
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._limit = limit

    def keep(self, data: bytes, *, is_error: bool) -> None:
        stream = self.stderr if is_error else self.stdout
        if len(stream) + len(data) > self._limit:
            raise BrokenProtocolError("more output than was asked for")
        # One given up (cancelled) is waited for, its output is not.
        if not self.answer.done():
            stream += data

    def complain(self, words: bytes) -> None:
        self.stderr += words


class StreamCall(ProcessCall):
    """Its output is taken piece by piece; what comes beyond `window` bytes was not asked for."""

    def __init__(self, answer: Future[ProcessEnd], window: int) -> None:
        super().__init__(answer)
        # What has come and was not taken, in order; a word for whoever waits for more.
        self.pieces: deque[Piece] = deque()
        self.news = Event()
        # Bytes that came and were not granted anew.
        self.outstanding = 0
        self._window = window
        answer.add_done_callback(lambda _: self.news.set())

    def complain(self, words: bytes) -> None:
        self.pieces.append(Piece(data=words, is_error=True))

    def keep(self, data: bytes, *, is_error: bool) -> None:
        self.outstanding += len(data)
        if self.outstanding > self._window:
            raise BrokenProtocolError("more output than was asked for")
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.is_error is is_error and len(last.data) < _CRUMB_BYTES:
            # Told byte by byte, a window would take a hundred times its bytes.
            self.pieces[-1] = Piece(data=last.data + data, is_error=is_error)
        else:
            self.pieces.append(Piece(data=data, is_error=is_error))
        self.news.set()


def printable(text: str) -> str:
    """The guest's words, fit for a log line and an answer: bounded, without controls."""
    text = text[:_MAX_TEXT]
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def card(network: GuestNetwork | None) -> wire.Network | None:
    """A network card's addresses as `configure` has them."""
    if network is None:
        return None
    return wire.Network(
        address=network.address,
        gateway=network.gateway,
        dns=network.dns,
        mac=network.mac,
        found_as=network.found_as,
    )


def _end(message: wire.Exited) -> ProcessEnd:
    exit_code, signal_name = ending_of(message.code, message.signal)
    return ProcessEnd(
        exit_code=exit_code,
        signal=signal_name,
        timed_out=message.timed_out,
        truncated=message.truncated,
    )


def _command(message: wire.CommandMessage) -> CommandState:
    phase = CommandPhase(message.state)
    if message.code is None and message.signal is None:
        if phase is not CommandPhase.RUNNING:
            raise BrokenProtocolError("a command that has ended needs an end")
        return CommandState(state=phase, restarts=message.restarts)
    exit_code, signal_name = ending_of(message.code, message.signal)
    return CommandState(
        state=phase, exit_code=exit_code, signal=signal_name, restarts=message.restarts
    )


def ending_of(code: int | None, number: int | None) -> tuple[int, str | None]:
    """A shell's exit code for it, and the signal's name if there was one."""
    if (code is None) == (number is None):
        raise BrokenProtocolError("an exit needs either a code or a signal")
    if code is not None and not 0 <= code <= _MAX_EXIT_CODE:
        raise BrokenProtocolError(f"exit code {code}")
    if number is not None and not 1 <= number <= _MAX_SIGNAL:
        raise BrokenProtocolError(f"signal {number}")
    if number is not None:
        return _SIGNALLED + number, _signal_name(number)
    return code or 0, None


def _signal_name(number: int) -> str:
    """`KILL`, or `RTMIN+1` for one without a name of its own."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - _FIRST_REALTIME_SIGNAL}"


def _listener(found: wire.ListenerMessage) -> Listener:
    if found.address not in _EVERYDAY_ADDRESSES:
        try:
            address = ipaddress.ip_address(found.address)
        except ValueError:
            raise BrokenProtocolError("a listener's address is none") from None
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            raise BrokenProtocolError("a listener's address has a scope")
    return Listener(port=_port(found.port), address=found.address, direct=found.direct)


def _port(port: int) -> int:
    if not 1 <= port <= _MAX_PORT:
        raise BrokenProtocolError(f"port {port}")
    return port


def _unexpected(message: wire.FromGuest) -> BrokenProtocolError:
    return BrokenProtocolError(f"{type(message).__name__} is no answer to what was asked")
