"""A control plane ends, in order or not; the next one takes over and mends what is there."""

from __future__ import annotations

import asyncio

import pytest

from hyperfleet.errors import InvalidStateError
from hyperfleet.fleet import Fleet
from hyperfleet.lifecycle import Status

from .world import World, get, run, spec

PAGE = "echo page > /www/index.html; httpd -h /www -p "


@pytest.mark.parametrize("crash", [False, True])
async def test_a_running_machine_is_adopted_and_served(world: World, *, crash: bool) -> None:
    first = await world.fleet()
    machine = await first.create(spec(exposed_ports=(80, 81)))
    await first.start("web")
    await run(first, "web", "sh", "-c", f"{PAGE}127.0.0.1:80; httpd -p 81 -h /www")
    before, _ = await first.ports("web")
    process = world.process(machine)
    await (world.crash() if crash else first.close())
    assert process.alive

    second = await world.fleet()
    after = second.get("web")
    assert (after.status, after.lifecycle) == (Status.RUNNING, 1)
    assert [(port.listening, port.upstream) for port in after.ports] == [
        (port.listening, port.upstream) for port in before
    ]
    for port in after.ports:
        assert await get(port.upstream) == b"page\n"
    assert (await run(second, "web", "cat", "/www/index.html")).stdout == b"page\n"
    assert (await second.stop("web")).status is Status.STOPPED


async def test_a_machine_that_died_meanwhile_is_failed(world: World) -> None:
    machine = await (await world.fleet()).create(spec())
    await (await world.fleet()).start("web")
    process = world.process(machine)
    await world.crash()
    process.end(world.died)
    fleet = await world.fleet()
    failed = fleet.get("web")
    assert failed.status is Status.FAILED
    assert "while no control plane ran" in (failed.error_message or "")
    assert (await fleet.start("web")).status is Status.RUNNING


async def test_machines_at_rest_stay_as_they_are(world: World) -> None:
    first = await world.fleet()
    await first.create(spec("pending"))
    await first.create(spec("stopped"))
    await first.start("stopped")
    await first.stop("stopped")
    await first.close()
    second = await world.fleet()
    assert [(one.spec.name, one.status) for one in second.machines()] == [
        ("pending", Status.PENDING),
        ("stopped", Status.STOPPED),
    ]
    assert second.machines()[0].ports[0].port == 80


async def test_killed_before_the_process_was_there(world: World) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    world.store.dies_after = Status.STARTING
    await world.crash_when_told(fleet.start("web"))
    assert world.driver.process(machine.id) is None
    fleet = await world.fleet()
    assert fleet.get("web").status is Status.FAILED
    assert "start it again" in (fleet.get("web").error_message or "")
    assert (await fleet.start("web")).lifecycle == 1


async def test_killed_before_it_was_recorded_as_running(world: World) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    world.store.dies_before = Status.RUNNING
    await world.crash_when_told(fleet.start("web"))
    process = world.process(machine)
    fleet = await world.fleet()
    assert (await fleet.wait("web", Status.RUNNING, 5)).lifecycle == 1
    assert world.process(machine) is process
    assert (await run(fleet, "web", "echo", "up")).stdout == b"up\n"


@pytest.mark.parametrize("point", ["dies_after STOPPING", "dies_before STOPPED"])
async def test_killed_while_it_stopped(world: World, point: str) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    await fleet.start("web")
    attribute, status = point.split()
    setattr(world.store, attribute, Status[status])
    await world.crash_when_told(fleet.stop("web"))
    fleet = await world.fleet()
    assert (await fleet.wait("web", Status.STOPPED, 5)).pid is None
    assert world.driver.process(machine.id) is None


async def test_killed_while_it_was_deleted(world: World) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    await fleet.start("web")
    await fleet.stop("web")
    world.store.dies_at_remove = True
    await world.crash_when_told(fleet.delete("web", force=False))
    assert len(await world.store.all()) == 1
    fleet = await world.fleet()
    assert fleet.machines() == []
    assert await world.store.all() == []
    assert not (world.home / "machines" / f"{machine.id}.deleted").exists()


async def test_a_close_in_the_middle_of_a_boot_lets_it_boot_on(world: World) -> None:
    first = await world.fleet()
    machine = await first.create(spec(faults="fake.delay=0.1"))
    starting = asyncio.create_task(first.start("web"))
    await world.spawned(machine)
    await first.close()
    assert (await asyncio.gather(starting, return_exceptions=True))[0] is not None
    second = await world.fleet()
    assert (await second.wait("web", Status.RUNNING, 5)).lifecycle == 1


async def test_a_stop_ends_a_boot_that_was_taken_over(world: World) -> None:
    first = await world.fleet()
    machine = await first.create(spec(faults="fake.boot=never"))
    starting = asyncio.create_task(first.start("web"))
    await world.spawned(machine)
    await world.crash()
    assert starting.done()
    second: Fleet = await world.fleet()
    assert second.get("web").status is Status.STARTING
    assert (await second.stop("web")).status is Status.STOPPED
    assert world.driver.process(machine.id) is None


async def test_machines_of_another_driver_are_left_alone(world: World) -> None:
    first = await world.fleet()
    machine = await first.create(spec())
    await first.start("web")
    process = world.process(machine)
    await first.close()
    world.driver.name = "other"
    second = await world.fleet()
    assert second.get("web").status is Status.RUNNING
    for act in (second.stop("web"), second.delete("web", force=True), run(second, "web", "true")):
        with pytest.raises(InvalidStateError, match="belongs to the fake driver"):
            await act
    assert process.alive
