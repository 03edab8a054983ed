"""A home, its record and its fake machines, which outlive the control planes opened on them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec

from hyperfleet import failpoints
from hyperfleet.errors import NotFoundError, ValidationError
from hyperfleet.failpoints import Point
from hyperfleet.fleet import Fleet, FleetConfig
from hyperfleet.guest.values import ExecRequest, ExecResult
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import How, Machine, MachineSpec
from hyperfleet.network.interface import Networks
from hyperfleet.network.user import UserNetwork
from hyperfleet.proxy.interface import Activity, RouteSink
from hyperfleet.store.interface import MachineStore
from hyperfleet.store.memory import MemoryStore
from hyperfleet.vmm.driver import Driver, Exit, LaunchSpec, Recipe
from hyperfleet.vmm.fake import FakeDriver
from hyperfleet.vmm.fake_faults import Boot, Faults, from_kernel_args
from hyperfleet.vmm.fake_process import FakeProcess

from .mortal import Crash, Life, Mortal


class Routes:
    """What the data plane was told, in order."""

    def __init__(self) -> None:
        self.told: list[Machine | str] = []
        self._heard = asyncio.Event()

    async def publish(self, machine: Machine) -> None:
        self.told.append(machine)
        self._heard.set()

    async def withdraw(self, machine_id: str) -> None:
        self.told.append(machine_id)

    def statuses(self) -> list[Status]:
        return [told.status for told in self.told if isinstance(told, Machine)]

    async def until(self, holds: Callable[[Machine], bool]) -> Machine:
        """The first machine from now on, or the last one told, of which it holds."""
        async with asyncio.timeout(10):
            while True:
                last = self.told[-1] if self.told else None
                if isinstance(last, Machine) and holds(last):
                    return last
                self._heard.clear()
                await self._heard.wait()


class Images:
    """Every path is good, unless it says that it is not."""

    def kernel(self, path: str) -> Path:
        if path == "missing":
            raise ValidationError("kernel_image_path: missing")
        return Path(path)

    def root_disk(self, path: str) -> Path:
        return Path(path)

    def initramfs(self) -> Path:
        return Path("initramfs")


class CrashingStore(MemoryStore):
    """Dies at the save of one status, before or after it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.dies_before: Status | None = None
        self.dies_after: Status | None = None
        self.dies_at_remove = False
        self.refuses: Status | None = None
        self.crashed = asyncio.Event()

    async def save(self, machine: Machine) -> None:
        if machine.status is self.dies_before:
            self.crash()
        if machine.status is self.refuses:
            raise OSError("disk full")
        await super().save(machine)
        if machine.status is self.dies_after:
            self.crash()

    async def remove(self, machine_id: str) -> None:
        if self.dies_at_remove:
            self.crash()
        await super().remove(machine_id)

    def crash(self) -> None:
        self.crashed.set()
        raise Crash


class WatchedDriver(FakeDriver):
    """Tells when a machine's process is there."""

    def __init__(self) -> None:
        super().__init__(self._faults_of, templates=4)
        # Set when a template is about to be made, which then never is.
        self.preparing: asyncio.Event | None = None
        self._broken: set[str] = set()
        self.spawned: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._started: dict[str, FakeProcess] = {}
        # What is known of how a machine ended that no control plane saw end.
        self.known = Exit()

    def last_exit(self, launch: LaunchSpec) -> Exit:
        del launch
        return self.known

    def alive(self) -> set[str]:
        """The machines that have a process."""
        return {machine_id for machine_id, process in self._started.items() if process.alive}

    def processes(self) -> list[FakeProcess]:
        """All that are alive."""
        return [process for process in self._started.values() if process.alive]

    def break_disk_of(self, name: str) -> None:
        """A machine of that name never comes up, of whatever shape it is."""
        self._broken.add(name)

    def _faults_of(self, launch: LaunchSpec) -> Faults:
        faults = from_kernel_args(launch)
        broken = launch.name in self._broken
        return msgspec.structs.replace(faults, boot=Boot.NEVER) if broken else faults

    def recipe(self, launch: LaunchSpec) -> Recipe | None:
        recipe = super().recipe(launch)
        if recipe is None or self.preparing is None:
            return recipe
        return msgspec.structs.replace(recipe, make=self._never)

    async def _never(self) -> None:
        assert self.preparing is not None
        self.preparing.set()
        await asyncio.Event().wait()

    async def start(self, launch: LaunchSpec, *, anew: bool = False) -> FakeProcess:
        before = self._started.get(launch.id)
        assert before is None or not before.alive, "a machine was given a second process"
        try:
            process = await super().start(launch, anew=anew)
        finally:
            # There although the control plane was killed before it heard of it.
            if (there := self.process(launch.id)) is not None:
                self._started[launch.id] = there
        self.spawned[launch.id].set()
        return process


class StillTraffic:
    """Traffic that a test says."""

    def __init__(self) -> None:
        # Or what tells it.
        self.of: dict[str, Activity | Callable[[], Activity] | None] = {}

    async def activity(self, machine_id: str) -> Activity | None:
        told = self.of.get(machine_id, Activity())
        return told() if callable(told) else told


