"""The benchmarks run, with few of everything: whether they run, not what they find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import limits, rounds
from benchmarks.load import Ends
from benchmarks.peers import known
from benchmarks.setting import Setting
from benchmarks.workloads import chosen

ROOT = Path(__file__).parents[2]
_VERDICT = re.compile(r"\| (met|not met)(, [a-z ]+)? \|$")


@pytest.fixture
def built(need) -> None:
    for name in ("bench-load", "hyperfleet-proxy"):
        program = ROOT / "target" / "release" / name
        need.that(program.exists(), f"{name} is not built: cargo build --release --bin {name}")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_one_short_round_of_ours_and_nginx_and_every_part(need, built):
    for needed in ("nginx", "taskset", "valgrind", "strace"):
        need(needed)
    # The part of two workers wants two CPUs.
    parts = "table,calls,log" + (",workers" if len(os.sched_getaffinity(0)) > 1 else "")
    done = run(
        *("benchmarks", "--rounds=1", "--seconds=0.1", "--peers=nginx", "--machines=50"),
        f"--only=small-get,connect,post-1m,echo,{parts}",
    )
    verdicts = [line for line in done.stdout.splitlines() if _VERDICT.search(line)]
    # Four workloads; five bounds of the table, one of the calls, two of the log, one of workers.
    assert len(verdicts) == 4 + 5 + 1 + 2 + ("workers" in parts), done.stdout
    assert "p99.9 of requests during snapshots" in done.stdout


def test_what_is_not_met_is_shown_with_calls_and_functions(need, built, tmp_path):
    for needed in ("nginx", "taskset", "strace"):
        need(needed)
    peers = known(ROOT)[:2]
    assert peers[1].key == "nginx"
    ends = Ends(ROOT / "target" / "release" / "bench-load", None)
    setting = Setting(peers[0], ends, rounds.Plan(1, 1, 1, 0.1, None, None, 1024), machines=0)
    (workload,) = chosen("post-1m")
    limit = limits.of_workload("a row", workload, peers, setting)
    assert list(limit.calls) == ["Hyperfleet", "nginx"]
    # A MiB is spliced by ours, and copied by nginx.
    assert limit.calls["Hyperfleet"]["splice"] > 1
    assert limit.calls["nginx"]["recvfrom"] > 1
    if limit.functions:
        assert sum(function.part for function in limit.functions) == pytest.approx(1, abs=0.05)
        assert any(function.where == "hyperfleet-proxy" for function in limit.functions)
        kernel = any(function.where == "kernel" for function in limit.functions)
        assert kernel is (limit.missing == [])
    else:
        # Many containers forbid it.
        assert limit.missing[0].startswith("a profile: perf")


def test_a_small_fleet_goes_through_its_whole_life(built):
    done = run(
        *("benchmarks.machines", "fleet", "--machines=4,8", "--rounds=1"),
        PYTHONPATH=os.pathsep.join((str(ROOT / "tests"), str(ROOT))),
    )
    for work in ("create", "start", "get", "list of 100", "stop", "delete"):
        assert f"| 8 machines: {work} |" in done.stdout
        assert f"  8 {work}: " in done.stderr
    assert "| 8 machines: adoption after kill -9, for one |" in done.stdout
    assert "| 8 machines: all seen every 1 s |" in done.stdout
    assert "| get: CPU of one among 8, beside among 4 |" in done.stdout
    assert "steps: 5, about " in done.stderr
