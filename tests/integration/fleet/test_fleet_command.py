"""Machines with a command of their own: run from their start on, its state known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hyperfleet.failpoints import Point
from hyperfleet.fleet import Fleet
from hyperfleet.guest.agent import Agent
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    Cause,
    CommandPhase,
    CommandState,
    Event,
    EventKind,
    Machine,
    MachineSpec,
    Restart,
)

from .world import World, console, run, spec

LIMIT = 20
EXITED = CommandPhase.EXITED


def with_command(script: str, restart: Restart = Restart.NEVER) -> MachineSpec:
    return spec(cmd=("sh", "-c", script), restart=restart, env={"WORD": "here"}, cwd="/srv")


async def until(fleet: Fleet, holds: Callable[[CommandState], bool]) -> Machine:
    """The machine as soon as its command is so."""
    async with asyncio.timeout(LIMIT):
        with fleet.follow("web", None) as follower:
            while True:
                command = fleet.get("web").command
                if command is not None and holds(command):
                    return fleet.get("web")
                await follower.next(LIMIT)


def has_exited(command: CommandState) -> bool:
    return command.state is EXITED


async def commands(fleet: Fleet, most: int) -> list[Event]:
    """The events of its command from the first on, so many of them."""
    found: list[Event] = []
    # Before the first of all.
    begin = f"{fleet_epoch(fleet)}-0"
    async with asyncio.timeout(LIMIT):
        with fleet.follow("web", begin) as follower:
            while len(found) < most:
                batch = await follower.next(LIMIT)
                assert batch is not None
                found += [event for event in batch.events if event.kind is EventKind.COMMAND]
    return found


def fleet_epoch(fleet: Fleet) -> str:
    with fleet.follow(None, None) as follower:
        return follower.id.partition("-")[0]


async def test_it_runs_from_the_start_on_and_the_machine_runs_on_after_it(
    world: World, fleet: Fleet
) -> None:
    made = await fleet.create(with_command("echo $WORD; pwd; exit 3"))
    assert made.command is None
    assert (await fleet.start("web")).status is Status.RUNNING
    machine = await until(fleet, has_exited)
    assert machine.command == CommandState(state=EXITED, exit_code=3)
    assert machine.status is Status.RUNNING
    assert (await console(fleet, "web")).endswith(b"here\n/srv\n")
    [event] = await commands(fleet, 1)
    assert (event.command, event.cause) == (machine.command, Cause.MACHINE)
    assert (await world.store.all())[0].command == machine.command


async def test_it_is_started_again_by_the_machines_rule(fleet: Fleet) -> None:
    # It fails the first time, when there is no such file yet.
    script = "cat /srv/there && exit 0; echo x > /srv/there; exit 1"
    await fleet.create(with_command(script, Restart.ON_FAILURE))
    await fleet.start("web")
    machine = await until(fleet, has_exited)
    assert machine.command == CommandState(state=EXITED, exit_code=0, restarts=1)
    assert machine.restarts == 0, "the machine itself was not"
    states = [event.command.state for event in await commands(fleet, 2) if event.command]
    # What lies between may be passed over.
    assert (CommandPhase.WAITING in states, states[-1]) == (True, EXITED)


async def test_a_restart_runs_it_anew_and_a_sleep_does_not(fleet: Fleet) -> None:
    await fleet.create(with_command("echo x >> /runs; exit 2"))
    await fleet.start("web")
    await until(fleet, has_exited)
    await fleet.sleep("web")
    await fleet.start("web")
    assert (await until(fleet, has_exited)).command == CommandState(state=EXITED, exit_code=2)
    assert (await run(fleet, "web", "cat", "/runs")).stdout == b"x\n"
    await fleet.restart("web")
    await until(fleet, has_exited)
    assert (await run(fleet, "web", "cat", "/runs")).stdout == b"x\nx\n"


async def test_what_was_last_told_stays_until_the_next_start(world: World, fleet: Fleet) -> None:
    await fleet.create(with_command("exit 2"))
    await fleet.start("web")
    told = (await until(fleet, has_exited)).command
    assert (await fleet.stop("web")).command == told
    await fleet.close()
    assert (await world.fleet()).get("web").command == told


async def test_an_end_that_no_control_plane_saw_is_known_to_the_next(world: World) -> None:
    fleet = await world.fleet()
    made = await fleet.create(with_command("sleep 0.05; exit 4"))
    await fleet.start("web")
    await fleet.close()
    # As a host that only looks on.
    agent = await Agent.connect(*world.process(made).guest.connect(), timeout=LIMIT)
    news = await agent.watch(0)
    async with asyncio.timeout(LIMIT):
        while news.command is None or not has_exited(news.command):
            news = await agent.watch(news.number)
    await agent.close()
    fleet = await world.fleet()
    assert (await until(fleet, has_exited)).command == CommandState(state=EXITED, exit_code=4)


@pytest.mark.parametrize(
    "point", [Point.BOOT_SPAWNED, Point.BOOT_CONFIGURED, Point.BOOT_SEEN, Point.BOOT_RECORDED]
)
async def test_a_start_that_a_crash_cut_off_runs_it_once(world: World, point: Point) -> None:
    fleet = await world.fleet()
    await fleet.create(with_command("echo x >> /runs; exit 2"))
    await world.crash_at(point, fleet.start("web"))
    fleet = await world.fleet()
    await fleet.wait("web", Status.RUNNING, LIMIT)
    await until(fleet, has_exited)
    assert (await run(fleet, "web", "cat", "/runs")).stdout == b"x\n"


async def test_a_program_that_is_missing_is_told_as_a_shell_does(fleet: Fleet) -> None:
    await fleet.create(spec(cmd=("nowhere",)))
    await fleet.start("web")
    assert (await until(fleet, has_exited)).command == CommandState(state=EXITED, exit_code=127)


async def test_a_guest_that_was_given_none_has_none_to_tell_of(world: World) -> None:
    fleet = await world.fleet()
    made = await fleet.create(spec())
    await fleet.start("web")
    await fleet.close()
    agent = await Agent.connect(*world.process(made).guest.connect(), timeout=LIMIT)
    await agent.supervise(("true",), {}, None, Restart.NEVER)
    await agent.close()
    fleet = await world.fleet()
    # Its answer comes after the news.
    await run(fleet, "web", "true")
    assert fleet.get("web").command is None


async def test_an_end_while_it_is_paused_is_told_when_it_goes_on(fleet: Fleet) -> None:
    await fleet.create(with_command("sleep 0.05; exit 4"))
    await fleet.start("web")
    await fleet.pause("web")
    await fleet.resume("web")
    machine = await until(fleet, has_exited)
    assert machine.command == CommandState(state=EXITED, exit_code=4)
