"""Whom a machine may speak to by itself: decided here for one packet, in `ruleset` for nftables."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from hyperfleet.machine import Egress, EgressRule

# Never reached by "all", only by a rule that names it: link-local addresses (RFC 3927) are where
# clouds have the service that hands out the host's own credentials.
CLOSED = IPv4Network("169.254.0.0/16")

_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


def protocols(rule: EgressRule) -> Iterable[str]:
    """What a rule with ports, or with a protocol, is about."""
    return ("tcp", "udp") if rule.protocol is None else (rule.protocol,)


def permits(egress: Egress, address: str, protocol: int, port: int | None) -> bool:
    """Whether a packet to `address` may leave.

    Args:
        egress: what the machine may do.
        address: the IPv4 address it is for, neither the host's nor a machine's.
        protocol: as IP numbers them.
        port: of a protocol that has ports.
    """
    to = IPv4Address(address)
    if egress == "all":
        return to not in CLOSED
    if egress == "none":
        return False
    return any(_fits(rule, to, protocol, port) for rule in egress)


def _fits(rule: EgressRule, to: IPv4Address, protocol: int, port: int | None) -> bool:
    if to not in IPv4Network(rule.network):
        return False
    if rule.protocol is None and not rule.ports:
        return True
    if protocol not in {_NUMBERS[name] for name in protocols(rule)}:
        return False
    return not rule.ports or port in rule.ports
