"""What a soak calls left over, contradictory, lost or passed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.soak.checks import Reality, disagreements, leftovers
from support.soak.tally import Tally


def machine(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a1",
        "name": "web",
        "status": "running",
        "pid": 7,
        "exposed_ports": [80],
    } | changes


SOUND = Reality(
    machines=(machine(), machine(id="b2", name="idle", status="stopped", pid=None)),
    rows={"a1": ("running", 7), "b2": ("stopped", None)},
    qemus={7: "a1"},
    folders=frozenset({"a1", "b2"}),
    sockets=frozenset({"a1/qmp.sock"}),
    forwards={7: 1},
    snapshots=frozenset({"kept"}),
    kept=frozenset({"kept"}),
)


def test_a_sound_home_has_nothing_to_tell() -> None:
    assert leftovers(SOUND) == []
    assert disagreements(SOUND) == []
    relayed = machine(ports=[{"port": 80, "address": "127.0.0.1"}])
    sound = replace(SOUND, machines=(relayed, SOUND.machines[1]), forwards={7: 2})
    assert disagreements(sound) == []
    assert disagreements(replace(sound, forwards={7: 1})) != []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qemus": {7: "a1", 8: "b2"}}, "QEMU 8 of machine b2"),
        ({"qemus": {7: "a1", 9: "gone"}}, "QEMU 9 of machine gone"),
        ({"folders": frozenset({"a1", "b2", "c3"})}, "folder c3"),
        ({"kept": frozenset({"kept", "half.new"})}, "folder half.new of no snapshot"),
        ({"sockets": frozenset({"a1/qmp.sock", "b2/qmp.sock"})}, "socket b2/qmp.sock"),
    ],
)
def test_leftovers(change: dict[str, Any], said: str) -> None:
    (found,) = leftovers(replace(SOUND, **change))
    assert said in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qemus": {7: "a1", 8: "a1"}}, "web runs 2 times"),
        ({"qemus": {8: "a1"}}, "its processes are [8]"),
        ({"qemus": {}}, "its processes are []"),
        ({"folders": frozenset({"b2"})}, "without a folder"),
        ({"kept": frozenset()}, "snapshot kept has no folder"),
        ({"forwards": {7: 2}}, "2 ways in for 1 exposed ports"),
        ({"rows": {"a1": ("starting", None), "b2": ("stopped", None)}}, "the database has"),
        ({"rows": {"a1": ("running", 7)}}, "the database has None"),
        ({"rows": {**SOUND.rows, "c3": ("failed", None)}}, "the API does not"),
    ],
)
def test_disagreements(change: dict[str, Any], said: str) -> None:
    assert any(said in found for found in disagreements(replace(SOUND, **change)))


def test_a_machine_at_rest_has_no_process() -> None:
    at_rest = replace(SOUND, machines=(machine(status="failed"),), rows={"a1": ("failed", 7)})
    assert any("has pid 7" in found for found in disagreements(at_rest))


def test_one_thing_lost_wrong_or_left_fails_a_soak_and_so_does_doing_nothing() -> None:
    assert not Tally(1).passed
    assert Tally(1, requests=1).passed
    assert not Tally(1, requests=1, lost=["this"]).passed
    assert not Tally(1, requests=1, wrong=["this"]).passed
    assert not Tally(1, requests=1, leftovers=["this"]).passed


def test_the_text_has_every_sum() -> None:
    tally = Tally(5, started=3, requests=10, lost=["web: forgotten"])
    tally.killed.update(("QEMU", "QEMU", "data plane"))
    tally.done.update(("put_back", "ask", "ask"))
    tally.grew("control plane", 7, 50 << 20)
    tally.grew("control plane", 7, 60 << 20)
    tally.grew("control plane", 8, 90 << 20)
    text = tally.text()
    for said in (
        "3 (QEMU 2, data plane 1)",
        "ask 2, put back 1",
        "50.0 to 60.0 MiB",
        "lost: web: forgotten",
    ):
        assert said in text
