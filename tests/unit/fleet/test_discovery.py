"""Which server is meant by a port, and how a look changes what is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hyperfleet.fleet import discovery
from hyperfleet.fleet.discovery import Sight
from hyperfleet.guest.values import Listener
from hyperfleet.machine import ExposedPort

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=10)


def listener(address: str, port: int = 80) -> Listener:
    return Listener(port=port, address=address, direct=address in ("0.0.0.0", "10.0.2.15"))


def sight(server: Listener | None, upstream: str) -> Sight:
    found = (server,) if server is not None else ()
    return Sight(listeners=found, servers={80: server}, upstreams={80: upstream})


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        ([], None),
        (["127.0.0.1"], "127.0.0.1"),
        (["::1", "127.0.0.1"], "127.0.0.1"),
        (["127.0.0.1", "::1", "10.0.2.15"], "10.0.2.15"),
        (["::", "0.0.0.0"], "0.0.0.0"),
    ],
)
def test_a_direct_server_is_meant_before_one_on_loopback(
    addresses: list[str], chosen: str | None
) -> None:
    listeners = [listener(address) for address in addresses]
    for order in (listeners, listeners[::-1]):
        found = discovery.choose(80, [listener("0.0.0.0", port=81), *order])
        assert (found and found.address) == chosen


def test_since_stays_while_a_port_listens() -> None:
    nothing = discovery.unseen([80], {})
    first = discovery.merge(nothing, sight(listener("127.0.0.1"), "127.0.0.1:1"), NOON)
    assert first == (
        ExposedPort(
            port=80, listening=True, since=NOON, address="127.0.0.1", upstream="127.0.0.1:1"
        ),
    )
    # The server came back on another address between two looks: it listens on.
    second = discovery.merge(first, sight(listener("0.0.0.0"), "127.0.0.1:2"), LATER)
    assert (second[0].since, second[0].address) == (NOON, "0.0.0.0")
    gone = discovery.merge(second, sight(None, "127.0.0.1:2"), LATER)
    assert gone == (ExposedPort(port=80, upstream="127.0.0.1:2"),)
    back = discovery.merge(gone, sight(listener("0.0.0.0"), "127.0.0.1:2"), LATER)
    assert back[0].since == LATER


def test_the_same_sight_again_changes_nothing() -> None:
    once = discovery.merge(
        discovery.unseen([80], {}), sight(listener("0.0.0.0"), "127.0.0.1:1"), NOON
    )
    assert discovery.merge(once, sight(listener("0.0.0.0"), "127.0.0.1:1"), LATER) == once


def test_unexposed_are_told_once_each_in_order() -> None:
    listeners = [
        listener("::1", 9000),
        listener("127.0.0.1", 9000),
        listener("0.0.0.0", 22),
        listener("0.0.0.0", 80),
    ]
    found = discovery.unexposed(listeners, [80])
    assert [(one.port, one.address) for one in found] == [(22, "0.0.0.0"), (9000, "127.0.0.1")]


def test_ports_that_stay_exposed_keep_what_is_known_of_them() -> None:
    seen = discovery.merge(discovery.unseen([80, 81], {}), _both(), NOON)
    changed = discovery.exposing(seen, [82, 80])
    assert changed == (ExposedPort(port=82), seen[0])
    # The last look of before says nothing of the new one, and the next keeps the others' time.
    assert discovery.merge(changed, _both(), LATER) == changed


def _both() -> Sight:
    servers = {port: listener("0.0.0.0", port) for port in (80, 81)}
    return Sight(
        listeners=tuple(servers.values()),
        servers=dict(servers),
        upstreams={80: "127.0.0.1:1", 81: "127.0.0.1:2"},
    )
