"""The benchmark runs, with both ends, ours and one peer: whether it runs, not what it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_short_round_of_ours_and_nginx(need):
    need("nginx")
    need("taskset")
    for name in ("bench-load", "hyperfleet-proxy"):
        program = ROOT / "target" / "release" / name
        need.that(program.exists(), f"{name} is not built: cargo build --release --bin {name}")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--rounds=1", "--seconds=0.1", "--peers=nginx"),
            "--only=small-get,connect,post-1m,echo",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    verdicts = [
        line for line in run.stdout.splitlines() if line.endswith(("| met |", "| not met |"))
    ]
    assert len(verdicts) == 4, run.stdout
