"""Calls to the agent that are under way: what may come back for each, and what it comes to.

No I/O. The guest is hostile: an answer that the protocol does not allow raises BrokenProtocolError,
and whoever reads the channel gives it up.
"""

from __future__ import annotations

import ipaddress
import signal
from abc import ABC, abstractmethod
from asyncio import Event, Future
from typing import Generic, TypeVar

from hyperfleet.errors import GuestError
from hyperfleet.guest.values import Listener
from hyperfleet.wire import guest as wire

T = TypeVar("T")

_MAX_PORT = 65535
_MAX_EXIT_CODE = 255
_MAX_SIGNAL = 64
_FIRST_REALTIME_SIGNAL = 34
_MAX_TEXT = 1000


class BrokenProtocolError(GuestError):
    """The guest said what no agent says."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the guest broke the agent's protocol: {what}")


class RefusedError(GuestError):
    """The agent could not or would not do it; `reason` is the code of the wire's `Refused`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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
            self.fail(RefusedError(message.code, printable(message.message)))
        else:
            value = self.ending(message)
            if not self.answer.done():
                self.answer.set_result(value)
        return True

    @abstractmethod
    def ending(self, message: wire.FromGuest) -> T:
        """What the call's last message comes to."""

    def fail(self, error: GuestError) -> None:
        """Ends the call with `error`, if it has not ended."""
        if not self.answer.done():
            self.answer.set_exception(error)


class SimpleCall(Call[None]):
    """configure, ping, shutdown."""

    def ending(self, message: wire.FromGuest) -> None:
        if not isinstance(message, wire.Done):
            raise _unexpected(message)


class ListenersCall(Call[list[Listener]]):
    """ports."""

    def ending(self, message: wire.FromGuest) -> list[Listener]:
        if not isinstance(message, wire.Listeners):
            raise _unexpected(message)
        return [_listener(found) for found in message.listeners]


class RelayCall(Call[int]):
    """relay."""

    def ending(self, message: wire.FromGuest) -> int:
        if not isinstance(message, wire.Relay):
            raise _unexpected(message)
        return _port(message.port)


class Exited:
    """How a process ended. Exactly one of `code` and `signal` is set."""

    def __init__(self, message: wire.Exited) -> None:
        self.code = message.code
        self.signal = message.signal
        self.timed_out = message.timed_out
        self.truncated = message.truncated
        if (self.code is None) == (self.signal is None):
            raise BrokenProtocolError("an exit needs either a code or a signal")
        if self.code is not None and not 0 <= self.code <= _MAX_EXIT_CODE:
            raise BrokenProtocolError(f"exit code {self.code}")
        if self.signal is not None and not 1 <= self.signal <= _MAX_SIGNAL:
            raise BrokenProtocolError(f"signal {self.signal}")

    @property
    def exit_code(self) -> int:
        """As a shell has it: 128 + n for signal n."""
        if self.code is not None:
            return self.code
        return 128 + (self.signal or 0)

    @property
    def signal_name(self) -> str | None:
        """`KILL`, or `RTMIN+1` for one without a name of its own."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name.removeprefix("SIG")
        except ValueError:
            return f"RTMIN+{self.signal - _FIRST_REALTIME_SIGNAL}"


class ExecCall(Call[Exited]):
    """exec: its output, at most `limit` bytes of each stream, and the credit for its input."""

    def __init__(self, answer: Future[Exited], limit: int) -> None:
        super().__init__(answer)
        self.stdout = bytearray()
        self.stderr = bytearray()
        # Bytes of standard input sent and not yet taken by the process.
        self.under_way = 0
        self.credit = Event()
        self._limit = limit

    def take(self, message: wire.FromGuest) -> bool:
        if isinstance(message, wire.Stdout):
            self._keep(self.stdout, message.data)
        elif isinstance(message, wire.Stderr):
            self._keep(self.stderr, message.data)
        elif isinstance(message, wire.StdinTaken):
            if not 0 < message.bytes <= self.under_way:
                raise BrokenProtocolError("more input taken than was sent")
            self.under_way -= message.bytes
            self.credit.set()
        else:
            return super().take(message)
        return False

    def ending(self, message: wire.FromGuest) -> Exited:
        if not isinstance(message, wire.Exited):
            raise _unexpected(message)
        return Exited(message)

    def _keep(self, stream: bytearray, data: bytes) -> None:
        if len(stream) + len(data) > self._limit:
            raise BrokenProtocolError("more output than was asked for")
        # One given up (cancelled) is waited for, its output is not.
        if not self.answer.done():
            stream += data


def printable(text: str) -> str:
    """The guest's words, fit for a log line and an answer: bounded, without controls."""
    text = text[:_MAX_TEXT]
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _listener(found: wire.ListenerMessage) -> Listener:
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
