"""Which way leads to an exposed port, decided from what listens in the guest. Pure.

A server on the guest's own address is reached by a forward to its port; one that is bound to the
guest's loopback, or to IPv6 only, by a relay of the agent's and a forward to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from hyperfleet.guest.values import Listener
from hyperfleet.machine import ExposedPort


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a machine.

    All that listens in it; and for each exposed port the server that is meant (None: there is
    none) and the host's address that leads there.
    """

    listeners: tuple[Listener, ...]
    servers: dict[int, Listener | None]
    upstreams: dict[int, str]


def choose(port: int, listeners: Iterable[Listener]) -> Listener | None:
    """The server that is meant by `port`: a direct one before any other, then IPv4's loopback."""
    return min((one for one in listeners if one.port == port), key=_preference, default=None)


def merge(before: Sequence[ExposedPort], sight: Sight, now: datetime) -> tuple[ExposedPort, ...]:
    """The exposed ports after a look. `since` stays while a port goes on listening.

    A port at which it did not look (exposed meanwhile) stays as it was.
    """
    return tuple(
        _after(port, sight, now) if port.port in sight.servers else port for port in before
    )


def unseen(exposed: Iterable[int], upstreams: Mapping[int, str]) -> tuple[ExposedPort, ...]:
    """Exposed ports at which nobody has looked yet, with the ways that there are."""
    return tuple(ExposedPort(port=port, upstream=upstreams.get(port)) for port in exposed)


def exposing(before: Sequence[ExposedPort], exposed: Iterable[int]) -> tuple[ExposedPort, ...]:
    """The ports once others are exposed. Those that stay keep what is known of them."""
    known = {port.port: port for port in before}
    return tuple(known.get(port) or ExposedPort(port=port) for port in exposed)


def reached(ports: Iterable[ExposedPort], ways: Mapping[int, str]) -> tuple[ExposedPort, ...]:
    """The ports with their ways in."""
    return tuple(msgspec.structs.replace(port, upstream=ways[port.port]) for port in ports)


def unexposed(listeners: Iterable[Listener], exposed: Iterable[int]) -> tuple[Listener, ...]:
    """What listens and is not exposed, one of each port, lowest first."""
    found = list(listeners)
    ports = sorted({one.port for one in found} - set(exposed))
    return tuple(server for port in ports if (server := choose(port, found)) is not None)


def _after(port: ExposedPort, sight: Sight, now: datetime) -> ExposedPort:
    server = sight.servers[port.port]
    since = None
    if server is not None:
        since = port.since if port.listening and port.since else now
    return ExposedPort(
        port=port.port,
        listening=server is not None,
        since=since,
        address=server.address if server is not None else None,
        upstream=sight.upstreams.get(port.port, port.upstream),
    )


def _preference(listener: Listener) -> tuple[bool, bool, str]:
    # That it is an address was seen when the guest told it (guest/calls.py).
    return (not listener.direct, ":" in listener.address, listener.address)
