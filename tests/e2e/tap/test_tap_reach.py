"""Who reaches whom by tap: real machines, on a host of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from support import frames, plain
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

from .conftest import SUBNET

pytestmark = [pytest.mark.vm, taps]


def test_who_reaches_whom(world: World, matrix: Matrix) -> None:
    one, two = world.network("one"), world.network("two")
    asked = (
        ("the internet", f"tcp {INTERNET} 80", f"open {HOST}"),
        ("the internet, another port", f"tcp {ELSEWHERE} 443", f"open {HOST}"),
        ("the internet, by UDP", f"udp {INTERNET} 53 word", "answered"),
        ("a cloud's metadata", f"tcp {METADATA} 80", "refused"),
        ("the other machine", f"tcp {two['guest_ip']} 80", "refused"),
        ("the other machine, by UDP", f"udp {two['guest_ip']} 53 word", "refused"),
        ("an address that no machine has", "tcp 172.30.9.2 80", "refused"),
        ("the host by the tap", f"tcp {one['tap_ip']} {SERVICE}", "refused"),
        ("the host by the tap, by UDP", f"udp {one['tap_ip']} {UDP} word", "refused"),
        ("the host by the other's tap", f"tcp {two['tap_ip']} {SERVICE}", "refused"),
        ("the host by its own address", f"tcp {HOST} {SERVICE}", "refused"),
        ("the API by the host's own address", f"tcp {HOST} {world.server.api_port}", "refused"),
        ("an allowed port by the tap", f"tcp {one['tap_ip']} {ALLOWED}", f"open {one['guest_ip']}"),
        ("an allowed port by the other's tap", f"tcp {two['tap_ip']} {ALLOWED}", "refused"),
        ("an allowed port by its own address", f"tcp {HOST} {ALLOWED}", "refused"),
    )
    matrix.tries(world, "one", *asked)
    page = plain.get(f"{world.server.proxy_url}/proxy/two/80/").text.strip()
    matrix.row("the proxy", "an exposed port", "two", page)
    matrix.row("root on the host", "a machine", "open", connect(two["guest_ip"], 80))
    assert world.another_user_tries(HOST, SERVICE) == "open"
    seen = world.another_user_tries(two["guest_ip"], 80)
    matrix.row("another user", "a machine", "refused", seen)
    assert world.far.ask(f"tcp {HOST} {SERVICE}") == "open"
    seen = world.far.ask(f"tcp {two['guest_ip']} 80")
    matrix.row("the internet", "a machine", "silent", seen)
    assert world.host_heard() == []
    assert matrix.wrong == []


def test_a_server_on_the_machines_loopback_is_reached_by_the_proxy(world: World) -> None:
    server = world.server
    assert server.api.patch("/machines/two", json={"exposed_ports": [80, 8081]}).is_success
    config = "events {} http { server { listen 127.0.0.1:8081; root /var/www/html; } }"
    server.sh("two", "cat > /near.conf && nginx -c /near.conf -g 'pid /near.pid;'", stdin=config)
    ports = server.api.get("/machines/two/ports").json()["ports"]
    assert [port["address"] for port in ports] == ["0.0.0.0", "127.0.0.1"]
    assert plain.get(f"{server.proxy_url}/proxy/two/8081/").text == "two\n"


def test_a_scan_of_the_host_finds_what_is_allowed_and_nothing_else(world: World) -> None:
    own = world.network("one")["tap_ip"]
    found = listening(world.server)
    others = [f"tcp {address} {port}" for port in found - {ALLOWED} for address in (own, HOST)]
    near = f"scan {own} {ALLOWED - 20} {ALLOWED + 20}"
    answers = world.tries("one", f"scan {own} 1 2000", near, *others)
    assert answers == ["none", str(ALLOWED), *("refused" for _ in others)]


def test_a_machine_sends_as_itself_or_not_at_all(world: World) -> None:
    one, two = world.network("one"), world.network("two")
    known = world.server.sh("one", "cat /proc/net/arp").splitlines()
    gateway = next(line.split()[3] for line in known if line.startswith(f"{one['tap_ip']} "))
    honest: dict[str, Any] = {
        "mac": one["guest_mac"],
        "to_mac": gateway,
        "ip": one["guest_ip"],
        "to": INTERNET,
        "port": 53,
    }
    lies: dict[str, dict[str, Any]] = {
        "another-machine": {"ip": two["guest_ip"]},
        "the-host": {"ip": HOST},
        "its-gateway": {"ip": one["tap_ip"]},
        "a-stranger": {"ip": "203.0.113.9"},
        "other-mac": {"mac": two["guest_mac"]},
        "to-host": {"to": HOST, "port": UDP},
        "to-host-as-itself": {"to": one["tap_ip"], "port": UDP, "ip": "127.0.0.1"},
        "ipv6": {"ip": "2001:db8::99", "to": HOST6, "port": UDP},
        "ipv6-near": {"ip": "fe80::1", "to": "ff02::1", "port": UDP, "to_mac": "33:33:00:00:00:01"},
    }
    world.far.ask("heard")
    # The last two are true: they come through, and after all that was sent before.
    sent = [frames.udp(word, **{**honest, **lie}).hex() for word, lie in lies.items()]
    sent.append(frames.udp("truth", **honest).hex())
    *_, last = world.tries("one", *(f"frame {one}" for one in sent), f"udp {INTERNET} 53 last")
    assert last == "answered"
    assert world.far.ask("heard").split() == [f"truth@{HOST}", f"last@{HOST}"]
    assert world.host_heard() == []


def test_nobody_believes_what_a_machine_says_by_arp(world: World) -> None:
    one, two = world.network("one"), world.network("two")
    mac, ip = one["guest_mac"], one["guest_ip"]
    before = run("ip", "-4", "neighbour")
    claims = [
        frames.arp(kind, mac=mac, ip=claimed, of=claimed)
        for claimed in (two["guest_ip"], HOST, INTERNET, one["tap_ip"])
        for kind in (1, 2)
    ]
    claims.append(frames.arp(2, mac=two["guest_mac"], ip=ip, of=one["tap_ip"]))
    world.tries("one", *(f"frame {claim.hex()}" for claim in claims))
    # The last is answered, and after whatever the others would have been.
    questions = [
        frames.arp(1, mac=mac, ip=ip, of=of).hex() for of in (HOST, two["tap_ip"], one["tap_ip"])
    ]
    assert world.tries("one", f"arp {' '.join(questions)}") == [f"answered {one['tap_ip']}"]
    known = [line for line in run("ip", "-4", "neighbour").splitlines() if "dev hf-" in line]
    assert known == [line for line in before.splitlines() if "dev hf-" in line]
    assert len(known) == 2
    assert all("PERMANENT" in line for line in known)


def test_there_is_no_ipv6_on_a_tap(world: World) -> None:
    for name in ("one", "two"):
        tap = world.network(name)["tap_device"]
        assert run("ip", "-6", "address", "show", "dev", tap) == ""
    assert SUBNET.startswith("172.30.")
