"""Host and guest: the messages of `crates/wire/src/guest.rs`, where each is explained."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hyperfleet.wire import DECODE_ERRORS, I32, U16, U32, U64, WireError

PROTOCOL = 1
# Most data bytes in one stdin, stdout or stderr message.
MAX_CHUNK = 64 * 1024
# Most bytes of stdin of one exec sent and not yet taken.
STDIN_WINDOW = 256 * 1024
KEPT_STDIN = STDIN_WINDOW + 1024 * 1024
MAX_LISTENERS = 2048
# Most processes that are kept, and bytes of its arguments that each is shown with.
MAX_KEPT = 32
MAX_SHOWN = 4096


class Network(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    address: str
    gateway: str | None
    dns: tuple[str, ...]
    mac: str | None = None
    found_as: str | None = None


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    serial: str
    path: str


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    hostname: str
    time_ns: U64
    network: Network | None
    outward: Network | None = None
    disks: tuple[Disk, ...] = ()


class Size(msgspec.Struct, frozen=True, kw_only=True):
    rows: U16
    columns: U16


class ExecCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str | None
    timeout_ms: U64
    stdin: bool
    output_limit: U64
    output_window: U32 | None = None
    terminal: Size | None = None


class KeptProcessMessage(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(max_length=63)]
    argv: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=MAX_SHOWN)], ...],
        msgspec.Meta(max_length=MAX_SHOWN),
    ]
    since_ns: U64
    attached: bool
    terminal: bool
    code: I32 | None
    signal: I32 | None
    untaken: U64
    dropped: U64


class CommandCall(msgspec.Struct, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str | None
    restart: Literal["never", "on-failure", "always"]


class CommandMessage(msgspec.Struct, frozen=True, kw_only=True):
    state: Literal["running", "waiting", "exited"]
    code: I32 | None
    signal: I32 | None
    restarts: U32


class ListenerMessage(msgspec.Struct, frozen=True, kw_only=True):
    port: U16
    address: str
    direct: bool


class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="hello"):
    nonce: U64
    min: U32
    max: U32
    seed: bytes | None = None


class Configure(msgspec.Struct, frozen=True, kw_only=True, tag="configure"):
    id: U32
    config: Config


class Exec(msgspec.Struct, frozen=True, kw_only=True, tag="exec"):
    id: U32
    exec: ExecCall


class Keep(msgspec.Struct, frozen=True, kw_only=True, tag="keep"):
    id: U32
    name: str
    output_window: U32
    exec: ExecCall


class Attach(msgspec.Struct, frozen=True, kw_only=True, tag="attach"):
    id: U32
    name: str
    output_window: U32


class Detach(msgspec.Struct, frozen=True, kw_only=True, tag="detach"):
    id: U32


class EndTaken(msgspec.Struct, frozen=True, kw_only=True, tag="end_taken"):
    id: U32


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    id: U32


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    id: U32
    name: str


class Stdin(msgspec.Struct, frozen=True, kw_only=True, tag="stdin"):
    id: U32
    data: bytes
    eof: bool


class OutputTaken(msgspec.Struct, frozen=True, kw_only=True, tag="output_taken"):
    id: U32
    bytes: U32


class Resize(msgspec.Struct, frozen=True, kw_only=True, tag="resize"):
    id: U32
    size: Size


class Kill(msgspec.Struct, frozen=True, kw_only=True, tag="kill"):
    id: U32
    signal: I32


class Ports(msgspec.Struct, frozen=True, kw_only=True, tag="ports"):
    id: U32


class Supervise(msgspec.Struct, frozen=True, kw_only=True, tag="supervise"):
    id: U32
    command: CommandCall


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag="watch"):
    id: U32
    seen: U64


class RelayCall(msgspec.Struct, frozen=True, kw_only=True, tag="relay"):
    id: U32
    address: str
    port: U16


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    id: U32
    grace_ms: U32


class Sync(msgspec.Struct, frozen=True, kw_only=True, tag="sync"):
    id: U32


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    id: U32


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    nonce: U64
    protocol: U32
    agent: str
    boot_id: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    id: U32


class Attached(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="attached"):
    id: U32
    offset: U64
    dropped: U64
    input: U32
    stdin: bool
    terminal: bool
    stdin_limit: Annotated[int, msgspec.Meta(ge=0, le=KEPT_STDIN)] = STDIN_WINDOW


class KeptProcesses(msgspec.Struct, frozen=True, kw_only=True, tag="kept_processes"):
    id: U32
    processes: Annotated[tuple[KeptProcessMessage, ...], msgspec.Meta(max_length=MAX_KEPT)]


class Stdout(msgspec.Struct, frozen=True, kw_only=True, tag="stdout"):
    id: U32
    data: bytes


class Stderr(msgspec.Struct, frozen=True, kw_only=True, tag="stderr"):
    id: U32
    data: bytes


class StdinTaken(msgspec.Struct, frozen=True, kw_only=True, tag="stdin_taken"):
    id: U32
    bytes: U32


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag="exited"):
    id: U32
    code: I32 | None
    signal: I32 | None
    timed_out: bool
    truncated: bool


class Listeners(msgspec.Struct, frozen=True, kw_only=True, tag="listeners"):
    id: U32
    # Counted before any of them is made: a frame has room for many more.
    listeners: Annotated[tuple[ListenerMessage, ...], msgspec.Meta(max_length=MAX_LISTENERS)]
    truncated: bool


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="news"):
    id: U32
    number: U64
    command: CommandMessage | None = None


class Relay(msgspec.Struct, frozen=True, kw_only=True, tag="relay"):
    id: U32
    port: U16


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    id: U32
    code: str
    message: str


ToGuest = (
    Hello
    | Configure
    | Exec
    | Keep
    | Attach
    | Detach
    | EndTaken
    | Kept
    | Forget
    | Stdin
    | OutputTaken
    | Resize
    | Kill
    | Ports
    | Supervise
    | Watch
    | RelayCall
    | Shutdown
    | Sync
    | Ping
)
FromGuest = (
    Welcome
    | Done
    | Attached
    | KeptProcesses
    | Stdout
    | Stderr
    | StdinTaken
    | Exited
    | Listeners
    | News
    | Relay
    | Refused
)

_to_guest: msgspec.msgpack.Decoder[ToGuest] = msgspec.msgpack.Decoder(ToGuest)
_from_guest: msgspec.msgpack.Decoder[FromGuest] = msgspec.msgpack.Decoder(FromGuest)


def encode(message: msgspec.Struct) -> bytes:
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
