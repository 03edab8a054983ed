"""Who reaches whom by user networking: real machines, on a host of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet.network import gate, user
from hyperfleet.network.interface import host_address
from support import frames, plain, sockets
from support.far import connect
from support.netns import run, taps
from support.reach import (
    ALLOWED,
    ELSEWHERE,
    HOST,
    HOST6,
    INTERNET,
    METADATA,
    SERVICE,
    UDP,
    Matrix,
    World,
    listening,
)

pytestmark = [pytest.mark.vm, taps]

TABLE = Path("/proc/thread-self/net/tcp")
OUTWARD = gate.ADDRESS.partition("/")[0]


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    made = Matrix()
    yield made
    made.show("user", request)


@pytest.fixture(scope="module")
def way(world: World) -> tuple[str, int]:
    """Where on the host's loopback the other machine's port 80 is."""
    address = host_address(world.machines["two"]["id"])
    found = [one for one in sockets.listening(TABLE) if one.address == sockets.shown(address)]
    assert len(found) == 1
    return address, found[0].port


def test_who_reaches_whom(world: World, matrix: Matrix, way: tuple[str, int]) -> None:
    slirp = user.GATEWAY
    address, port = way
    # All machines see themselves at the same addresses: at them is the one that asks, and what the
    # other serves there is not.
    world.server.sh(
        "two",
        "cat > /far.conf && nginx -c /far.conf -g 'pid /far.pid;'",
        stdin=f"events {{}} http {{ server {{ listen {SERVICE}; root /var/www/html; }} }}",
    )
    matrix.tries(
        world,
        "one",
        ("the internet", f"tcp {INTERNET} 80", f"open {HOST}"),
        ("the internet, another port", f"tcp {ELSEWHERE} 443", f"open {HOST}"),
        ("the internet, nobody there", f"tcp {INTERNET} 81", "refused"),
        ("the internet, by UDP", f"udp {INTERNET} 53 word", "answered"),
        ("a cloud's metadata", f"tcp {METADATA} 80", "refused"),
        ("the host by the gateway", f"tcp {gate.GATEWAY} {SERVICE}", "refused"),
        ("the host by the gateway, by UDP", f"udp {gate.GATEWAY} {UDP} word", "refused"),
        ("the host by the first card", f"tcp {slirp} {SERVICE}", "refused"),
        ("the host by the first card, by UDP", f"udp {slirp} {UDP} word", "silent"),
        ("the host by its own address", f"tcp {HOST} {SERVICE}", "refused"),
        ("the API by the gateway", f"tcp {gate.GATEWAY} {world.server.api_port}", "refused"),
        ("the proxy by the gateway", f"tcp {gate.GATEWAY} {world.server.proxy_port}", "refused"),
        ("a port that is let in", f"tcp {gate.GATEWAY} {ALLOWED}", "open 127.0.0.1"),
        ("that port by the host's own address", f"tcp {HOST} {ALLOWED}", "refused"),
        ("the other machine's address", f"tcp {user.GUEST_IP} {SERVICE}", "refused"),
        ("the other machine's second address", f"tcp {OUTWARD} {SERVICE}", "refused"),
        ("the other's way in by the gateway", f"tcp {gate.GATEWAY} {port}", "refused"),
        ("the other's way in by the first card", f"tcp {slirp} {port}", "refused"),
        ("the other's way in by its address", f"tcp {address} {port}", "refused"),
        ("the host by IPv6", f"tcp {HOST6} {SERVICE}", "refused"),
    )
    # Whose a link-local address is, nobody tells, which a kernel finds out within seconds.
    (seen,) = world.tries("one", f"tcp {_link_local('out0')}%eth1 {SERVICE}")
    reached = "no" if seen in ("refused", "silent") else seen
    matrix.row("machine", "the host by its link-local address", "no", reached)
    assert matrix.wrong == []


@pytest.mark.parametrize("card", ["eth0", "eth1"])
def test_what_no_kernel_would_send_comes_nowhere(
    world: World, matrix: Matrix, way: tuple[str, int], card: str
) -> None:
    own, others = (world.network(name)["guest_mac"] for name in ("one", "two"))
    ip = user.GUEST_IP
    if card == "eth1":
        own, others, ip = f"56{own[2:]}", f"56{others[2:]}", OUTWARD
    address, port = way
    kinds = {
        "loopback": ("127.0.0.1", "127.9.9.9", HOST),
        "IPv6": ("::1", f"::ffff:{HOST}", HOST6, _link_local("out0"), "ff02::1"),
    }
    before = _nobody_there(world, "two")
    raw = [
        frames.udp(
            kind,
            mac=own,
            to_mac="33:33:00:00:00:01" if to == "ff02::1" else frames.BROADCAST,
            ip="fe80::1:2" if ":" in to else ip,
            to=to,
            port=UDP,
        )
        for kind, addresses in kinds.items()
        for to in addresses
    ]
    raw += [
        frames.syn(mac=own, to_mac=frames.BROADCAST, ip=ip, to=address, port=port),
        # By its hardware address, at its card of the same network.
        frames.udp("other", mac=own, to_mac=others, ip=f"{ip}6", to=ip, port=UDP),
    ]
    *_, last = world.tries(
        "one", *(f"frame {frame.hex()} {card}" for frame in raw), f"udp {INTERNET} 53 last"
    )
    # By either card, all that was sent before has come through when these have.
    assert last == "answered"
    assert plain.get(f"{world.server.proxy_url}/proxy/one/80/").text == "one\n"
    heard = world.host_heard()
    for kind in kinds:
        matrix.row("machine", f"{kind}, in a frame by {card}", "0", str(heard.count(kind)))
    made = sockets.connected(TABLE, address, port)
    matrix.row("machine", f"the other's way in, by {card}", "0", str(made))
    reached = _nobody_there(world, "two") - before
    matrix.row("machine", f"the other, in a frame by {card}", "0", str(reached))
    assert matrix.wrong == []


def test_who_is_let_in(world: World, matrix: Matrix, way: tuple[str, int]) -> None:
    address, port = way
    page = plain.get(f"{world.server.proxy_url}/proxy/two/80/").text.strip()
    matrix.row("the proxy", "an exposed port", "two", page)
    # It is what the rows above were to make.
    assert sockets.connected(TABLE, address, port) > 0
    seen = world.another_user_tries(address, port)
    matrix.row("another user", "a machine's way in", "open", seen)
    matrix.row("the internet", "a machine's way in", "refused", world.far.ask(f"tcp {HOST} {port}"))
    # What guests did not reach was there to be reached.
    matrix.row("root on the host", f"itself at {HOST6}", "open", connect(HOST6, SERVICE))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"truth", ("::1", UDP))
    assert world.host_heard() == ["truth"]
    assert matrix.wrong == []


def _link_local(card: str) -> str:
    """The host's address there (RFC 4291, 2.5.6)."""
    shown = run("ip", "-6", "-o", "address", "show", "dev", card, "scope", "link")
    return shown.split("inet6 ")[1].partition("/")[0]


