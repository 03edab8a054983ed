"""What is said of resolvers, other firewalls and netlink messages."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from hyperfleet.network.nft_watch import kinds
from hyperfleet.network.resolvers import parse, resolvers
from hyperfleet.network.tap_host import hindering


def chain(table: str, name: str, **fields: object) -> dict[str, object]:
    return {"chain": {"family": "ip", "table": table, "name": name, **fields}}


def listing(*chains: dict[str, object]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *chains]})


def test_a_firewall_that_drops_what_it_does_not_know_is_in_the_way() -> None:
    forward = chain("filter", "FORWARD", hook="forward", policy="drop")
    (found,) = hindering(listing(forward, chain("filter", "INPUT", hook="input", policy="drop")))
    assert "ip filter FORWARD" in found.what
    assert "iptables -I FORWARD -i hf-+ -j ACCEPT" in found.mend
    (found,) = hindering(listing(forward, chain("filter", "DOCKER-USER")))
    assert "iptables -I DOCKER-USER -i hf-+ -j ACCEPT" in found.mend
    # Its policy is to accept, and its last rule is to reject.
    (found,) = hindering(listing(chain("firewalld", "f", hook="forward", policy="accept")))
    assert "firewall-cmd" in found.mend


def test_other_chains_are_not() -> None:
    ours = chain("hyperfleet_0a1b2c3d", "forward", hook="forward", policy="drop")
    open_one = chain("filter", "FORWARD", hook="forward", policy="accept")
    assert hindering(listing(ours, open_one)) == []
    for words in ("", "no json", "{}"):
        assert hindering(words) == []


def test_nameservers_are_read_from_resolv_conf() -> None:
    text = "# nameserver 1.1.1.1\nsearch a\nnameserver 192.0.2.53\nnameserver ::1\nnameserver\n"
    assert parse(f"{text}nameserver no\n  nameserver  192.0.2.54 # two\n") == [
        "192.0.2.53",
        "192.0.2.54",
    ]


@pytest.mark.parametrize("local", ["127.0.0.53", "0.0.0.0"])
def test_a_resolver_on_loopback_is_no_guests(tmp_path: Path, local: str) -> None:
    stub, upstream = tmp_path / "stub", tmp_path / "upstream"
    stub.write_text(f"nameserver {local}\n")
    assert resolvers([stub, upstream]) == ()
    upstream.write_text("".join(f"nameserver 203.0.113.{n}\n" for n in range(1, 6)))
    assert resolvers([stub, upstream]) == ("203.0.113.1", "203.0.113.2", "203.0.113.3")
    stub.write_text(f"nameserver {local}\nnameserver 203.0.113.9\n")
    assert resolvers([stub, upstream]) == ("203.0.113.9",)


def test_netlink_messages_follow_each_other_on_multiples_of_four() -> None:
    def message(kind: int, body: bytes) -> bytes:
        text = struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 2) + body
        return text + b"\0" * (-len(text) % 4)

    both = message(0xA02, b"abcde") + message(0xA00, b"")
    assert list(kinds(both)) == [0xA02, 0xA00]
    assert list(kinds(both[:-1])) == [0xA02]
    assert list(kinds(struct.pack("=IHHII", 3, 1, 0, 0, 0))) == []
    assert list(kinds(b"")) == []
