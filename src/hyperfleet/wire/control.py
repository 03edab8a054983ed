"""Control plane and data plane: the messages of `crates/wire/src/control.rs`, explained there."""

from __future__ import annotations

import msgspec

from hyperfleet.wire import DECODE_ERRORS, U16, U32, U64, WireError

PROTOCOL = 2


class Port(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An exposed port; `upstream` is `ADDRESS:PORT` or None. `host` None: the client's."""

    port: U16
    upstream: str | None
    listening: bool = True
    host: str | None = None
    strip_prefix: bool = True


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as the data plane sees it."""

    id: str
    name: str
    status: str
    lifecycle: U64 = 0
    ports: tuple[Port, ...] = ()


class Listening(msgspec.Struct, frozen=True, tag="listening", tag_field="outcome"):
    upstream: str


class Closed(msgspec.Struct, frozen=True, tag="closed", tag_field="outcome"):
    pass


class Unknown(msgspec.Struct, frozen=True, tag="unknown", tag_field="outcome"):
    pass


ProbeOutcome = Listening | Closed | Unknown


class ControlHello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    protocol: U32


class SnapshotBegin(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot_begin"):
    number: U64


class SnapshotPart(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot_part"):
    machines: tuple[Machine, ...]


class SnapshotEnd(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot_end"):
    number: U64


class Change(msgspec.Struct, frozen=True, kw_only=True, tag="change"):
    number: U64
    upsert: tuple[Machine, ...]
    remove: tuple[str, ...]


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True, tag="probe_result"):
    id: U64
    outcome: ProbeOutcome


class CountersRequest(msgspec.Struct, frozen=True, kw_only=True, tag="counters_request"):
    pass


class MetersRequest(msgspec.Struct, frozen=True, kw_only=True, tag="meters_request"):
    machine: str | None
    after: tuple[str, U16] | None


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    timeout_ms: U32


class ProxyHello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    protocol: U32
    version: str
    pid: U32
    arguments: tuple[tuple[str, str], ...]


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    number: U64


class Resync(msgspec.Struct, frozen=True, kw_only=True, tag="resync"):
    have: U64


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    id: U64
    machine: str
    port: U16


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """How many times fell into each bucket of `Counters.bounds_us`, the last one above all."""

    counts: tuple[U64, ...]
    sum_us: U64


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the data plane started; `connections`, `tunnels` and `in_flight` are now."""

    connections: U64
    tunnels: U64
    accepted: U64
    requests: U64
    responses: tuple[U64, U64, U64, U64, U64]
    errors: tuple[tuple[str, U64], ...]
    bytes_in: U64
    bytes_out: U64
    upstream_connects: U64
    upstream_reuses: U64
    bounds: dict[str, U64] = {}
    in_flight: U64
    bounds_us: tuple[U64, ...]
    duration: Histogram
    first_byte: Histogram


class CountersMessage(msgspec.Struct, frozen=True, kw_only=True, tag="counters"):
    counters: Counters


class PortMeters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of a machine's port since it was first asked; `in_flight` and `tunnels` are now."""

    port: U16
    requests: U64
    responses: tuple[U64, U64, U64, U64, U64]
    errors: tuple[tuple[str, U64], ...]
    bytes_in: U64
    bytes_out: U64
    in_flight: U64
    tunnels: U64
    duration: Histogram
    first_byte: Histogram


class MachineMeters(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured for a machine, over all of its runs; `idle_ms` since its last byte."""

    id: str
    connections: U64
    in_flight: U64
    idle_ms: U64
    ports: tuple[PortMeters, ...]


class Meters(msgspec.Struct, frozen=True, kw_only=True, tag="meters"):
    machines: tuple[MachineMeters, ...]
    next: tuple[str, U16] | None


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
    | MetersRequest
    | Drain
)
FromProxy = ProxyHello | Applied | Resync | Probe | CountersMessage | Meters | Refused

_from_proxy: msgspec.msgpack.Decoder[FromProxy] = msgspec.msgpack.Decoder(FromProxy)


def encode(message: ToProxy) -> bytes:
    """A message as the payload of one frame."""
    return msgspec.msgpack.encode(message)


def encode_machine(machine: Machine) -> bytes:
    """A machine as it stands within a message; tells how much of a frame it takes."""
    return msgspec.msgpack.encode(machine)


def decode_from_proxy(payload: bytes) -> FromProxy:
    """What the data plane said.

    Raises:
        WireError: it is no message of ours, or one of the wrong shape.
    """
    try:
        return _from_proxy.decode(payload)
    except DECODE_ERRORS as error:
        raise WireError(f"message not understood: {error}") from error
