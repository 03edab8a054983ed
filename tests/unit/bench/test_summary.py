"""What the figures of a benchmark mean, from samples made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import report
from benchmarks.peers import OURS
from benchmarks.record import Record
from benchmarks.rounds import Sample
from benchmarks.summary import summarize
from benchmarks.workloads import chosen

(WORKLOAD,) = chosen("small-get")
TITLES = {OURS: "Hyperfleet", "nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy"}


def samples(peer: str, *values: float) -> list[Sample]:
    return [
        Sample("small-get", peer, n, value, 1000, 10, 20, 0.5) for n, value in enumerate(values)
    ]


def test_the_ratio_is_taken_within_rounds_to_the_rival_with_the_lowest_median():
    table = summarize(
        WORKLOAD,
        # The host was slow in the second round: for all alike, so the ratio does not move.
        [*samples(OURS, 8, 80, 8), *samples("nginx", 10, 100, 10), *samples("haproxy", 11, 99, 12)],
    )
    assert table.best == "nginx"
    ours = table.line(OURS)
    assert ours is not None
    assert ours.ratio.median == pytest.approx(0.8)
    assert (ours.value.median, ours.value.least, ours.value.most) == (8, 8, 80)
    assert table.met


def test_a_peer_that_is_no_rival_sets_no_target():
    table = summarize(WORKLOAD, [*samples(OURS, 9), *samples("nginx", 10), *samples("caddy", 1)])
    assert table.best == "nginx"
    assert not table.met


def test_a_peer_that_is_not_in_every_round_is_compared_in_its_own():
    table = summarize(WORKLOAD, [*samples("nginx", 10, 20, 20), *samples("caddy", 50)])
    caddy = table.line("caddy")
    assert caddy is not None
    assert caddy.ratio.median == 5
    assert caddy.rounds == 1


def test_without_a_rival_there_is_no_verdict():
    table = summarize(WORKLOAD, samples(OURS, 9))
    assert table.best is None
    assert table.met is None
    assert report.overview([table], TITLES).count("\n") == 2


def test_the_page_says_what_was_measured_and_what_failed(tmp_path):
    record = Record(
        facts={"processor": "a fast one"},
        seconds=1.0,
        pinning="Pinned.",
        samples=[*samples(OURS, 8.04, 8), *samples("nginx", 1000, 1000)],
        failures={"echo/nginx": "closed"},
    )
    record.write(tmp_path / "kept" / "results.json")
    again = Record.read(tmp_path / "kept" / "results.json")
    assert again == record
    page = report.markdown(again, TITLES)
    assert "| processor | a fast one |" in page
    assert "| **Hyperfleet** | 8.0 | 8.0 to 8.0 | 0.01 (0.01 to 0.01) |" in page
    assert "| nginx | 1,000 |" in page
    assert "- `echo/nginx`: closed" in page


def test_a_unit_is_an_answer_or_so_many_bytes():
    (bodies,) = chosen("get-1m")
    assert WORKLOAD.units(answers=7, size=700) == 7
    assert bodies.units(answers=7, size=7 << 20) == 7
    assert replace(bodies, size=1 << 19).units(answers=8, size=4 << 20) == 4
