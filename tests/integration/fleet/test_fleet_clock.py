"""Machines whose clock would be wrong by what happened to their host, or to them alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from hyperfleet.fleet import Fleet, fleet, host_clock
from hyperfleet.fleet.host_clock import HostClock
from hyperfleet.machine import Machine

from .world import World, spec

LIMIT = 10


async def told(world: World, machine: Machine, times: int) -> float:
    """What time its guest was told when it was told so often; seconds."""
    guest = world.process(machine).guest
    async with asyncio.timeout(LIMIT):
        while guest.times_told < times:  # noqa: ASYNC110 - a fake guest tells nobody
            await asyncio.sleep(0)
    assert guest.times_told == times
    return guest.time_ns / 1e9


async def test_all_that_run_are_told_the_time_when_the_hosts_clock_has_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = 0.0

    def watch(on_move: object) -> HostClock:
        return HostClock(on_move, clock=lambda: time.time() + shift)  # type: ignore[arg-type]

    monkeypatch.setattr(host_clock, "_EVERY_S", 0.01)
    monkeypatch.setattr(fleet, "HostClock", watch)
    opened = await world.fleet()
    machines = {name: await opened.create(spec(name)) for name in ("one", "two", "still", "off")}
    for name in ("one", "two", "still"):
        await opened.start(name)
    await opened.pause("still")
    for name in ("one", "two", "still"):
        await told(world, machines[name], 1)
    before = time.time()
    shift = 3600.0
    for name in ("one", "two"):
        assert await told(world, machines[name], 2) >= before
    # One that stands still is told when it goes on.
    await told(world, machines["still"], 1)
    await opened.resume("still")
    await told(world, machines["still"], 2)
    assert opened.get("off").lifecycle == machines["off"].lifecycle


async def test_one_that_stood_still_and_went_on_by_itself_is_told(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec())
    other = await fleet.create(spec("other"))
    for name in ("web", "other"):
        await fleet.start(name)
    process = world.process(machine)
    process.was_late()
    # Twice at once: what it hears last is told last.
    process.was_late()
    await told(world, machine, 2)
    await told(world, other, 1)
    await fleet.restart("web")
    # The process before is nobody's any more.
    process.was_late()
    await told(world, machine, 1)
