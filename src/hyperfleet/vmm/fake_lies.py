"""Lies of a fake guest's agent: the bytes that it says instead of each true answer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from hyperfleet.vmm.fake_faults import Channel
from hyperfleet.wire import guest, slip

Pieces = Iterator[bytes]

# Words that clear a terminal's screen, rename its window and turn the text round.
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e"

_PIECE_BYTES = 64 * 1024
_NOISE = b"\xc0\x00noise\xdb\xc0" + bytes(range(256))
# No host numbers its calls from here.
_NEVER_ASKED = 0xFFFF_FFF0
_NEXT_FRAMING = slip.VERSION + 1
# As many as a frame has room for.
_LISTENERS = 5000
_MOST_U32 = 2**32 - 1


def pieces(channel: Channel, answer: guest.FromGuest) -> Pieces:
    """What is said where `answer` would be true; perhaps without end."""
    lie = _LIES.get(channel)
    return iter((_frame(answer),)) if lie is None else lie(answer)


def _frame(message: msgspec.Struct) -> bytes:
    return slip.frame(guest.encode(message))


def _garbage(answer: guest.FromGuest) -> Pieces:
    true = _frame(answer)
    yield _NOISE + _stray() + true[: len(true) // 2] + true + _NOISE


def _unasked(answer: guest.FromGuest) -> Pieces:
    yield _frame(answer)
    if not isinstance(answer, guest.Welcome):
        yield _stray()


def _floods(answer: guest.FromGuest) -> Pieces:
    del answer
    stray = _stray()
    while True:
        yield stray * (_PIECE_BYTES // len(stray))


def _endless(answer: guest.FromGuest) -> Pieces:
    if isinstance(answer, guest.Welcome):
        yield _frame(answer)
        return
    yield b"\xc0"
    while True:
        yield b"x" * _PIECE_BYTES


def _overlong(answer: guest.FromGuest) -> Pieces:
    yield _frame(answer)
    if not isinstance(answer, guest.Welcome):
        # Escaped, it is twice as long: the most that a reader may have to hold.
        yield b"\xc0" + b"\xdb\xdc" * (slip.MAX_PAYLOAD + 6) + b"\xc0"


def _claims(answer: guest.FromGuest) -> Pieces:
    if isinstance(answer, guest.Welcome):
        yield _frame(answer)
        return
    # A list of so many elements, of which none follows (MessagePack's array 32).
    head = guest.encode(guest.Listeners(id=answer.id, listeners=(), truncated=False))
    name = b"listeners"
    at = head.rindex(name) + len(name)
    yield slip.frame(head[:at] + b"\xdd" + _MOST_U32.to_bytes(4, "big"))


def _disorder(answer: guest.FromGuest) -> Pieces:
    if isinstance(answer, guest.Stdout):
        yield _frame(
            guest.Exited(id=answer.id, code=0, signal=None, timed_out=False, truncated=False)
        )
    yield _frame(answer)


def _version(answer: guest.FromGuest) -> Pieces:
    if isinstance(answer, guest.Welcome):
        yield _frame(msgspec.structs.replace(answer, protocol=guest.PROTOCOL + 1))
    else:
        yield slip.frame(guest.encode(answer), version=_NEXT_FRAMING)


def _ports(answer: guest.FromGuest) -> Pieces:
    if isinstance(answer, guest.Listeners):
        many = (
            guest.ListenerMessage(port=port, address="0.0.0.0", direct=True)
            for port in range(1, _LISTENERS + 1)
        )
        answer = msgspec.structs.replace(answer, listeners=tuple(many))
    yield _frame(answer)


def _output(answer: guest.FromGuest) -> Pieces:
    yield _frame(answer)
    while isinstance(answer, guest.Stdout):
        yield _frame(guest.Stdout(id=answer.id, data=b"x" * guest.MAX_CHUNK))


def _escapes(answer: guest.FromGuest) -> Pieces:
    match answer:
        case guest.Welcome():
            yield _frame(msgspec.structs.replace(answer, agent=ESCAPES, boot_id=ESCAPES))
        case guest.Exited(id=call):
            yield _frame(guest.Refused(id=call, code=ESCAPES, message=ESCAPES * 1000))
        case guest.Listeners():
            kind = ESCAPES * 1000
            yield slip.frame(msgspec.msgpack.encode({"type": kind}))
        case _:
            yield _frame(answer)


def _stray() -> bytes:
    """An answer that nobody asked for."""
    return _frame(guest.Done(id=_NEVER_ASKED))


_LIES: dict[Channel, Callable[[guest.FromGuest], Pieces]] = {
    Channel.GARBAGE: _garbage,
    Channel.UNASKED: _unasked,
    Channel.FLOODS: _floods,
    Channel.ENDLESS: _endless,
    Channel.OVERLONG: _overlong,
    Channel.CLAIMS: _claims,
    Channel.DISORDER: _disorder,
    Channel.VERSION: _version,
    Channel.PORTS: _ports,
    Channel.OUTPUT: _output,
    Channel.ESCAPES: _escapes,
}
