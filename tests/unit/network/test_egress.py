"""Which packets a machine's egress lets out."""

from __future__ import annotations

import socket

import pytest

from hyperfleet.machine import Egress, EgressRule
from hyperfleet.network.egress import permits

TCP, UDP, ICMP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP


def rules(**fields: object) -> Egress:
    return (EgressRule(network="192.0.2.0/24", **fields),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("egress", "address", "protocol", "port", "expected"),
    [
        ("all", "192.0.2.1", TCP, 80, True),
        ("all", "192.0.2.1", ICMP, None, True),
        ("all", "169.254.169.254", TCP, 80, False),
        ("none", "192.0.2.1", TCP, 80, False),
        (rules(), "192.0.2.1", TCP, 80, True),
        (rules(), "192.0.2.1", ICMP, None, True),
        (rules(), "192.0.3.1", TCP, 80, False),
        (rules(ports=(80, 443)), "192.0.2.1", TCP, 443, True),
        (rules(ports=(80, 443)), "192.0.2.1", UDP, 443, True),
        (rules(ports=(80, 443)), "192.0.2.1", TCP, 22, False),
        (rules(ports=(80, 443)), "192.0.2.1", ICMP, None, False),
        (rules(protocol="tcp"), "192.0.2.1", TCP, 22, True),
        (rules(protocol="tcp"), "192.0.2.1", UDP, 22, False),
        (rules(protocol="udp", ports=(53,)), "192.0.2.1", UDP, 53, True),
        (rules(protocol="udp", ports=(53,)), "192.0.2.1", TCP, 53, False),
        ((EgressRule(network="169.254.169.254/32"),), "169.254.169.254", TCP, 80, True),
        ((EgressRule(network="10.0.0.0/8"), *rules()), "192.0.2.1", TCP, 80, True),
    ],
)
def test_a_packet(
    egress: Egress, address: str, protocol: int, port: int | None, *, expected: bool
) -> None:
    assert permits(egress, address, protocol, port) is expected
