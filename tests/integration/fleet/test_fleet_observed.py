"""What the fleet tells whoever counts, and what it knows of traffic."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hyperfleet.errors import (
    CapacityError,
    GuestError,
    HyperfleetError,
    NotFoundError,
    OperationTimeoutError,
)
from hyperfleet.fleet import Fleet
from hyperfleet.guest.values import ExecRequest
from hyperfleet.proxy.interface import Activity

from .world import World, run, spec


async def test_starts_are_told_by_their_end(world: World, fleet: Fleet) -> None:
    await fleet.create(spec())
    await asyncio.gather(*(fleet.start("web") for _ in range(3)))
    await fleet.create(spec("bad", faults="fake.boot=panic"))
    with pytest.raises(GuestError):
        await fleet.start("bad")
    slow = await fleet.create(spec("slow", faults="fake.delay=30"))
    starting = asyncio.create_task(fleet.start("slow"))
    await world.spawned(slow)
    await fleet.stop("slow")
    with pytest.raises(HyperfleetError):
        await starting
    told = [heard for heard in world.observer.heard if heard.startswith("start")]
    assert told == ["started", "start failed", "start given up"]
    assert "seen" in world.observer.heard


async def test_execs_are_told_by_their_end(world: World, fleet: Fleet) -> None:
    await fleet.create(spec())
    with pytest.raises(HyperfleetError):
        await run(fleet, "web", "true")
    await fleet.start("web")
    await run(fleet, "web", "false")
    request = ExecRequest(argv=("sleep", "60"), timeout=0.1)
    with pytest.raises(OperationTimeoutError):
        await fleet.exec("web", msgspec.structs.replace(request))
    told = [heard for heard in world.observer.heard if heard.startswith("exec")]
    assert told == ["exec failed", "exec ended", "exec timeout"]


async def test_activity_is_the_data_planes(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    world.traffic.of[machine.id] = Activity(connections=2, requests_in_flight=1)
    assert await fleet.activity("web") == Activity(connections=2, requests_in_flight=1)
    world.traffic.of[machine.id] = None
    with pytest.raises(CapacityError, match="does not answer"):
        await fleet.activity(machine.id)
    with pytest.raises(NotFoundError):
        await fleet.activity("nobody")
