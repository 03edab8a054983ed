"""`scripts/fuzz SECONDS host`: sessions with guests that say whatever comes, for so long.

Prints the executions; a session that failed is printed by hypothesis, the shortest that does it,
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import agent_fuzz

_A_ROUND = 2000


def main() -> None:
    """Rounds until the time is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    seconds = parser.parse_args().seconds
    executions = 0

    # No database: each round is to try what is new.
    @settings(
        max_examples=_A_ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(agent_fuzz.any_steps)
    def sessions(steps: list[agent_fuzz.Step]) -> None:
        nonlocal executions
        executions += 1
        asyncio.run(agent_fuzz.session(steps))

    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        sessions()
    print(executions, round(executions / (time.monotonic() - begun)))


main()
