"""When a guest's news have its ports looked at, and how often at most."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.fleet import watching
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.watching import Pace, Watcher
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import News
from hyperfleet.machine import CommandPhase, CommandState


class Guest:
    """Tells the numbers it is given, one for each question; then its session is over."""

    def __init__(self, *numbers: int) -> None:
        self.asked: list[int] = []
        self._numbers = list(numbers)

    async def watch(self, seen: int) -> News:
        self.asked.append(seen)
        if not self._numbers:
            raise GuestError("the channel to the guest's agent was lost")
        command = CommandState(state=CommandPhase.RUNNING, restarts=seen)
        return News(number=self._numbers.pop(0), command=command if seen else None)

    async def closed(self) -> None:
        pass


class Link:
    """Sessions with guests, one after the other, then none."""

    def __init__(self, *guests: Guest) -> None:
        self._guests = list(guests)
        self.ended = asyncio.Event()

    async def connected(self) -> Agent:
        if not self._guests:
            self.ended.set()
            await asyncio.Event().wait()
        return cast("Agent", self._guests.pop(0))


class Looks:
    """Counts them, and the pauses between."""

    def __init__(self) -> None:
        self.count = 0
        self.pauses: list[float] = []
        self.commands: list[CommandState] = []

    def look(self) -> None:
        self.count += 1

    async def rest(self, pause: float) -> None:
        self.pauses.append(pause)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(watching, "_rest", looks.rest)
    return looks


def watcher(link: Link, looks: Looks) -> Watcher:
    return Watcher(cast("AgentLink", link), looks.look, looks.commands.append)


async def test_each_piece_of_news_is_one_look_and_the_next_question_knows_it(looks: Looks) -> None:
    guest = Guest(1, 4, 5)
    await watcher(Link(), looks).follow(guest)
    assert looks.count == 3
    assert guest.asked == [0, 1, 4, 5]
    # Of the machine's command it says something with some of them.
    assert [command.restarts for command in looks.commands] == [1, 4]


async def test_what_was_seen_is_known_in_the_next_session(looks: Looks) -> None:
    guests = [Guest(7), Guest(), Guest(9)]
    link = Link(*guests)
    one = watcher(link, looks)
    one.begin()
    await link.ended.wait()
    await one.end()
    assert [guest.asked for guest in guests] == [[0, 7], [7], [7, 9]]
    assert looks.count == 2


async def test_what_was_before_a_look_that_is_taken_anyway_has_none_taken(looks: Looks) -> None:
    guest = Guest(3, 4)
    link = Link(guest)
    one = watcher(link, looks)
    one.begin(missed=False)
    await link.ended.wait()
    await one.end()
    assert guest.asked == [0, 3, 4]
    assert looks.count == 1


async def test_it_is_not_asked_twice_at_once(looks: Looks) -> None:
    guest = Guest(1)
    link = Link(guest)
    one = watcher(link, looks)
    one.begin()
    one.begin()
    await link.ended.wait()
    await one.end()
    await one.end()
    assert guest.asked == [0, 1]


async def test_a_guest_that_has_news_without_end_is_looked_at_once_a_second(looks: Looks) -> None:
    await watcher(Link(), looks).follow(Guest(*range(1, 100)))
    assert looks.count == 99
    # Its time stands still here but for the pauses, which are not waited for.
    assert min(looks.pauses) >= 0.05
    assert sum(looks.pauses[:8]) < 1
    assert all(pause >= 0.99 for pause in looks.pauses[9:])


def test_looks_are_saved_up_for_a_guest_that_is_quiet() -> None:
    pace, clock = Pace(), 1000.0
    for _ in range(50):
        clock += pace.pause(clock)
    for _ in range(3):
        assert pace.pause(clock) == pytest.approx(1)
        clock += 1
    clock += 4
    assert [pace.pause(clock) for _ in range(4)] == [0.05] * 4


def test_no_way_of_having_news_gets_more_looks_than_the_bound() -> None:
    for wait in (0.0, 0.049, 0.051, 0.3, 0.99, 1.01):
        pace, clock, looks = Pace(), 1000.0, 0
        while clock < 1100:
            clock += wait
            looks += 1
            clock += pace.pause(clock)
        assert looks <= 100 + 8 + 1, wait