class Tally:
    """Everything that the fleet's observer was told, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def started(self, seconds: float, how: How) -> None:
        assert seconds >= 0
        self.heard.append("started")

    def start_failed(self) -> None:
        self.heard.append("start failed")

    def start_given_up(self) -> None:
        self.heard.append("start given up")

    def executed(self, outcome: str) -> None:
        self.heard.append(f"exec {outcome}")

    def looked(self, *, seen: bool) -> None:
        self.heard.append("seen" if seen else "not seen")


class World:
    """A home, a record and a driver that outlive the fleets that are opened on them."""

    died = Exit(signal=9)

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = CrashingStore()
        self.driver = WatchedDriver()
        self.routes = Routes()
        self.images = Images()
        self.traffic = StillTraffic()
        self.observer = Tally()
        self._fleets: list[Fleet] = []
        self._life = Life()
        asyncio.get_running_loop().set_exception_handler(_hear)

    async def fleet(self, **changes: Any) -> Fleet:
        """A control plane; one that is open already is as good as dead."""
        limits = {"boot_deadline": 5.0, "stop_grace": 0.1, "poll_interval": 60.0, **changes}
        fleet = Fleet(
            driver=cast("Driver", Mortal(self.driver, self._life)),
            networks=Networks(UserNetwork()),
            store=cast("MachineStore", Mortal(self.store, self._life)),
            routes=cast("RouteSink", Mortal(self.routes, self._life)),
            images=self.images,
            config=FleetConfig(home=self.home, **limits),
            traffic=self.traffic,
            observer=self.observer,
        )
        self._fleets.append(fleet)
        await fleet.open()
        return fleet

    def is_paused(self, machine_id: str) -> bool:
        """Whether a machine's process stands still."""
        process = self.driver.process(machine_id)
        return process is not None and process.is_paused

    async def spawned(self, machine: Machine) -> None:
        """Returns when the machine's process is there."""
        async with asyncio.timeout(5):
            await self.driver.spawned[machine.id].wait()

    async def crash(self) -> None:
        """The control plane is killed: its tasks are gone, nothing was said or written."""
        self._fleets.clear()
        self._life.end()
        self._life = Life()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.store.dies_before = self.store.dies_after = self.store.refuses = None
        self.store.dies_at_remove = False

    async def crash_at(self, point: Point, act: Coroutine[Any, Any, Any]) -> None:
        """Begins `act` and kills the control plane where it reaches `point`, which it must."""
        assert await self.crash_if_at(point, act), f"{point} was not reached"

    async def crash_if_at(self, point: Point, act: Coroutine[Any, Any, Any]) -> bool:
        """Begins `act`; kills the control plane at `point`, or else when that is done.

        Whether it came to the point.
        """
        life = self._life
        reached = asyncio.Event()

        def die() -> None:
            reached.set()
            life.end()
            raise Crash

        failpoints.arm(point, die)
        doing = asyncio.create_task(act)
        waiting = asyncio.create_task(reached.wait())
        try:
            async with asyncio.timeout(20):
                await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            failpoints.arm(None)
            waiting.cancel()
            await self.crash()
        assert doing.done()
        if not doing.cancelled():
            doing.exception()
        return reached.is_set()

    async def crash_when_told(self, act: Coroutine[Any, Any, Any]) -> None:
        """Begins `act` and kills the control plane where the store dies."""
        doing = asyncio.create_task(act)
        async with asyncio.timeout(10):
            await self.store.crashed.wait()
        await self.crash()
        assert doing.done()

    async def close(self) -> None:
        for fleet in self._fleets:
            await fleet.close()
        for machine in await self.store.all():
            launch = self.launch(machine)
            await self.driver.sweep(launch)

    def launch(self, machine: Machine) -> LaunchSpec:
        return LaunchSpec(
            id=machine.id,
            name=machine.spec.name,
            directory=self.home / "machines" / machine.id,
            vcpu_count=1,
            mem_size_mib=64,
            kernel=Path("k"),
            initramfs=Path("i"),
            kernel_args=None,
            base_disk=Path("d"),
            network=machine.network,
        )

    def process(self, machine: Machine) -> FakeProcess:
        process = self.driver.process(machine.id)
        assert process is not None
        return process


def _hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody asks a dead control plane's tasks how they ended."""
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)


def spec(name: str = "web", faults: str = "", **changes: Any) -> MachineSpec:
    fields: dict[str, Any] = {
        "vcpu_count": 1,
        "mem_size_mib": 64,
        "kernel_image_path": "kernel",
        "rootfs_path": "disk",
        "exposed_ports": (80,),
        "kernel_args": faults or None,
        **changes,
    }
    return MachineSpec(name=name, **fields)


async def settled(fleet: Fleet, ref: str) -> Status | None:
    """The machine's status, once nothing is under way; None when there is no machine."""
    rests = (Status.RUNNING, Status.PAUSED, Status.SLEEPING)
    ends = (*rests, Status.FAILED, Status.STOPPED)
    try:
        while True:
            machine = fleet.get(ref)
            if machine.status in AT_REST and machine.next_start_at is None:
                return machine.status
            if machine.status in rests:
                return machine.status
            others = [end for end in ends if end is not machine.status]
            waits = [asyncio.create_task(fleet.wait(ref, end, 5)) for end in others]
            _, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in rest:
                wait.cancel()
            await asyncio.wait(waits)
    except NotFoundError:
        return None


async def console(fleet: Fleet, ref: str, tail: int | None = None) -> bytes:
    """What a machine has written, whole."""
    return b"".join([piece async for piece in fleet.console(ref, tail)])


async def run(fleet: Fleet, ref: str, *argv: str, **fields: Any) -> ExecResult:
    return await fleet.exec(ref, ExecRequest(argv=argv, **fields))


async def get(upstream: str | None) -> bytes:
    """A page from the host's address of a machine's port; b"" when it is reset."""
    assert upstream is not None
    host, port = upstream.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2]
