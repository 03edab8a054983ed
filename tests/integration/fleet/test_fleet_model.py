"""A fleet beside a simple model of it: random calls, crashes and deaths, and both must agree.

MODEL_EXAMPLES says how many sequences are tried (default: 60, of up to 40 steps each). The same on
real machines: tests/e2e/test_model.py.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from hyperfleet import failpoints
from hyperfleet.errors import GuestError, HyperfleetError
from hyperfleet.failpoints import Point
from hyperfleet.fleet import Fleet, Limits
from hyperfleet.lifecycle import Status
from hyperfleet.machine import MachineChange
from support.model.rules import Rules
from support.model.subject import ANOTHER, Act, Asked, Call, Known, Ran, Refused, kept_as

from .world import World, run, settled, spec

SOON = Limits(first_wait=0.001, longest_wait=0.001, calm=600, tries=0)


class FleetOfFakes:
    """A fleet in this process; its machines are the fake driver's, its record is in memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._boot = 0
        self._world: World
        self._fleet: Fleet
        self._do(self._begin())

    async def _begin(self) -> None:
        self._world = World(Path(self._folder.name) / "home")
        await self._open()

    async def _open(self) -> None:
        self._fleet = await self._world.fleet(revival=SOON, host_boot=str(self._boot))

    def _do(self, act: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(20):
                return await act

        return self._runner.run(limited())

    def _try(self, act: Coroutine[Any, Any, Any]) -> Any:
        """The answer, or the error that is one."""
        try:
            return self._do(act)
        except HyperfleetError as error:
            return Refused(error.code, error.message)

    def _status(self, act: Coroutine[Any, Any, Any]) -> Status | Refused:
        answer = self._try(act)
        return answer if isinstance(answer, Refused) else answer.status

    def create(self, name: str, asked: Asked) -> Status | Refused:
        made = spec(
            name, exposed_ports=asked.ports, restart=asked.restart, autostart=asked.autostart
        )
        return self._status(self._fleet.create(made))

    def call(self, call: Call, name: str) -> Status | Refused:
        return self._status(getattr(self._fleet, call)(name))

    def delete(self, name: str, *, force: bool) -> Refused | None:
        answer: Refused | None = self._try(self._fleet.delete(name, force=force))
        return answer

    def change(self, name: str, asked: Asked) -> Status | Refused:
        change = MachineChange(
            exposed_ports=asked.ports, restart=asked.restart, autostart=asked.autostart
        )
        return self._status(self._fleet.change(name, change))

    def snapshot(self, name: str, snapshot: str) -> bool | Refused:
        answer = self._try(self._fleet.snapshot(name, snapshot))
        return answer if isinstance(answer, Refused) else answer.has_memory

    def remove_snapshot(self, snapshot: str) -> None:
        self._do(self._fleet.remove_snapshot(snapshot))

    def restore(self, name: str, snapshot: str) -> Status | Refused:
        return self._status(self._fleet.restore(name, snapshot))

    def snapshots(self) -> set[str]:
        return {info.name for info in self._fleet.snapshots(None)}

    def run(self, name: str, *argv: str) -> Ran | Refused:
        answer = self._try(run(self._fleet, name, *argv))
        return answer if isinstance(answer, Refused) else Ran(answer.exit_code, answer.stdout)

    def die(self, name: str) -> None:
        self._do(self._end(name))

    def power_off(self, name: str) -> None:
        answer = self._try(run(self._fleet, name, "poweroff"))
        assert not isinstance(answer, Refused) or answer.code == GuestError.code
        self._do(self._until_another_life(name))

    def another_control_plane(self, *, orderly: bool) -> None:
        self._do(self._fleet.close() if orderly else self._world.crash())
        self._do(self._open())

    def all_die(self, *, reboot: bool) -> None:
        self._do(self._world.crash())
        for process in self._world.driver.processes():
            process.end(self._world.died)
        self._boot += reboot
        self._do(self._open())

    def killed_at(self, point: Point, act: Act, name: str) -> None:
        fleet = self._fleet
        doing: Coroutine[Any, Any, object]
        match act:
            case "snapshot":
                doing = fleet.snapshot(name, ANOTHER)
            case "restore":
                doing = fleet.restore(name, kept_as(name))
            case "change":
                doing = fleet.change(name, MachineChange(labels={"a": "b"}))
            case "delete":
                doing = fleet.delete(name, force=True)
            case "wake":
                doing = fleet.start(name)
            case _:
                doing = getattr(fleet, act)(name)
        self._do(self._world.crash_if_at(point, doing))
        self._do(self._open())

    def settled(self, name: str) -> Status | None:
        found: Status | None = self._do(settled(self._fleet, name))
        return found

    def check(self, known: Mapping[str, Known]) -> None:
        self._do(self._check(known))

    async def _check(self, known: Mapping[str, Known]) -> None:
        world, fleet = self._world, self._fleet
        machines = {machine.spec.name: machine for machine in fleet.machines()}
        assert machines.keys() == known.keys()
        for name, one in known.items():
            machine = machines[name]
            has = Asked(machine.spec.exposed_ports, machine.spec.restart, machine.spec.autostart)
            assert has == one.asked
            assert one.status is not Status.FAILED or machine.error_message
        recorded = {one.id: (one.status, one.spec) for one in await world.store.all()}
        assert recorded == {one.id: (one.status, one.spec) for one in machines.values()}
        with_process = (Status.RUNNING, Status.PAUSED)
        alive = {one.id for one in machines.values() if one.status in with_process}
        assert world.driver.alive() == alive
        paused = {one.id for one in machines.values() if one.status is Status.PAUSED}
        assert {one for one in alive if world.is_paused(one)} == paused
        folders = {path.name for path in (world.home / "machines").iterdir()}
        assert folders <= recorded.keys()
        for machine_id in alive:
            process = world.driver.process(machine_id)
            assert process is not None
            ports = fleet.get(machine_id).ports
            ways = await process.forwards()
            assert {port.upstream for port in ports} <= {*ways.values()}

    def close(self) -> None:
        failpoints.arm(None)
        self._do(self._world.close())
        self._runner.close()
        self._folder.cleanup()

    async def _end(self, name: str) -> None:
        self._world.process(self._fleet.get(name)).end(self._world.died)
        await self._until_another_life(name)

    async def _until_another_life(self, name: str) -> None:
        """Its death has been seen; then whatever follows it."""
        life = self._fleet.get(name).lifecycle
        waits = [
            asyncio.create_task(self._fleet.wait(name, status, 5))
            for status in (Status.FAILED, Status.STOPPED)
        ]
        if self._fleet.get(name).lifecycle == life:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        await settled(self._fleet, name)


class FleetAndModel(Rules):
    def begin(self) -> FleetOfFakes:
        return FleetOfFakes()


TestFleetAndModel = FleetAndModel.TestCase
TestFleetAndModel.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "60")),
    stateful_step_count=40,
    deadline=None,
    derandomize=os.environ.get("CI", "").lower() in ("1", "true"),
    suppress_health_check=[HealthCheck.too_slow],
)
