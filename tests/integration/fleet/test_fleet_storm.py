"""Many clients, few machines, faults at random: every answer is one that some order explains."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from hyperfleet.errors import (
    ConflictError,
    GuestError,
    HyperfleetError,
    InvalidStateError,
    NotFoundError,
    OperationTimeoutError,
)
from hyperfleet.fleet import Fleet
from hyperfleet.lifecycle import AT_REST, Status, may_go
from hyperfleet.machine import Machine, MachineChange

from .world import World, run, spec

CLIENTS, ACTS_EACH = 50, 30
NAMES = [f"m{number}" for number in range(5)]
FAULTS = [
    *[""] * 6,
    "fake.delay=0.02",
    "fake.boot=panic",
    "fake.boot=never",
    "fake.dies_after=0.05",
    "fake.channel=drops",
    "fake.channel=garbage",
]
# What each may be answered with, besides what it is for.
ALLOWED: dict[str, tuple[type[HyperfleetError], ...]] = {
    "create": (ConflictError,),
    "start": (NotFoundError, InvalidStateError, GuestError, OperationTimeoutError),
    "stop": (NotFoundError, InvalidStateError),
    "restart": (NotFoundError, InvalidStateError, GuestError, OperationTimeoutError),
    "change": (NotFoundError,),
    "delete": (NotFoundError, InvalidStateError),
    "force": (NotFoundError, InvalidStateError),
    "exec": (NotFoundError, InvalidStateError, GuestError, OperationTimeoutError),
    "ports": (NotFoundError,),
}

# How often each is asked for: machines must live long enough for something to happen in them.
WEIGHTS = {
    "create": 4, "start": 8, "stop": 2, "restart": 1, "change": 3, "delete": 2, "force": 1,
    "exec": 12, "ports": 3,
}  # fmt: skip


async def _act(fleet: Fleet, dice: random.Random, name: str, act: str) -> bool:
    """Does it; whether it was done."""
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: fleet.create(spec(name, faults=dice.choice(FAULTS))),
        "start": lambda: fleet.start(name),
        "stop": lambda: fleet.stop(name),
        "restart": lambda: fleet.restart(name),
        "change": lambda: fleet.change(name, MachineChange(exposed_ports=(dice.randint(1, 9),))),
        "delete": lambda: fleet.delete(name, force=False),
        "force": lambda: fleet.delete(name, force=True),
        "exec": lambda: run(fleet, name, "echo", "hello", timeout=1),
        "ports": lambda: fleet.ports(name),
    }
    try:
        answer = await acts[act]()
    except ALLOWED[act]:
        return False
    if act in ("start", "restart"):
        assert isinstance(answer, Machine)
        assert answer.status in (Status.RUNNING, Status.STOPPED, Status.FAILED)
    return True


def _check_story(world: World) -> None:
    """What the data plane was told of each machine is a walk through the table of states."""
    last: dict[str, Machine] = {}
    for told in world.routes.told:
        if isinstance(told, str):
            last.pop(told, None)
            continue
        before = last.get(told.id)
        if before is None:
            assert told.status is Status.PENDING
        elif before.status is not told.status:
            assert may_go(before.status, told.status), (before.status, told.status)
            assert told.lifecycle - before.lifecycle == (told.status is Status.RUNNING)
        if told.status in AT_REST or told.status is Status.STARTING:
            assert all(port.upstream is None for port in told.ports)
        last[told.id] = told


@pytest.mark.parametrize("seed", range(6))
async def test_fifty_clients_on_five_machines(world: World, seed: int) -> None:
    fleet = await world.fleet(boot_deadline=0.3, agent_wait=0.2, boots_at_once=3)

    done: set[str] = set()

    async def client(number: int) -> None:
        dice = random.Random(f"{seed} {number}")  # noqa: S311 - no secret
        for _ in range(ACTS_EACH):
            [act] = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
            if await _act(fleet, dice, dice.choice(NAMES), act):
                done.add(act)

    async with asyncio.timeout(60):
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    assert done == set(ALLOWED)
    _check_story(world)

    recorded = {machine.id: machine for machine in await world.store.all()}
    assert {machine.id for machine in fleet.machines()} == set(recorded)
    for machine in fleet.machines():
        assert recorded[machine.id].status is machine.status
        assert recorded[machine.id].spec == machine.spec
        process = world.driver.process(machine.id)
        if machine.status in AT_REST:
            assert process is None
    for machine in fleet.machines():
        await fleet.delete(machine.id, force=True)
    assert [path.name for path in world.home.rglob("*")] == ["machines"]
    assert world.driver.processes() == []
