"""The benchmark runs, with both ends, ours and one peer: whether it runs, not what it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_short_round_of_ours_and_nginx_and_every_part(need):
    for needed in ("nginx", "taskset", "valgrind", "strace"):
        need(needed)
    for name in ("bench-load", "hyperfleet-proxy"):
        program = ROOT / "target" / "release" / name
        need.that(program.exists(), f"{name} is not built: cargo build --release --bin {name}")
    # The part of two workers wants two CPUs.
    parts = "table,calls" + (",workers" if len(os.sched_getaffinity(0)) > 1 else "")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--rounds=1", "--seconds=0.1", "--peers=nginx"),
            f"--only=small-get,connect,post-1m,echo,{parts}",
            "--machines=50",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    verdicts = [
        line for line in run.stdout.splitlines() if line.endswith(("| met |", "| not met |"))
    ]
    # Four workloads; five bounds of the table, one of the system calls, one of the workers.
    assert len(verdicts) == 4 + 6 + ("workers" in parts), run.stdout
