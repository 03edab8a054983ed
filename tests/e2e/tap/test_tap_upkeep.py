"""Egress that is changed live, crashes, and what is left of machines on taps."""

from __future__ import annotations

import json
import sqlite3

import httpx
import pytest

from support import plain
from support.netns import run, taps
from support.page import Page, types
from support.reach import ELSEWHERE, HOST, INTERNET, METADATA, SERVICE, World

pytestmark = [pytest.mark.vm, taps]

HOLD = (
    "rm -f /in /out; mkfifo /in /out; exec 3<> /in 4<> /out;"
    " setsid perl /guest.pl <&3 >&4 2>&1 &"
    " echo hold {address} 7000 > /in; read line <&4; echo $line"
)
SAY = "exec 3<> /out; echo {word} > /in; read line <&3; echo $line"


def seen(world: World, *whom: tuple[str, int]) -> list[str]:
    found = world.tries("one", *(f"tcp {address} {port}" for address, port in whom))
    return [words.partition(" ")[0] for words in found]


def test_egress_is_changed_while_the_machine_runs(world: World) -> None:
    all_three = ((INTERNET, 80), (INTERNET, 443), (ELSEWHERE, 443))
    assert seen(world, *all_three) == ["open", "open", "open"]
    world.change("one", [{"network": INTERNET, "ports": [443], "protocol": "tcp"}])
    assert seen(world, *all_three) == ["refused", "open", "refused"]
    assert world.tries("one", f"udp {INTERNET} 53 x") == ["refused"]
    world.change("one", [{"network": "198.51.100.0/24"}, {"network": f"{METADATA}/32"}])
    assert seen(world, *all_three, (METADATA, 80)) == ["refused", "refused", "open", "open"]
    world.change("one", "none")
    assert seen(world, *all_three) == ["refused", "refused", "refused"]
    # Answers are not egress.
    assert plain.get(f"{world.server.proxy_url}/proxy/one/80/").text == "one\n"
    world.change("one", "all")
    assert seen(world, *all_three) == ["open", "open", "open"]


def test_the_page_works_as_it_is_written(world: World) -> None:
    block = Page("docs/how-to/networks-tap.md").block_with('"ports": [80, 443]')
    script = block.replace("/machines/web", "/machines/one").replace("$KEY", world.server.key)
    listed, none = types(world.server, script)
    assert [rule["network"] for rule in json.loads(listed)["egress"]] == [
        "192.0.2.0/24",
        "198.51.100.7/32",
    ]
    assert json.loads(none)["egress"] == "none"
    world.change("one", "all")


def test_a_connection_that_becomes_forbidden_is_cut_and_no_other(world: World) -> None:
    assert world.server.sh("one", HOLD.format(address=INTERNET)).startswith("held ")
    world.change("one", [{"network": INTERNET, "ports": [7000]}])
    assert world.server.sh("one", SAY.format(word="still")) == "still\n"
    world.change("one", [{"network": INTERNET, "ports": [443]}])
    assert world.server.sh("one", SAY.format(word="now")) == "cut\n"
    world.change("one", "all")


def test_rules_outlive_the_control_plane_and_follow_the_record(world: World) -> None:
    world.change("one", [{"network": INTERNET, "ports": [80]}])
    world.server.kill()
    # Nobody is there who could tell the rules anything; machines run on as they were held.
    tables = world.tables()
    assert tables.count("hyperfleet_") == 2
    run("nft", "flush", "ruleset")
    world.server.start()
    assert world.tables() == tables
    assert world.server.api.get("/machines/one").json()["status"] == "running"
    assert seen(world, (INTERNET, 80), (INTERNET, 443)) == ["open", "refused"]
    assert seen(world, (HOST, SERVICE), (world.network("two")["guest_ip"], 80)) == ["refused"] * 2
    world.change("one", "all")


def test_rules_that_a_firewall_flushes_are_made_anew(world: World) -> None:
    tables = world.tables()
    run("nft", "flush", "ruleset")
    # The control plane hears of it; an exec goes through it, so a few are time enough.
    for _ in range(50):
        if world.tables() == tables:
            break
        world.server.sh("two", "true")
    assert world.tables() == tables
    assert seen(world, (HOST, SERVICE), (INTERNET, 80)) == ["refused", "open"]


def test_a_deleted_machines_address_rests(world: World) -> None:
    server = world.server
    gone = server.create("gone")["network"]
    assert server.api.delete("/machines/gone").status_code == httpx.codes.NO_CONTENT
    with sqlite3.connect(server.folder / "hyperfleet.db") as record:
        resting = [row[0] for row in record.execute("SELECT guest_ip FROM resting_addresses")]
    record.close()
    assert resting == [gone["guest_ip"]]
    again = server.create("again")["network"]
    assert again["guest_ip"] != gone["guest_ip"]
    assert server.api.delete("/machines/again").status_code == httpx.codes.NO_CONTENT


def test_nothing_is_left_at_the_end(world: World) -> None:
    for name in ("one", "two"):
        world.server.api.post(f"/machines/{name}/stop")
    assert "hf-" not in run("ip", "-brief", "link")
    assert "172.30." not in run("ip", "route", "show", "table", "all")
    assert world.server.stop() == 0
    assert "hyperfleet" not in run("nft", "list", "ruleset")
