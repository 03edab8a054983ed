"""Machines that stand still for a while."""

from __future__ import annotations

import asyncio

import pytest

from hyperfleet.errors import GuestError, InvalidStateError
from hyperfleet.fleet import Fleet
from hyperfleet.lifecycle import Status
from hyperfleet.machine import MachineChange

from .world import World, run, spec


async def test_a_paused_machine_runs_on_where_it_stood(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec(exposed_ports=(80,)))
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", "echo hi > /w/index.html; httpd -p 80 -h /w")
    lifecycle = fleet.get("web").lifecycle
    assert (await fleet.pause("web")).status is Status.PAUSED
    assert (await fleet.pause("web")).status is Status.PAUSED
    with pytest.raises(InvalidStateError, match="is paused, not running; resume it first"):
        await run(fleet, "web", "true")
    with pytest.raises(InvalidStateError, match="can't be started: resume it instead"):
        await fleet.start("web")
    # Nobody is led to it, and the first who was told is the data plane.
    assert world.routes.statuses()[-1] is Status.PAUSED
    assert (await fleet.resume("web")).status is Status.RUNNING
    assert (await fleet.resume("web")).status is Status.RUNNING
    assert world.routes.statuses()[-1] is Status.RUNNING
    [port], _ = await fleet.ports("web")
    assert port.listening
    assert fleet.get("web").lifecycle == lifecycle
    assert world.driver.alive() == {machine.id}


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_what_does_not_run_can_be_neither(fleet: Fleet, what: str) -> None:
    await fleet.create(spec())
    ask = getattr(fleet, what)
    with pytest.raises(InvalidStateError, match=rf"pending and can't be {what}d: start it first"):
        await ask("web")
    await fleet.start("web")
    await fleet.stop("web")
    with pytest.raises(InvalidStateError, match=rf"stopped and can't be {what}d: start it first"):
        await ask("web")


async def test_a_paused_machine_is_stopped_in_order(world: World, fleet: Fleet) -> None:
    await fleet.create(spec())
    await fleet.start("web")
    await fleet.pause("web")
    assert (await fleet.stop("web")).status is Status.STOPPED
    assert world.driver.alive() == set()
    await fleet.start("web")
    await fleet.pause("web")
    assert (await fleet.restart("web")).status is Status.RUNNING
    await fleet.pause("web")
    await fleet.delete("web", force=True)
    assert world.driver.alive() == set()


async def test_a_paused_machine_stays_so_under_the_next_control_plane(world: World) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    await fleet.start("web")
    await fleet.pause("web")
    await world.crash()
    fleet = await world.fleet()
    assert fleet.get("web").status is Status.PAUSED
    assert world.process(machine).is_paused
    await fleet.resume("web")
    await run(fleet, "web", "true")


async def test_a_paused_machine_that_dies_is_seen(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    await fleet.pause("web")
    world.process(machine).end(world.died)
    assert (await fleet.wait("web", Status.FAILED, 5)).error_message


async def test_a_paused_machine_is_changed_without_its_guest(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    await fleet.pause("web")
    async with asyncio.timeout(1):
        changed = await fleet.change("web", MachineChange(exposed_ports=(81,)))
    assert changed.spec.exposed_ports == (81,)
    assert set(await world.process(machine).forwards()) == {81}


async def test_a_process_that_will_not_stand_still_runs(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    world.process(machine).refuses_to_pause = True
    with pytest.raises(GuestError, match="would not"):
        await fleet.pause("web")
    assert fleet.get("web").status is Status.RUNNING
    await run(fleet, "web", "true")


async def test_twenty_that_pause_and_resume(fleet: Fleet) -> None:
    await fleet.create(spec())
    await fleet.start("web")
    asked = [fleet.pause("web") if number % 2 else fleet.resume("web") for number in range(20)]
    answers = await asyncio.gather(*asked)
    wanted = {0: Status.RUNNING, 1: Status.PAUSED}
    assert [answer.status for answer in answers] == [wanted[number % 2] for number in range(20)]
