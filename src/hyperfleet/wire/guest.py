"""Host and guest: the messages of `crates/wire/src/guest.rs`, where each is explained."""

from __future__ import annotations

import msgspec

from hyperfleet.wire import DECODE_ERRORS, WireError

PROTOCOL = 1
# Most data bytes in one stdin, stdout or stderr message.
MAX_CHUNK = 64 * 1024
# Most bytes of stdin of one exec sent and not yet taken.
STDIN_WINDOW = 256 * 1024
MAX_LISTENERS = 2048


class Network(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    gateway: str | None
    dns: tuple[str, ...]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    hostname: str
    time_ns: int
    network: Network | None


class ExecCall(msgspec.Struct, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str | None
    timeout_ms: int
    stdin: bool
    output_limit: int


class ListenerMessage(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    address: str
    direct: bool


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    nonce: int
    min: int
    max: int


class Configure(msgspec.Struct, frozen=True, kw_only=True, tag="configure"):
    id: int
    config: Config


class Exec(msgspec.Struct, frozen=True, kw_only=True, tag="exec"):
    id: int
    exec: ExecCall


class Stdin(msgspec.Struct, frozen=True, kw_only=True, tag="stdin"):
    id: int
    data: bytes
    eof: bool


class Kill(msgspec.Struct, frozen=True, kw_only=True, tag="kill"):
    id: int
    signal: int


class Ports(msgspec.Struct, frozen=True, kw_only=True, tag="ports"):
    id: int


class RelayCall(msgspec.Struct, frozen=True, kw_only=True, tag="relay"):
    id: int
    address: str
    port: int


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    id: int
    grace_ms: int


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    id: int


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    nonce: int
    protocol: int
    agent: str
    boot_id: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    id: int


class Stdout(msgspec.Struct, frozen=True, kw_only=True, tag="stdout"):
    id: int
    data: bytes


class Stderr(msgspec.Struct, frozen=True, kw_only=True, tag="stderr"):
    id: int
    data: bytes


class StdinTaken(msgspec.Struct, frozen=True, kw_only=True, tag="stdin_taken"):
    id: int
    bytes: int


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag="exited"):
    id: int
    code: int | None
    signal: int | None
    timed_out: bool
    truncated: bool


class Listeners(msgspec.Struct, frozen=True, kw_only=True, tag="listeners"):
    id: int
    listeners: tuple[ListenerMessage, ...]
    truncated: bool


class Relay(msgspec.Struct, frozen=True, kw_only=True, tag="relay"):
    id: int
    port: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    id: int
    code: str
    message: str


ToGuest = Hello | Configure | Exec | Stdin | Kill | Ports | RelayCall | Shutdown | Ping
FromGuest = Welcome | Done | Stdout | Stderr | StdinTaken | Exited | Listeners | Relay | Refused

_to_guest: msgspec.msgpack.Decoder[ToGuest] = msgspec.msgpack.Decoder(ToGuest)
_from_guest: msgspec.msgpack.Decoder[FromGuest] = msgspec.msgpack.Decoder(FromGuest)


def encode(message: ToGuest | FromGuest) -> bytes:
    """A message as the payload of one frame."""
    return msgspec.msgpack.encode(message)


def decode_from_guest(payload: bytes) -> FromGuest:
    """What the guest said.

    Raises:
        WireError: it is no message of ours, or one of the wrong shape.
    """
    try:
        return _from_guest.decode(payload)
    except DECODE_ERRORS as error:
        raise WireError(f"message not understood: {error}") from error


def decode_to_guest(payload: bytes) -> ToGuest:
    """What the host said (the fake guest's side).

    Raises:
        WireError: it is no message of ours, or one of the wrong shape.
    """
    try:
        return _to_guest.decode(payload)
    except DECODE_ERRORS as error:
        raise WireError(f"message not understood: {error}") from error
