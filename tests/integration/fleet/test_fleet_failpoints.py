"""The control plane is killed at each point that there is; the next one finds all in order.

The guests of the fake outlive the control planes of a `World`, as those of QEMU do.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.failpoints import CONTROL_PLANE, Point
from hyperfleet.fleet import Fleet
from hyperfleet.lifecycle import ALIVE, Status
from hyperfleet.machine import Machine, MachineChange, MachineDisk
from support.table import printed

from .world import World, get, run, settled, spec

_S = Status
# What may be found after a crash in the middle of each: done, as before, or failed with a reason.
OUTCOMES: dict[str, set[Status | None]] = {
    "make a disk": {None},
    "create": {None, _S.PENDING},
    "start": {_S.PENDING, _S.STOPPED, _S.FAILED, _S.RUNNING},
    "serve": {_S.RUNNING},
    "change": {_S.RUNNING},
    "restart": {_S.RUNNING},
    "pause": {_S.PAUSED},
    "resume": {_S.PAUSED, _S.RUNNING},
    "sleep": {_S.RUNNING, _S.SLEEPING},
    "wake": {_S.RUNNING, _S.SLEEPING},
    "keep": {_S.RUNNING},
    "put back": {_S.RUNNING, _S.STOPPED, _S.SLEEPING},
    "clone": {_S.RUNNING},
    "take over": {_S.RUNNING},
    # How a process ended is not known to a control plane that did not see it.
    "power off": {_S.STOPPED, _S.FAILED},
    "stop": {_S.RUNNING, _S.STOPPED},
    "die": {_S.FAILED},
    "delete": {_S.STOPPED, _S.FAILED, None},
}
# Points that only a control plane after a crash comes to, and where that crash was.
SECOND = {Point.ADOPT_DELETING: Point.DELETE_DECIDED}


class Story:
    """One machine's life, with all that may be asked of one; `act` is what is under way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.act = ""
        self.machine: Machine | None = None

    async def tell(self) -> None:
        world = self._world
        fleet = await world.fleet()
        self.act = "make a disk"
        await fleet.disks.create("data", 16)
        self.act = "create"
        disks = (MachineDisk(disk="data", path="/d"),)
        machine = self.machine = await fleet.create(spec(disks=disks))
        self.act = "start"
        await fleet.start("web")
        self.act = "serve"
        await run(fleet, "web", "sh", "-c", "echo hi > /w/index.html; httpd -p 127.0.0.1:80 -h /w")
        await fleet.ports("web")
        self.act = "change"
        await fleet.change("web", MachineChange(exposed_ports=(80, 81)))
        await fleet.change("web", MachineChange(exposed_ports=(80,)))
        self.act = "pause"
        await fleet.pause("web")
        self.act = "resume"
        await fleet.resume("web")
        self.act = "sleep"
        await fleet.sleep("web")
        self.act = "wake"
        await fleet.start("web")
        self.act = "stop"
        await fleet.stop("web")
        await self._be_kept_and_end(fleet, machine)

    async def _be_kept_and_end(self, fleet: Fleet, machine: Machine) -> None:
        world = self._world
        await fleet.change("web", MachineChange(disks=()))
        self.act = "start"
        await fleet.start("web")
        await run(fleet, "web", "sh", "-c", "httpd -p 127.0.0.1:80 -h /w")
        self.act = "keep"
        await fleet.snapshot("web", "one")
        self.act = "put back"
        await fleet.restore("web", "one")
        self.act = "wake"
        await fleet.start("web")
        self.act = "clone"
        await fleet.clone("one", "copy", MachineChange())
        self.act = "restart"
        await fleet.restart("web")
        self.act = "take over"
        await fleet.close()
        fleet = await world.fleet()
        self.act = "power off"
        with contextlib.suppress(GuestError):
            await run(fleet, "web", "poweroff")
        await fleet.wait("web", _S.STOPPED, 5)
        self.act = "start"
        await fleet.start("web")
        self.act = "die"
        world.process(machine).end(world.died)
        await fleet.wait("web", _S.FAILED, 5)
        self.act = "delete"
        await fleet.delete("web", force=False)
        await fleet.delete("copy", force=True)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """A row for each point; printed at the end."""
    heading = "killed at          during     recorded  processes    found     seconds to mend"
    with printed(request, heading) as rows:
        yield rows


