"""Who reaches whom by user networking: a real machine, on a host of the test's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from hyperfleet.network import gate, user
from support import frames
from support.netns import taps
from support.reach import (
    ALLOWED,
    ELSEWHERE,
    HOST,
    INTERNET,
    METADATA,
    SERVICE,
    UDP,
    Matrix,
    World,
    listening,
)

pytestmark = [pytest.mark.vm, taps]


def test_who_reaches_whom(world: World, request: pytest.FixtureRequest) -> None:
    matrix = Matrix()
    slirp = user.GATEWAY
    asked = (
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
        ("a port that is let in", f"tcp {gate.GATEWAY} {ALLOWED}", "open 127.0.0.1"),
        ("that port by the host's own address", f"tcp {HOST} {ALLOWED}", "refused"),
    )
    matrix.tries(world, "one", *asked)
    page = httpx.get(f"{world.server.proxy_url}/proxy/one/80/").text.strip()
    matrix.row("the proxy", "an exposed port", "one", page)
    # What a guest's kernel would never send, by either card.
    mac = world.network("one")["guest_mac"]
    cards = {"eth0": (mac, user.GUEST_IP), "eth1": (f"56{mac[2:]}", gate.ADDRESS.split("/")[0])}
    for card, (own, ip) in cards.items():
        lies = [
            frames.udp("lie", mac=own, to_mac=frames.BROADCAST, ip=ip, to=to, port=UDP)
            for to in ("127.0.0.1", HOST, "127.9.9.9")
        ]
        *_, last = world.tries(
            "one", *(f"frame {lie.hex()} {card}" for lie in lies), f"udp {INTERNET} 53 last"
        )
        # By either card, all that was sent before has come through when these have.
        assert last == "answered"
        assert httpx.get(f"{world.server.proxy_url}/proxy/one/80/").text == "one\n"
        seen = "refused" if world.host_heard() == [] else "heard"
        matrix.row("machine", f"loopback, named in a frame by {card}", "refused", seen)
    matrix.show("user", request)
    assert matrix.wrong == []


def test_a_scan_of_the_host_finds_what_is_let_in_and_nothing_else(world: World) -> None:
    found = listening(world.server)
    ways = (gate.GATEWAY, user.GATEWAY, HOST, gate.DNS)
    acts = [f"tcp {way} {port}" for port in found - {ALLOWED} for way in ways]
    near = f"scan {gate.GATEWAY} {ALLOWED - 20} {ALLOWED + 20}"
    assert world.tries("one", near, *acts) == [str(ALLOWED), *("refused" for _ in acts)]


def test_without_its_way_out_a_machine_still_serves(world: World) -> None:
    log = world.server.home / "machines" / world.machines["one"]["id"] / gate.LOG
    (found,) = (
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "comm").read_text() == "hyperfleet-gate\n"
        and (entry / "fd/2").resolve() == log.resolve()
    )
    os.kill(found, signal.SIGKILL)
    assert httpx.get(f"{world.server.proxy_url}/proxy/one/80/").text == "one\n"
    (seen,) = world.tries("one", f"tcp {INTERNET} 80")
    assert seen != f"open {HOST}"
    world.server.api.post("/machines/one/restart").raise_for_status()
    world.server.sh("one", "cat > /guest.pl", stdin=world.script)
    assert world.tries("one", f"tcp {INTERNET} 80") == [f"open {HOST}"]
