"""What the figures of a benchmark mean, from samples made by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks import readme, report
from benchmarks.figures import Figure, quantile
from benchmarks.limit import Limit
from benchmarks.peers import OURS
from benchmarks.profile import Function
from benchmarks.record import Record
from benchmarks.sample import Sample
from benchmarks.summary import summarize
from benchmarks.workloads import chosen

(WORKLOAD,) = chosen("small-get")
TITLES = {OURS: "Hyperfleet", "nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy"}


def samples(peer: str, *values: float) -> list[Sample]:
    return [
        Sample("small-get", peer, n, value, 1000, 10, 20, 0.5) for n, value in enumerate(values)
    ]


def recorded(samples: list[Sample], *figures: Figure) -> Record:
    return Record({}, 1.0, "", samples, list(figures), {}, [])


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
    assert not table.close
    assert not table.doubtful
    assert table.verdict == "no target"
    assert report.overview(recorded(samples(OURS, 9)), TITLES).count("\n") == 2


def test_the_page_says_what_was_measured_and_what_failed(tmp_path):
    record = Record(
        facts={"processor": "a fast one"},
        seconds=1.0,
        pinning="Pinned.",
        samples=[*samples(OURS, 8.04, 8), *samples("nginx", 1000, 1000)],
        figures=[Figure("calls", "calls of a request", 4.25, "calls", 4.5, "recvfrom 2.00")],
        failures={"echo/nginx": "closed"},
        limits=[
            Limit(
                "an echo",
                "message",
                {"Hyperfleet": {"sendto": 1.0}},
                [Function(0.25, "kernel", "tcp_ack")],
                ["a profile: perf is not here"],
            )
        ],
    )
    record.write(tmp_path / "kept" / "results.json")
    again = Record.read(tmp_path / "kept" / "results.json")
    assert again == record
    page = report.markdown(again, TITLES)
    assert "| processor | a fast one |" in page
    assert "| **Hyperfleet** | 8.0 | 8.0 to 8.0 | 0.01 (0.01 to 0.01) | 0.01 |" in page
    assert "### an echo" in page
    assert "| 25.0% | kernel | `tcp_ack` |" in page
    assert "| nginx | 1,000 |" in page
    assert "- `echo/nginx`: closed" in page
    assert "| calls of a request | 4.25 calls | recvfrom 2.00 |  | 4.5 | met |" in page
    assert "Not met" not in page


def test_what_is_not_met_is_told_with_what_it_is_made_of():
    ours = [replace(sample, kernel=0.75) for sample in samples(OURS, *[40] * 6)]
    rival = [replace(sample, kernel=0.5) for sample in samples("nginx", *[20] * 6)]
    size = Figure("table", "memory", 300, "bytes / route", 250, "2 ports each")
    seen = Figure("table", "computed", 1.5, "s", None, "")
    overview = report.overview(recorded([*ours, *rival], size, seen), TITLES)
    assert "| **2.00** (2.00 to 2.00) | 0.85 | not met |" in overview
    assert (
        "GET 100 B, 32 connections: Hyperfleet 40.0 µs, 30.0 of them in the kernel;"
        " nginx 20.0 µs, 10.0 of them in the kernel" in overview
    )
    assert "- memory: 300 bytes / route; 2 ports each" in overview
    assert "| computed | 1.50 s |  |  |  | no target |" in overview
    assert "- computed" not in overview


@pytest.mark.parametrize(("ours", "close"), [(7.6, False), (7.7, True), (9.3, True), (9.4, False)])
def test_a_ratio_is_close_within_a_tenth_of_its_target(ours, close):
    table = summarize(WORKLOAD, [*samples(OURS, *[ours] * 7), *samples("nginx", *[10] * 7)])
    assert table.close is close
    assert not table.doubtful


def test_a_ratio_is_close_and_in_doubt_while_its_target_is_within_the_noise():
    rival = samples("nginx", *[10] * 15)
    # Half of the target, but for one round of seven.
    table = summarize(WORKLOAD, [*samples(OURS, 4, 4, 4, 4, 4, 4, 9), *rival])
    assert (table.met, table.close, table.doubtful) == (True, True, True)
    assert table.verdict == "met, by less than the noise"
    table = summarize(WORKLOAD, [*samples(OURS, *[4] * 14, 9), *rival])
    assert (table.met, table.close, table.doubtful) == (True, False, False)
    assert table.verdict == "met"
    table = summarize(WORKLOAD, [*samples(OURS, *[9] * 8, *[7] * 7), *rival])
    assert table.verdict == "not met, by less than the noise"
    table = summarize(WORKLOAD, [*samples(OURS, 4), *rival])
    assert table.verdict == "met, of too few rounds"


def test_a_rival_that_will_not_be_the_best_is_far():
    every = [*samples(OURS, 30), *samples("nginx", 10), *samples("caddy", 50)]
    assert summarize(WORKLOAD, [*every, *samples("haproxy", 11.4)]).far == set()
    assert summarize(WORKLOAD, [*every, *samples("haproxy", 11.6)]).far == {"haproxy"}
    assert summarize(WORKLOAD, [*every, *samples("haproxy", 8)]).far == {"nginx"}


def test_the_ratio_of_medians_stands_beside_the_median_of_ratios():
    table = summarize(WORKLOAD, [*samples(OURS, 1, 10, 30), *samples("nginx", 10, 20, 10)])
    ours = table.line(OURS)
    assert ours is not None
    assert (ours.ratio.median, ours.of_medians) == (0.5, 1.0)


def test_memory_is_told_with_how_many_connections_there_were_and_what_of_it_is_growth():
    (idle,) = chosen("idle-websocket")

    def held(peer: str, *values: float, connections: int) -> list[Sample]:
        return [
            Sample(idle.key, peer, n, value, 0, 0, 0, 0, connections=connections, grown=value / 2)
            for n, value in enumerate(values)
        ]

    every = [
        *held(OURS, 3000, 2000, 2100, connections=9000),
        *held("haproxy", 6000, 6000, 6000, connections=9000),
    ]
    table = summarize(idle, every)
    # Three rounds: whether chance has to do with it can be seen.
    assert table.verdict == "met, by less than the noise"
    assert "9,000 idle WebSockets (10,000 want more descriptors" in table.title
    assert "| **Hyperfleet** | 2,100 | 0.35 (0.33 to 0.50) | 1,050 | 3 |" in report.detail(
        table, TITLES
    )
    whole = [replace(sample, connections=10_000) for sample in every]
    assert summarize(idle, whole).title == "10,000 idle WebSockets"
    over = [replace(sample, value=sample.value * 9) for sample in held(OURS, 900, connections=9000)]
    overview = report.overview(recorded([*over, *every[3:]]), TITLES)
    assert "Hyperfleet 8,100 bytes, 450 of them growth; HAProxy 6,000 bytes" in overview


def test_a_quantile_is_one_of_the_values():
    values = [float(value) for value in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (51, 100, 7)
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_unit_is_an_answer_or_so_many_bytes():
    (bodies,) = chosen("get-1m")
    assert WORKLOAD.units(answers=7, size=700) == 7
    assert bodies.units(answers=7, size=7 << 20) == 7
    assert replace(bodies, size=1 << 19).units(answers=8, size=4 << 20) == 4


def test_readme_shows_what_the_results_say():
    shown = readme.README.read_text()
    assert readme.put(readme.RESULTS.read_text(), shown) == shown, "python -m benchmarks.readme"
    for measured in ("GET 100 B, 32 connections", r"([\d,]+ )?idle WebSockets"):
        assert len(re.findall(rf"^\| {measured} \| ", shown, re.MULTILINE)) == 1


def test_readme_gets_the_rows_of_a_run_that_it_has_figures_of():
    record = Record(
        {"date": "2030-01-31", "versions": "a 1, b 2"},
        1.0,
        "",
        [*samples(OURS, 8), *samples("nginx", 10)],
        [],
        {},
        [],
    )
    page = readme.put(report.markdown(record, TITLES), f"top\n{readme.BEGIN}old\n{readme.END}end\n")
    before, table, after = page.partition(readme.BEGIN)[0], page, page.partition(readme.END)[2]
    assert (before, after) == ("top\n", "end\n")
    assert "old" not in table
    assert f"| {WORKLOAD.title} | 8.0 CPU µs / request | nginx 10.0 | **0.80** " in table
    assert table.count("\n| GET") == 1
    assert "\n2030-01-31; a 1, b 2.\n" in table
    with pytest.raises(ValueError, match="marks"):
        readme.put(page, "no marks")
