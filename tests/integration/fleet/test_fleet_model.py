"""A fleet beside a simple model of it: random calls, crashes and deaths, and both must agree.

MODEL_EXAMPLES says how many sequences are tried (default: 60, of up to 40 steps each).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hyperfleet import failpoints
from hyperfleet.errors import (
    ConflictError,
    GuestError,
    HyperfleetError,
    InvalidStateError,
    NotFoundError,
)
from hyperfleet.failpoints import Point
from hyperfleet.fleet import Fleet, Limits
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import MachineChange, Restart

from .world import World, run, settled, spec

_S = Status
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 2)
PORTS = st.lists(st.integers(80, 83), unique=True, max_size=3).map(tuple)
POLICIES = st.sampled_from(Restart)
SOON = Limits(first_wait=0.001, longest_wait=0.001, calm=600, tries=0)
# What a control plane that is killed in the middle of a call may leave, besides what was there.
LEAVES: dict[str, frozenset[Status | None]] = {
    "start": frozenset({_S.RUNNING, _S.FAILED}),
    "stop": frozenset({_S.STOPPED}),
    "restart": frozenset({_S.RUNNING, _S.FAILED}),
    "delete": frozenset({None, _S.STOPPED}),
    "change": frozenset(),
    "pause": frozenset({_S.PAUSED}),
    "resume": frozenset({_S.RUNNING}),
    # Running: also one that was paused, of which it is not known any more.
    "sleep": frozenset({_S.SLEEPING, _S.RUNNING}),
    "snapshot": frozenset(),
    "restore": frozenset({_S.STOPPED, _S.SLEEPING}),
    "wake": frozenset({_S.RUNNING}),
}
# On the way of each, by the beginning of their names.
_ON_THE_WAY = {
    "start": ("start", "spawn", "boot", "look.done"),
    "stop": ("stop",),
    "restart": ("stop", "restart", "start", "spawn", "boot"),
    "delete": ("stop", "delete"),
    "change": ("change.recorded", "change.published"),
    "pause": ("pause",),
    "resume": ("resume",),
    "sleep": ("sleep",),
    "snapshot": ("snapshot",),
    "restore": ("restore",),
    "wake": ("start", "spawn", "wake", "boot"),
}
WHERE = [
    (act, point) for act, ways in _ON_THE_WAY.items() for point in Point if point.startswith(ways)
]


class Known(msgspec.Struct):
    """What the model knows of a machine."""

    status: Status = _S.PENDING
    ports: tuple[int, ...] = ()
    restart: Restart = Restart.NEVER
    autostart: bool = False
    # What was last written to its disk.
    file: bytes | None = None
    # What was on it when its snapshot was made, which has its memory or not.
    kept: tuple[bytes | None, bool] | None = None


class FleetAndModel(RuleBasedStateMachine):
    """Each rule is one thing that happens, waited for to its end."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self.known: dict[str, Known] = {}
        self.boot = 0
        self.world: World
        self.fleet: Fleet
        self._do(self._begin())

    async def _begin(self) -> None:
        self.world = World(Path(self._folder.name) / "home")
        await self._open()

    async def _open(self) -> None:
        self.fleet = await self.world.fleet(revival=SOON, host_boot=str(self.boot))

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
            return error

    def teardown(self) -> None:
        failpoints.arm(None)
        self._do(self.world.close())
        self._runner.close()
        self._folder.cleanup()

    @initialize(restart=POLICIES, autostart=st.booleans())
    def begin_with_some(self, restart: Restart, autostart: bool) -> None:
        for name in ("a", "b"):
            self.create(name, (80,), restart, autostart)
            self.start(name)

    @rule(name=NAMES, ports=PORTS, restart=POLICIES, autostart=st.booleans())
    def create(self, name: str, ports: tuple[int, ...], restart: Restart, autostart: bool) -> None:
        asked = spec(name, exposed_ports=ports, restart=restart, autostart=autostart)
        answer = self._try(self.fleet.create(asked))
        if name in self.known:
            assert isinstance(answer, ConflictError)
        else:
            assert answer.status is _S.PENDING
            self.known[name] = Known(ports=ports, restart=restart, autostart=autostart)

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        answer = self._try(self.fleet.start(name))
        if name in self.known and self.known[name].status is _S.PAUSED:
            assert isinstance(answer, InvalidStateError)
        else:
            self._called(name, answer, _S.RUNNING)

    @rule(name=NAMES)
    def restart(self, name: str) -> None:
        self._called(name, self._try(self.fleet.restart(name)), _S.RUNNING)

    @rule(name=NAMES, ends=st.booleans())
    def pause_or_resume(self, name: str, ends: bool) -> None:
        answer = self._try(self.fleet.resume(name) if ends else self.fleet.pause(name))
        known = self.known.get(name)
        if known is not None and known.status not in (_S.RUNNING, _S.PAUSED):
            assert isinstance(answer, InvalidStateError)
        else:
            self._called(name, answer, _S.RUNNING if ends else _S.PAUSED)

    @rule(name=NAMES)
    def sleep(self, name: str) -> None:
        answer = self._try(self.fleet.sleep(name))
        known = self.known.get(name)
        if known is not None and known.status not in (_S.RUNNING, _S.PAUSED, _S.SLEEPING):
            assert isinstance(answer, InvalidStateError)
        else:
            self._called(name, answer, _S.SLEEPING)

    @rule(name=NAMES)
    def snapshot(self, name: str) -> None:
        known = self.known.get(name)
        if known is not None and known.kept is not None:
            self._do(self.fleet.remove_snapshot(f"of-{name}"))
            known.kept = None
        answer = self._try(self.fleet.snapshot(name, f"of-{name}"))
        if known is None:
            assert isinstance(answer, NotFoundError)
        elif isinstance(answer, HyperfleetError):
            # A machine that failed as it was first made has no disk.
            assert known.status in (_S.PENDING, _S.FAILED)
        else:
            assert answer.has_memory == (known.status in (_S.RUNNING, _S.PAUSED, _S.SLEEPING))
            known.kept = (known.file, answer.has_memory)

    @rule(name=NAMES)
    def restore(self, name: str) -> None:
        answer = self._try(self.fleet.restore(name, f"of-{name}"))
        known = self.known.get(name)
        if known is None or known.kept is None:
            assert isinstance(answer, NotFoundError)
        else:
            known.file, has_memory = known.kept
            self._called(name, answer, _S.SLEEPING if has_memory else _S.STOPPED)

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        answer = self._try(self.fleet.stop(name))
        known = self.known.get(name)
        if known is not None and known.status in (_S.PENDING, _S.FAILED):
            assert isinstance(answer, InvalidStateError)
        else:
            self._called(name, answer, _S.STOPPED)

    @rule(name=NAMES, force=st.booleans())
    def delete(self, name: str, force: bool) -> None:
        answer = self._try(self.fleet.delete(name, force=force))
        known = self.known.get(name)
        if known is None:
            assert isinstance(answer, NotFoundError)
        elif known.status not in AT_REST and not force:
            assert isinstance(answer, InvalidStateError)
        else:
            assert answer is None
            self._forget(name)

    @rule(name=NAMES, ports=PORTS, restart=POLICIES, autostart=st.booleans())
    def change(self, name: str, ports: tuple[int, ...], restart: Restart, autostart: bool) -> None:
        change = MachineChange(exposed_ports=ports, restart=restart, autostart=autostart)
        answer = self._try(self.fleet.change(name, change))
        known = self.known.get(name)
        if known is None:
            assert isinstance(answer, NotFoundError)
        else:
            known.ports, known.restart, known.autostart = ports, restart, autostart

    @rule(name=NAMES, word=st.sampled_from(["x", "y"]))
    def write(self, name: str, word: str) -> None:
        answer = self._try(run(self.fleet, name, "sh", "-c", f"echo {word} > /file"))
        if self._runs(name):
            self.known[name].file = f"{word}\n".encode()
        else:
            assert isinstance(answer, NotFoundError | InvalidStateError)

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        answer = self._try(run(self.fleet, name, "cat", "/file"))
        if not self._runs(name):
            assert isinstance(answer, NotFoundError | InvalidStateError)
        elif self.known[name].file is None:
            assert answer.exit_code == 1
        else:
            assert answer.stdout == self.known[name].file

    @rule(number=NUMBERS)
    def die(self, number: int) -> None:
        if name := self._pick(number, _S.RUNNING):
            self._do(self._end(name))
            again = self.known[name].restart is not Restart.NEVER
            self.known[name].status = _S.RUNNING if again else _S.FAILED

    @rule(number=NUMBERS)
    def power_off(self, number: int) -> None:
        if name := self._pick(number, _S.RUNNING):
            answer = self._try(run(self.fleet, name, "poweroff"))
            assert not isinstance(answer, HyperfleetError) or isinstance(answer, GuestError)
            self._do(self._until_another_life(name))
            again = self.known[name].restart is Restart.ALWAYS
            self.known[name].status = _S.RUNNING if again else _S.STOPPED

    @rule(orderly=st.booleans())
    def another_control_plane(self, orderly: bool) -> None:
        self._do(self.fleet.close() if orderly else self.world.crash())
        self._do(self._open())

    @rule(reboot=st.booleans())
    def all_die_while_no_control_plane_runs(self, reboot: bool) -> None:
        self._do(self.world.crash())
        for process in self.world.driver.processes():
            process.end(self.world.died)
        self.boot += reboot
        self._do(self._open())
        for known in self.known.values():
            if known.status in (_S.RUNNING, _S.PAUSED):
                by_policy = known.restart is not Restart.NEVER and not reboot
                known.status = _S.RUNNING if known.autostart or by_policy else _S.FAILED

    @rule(number=NUMBERS, where=st.sampled_from(WHERE))
    def killed_at(self, number: int, where: tuple[str, Point]) -> None:
        """A call in which the control plane may be killed; it leaves one of a few things."""
        act, point = where
        # Mostly one in which the call comes to the point.
        usual = {
            "start": _S.STOPPED,
            "change": None,
            "resume": _S.PAUSED,
            "wake": _S.SLEEPING,
        }
        status = usual.get(act, _S.RUNNING)
        name = self._pick(number, status)
        if name is None and act != "restore":
            name = self._pick(number, None)
        if name is None:
            return
        if act in ("snapshot", "restore"):
            # Then one with a memory.
            self.snapshot(name)
        acts: dict[str, Callable[[str], Coroutine[Any, Any, Any]]] = {
            "start": self.fleet.start,
            "stop": self.fleet.stop,
            "pause": self.fleet.pause,
            "resume": self.fleet.resume,
            "sleep": self.fleet.sleep,
            "wake": self.fleet.start,
            "snapshot": lambda name: self.fleet.snapshot(name, "another"),
            "restore": lambda name: self.fleet.restore(name, f"of-{name}"),
            "restart": self.fleet.restart,
            "delete": lambda name: self.fleet.delete(name, force=True),
            "change": lambda name: self.fleet.change(name, MachineChange(labels={"a": "b"})),
        }
        self._do(self.world.crash_if_at(point, acts[act](name)))
        self._do(self._open())
        found = self._do(settled(self.fleet, name))
        if act == "wake" and self.known[name].status is not _S.SLEEPING:
            # None slept: it was the start of another one.
            act = "start"
        assert found in LEAVES[act] | {self.known[name].status}
        known = self.known[name]
        if act == "snapshot" and any(one.name == "another" for one in self.fleet.snapshots(None)):
            # Whole or not there.
            assert self._do(self.fleet.remove_snapshot("another")) is None
        if act == "restore" and found is _S.SLEEPING and known.kept is not None:
            known.file = known.kept[0]
        if found is None:
            self._forget(name)
        else:
            known.status = found

    @invariant()
    def all_agree(self) -> None:
        self._do(self._agree())

    async def _agree(self) -> None:
        world, fleet = self.world, self.fleet
        found = {name: await settled(fleet, name) for name in self.known}
        assert found == {name: known.status for name, known in self.known.items()}
        machines = {machine.spec.name: machine for machine in fleet.machines()}
        assert machines.keys() == self.known.keys()
        for name, known in self.known.items():
            machine = machines[name]
            assert machine.spec.exposed_ports == known.ports
            assert (machine.spec.restart, machine.spec.autostart) == (
                known.restart,
                known.autostart,
            )
            assert known.status is not _S.FAILED or machine.error_message
        recorded = {one.id: (one.status, one.spec) for one in await world.store.all()}
        assert recorded == {one.id: (one.status, one.spec) for one in machines.values()}
        alive = {one.id for one in machines.values() if one.status in (_S.RUNNING, _S.PAUSED)}
        assert world.driver.alive() == alive
        paused = {one.id for one in machines.values() if one.status is _S.PAUSED}
        assert {one for one in alive if world.is_paused(one)} == paused
        folders = {path.name for path in (world.home / "machines").iterdir()}
        assert folders <= recorded.keys()
        assert {info.name for info in fleet.snapshots(None)} == {
            f"of-{name}" for name, known in self.known.items() if known.kept is not None
        }
        for machine_id in alive:
            process = world.driver.process(machine_id)
            assert process is not None
            ports = fleet.get(machine_id).ports
            ways = await process.forwards()
            assert {port.upstream for port in ports} <= {*ways.values()}

    def _called(self, name: str, answer: Any, status: Status) -> None:
        if name not in self.known:
            assert isinstance(answer, NotFoundError)
        else:
            assert answer.status is status
            self.known[name].status = status

    def _forget(self, name: str) -> None:
        """The machine is no more; its snapshot goes too."""
        if self.known.pop(name).kept is not None:
            self._do(self.fleet.remove_snapshot(f"of-{name}"))

    def _pick(self, number: int, status: Status | None) -> str | None:
        """One of the machines that have the status (None: any); None when there is none."""
        names = sorted(name for name, known in self.known.items() if status in (None, known.status))
        return names[number % len(names)] if names else None

    def _runs(self, name: str) -> bool:
        return name in self.known and self.known[name].status is _S.RUNNING

    async def _end(self, name: str) -> None:
        self.world.process(self.fleet.get(name)).end(self.world.died)
        await self._until_another_life(name)

    async def _until_another_life(self, name: str) -> None:
        """Its death has been seen; then whatever follows it."""
        life = self.fleet.get(name).lifecycle
        waits = [
            asyncio.create_task(self.fleet.wait(name, status, 5))
            for status in (_S.FAILED, _S.STOPPED)
        ]
        if self.fleet.get(name).lifecycle == life:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        await settled(self.fleet, name)


TestFleetAndModel = FleetAndModel.TestCase
TestFleetAndModel.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "60")),
    stateful_step_count=40,
    deadline=None,
    derandomize=os.environ.get("CI", "").lower() in ("1", "true"),
    suppress_health_check=[HealthCheck.too_slow],
)