def _nobody_there(world: World, name: str) -> int:
    """How many datagrams a machine has got for ports that nobody has (RFC 4113, udpNoPorts)."""
    text = world.server.sh(name, "cat /proc/net/snmp")
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp: "))
    return int(dict(zip(names, values, strict=True))["NoPorts"])


def test_a_scan_of_the_host_finds_what_is_let_in_and_nothing_else(world: World) -> None:
    found = listening(world.server)
    ways = (gate.GATEWAY, user.GATEWAY, HOST, gate.DNS)
    acts = [f"tcp {way} {port}" for port in found - {ALLOWED} for way in ways]
    near = f"scan {gate.GATEWAY} {ALLOWED - 20} {ALLOWED + 20}"
    assert world.tries("one", near, *acts) == [str(ALLOWED), *("refused" for _ in acts)]


def test_without_its_way_out_a_machine_still_serves(world: World) -> None:
    log = world.server.home / "machines" / world.machines["one"]["id"] / gate.LOG
    os.kill(_gate_that_writes(log), signal.SIGKILL)
    assert plain.get(f"{world.server.proxy_url}/proxy/one/80/").text == "one\n"
    (seen,) = world.tries("one", f"tcp {INTERNET} 80")
    assert seen != f"open {HOST}"
    world.server.api.post("/machines/one/restart").raise_for_status()
    world.server.sh("one", "cat > /guest.pl", stdin=world.script)
    assert world.tries("one", f"tcp {INTERNET} 80") == [f"open {HOST}"]


def _gate_that_writes(log: Path) -> int:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # Processes of others end meanwhile.
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text() == "hyperfleet-gate\n" and (
                entry / "fd/2"
            ).resolve() == log.resolve():
                found.append(int(entry.name))
    (pid,) = found
    return pid
