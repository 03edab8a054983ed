"""Real machines beside a simple model of them: random calls, kills and deaths, and both must agree.

The rules are those of tests/integration/fleet/test_fleet_model.py, which takes thousands of steps
with the fake. MODEL_SEQUENCES says how many sequences are tried here (default: 3, of 12 steps).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from support.model.real import RealMachines
from support.model.rules import ASKED, Rules
from support.model.subject import Asked
from support.table import printed
from support.zygote import Zygote

pytestmark = pytest.mark.vm

# Several, since Hypothesis leaves some rules out of each, others each time.
SEQUENCES = int(os.environ.get("MODEL_SEQUENCES", "3"))
STEPS = 12
# The same steps each time in CI; else others each time, told at the end.
SEED = int(os.environ.get("MODEL_SEED", "1" if os.environ.get("CI") else "0"))


class Machines(Rules):
    """`alike` counts how often all was looked at and found as the model has it."""

    subject: RealMachines

    def __init__(self) -> None:
        super().__init__()
        self.alike = 0

    @initialize(asked=ASKED, token=st.integers(0, 1 << 30))
    def begin_with_some(self, asked: Asked, token: int) -> None:
        # Hypothesis tries the simplest of all first: one rule again and again.
        assume(token)
        super().begin_with_some(asked)

    @invariant()
    def all_agree(self) -> None:
        super().all_agree()
        self.alike += 1


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    with printed(request, "real machines, found as the model has them") as rows:
        yield rows


def test_real_machines_are_what_the_model_says(
    images: Path, templates: Path, zygote: Zygote, table: list[str]
) -> None:
    begun: list[Machines] = []

    class Begun(Machines):
        def begin(self) -> RealMachines:
            begun.append(self)
            return RealMachines(images, templates, zygote)

    chosen = SEED or secrets.randbits(32)
    # Not shrunk: each takes half a minute. Hypothesis prints the steps of one that fails.
    run_state_machine_as_test(
        seed(chosen)(Begun),
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    alike = sum(one.alike for one in begun)
    kills = sum(one.subject.kills for one in begun)
    deaths = sum(one.subject.deaths for one in begun)
    assert alike >= SEQUENCES * STEPS
    table.append(f"{alike} times, {kills} kills, {deaths} deaths; MODEL_SEED={chosen}")
