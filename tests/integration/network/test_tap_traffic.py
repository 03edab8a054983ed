"""What the kernel does with what a guest sends; the test holds the guest's end of the tap."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hyperfleet.machine import Egress, EgressRule, Machine
from hyperfleet.network import conntrack
from hyperfleet.network.egress import permits
from support import frames
from support.netns import run, taps

from .conftest import Home, launch

pytestmark = taps
NEAR, FAR = "192.0.2.1", "192.0.2.2"
FAR_MAC = "52:00:00:00:00:99"


class Wire:
    """A machine, and the cable behind the host by which it reaches the world."""

    def __init__(self, home: Home, machine: Machine, descriptor: int, cable: socket.socket) -> None:
        self._home = home
        self.machine = machine
        self.ip = str(machine.network.guest_ip)
        self._descriptor = descriptor
        self._cable = cable
        tap = str(machine.network.tap_device)
        mac = run("ip", "-brief", "link", "show", "dev", tap).split()[2]
        self._ends: dict[str, Any] = {
            "mac": str(machine.network.guest_mac),
            "to_mac": mac,
            "ip": self.ip,
        }

    def says(self, to: str, port: int) -> None:
        self._home.sends(self._descriptor, frames.udp("x", **self._ends, to=to, port=port))

    def knocks(self, to: str, port: int, *, segment: int) -> None:
        """The first packet of TCP, with the largest segment that it would take."""
        frame = frames.syn(**self._ends, to=to, port=port, segment=segment)
        self._home.sends(self._descriptor, frame)

    def passed(self, protocol: int) -> list[bytes]:
        """The IPv4 packets of a protocol that have come out at the far end, since last asked."""
        found: list[bytes] = []
        while True:
            try:
                frame = self._cable.recv(2048)
            except BlockingIOError:
                return found
            if frame[12:14] == b"\x08\x00" and frame[23] == protocol:
                found.append(frame[14:])


@pytest.fixture
def cable(apart: None) -> Iterator[socket.socket]:
    run("ip", "link", "add", "out0", "mtu", "1400", "type", "veth", "peer", "name", "in0")
    for name in ("out0", "in0"):
        run("ip", "link", "set", name, "up")
    run("ip", "address", "add", f"{NEAR}/24", "dev", "out0")
    run("ip", "neighbour", "add", FAR, "lladdr", FAR_MAC, "dev", "out0")
    run("ip", "route", "add", "default", "via", FAR)
    # ETH_P_ALL (packet(7)).
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as far:
        far.bind(("in0", 3))
        far.setblocking(False)
        yield far


async def wired(home: Home, cable: socket.socket, egress: Egress, **config: object) -> Wire:
    network = await home.network(**config)
    machine = await home.machine(network, egress=egress)
    return Wire(home, machine, await home.attached(network, machine), cable)


@pytest.mark.parametrize(
    "egress",
    [
        "all",
        "none",
        (EgressRule(network="192.0.2.0/24"),),
        (EgressRule(network="192.0.2.2/32", ports=(53, 5353)),),
        (EgressRule(network="192.0.2.2/32", protocol="tcp", ports=(53,)),),
        (EgressRule(network="0.0.0.0/0", protocol="udp"),),
        (
            EgressRule(network="169.254.0.0/16", ports=(80,)),
            EgressRule(network="198.51.100.0/24", protocol="udp", ports=(123,)),
        ),
    ],
)
async def test_rules_and_what_is_cut_by_them_are_of_one_mind(
    home: Home, cable: socket.socket, egress: Egress
) -> None:
    wire = await wired(home, cable, egress)
    for to in (FAR, "192.0.2.9", "198.51.100.7", "169.254.169.254", "203.0.113.1"):
        # The one next door is asked for by ARP, which nobody answers.
        through = to != "192.0.2.9"
        for port in (53, 80, 123):
            wire.says(to, port)
            came = [packet[16:20] for packet in wire.passed(socket.IPPROTO_UDP)]
            allowed = permits(egress, to, socket.IPPROTO_UDP, port)
            assert came == ([socket.inet_aton(to)] if allowed and through else []), (to, port)


async def test_what_became_forbidden_while_nobody_was_there_is_cut(
    home: Home, cable: socket.socket
) -> None:
    wire = await wired(home, cable, "all")
    for port in (53, 80):
        wire.says(FAR, port)
    spec = msgspec.structs.replace(
        wire.machine.spec, egress=(EgressRule(network=f"{FAR}/32", ports=(53,)),)
    )
    await home.store.save(msgspec.structs.replace(wire.machine, spec=spec))
    await home.network()
    kept: list[int | None] = []

    def keep(flow: conntrack.Flow) -> bool:
        kept.append(flow.port)
        return False

    await asyncio.to_thread(conntrack.cut, wire.ip, keep)
    assert kept == [53]


async def test_a_guest_can_not_fill_the_hosts_table_of_connections(
    home: Home, cable: socket.socket
) -> None:
    wire = await wired(home, cable, "all", flows=10)
    for port in range(1000, 1100):
        wire.says(FAR, port)
    assert len(wire.passed(socket.IPPROTO_UDP)) == 10
    assert await asyncio.to_thread(conntrack.cut, wire.ip) == 10
    wire.says(FAR, 53)
    assert len(wire.passed(socket.IPPROTO_UDP)) == 1


async def test_segments_fit_the_way_out(home: Home, cable: socket.socket) -> None:
    wire = await wired(home, cable, "all")
    for asked, expected in ((1460, 1360), (1000, 1000)):
        wire.knocks(FAR, 80, segment=asked)
        (packet,) = wire.passed(socket.IPPROTO_TCP)
        assert packet[12:16] == socket.inet_aton(NEAR)
        # Behind both heads: kind 2, length 4, the largest segment (RFC 9293, 3.7.1).
        assert packet[40:44] == bytes((2, 4)) + expected.to_bytes(2, "big")
        await asyncio.to_thread(conntrack.cut, wire.ip)


async def test_what_is_meant_for_a_machine_that_is_gone_leaves_the_host_by_no_other_way(
    home: Home, cable: socket.socket
) -> None:
    network = await home.network()
    machine = await home.machine(network)
    wire = Wire(home, machine, await home.attached(network, machine), cable)
    wire.says(FAR, 53)
    assert len(wire.passed(socket.IPPROTO_UDP)) == 1
    await network.detach(launch(machine))
    assert await asyncio.to_thread(conntrack.spoken_to, [wire.ip]) == set()
    with pytest.raises(ConnectionRefusedError):
        async with asyncio.timeout(10):
            await asyncio.open_connection(wire.ip, 80)
    assert wire.passed(socket.IPPROTO_TCP) == []
