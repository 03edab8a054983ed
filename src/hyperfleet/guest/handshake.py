"""How a session with an agent begins: hellos until one is welcomed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from hyperfleet.errors import GuestError
from hyperfleet.guest.calls import BrokenProtocolError, printable
from hyperfleet.wire import WireError
from hyperfleet.wire import guest as wire

# Seconds between hellos while no welcome comes: the first, the factor, the longest.
_FIRST, _GROWS, _LONGEST = 0.25, 1.5, 2.0
# For the guest's random numbers: more than its kernel needs to be sure of them.
_SEED_BYTES = 64
# Most bytes before the welcome: what an agent had left to say to a host before us, in its queue, in
# the port's and in QEMU's, is far less.
_MAX_BEFORE = 2 * 1024 * 1024


class Handshake:
    """One session's. It is over with `lose`, or when `shake` has returned."""

    def __init__(self, say: Callable[[wire.ToGuest], None]) -> None:
        """`say` sends a message."""
        self._say = say
        self._nonce = secrets.randbits(64)
        self._welcome: asyncio.Future[wire.Welcome] = asyncio.get_running_loop().create_future()
        self._refusal: GuestError | None = None
        self._hellos = 0
        self._bytes = 0

    @property
    def done(self) -> bool:
        """Whether the session has begun; what comes before belongs to whoever talked before."""
        return self._welcome.done()

    async def shake(self) -> wire.Welcome:
        """Says hello until there is a welcome.

        A hello written before the guest had opened its port may be lost, so it is repeated; the
        agent welcomes the same nonce again and keeps the session.

        Raises:
            GuestError: the agent speaks another version, or the channel was lost.
        """
        pause = _FIRST
        hello = wire.Hello(
            nonce=self._nonce,
            min=wire.PROTOCOL,
            max=wire.PROTOCOL,
            seed=secrets.token_bytes(_SEED_BYTES),
        )
        while True:
            self._say(hello)
            self._hellos += 1
            await asyncio.wait([self._welcome], timeout=pause)
            if self._welcome.done():
                return self._welcome.result()
            if self._refusal is not None:
                raise self._refusal
            pause = min(pause * _GROWS, _LONGEST)

    def count(self, size: int) -> None:
        """So many bytes came.

        Raises:
            BrokenProtocolError: too many, and no welcome.
        """
        if self._welcome.done():
            return
        self._bytes += size
        if self._bytes > _MAX_BEFORE:
            raise BrokenProtocolError(f"{self._bytes} bytes and no welcome")

    def take(self, payload: bytes | WireError) -> None:
        """A frame that came before the welcome, or is it."""
        if isinstance(payload, WireError):
            return
        with contextlib.suppress(WireError):
            message = wire.decode_from_guest(payload)
            if isinstance(message, wire.Welcome) and message.nonce == self._nonce:
                if message.protocol == wire.PROTOCOL:
                    self._welcome.set_result(message)
                else:
                    # One that can't speak ours refuses.
                    error = BrokenProtocolError(
                        f"version {message.protocol}, which it was not offered"
                    )
                    self._welcome.set_exception(error)
            elif isinstance(message, wire.Refused) and message.code == "version":
                # Perhaps the answer to a host before this one: it counts when no welcome follows.
                self._refusal = _version_error(printable(message.message))

    def take_again(self, message: wire.Welcome) -> None:
        """A welcome after the first: of a repeated hello, one for each.

        Raises:
            BrokenProtocolError: nobody asked for it.
        """
        self._hellos -= 1
        if message.nonce != self._nonce or self._hellos < 1:
            raise BrokenProtocolError("a welcome that nobody asked for")

    def lose(self, error: GuestError) -> None:
        """The channel is lost: whoever waits hears it."""
        if not self._welcome.done():
            self._welcome.set_exception(error)
            # Said to whoever waits; nobody may.
            self._welcome.exception()


def _version_error(why: str) -> GuestError:
    return GuestError(f"the guest's agent speaks another version of the protocol: {why}")
