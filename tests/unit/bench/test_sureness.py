"""How sure a median is, and how long a run still takes."""

from __future__ import annotations

import random
from itertools import count
from math import inf

import pytest

from benchmarks.figures import Figure
from benchmarks.progress import Progress
from benchmarks.sureness import SURE, interval, verdict


@pytest.mark.parametrize(
    ("rounds", "first", "last"), [(6, 0, 5), (7, 0, 6), (9, 1, 7), (15, 3, 11), (21, 5, 15)]
)
def test_an_interval_is_of_two_values_by_their_order(rounds, first, last):
    values = list(range(rounds))
    random.Random(7).shuffle(values)  # noqa: S311 - no secret
    assert interval(values) == (first, last)


def test_of_few_values_there_is_no_interval():
    assert interval([]) == interval([1.0] * 5) == (-inf, inf)


def test_the_interval_holds_the_median_as_often_as_it_says():
    chance = random.Random(11)  # noqa: S311 - no secret
    held = 0
    for _ in range(2000):
        # Of a distribution with a long tail, as times have; its median is 1.
        low, high = interval([chance.lognormvariate(0, 1) for _ in range(15)])
        held += low <= 1 <= high
    assert SURE - 0.01 < held / 2000 < 1


def test_a_verdict_is_the_medians_and_says_when_chance_may_turn_it():
    assert verdict(0.8, 0.85, (0.7, 0.84)) == "met"
    assert verdict(0.8, 0.85, (0.7, 0.85)) == "met, by less than the noise"
    assert verdict(0.9, 0.85, (0.86, 0.99)) == "not met"
    assert verdict(0.9, 0.85, (0.7, 0.99)) == "not met, by less than the noise"
    assert verdict(0.9, 0.85, (-inf, inf)) == "not met, of too few rounds"
    assert verdict(0.9, 0.85, None) == "not met"
    assert verdict(0.9, None, (0.7, 0.99)) == "no target"


def test_a_figure_of_rounds_has_its_interval():
    figure = Figure.of_ratios("part", "title", [1, 2, 3, 4, 5, 6, 70], 4, "first")
    assert (figure.value, figure.bounds) == (4, (1, 70))
    assert figure.beside == "first; 1.00 to 70.00, rounds: 7"
    assert figure.verdict == "met, by less than the noise"
    assert Figure("part", "title", 5, "s", 4).verdict == "not met"


def test_the_rest_takes_as_much_more_as_the_first_steps_did(capsys):
    # Every look at the clock is a minute later.
    clock = count(0, 60)
    run = Progress({"one": 30, "two": 40, "three": 80}, clock=lambda: float(next(clock)))
    assert run.left == 150
    run.done("one", "rounds: 7")
    # It took twice its guess.
    assert run.left == 240
    run.done("unknown")
    run.done("two")
    assert run.left == pytest.approx(80 * 120 / 70)
    run.done("three")
    first, one, _, two, three = capsys.readouterr().err.splitlines()
    assert first == "steps: 3, about 2:30 min"
    assert one == "1:00 min one: 60 s, rounds: 7; 2 left, about 4:00 min"
    assert two.endswith("two: 60 s; 1 left, about 2:17 min")
    assert three.endswith("three: 60 s")
