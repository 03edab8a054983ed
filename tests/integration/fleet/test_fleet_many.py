"""Two hundred clients on the same ten machines: each answer is one that some order explains.

Clients note when they asked, when they were answered and with what. One thing happens to a machine
at a time, so what was answered before something else was asked also happened before it.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from hyperfleet.errors import HyperfleetError, InvalidStateError, NotFoundError
from hyperfleet.fleet import Fleet
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine

from .world import World, spec

CLIENTS, ACTS_EACH = 200, 12
NAMES = [f"m{number}" for number in range(10)]
WEIGHTS = {"start": 5, "stop": 3, "restart": 2}
# Deleted only in the end, so that each machine is asked for much before.
LAST_WEIGHTS = {**WEIGHTS, "delete": 1}


class Answer(msgspec.Struct, frozen=True):
    """`asked`, `answered`: places in one order of all that happened at the clients."""

    act: str
    asked: int
    answered: int
    outcome: Machine | HyperfleetError | None

    @property
    def life(self) -> int | None:
        """The machine's life that it tells of."""
        return self.outcome.lifecycle if isinstance(self.outcome, Machine) else None


class Clients:
    def __init__(self, fleet: Fleet) -> None:
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self._fleet = fleet
        self._clock = 0

    async def work(self, dice: random.Random) -> None:
        for number in range(ACTS_EACH):
            weights = WEIGHTS if number < ACTS_EACH - 2 else LAST_WEIGHTS
            [act] = dice.choices(list(weights), list(weights.values()))
            await self._ask(act, dice.choice(NAMES))
            await asyncio.sleep(dice.choice([0, 0.001]))

    async def _ask(self, act: str, name: str) -> None:
        calls: dict[str, Callable[[str], Awaitable[Machine | None]]] = {
            "start": self._fleet.start,
            "stop": self._fleet.stop,
            "restart": self._fleet.restart,
            "delete": lambda name: self._fleet.delete(name, force=True),
        }
        asked = self._tick()
        outcome: Machine | HyperfleetError | None
        try:
            outcome = await calls[act](name)
        except (NotFoundError, InvalidStateError) as error:
            outcome = error
        self.answers[name].append(Answer(act, asked, self._tick(), outcome))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_explained(world: World, seed: int) -> None:
    fleet = await world.fleet(boots_at_once=4)
    ids = {name: (await fleet.create(spec(name, faults="fake.delay=0.002"))).id for name in NAMES}
    clients = Clients(fleet)
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(clients.work(random.Random(f"{seed} {number}")) for number in range(CLIENTS))  # noqa: S311
        )
    for name in NAMES:
        _explain(clients.answers[name])
    # The driver refuses a second process of a machine itself (`WatchedDriver.start`).
    alive = world.driver.alive()
    running = {one.id for one in fleet.machines() if one.status is Status.RUNNING}
    assert alive == running
    assert set(ids.values()) >= {one.id for one in fleet.machines()}
    done = {answer.act for name in NAMES for answer in clients.answers[name] if answer.life}
    assert done == {"start", "stop", "restart"}


def _explain(answers: list[Answer]) -> None:
    for answer in answers:
        match answer.act, answer.outcome:
            case "start" | "restart", Machine(status=status):
                assert status is Status.RUNNING
            case "stop", Machine(status=status):
                assert status is Status.STOPPED
            case "delete", outcome:
                assert outcome is None or isinstance(outcome, NotFoundError)
            case "stop", InvalidStateError() as refused:
                # Only before its first start.
                assert "it was never started" in refused.message
                assert not [one for one in answers if one.life and one.answered < answer.asked]
            case _, InvalidStateError() as refused:
                assert "was stopped while it started" in refused.message
                assert [one for one in answers if _meets(one, answer) and one.act != "start"]
            case _:
                assert isinstance(answer.outcome, NotFoundError)
    _lives_follow_each_other(answers)
    _gone_is_gone(answers)


def _lives_follow_each_other(answers: list[Answer]) -> None:
    told = [answer for answer in answers if answer.life is not None]
    for before in told:
        for after in told:
            if before.answered < after.asked:
                assert before.life is not None
                assert after.life is not None
                # A restart begins a life; so does a start of what was stopped, and did not run yet.
                anew = after.act == "restart" or (before.act, after.act) == ("stop", "start")
                assert after.life >= before.life + anew


def _gone_is_gone(answers: list[Answer]) -> None:
    deleted = [one for one in answers if one.act == "delete" and one.outcome is None]
    missed = [one for one in answers if isinstance(one.outcome, NotFoundError)]
    if deleted:
        end = min(one.answered for one in deleted)
        assert all(isinstance(one.outcome, NotFoundError) or one.asked < end for one in answers)
    for one in missed:
        assert [other for other in deleted if other.asked < one.answered]


def _meets(one: Answer, other: Answer) -> bool:
    """Whether both were asked before either was answered."""
    return one is not other and one.asked < other.answered and other.asked < one.answered
