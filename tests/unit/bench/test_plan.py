"""Who is measured, when, and with which configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import job, peers, rounds, workloads
from benchmarks.peers import MACHINE, OURS, PREFIX, Place
from benchmarks.processes import family

PEERS = peers.known(Path("/checkout"))


(SMALL,) = workloads.chosen("small-get")
(BUFFERS,) = workloads.chosen("get-64k")
(RATE,) = workloads.chosen("rate")
(IDLE,) = workloads.chosen("idle-websocket")
PLAN = rounds.Plan(7, 15, 21, 1.0, None, None, 1024)


def test_each_round_begins_with_another_and_far_ones_stop_early():
    first, second = rounds.order(PEERS, 0, SMALL), rounds.order(PEERS, 1, SMALL)
    assert first[0].key == OURS
    assert second[0] == first[1]
    assert {peer.key for peer in first} == {peer.key for peer in second}
    late = rounds.order(PEERS, rounds.SOME_ROUNDS, SMALL)
    assert {peer.key for peer in late} == {"nginx", "haproxy", OURS}
    late = rounds.order(PEERS, rounds.SOME_ROUNDS, BUFFERS)
    assert {"nginx-64k", "haproxy-64k"} < {peer.key for peer in late}
    assert all(peer.in_every_round for peer in late)
    assert len(rounds.order(PEERS, 0, IDLE)) == len(PEERS)
    assert {peer.key for peer in rounds.order(PEERS, 1, IDLE)} == {"haproxy", OURS}


def test_what_scatters_most_has_many_rounds_from_the_start_and_what_was_asked_for_is_done():
    assert rounds.steps(SMALL, PLAN) == [7, 15, 21]
    assert rounds.steps(RATE, PLAN) == [15, 21]
    assert rounds.steps(RATE, replace(PLAN, rounds=2, close_rounds=2, most_rounds=2)) == [2]


def test_a_guess_grows_with_what_is_done():
    small, buffers, rate, idle = (
        rounds.guess(workload, PEERS, PLAN) for workload in (SMALL, BUFFERS, RATE, IDLE)
    )
    assert 30 < small < buffers < 150
    assert rate > small
    assert idle > 0
    one = replace(PLAN, rounds=1, close_rounds=1, most_rounds=1)
    assert rounds.guess(SMALL, PEERS, one) < small / 2


def test_idle_connections_leave_descriptors_to_spare():
    assert rounds.scaled(IDLE, 24_000).connections == IDLE.connections
    assert rounds.scaled(IDLE, 20_000).connections == 9_000
    assert 0 < rounds.scaled(IDLE, 1024).connections < 512


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_every_configuration_is_filled_to_its_last_name(tmp_path, peer):
    place = Place(tmp_path, port=4001, upstream_port=4002, descriptors=1024)
    command = peer.command(peer, place)
    assert command[0] == str(peer.program)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "127.0.0.1:4002" in text or "port_value: 4002" in text
    assert ("@" in text.replace("@type", "")) is False
    assert (MACHINE in text) == bool(peer.prefix)


def test_a_name_that_nobody_knows_is_told():
    with pytest.raises(ValueError, match="no workload fast; there are: connect"):
        workloads.chosen("small-get,fast")
    with pytest.raises(ValueError, match="no peer apache"):
        peers.chosen(PEERS, "apache,nginx")
    assert [peer.key for peer in peers.chosen(PEERS, "nginx")] == [OURS, "nginx"]
    assert workloads.chosen(None) == workloads.WORKLOADS


def test_a_proxy_that_does_another_job_is_found_out():
    fields = {
        "Host": "bench.test:4000",
        "X-Forwarded-For": "127.0.0.1",
        "x-forwarded-host": "bench.test:4000",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Prefix": PREFIX,
        "X-Machine-ID": MACHINE,
    }

    def head(path: str, fields: dict[str, str]) -> str:
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join(lines) + "\r\n\r\n"

    assert job.faults(head("/head", fields)) == []
    assert job.faults(head(f"{PREFIX}/head", fields)) != []
    for name in fields:
        assert job.faults(head("/head", {n: v for n, v in fields.items() if n != name})) != []


def test_children_and_theirs_are_of_the_family():
    assert family(1, {2: 1, 3: 2, 4: 9, 5: 1}) == [1, 2, 5, 3]
