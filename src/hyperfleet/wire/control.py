"""Control plane and data plane: the messages of `crates/wire/src/control.rs`, explained there."""

from __future__ import annotations

import msgspec

from hyperfleet.wire import DECODE_ERRORS, WireError

PROTOCOL = 1


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An exposed port; `upstream` is `ADDRESS:PORT` or None."""

    port: int
    upstream: str | None
    listening: bool = True


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as the data plane sees it."""

    id: str
    name: str
    status: str
    lifecycle: int = 0
    ports: tuple[Port, ...] = ()


class Listening(msgspec.Struct, frozen=True, tag="listening", tag_field="outcome"):
    upstream: str


class Closed(msgspec.Struct, frozen=True, tag="closed", tag_field="outcome"):
    pass


class Unknown(msgspec.Struct, frozen=True, tag="unknown", tag_field="outcome"):
    pass


ProbeOutcome = Listening | Closed | Unknown


class ControlHello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    protocol: int


class SnapshotBegin(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot_begin"):
    number: int


class SnapshotPart(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot_part"):
    machines: tuple[Machine, ...]


class SnapshotEnd(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot_end"):
    number: int


class Change(msgspec.Struct, frozen=True, kw_only=True, tag="change"):
    number: int
    upsert: tuple[Machine, ...]
    remove: tuple[str, ...]


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True, tag="probe_result"):
    id: int
    outcome: ProbeOutcome


class CountersRequest(msgspec.Struct, frozen=True, kw_only=True, tag="counters_request"):
    pass


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    timeout_ms: int


class ProxyHello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    protocol: int
    version: str
    pid: int
    arguments: tuple[tuple[str, str], ...]


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    number: int


class Resync(msgspec.Struct, frozen=True, kw_only=True, tag="resync"):
    have: int


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    id: int
    machine: str
    port: int


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the data plane started, but for `connections` and `tunnels`, which are now."""

    connections: int
    tunnels: int
    accepted: int
    requests: int
    responses: tuple[int, int, int, int, int]
    errors: tuple[tuple[str, int], ...]
    bytes_in: int
    bytes_out: int
    upstream_connects: int
    upstream_reuses: int


class CountersMessage(msgspec.Struct, frozen=True, kw_only=True, tag="counters"):
    counters: Counters


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    message: str


ToProxy = (
    ControlHello
    | SnapshotBegin
    | SnapshotPart
    | SnapshotEnd
    | Change
    | ProbeResult
    | CountersRequest
    | Drain
)
FromProxy = ProxyHello | Applied | Resync | Probe | CountersMessage | Refused

_from_proxy: msgspec.msgpack.Decoder[FromProxy] = msgspec.msgpack.Decoder(FromProxy)


def encode(message: ToProxy) -> bytes:
    """A message as the payload of one frame."""
    return msgspec.msgpack.encode(message)


def decode_from_proxy(payload: bytes) -> FromProxy:
    """What the data plane said.

    Raises:
        WireError: it is no message of ours, or one of the wrong shape.
    """
    try:
        return _from_proxy.decode(payload)
    except DECODE_ERRORS as error:
        raise WireError(f"message not understood: {error}") from error
