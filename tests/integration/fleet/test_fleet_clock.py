"""Machines whose clock would be wrong by what happened to their host, or to them alone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hyperfleet.errors import CapacityError, GuestError
from hyperfleet.fleet import Fleet, fleet, host_clock
from hyperfleet.fleet.events import Follower
from hyperfleet.fleet.host_clock import HostClock
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Cause, Event, EventKind, Machine, MachineChange

from .world import World, run, spec

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

    watches: list[HostClock] = []

    def watch(*args: Any, **more: Any) -> HostClock:
        watches.append(HostClock(*args, **more, clock=lambda: time.time() + shift))
        return watches[-1]

    monkeypatch.setattr(host_clock, "_EVERY_S", 0.01)
    monkeypatch.setattr(fleet, "HostClock", watch)
    opened = await world.fleet(host_boot="this")
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
    # It is noted, and moves again while there is no control plane.
    note = world.home / "host-clock"
    async with asyncio.timeout(LIMIT):
        while float(note.read_text().split()[1]) < time.time() - time.monotonic() + 3000:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await world.crash()
    watches[0].end()
    shift = 7200.0
    await world.fleet(host_boot="this")
    for name in ("one", "two", "still"):
        await told(world, machines[name], 3)


async def test_one_that_comes_up_as_the_clock_moves_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    saves = world.store.save

    async def save(one: Machine) -> None:
        if one.status is Status.RUNNING:
            # What it is told as it boots, it has been told.
            await told(world, machine, 1)
            fleet._roster.tell_time()  # noqa: SLF001
        await saves(one)

    monkeypatch.setattr(world.store, "save", save)
    await fleet.start("web")
    await told(world, machine, 2)


async def test_one_that_stands_still_by_itself_says_why_and_is_told_when_it_goes_on(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec())
    other = await fleet.create(spec("other"))
    for name in ("web", "other"):
        await fleet.start(name)
    process = world.process(machine)
    with fleet.follow("web", None) as follower:
        process.stalls("no room")
        [stands] = await heard(follower)
        assert fleet.get("web").stalled == "no room"
        with pytest.raises(CapacityError, match="machine 'web' stands still: no room"):
            await run(fleet, "web", "true")
        process.stalls(None)
        [goes_on] = await heard(follower)
        await run(fleet, "web", "true")
    assert [(event.kind, event.message, event.cause) for event in (stands, goes_on)] == [
        (EventKind.STALLED, "no room", Cause.MACHINE),
        (EventKind.STALLED, None, Cause.MACHINE),
    ]
    assert fleet.get("web").stalled is None
    await told(world, machine, 2)
    await told(world, other, 1)


async def test_one_that_stands_still_and_can_not_be_paused_says_so_again(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    process = world.process(machine)
    process.stalls("no room")
    process.refuses_to_pause = True
    for ask in (fleet.pause, fleet.sleep):
        with pytest.raises(GuestError):
            await ask("web")
        assert fleet.get("web").status is Status.RUNNING
        assert fleet.get("web").stalled == "no room"


async def test_what_does_not_run_does_not_stand_still(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    process = world.process(machine)
    for ask in (fleet.pause, fleet.sleep, fleet.stop):
        process.stalls("no room")
        assert (await ask("web")).stalled is None
    await fleet.start("web")
    # The process before is nobody's any more.
    process.stalls("no room")
    assert (await fleet.change("web", MachineChange(labels={"a": "b"}))).stalled is None


async def heard(follower: Follower) -> tuple[Event, ...]:
    batch = await follower.next(LIMIT)
    assert batch is not None
    return tuple(batch.events)
