"""Starts are admitted by what the host has, and take turns."""

from __future__ import annotations

import asyncio

import pytest

from hyperfleet.errors import CapacityError, GuestError, InvalidStateError
from hyperfleet.fleet import Fleet, Limits, Room
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Restart

from .world import World, spec

TWO = Room(mem_mib=128, vcpus=2)


async def _full(world: World, **limits: object) -> Fleet:
    """Room for two, and two that run."""
    fleet = await world.fleet(room=TWO, **limits)
    for name in ("one", "two", "three"):
        await fleet.create(spec(name))
    await fleet.start("one")
    await fleet.start("two")
    return fleet


async def test_what_does_not_fit_is_refused_until_it_does(world: World) -> None:
    fleet = await _full(world)
    with pytest.raises(CapacityError, match=r"memory: 64 MiB are asked for, 0 of 128 MiB are left"):
        await fleet.start("three")
    assert fleet.get("three").status is Status.PENDING
    # What runs needs nothing more to run on or anew.
    assert (await fleet.start("one")).status is Status.RUNNING
    assert (await fleet.restart("one")).lifecycle == 2
    await fleet.stop("one")
    assert (await fleet.start("three")).status is Status.RUNNING
    with pytest.raises(CapacityError):
        await fleet.start("one")
    await fleet.delete("two", force=True)
    assert (await fleet.start("one")).status is Status.RUNNING


async def test_many_at_once_are_not_promised_more_than_there_is(world: World) -> None:
    fleet = await world.fleet(room=TWO)
    names = [f"m{number}" for number in range(20)]
    for name in names:
        await fleet.create(spec(name))
    starts = (fleet.start(name) for name in names)
    answers = await asyncio.gather(*starts, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, CapacityError)]
    assert len(refused) == len(names) - 2
    assert len(world.driver.processes()) == 2


async def test_a_machine_that_has_ended_frees_its_room(world: World) -> None:
    fleet = await _full(world)
    world.process(fleet.get("one")).end(world.died)
    await fleet.wait("one", Status.FAILED, 5)
    assert (await fleet.start("three")).status is Status.RUNNING
    bad = await fleet.create(spec("bad", faults="fake.boot=panic"))
    await fleet.stop("two")
    for _ in range(3):
        with pytest.raises(GuestError):
            await fleet.start(bad.id)


async def test_one_that_is_to_be_started_again_keeps_its_room(world: World) -> None:
    fleet = await world.fleet(room=TWO, revival=Limits(first_wait=600, longest_wait=600))
    for name in ("one", "two", "three"):
        await fleet.create(spec(name, restart=Restart.ALWAYS))
    await fleet.start("one")
    await fleet.start("two")
    world.process(fleet.get("one")).end(world.died)
    await fleet.wait("one", Status.FAILED, 5)
    with pytest.raises(CapacityError):
        await fleet.start("three")
    await fleet.stop("one")
    assert (await fleet.start("three")).status is Status.RUNNING


async def test_what_was_adopted_is_counted(world: World) -> None:
    await (await _full(world)).close()
    fleet = await world.fleet(room=TWO)
    with pytest.raises(CapacityError):
        await fleet.start("three")


async def test_keys_take_turns(world: World) -> None:
    fleet = await world.fleet(boots_at_once=1)
    names = [f"a{number}" for number in range(5)] + ["b0", "b1"]
    starts = []
    for name in names:
        await fleet.create(spec(name))
        starts.append(asyncio.create_task(fleet.start(name, key=name[0])))
        await asyncio.sleep(0)
    await asyncio.gather(*starts)
    order = sorted(fleet.machines(), key=lambda one: one.started_at or one.created_at)
    assert [one.spec.name for one in order] == ["a0", "a1", "b0", "a2", "b1", "a3", "a4"]


async def test_the_queue_is_bounded_and_places_are_given_back(world: World) -> None:
    fleet = await world.fleet(boots_at_once=1, boot_queue=2)
    for name in ("one", "two", "three", "four"):
        await fleet.create(spec(name, faults="fake.boot=never"))
    starts = [asyncio.create_task(fleet.start(name)) for name in ("one", "two", "three")]
    for name in ("one", "two", "three"):
        await fleet.wait(name, Status.STARTING, 5)
    with pytest.raises(CapacityError, match="2 machines wait for their turn already") as refused:
        await fleet.start("four")
    assert refused.value.retry_after == 7
    assert fleet.get("four").status is Status.PENDING
    # One that waits and one that boots are stopped; their places are free again.
    for name in ("two", "one", "three"):
        await fleet.stop(name)
    for start in starts:
        with pytest.raises(InvalidStateError):
            await start
    await fleet.create(spec("five"))
    assert (await fleet.start("five")).status is Status.RUNNING


async def test_a_start_that_is_given_up_before_it_began_leaves_its_place(world: World) -> None:
    fleet = await world.fleet(boots_at_once=1)
    await fleet.create(spec())
    for _ in range(5):
        starting = asyncio.create_task(fleet.start("web"))
        stopping = asyncio.create_task(fleet.stop("web"))
        await asyncio.gather(starting, stopping, return_exceptions=True)
    async with asyncio.timeout(5):
        assert (await fleet.start("web")).status is Status.RUNNING