@pytest.mark.parametrize("point", CONTROL_PLANE)
async def test_killed_at(world: World, point: Point, table: list[str]) -> None:
    story = Story(world)
    if point in SECOND:
        await world.crash_at(SECOND[point], story.tell())
        await world.crash_at(point, world.fleet())
    else:
        await world.crash_at(point, story.tell())
    recorded = await world.store.all()
    processes = len(world.driver.processes())

    told = len(world.routes.told)
    begun = time.perf_counter()
    fleet = await world.fleet()
    async with asyncio.timeout(10):
        found = await settled(fleet, "web")
    seconds = time.perf_counter() - begun
    table.append(
        f"{point:18} {story.act:10} {_status(recorded):9} {processes}         "
        f"-> {found or 'none':9} {seconds:.3f}"
    )
    assert found in OUTCOMES[story.act]
    await _agrees(world, fleet, told)
    for machine in fleet.machines():
        await _is_of_use(world, fleet, machine.spec.name)
    assert fleet.machines() == await world.store.all() == []
    assert world.driver.processes() == []
    for info in fleet.snapshots(None):
        await _is_whole(world, fleet, info.name)
    for disk in fleet.disks.every():
        assert disk.machine_id is None
        await fleet.disks.remove(disk.info.name)
    assert {path.name for path in world.home.rglob("*")} <= {"machines", "snapshots", "data"}


async def _agrees(world: World, fleet: Fleet, told: int) -> None:
    """Record, processes, folders, ways in and routes say the same."""
    machines = fleet.machines()
    recorded = await world.store.all()
    assert [(one.id, one.status, one.spec) for one in recorded] == [
        (one.id, one.status, one.spec) for one in machines
    ]
    alive = {one.id for one in machines if world.driver.process(one.id) is not None}
    assert alive == {one.id for one in machines if one.status in ALIVE}
    assert len(world.driver.processes()) == len(alive)
    assert {path.name for path in (world.home / "machines").iterdir()} <= {
        one.id for one in machines
    }
    for machine in machines:
        last = [one for one in world.routes.told[told:] if getattr(one, "id", one) == machine.id]
        assert last[-1] == machine
        assert machine.status is not _S.FAILED or machine.error_message
        if machine.id in alive:
            ways = await world.process(machine).forwards()
            upstreams = {port.upstream for port in machine.ports}
            assert upstreams <= set(ways.values())
            # A relay's way, and the port's own.
            assert len(ways) <= 2 * len(machine.ports)
    assert {getattr(one, "id", one) for one in world.routes.told[told:]} == {
        one.id for one in machines
    }


async def _is_of_use(world: World, fleet: Fleet, name: str) -> None:
    """It starts, or runs on, serves, stops and is deleted."""
    if fleet.get(name).status is _S.PAUSED:
        await fleet.resume(name)
    machine = await fleet.start(name)
    assert not world.is_paused(machine.id)
    await run(fleet, name, "sh", "-c", "echo hi > /w/index.html; httpd -p 80 -h /w")
    ports, _ = await fleet.ports(name)
    assert await get(ports[0].upstream) == b"hi\n"
    assert world.process(machine).alive
    await fleet.stop(name)
    await fleet.delete(name, force=False)


async def _is_whole(world: World, fleet: Fleet, snapshot: str) -> None:
    """A machine can be made of it, which goes on where it was kept; it is deleted."""
    await fleet.clone(snapshot, "clone", MachineChange())
    await fleet.start("clone")
    ports, _ = await fleet.ports("clone")
    assert await get(ports[0].upstream) == b"hi\n"
    await fleet.delete("clone", force=True)
    await fleet.remove_snapshot(snapshot)
    assert world.driver.processes() == []


def _status(recorded: list[Machine]) -> str:
    return recorded[0].status if recorded else "none"
