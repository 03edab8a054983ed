"""The API over a real record of keys and a fleet in memory that keeps the real one's promises."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from hyperfleet.api.app import create_app
from hyperfleet.api.interface import Files, Processes
from hyperfleet.api.parts import Parts
from hyperfleet.api.responses import Urls
from hyperfleet.auth.keyring import Keyring
from hyperfleet.auth.keys import Scope
from hyperfleet.errors import (
    CapacityError,
    ConflictError,
    InvalidStateError,
    NotFoundError,
    OperationTimeoutError,
    ValidationError,
)
from hyperfleet.fleet.events import Events, Follower
from hyperfleet.fleet.state import changed, check_port_options
from hyperfleet.guest.values import ExecRequest, ExecResult, Listener
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import (
    DataDiskState,
    DiskInfo,
    DiskUsage,
    ExposedPort,
    Machine,
    MachineChange,
    MachineNetwork,
    MachineSpec,
    SnapshotInfo,
    new_machine_id,
)
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.metrics.scrape import Metrics
from hyperfleet.proxy.interface import Activity, Report
from hyperfleet.settings import Settings, load
from hyperfleet.store.database import open_database
from hyperfleet.store.keys import SqlKeyStore
from hyperfleet.vmm.fake import FakeDriver

HOST_CPUS = 8


class MemoryDisks:
    """Data disks, and who has them by the machines' own word."""

    def __init__(self, machines: dict[str, Machine]) -> None:
        self._machines = machines
        self._disks: dict[str, DataDiskState] = {}

    async def create(self, name: str, size_mib: int) -> DataDiskState:
        if name in self._disks:
            raise ConflictError(f"name: another disk is called {name!r}")
        info = DiskInfo(name=name, id=new_machine_id(), vmm="fake", made_at=datetime.now(UTC))
        self._disks[name] = DataDiskState(
            info=info, size=size_mib << 20, host=0, machine_id=None, machine_name=None
        )
        return self._disks[name]

    def every(self) -> list[DataDiskState]:
        return [self.get(name) for name in self._disks]

    def get(self, name: str) -> DataDiskState:
        if name not in self._disks:
            raise NotFoundError(f"Disk not found: {name}")
        for machine in self._machines.values():
            if name in [disk.disk for disk in machine.spec.disks]:
                return msgspec.structs.replace(
                    self._disks[name], machine_id=machine.id, machine_name=machine.spec.name
                )
        return self._disks[name]

    async def grow(self, name: str, size_mib: int) -> DataDiskState:
        size = self.get(name).size
        if size_mib << 20 < size:
            raise ValidationError(f"size_mib must be at least {size >> 20}: a disk only grows")
        self._disks[name] = msgspec.structs.replace(self._disks[name], size=size_mib << 20)
        return self.get(name)

    async def remove(self, name: str) -> None:
        if self.get(name).machine_id is not None:
            raise ConflictError(f"disk {name!r} is attached")
        del self._disks[name]

    async def usage(self, ref: str) -> list[DiskUsage]:
        found = [one for one in self._machines.values() if ref in (one.id, one.spec.name)]
        if not found:
            raise NotFoundError(f"Machine not found: {ref}")
        runs = found[0].status is Status.RUNNING
        own = DiskUsage(disk=None, path="/", size=5, used=3 if runs else None, host=2)
        data = [
            DiskUsage(disk=disk.disk, path=disk.path, size=self.get(disk.disk).size, used=1, host=1)
            for disk in found[0].spec.disks
        ]
        return [own, *data]


class MemoryFleet:
    """Machines that start and stop at once. `fail_next` makes one start or exec fail with it."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._snapshots: dict[str, SnapshotInfo] = {}
        self.disks = MemoryDisks(self._machines)
        self.fail_next: BaseException | None = None
        self.executed: list[ExecRequest] = []
        self.events = Events()
        self.active: Activity | None = Activity()
        self.reported: Report | None = None
        self.reports = 0
        self.asked = asyncio.Event()
        self.may_report = asyncio.Event()
        self.may_report.set()

    async def create(self, spec: MachineSpec) -> Machine:
        if spec.vcpu_count > HOST_CPUS:
            raise ValidationError(f"vcpu_count must be at most {HOST_CPUS} on this host")
        if any(machine.spec.name == spec.name for machine in self._machines.values()):
            raise ConflictError(f"A machine named {spec.name} exists")
        check_port_options(spec)
        now = datetime.now(UTC)
        machine = Machine(
            id=new_machine_id(),
            spec=spec,
            status=Status.PENDING,
            vmm="fake",
            network=MachineNetwork(mode="user"),
            ports=tuple(ExposedPort(port=port) for port in spec.exposed_ports),
            created_at=now,
            updated_at=now,
        )
        self._machines[machine.id] = machine
        return machine

    def get(self, ref: str) -> Machine:
        by_name = (machine for machine in self._machines.values() if machine.spec.name == ref)
        found = self._machines.get(ref) or next(by_name, None)
        if found is None:
            raise NotFoundError(f"Machine not found: {ref}")
        return found

    def list(
        self,
        *,
        status: Status | None,
        labels: Sequence[tuple[str, str | None]],
        limit: int,
        offset: int,
    ) -> tuple[builtins.list[Machine], int]:
        found = [
            machine
            for machine in self._machines.values()
            if status in (None, machine.status)
            and all(
                key in machine.spec.labels and value in (None, machine.spec.labels[key])
                for key, value in labels
            )
        ]
        return found[offset : offset + limit], len(found)

    async def delete(self, ref: str, *, force: bool) -> None:
        machine = self.get(ref)
        if machine.status not in AT_REST and not force:
            raise InvalidStateError(f"Machine is {machine.status}; stop it first, or force")
        del self._machines[machine.id]

    async def start(self, ref: str, *, key: str) -> Machine:
        machine = self.get(ref)
        self._maybe_fail()
        if machine.status is Status.RUNNING:
            return machine
        return self._turn(machine, Status.RUNNING, started_at=datetime.now(UTC))

    async def stop(self, ref: str) -> Machine:
        machine = self.get(ref)
        if machine.status is Status.PENDING:
            raise InvalidStateError("Machine is pending; it was never started")
        return self._turn(machine, Status.STOPPED)

    async def restart(self, ref: str, *, key: str) -> Machine:
        machine = self.get(ref)
        self._maybe_fail()
        return self._turn(machine, Status.RUNNING, started_at=datetime.now(UTC))

    async def pause(self, ref: str) -> Machine:
        machine = self.get(ref)
        if machine.status not in (Status.RUNNING, Status.PAUSED):
            raise InvalidStateError(f"Machine is {machine.status}, not running")
        return self._turn(machine, Status.PAUSED)

    async def sleep(self, ref: str) -> Machine:
        machine = self.get(ref)
        if machine.status not in (Status.RUNNING, Status.PAUSED, Status.SLEEPING):
            raise InvalidStateError(f"Machine is {machine.status}, not running")
        return self._turn(machine, Status.SLEEPING)

    async def resume(self, ref: str) -> Machine:
        machine = self.get(ref)
        if machine.status not in (Status.RUNNING, Status.PAUSED):
            raise InvalidStateError(f"Machine is {machine.status}, not paused")
        return self._turn(machine, Status.RUNNING)

    async def snapshot(self, ref: str, name: str) -> SnapshotInfo:
        machine = self.get(ref)
        if machine.status is Status.PENDING:
            raise InvalidStateError("Machine is pending; it was never started")
        if name in self._snapshots:
            raise ConflictError(f"name: another snapshot is called {name!r}")
        self._maybe_fail()
        self._snapshots[name] = SnapshotInfo(
            name=name,
            machine_id=machine.id,
            spec=machine.spec,
            vmm=machine.vmm,
            network=machine.network,
            has_memory=machine.status is not Status.STOPPED,
            size_bytes=3,
            made_at=datetime.now(UTC),
        )
        return self._snapshots[name]

    async def restore(self, ref: str, snapshot: str) -> Machine:
        machine, info = self.get(ref), self.find_snapshot(snapshot)
        if info.machine_id != machine.id:
            raise InvalidStateError(f"snapshot {snapshot!r} is of another machine")
        return self._turn(machine, Status.SLEEPING if info.has_memory else Status.STOPPED)

    async def clone(self, snapshot: str, name: str, change: MachineChange) -> Machine:
        info = self.find_snapshot(snapshot)
        spec = msgspec.structs.replace(changed(info.spec, change), name=name)
        machine = await self.create(spec)
        return self._turn(machine, Status.SLEEPING if info.has_memory else Status.STOPPED)

    def snapshots(self, ref: str | None) -> Sequence[SnapshotInfo]:
        machine_id = None if ref is None else self.get(ref).id
        every = self._snapshots.values()
        return [info for info in every if machine_id in (None, info.machine_id)]

    def find_snapshot(self, name: str) -> SnapshotInfo:
        if name not in self._snapshots:
            raise NotFoundError(f"Snapshot not found: {name}")
        return self._snapshots[name]

    async def remove_snapshot(self, name: str) -> None:
        del self._snapshots[self.find_snapshot(name).name]

    async def change(self, ref: str, change: MachineChange) -> Machine:
        machine = self.get(ref)
        spec = changed(machine.spec, change)
        fresh = msgspec.structs.replace(
            machine, spec=spec, ports=tuple(ExposedPort(port=port) for port in spec.exposed_ports)
        )
        self._machines[machine.id] = fresh
        return fresh

    async def wait(self, ref: str, status: Status, timeout: float) -> Machine:  # noqa: ASYNC109
        machine = self.get(ref)
        if machine.status is not status:
            raise OperationTimeoutError(
                f"Machine is {machine.status}, not {status}, {timeout} s on"
            )
        return machine

    def processes(self, ref: str) -> Processes:
        self.get(ref)
        raise NotImplementedError("tests/integration/test_exec_stream.py has a whole server")

    async def exec(self, ref: str, request: ExecRequest) -> ExecResult:
        machine = self.get(ref)
        self._maybe_fail()
        if machine.status is not Status.RUNNING:
            raise InvalidStateError(f"Machine is {machine.status}, not running")
        self.executed.append(request)
        return ExecResult(
            exit_code=0,
            signal=None,
            stdout=" ".join(request.argv).encode() + b"\xff",
            stderr=b"",
            truncated=False,
            duration_ms=1,
        )

    async def ports(self, ref: str) -> tuple[tuple[ExposedPort, ...], tuple[Listener, ...]]:
        machine = self.get(ref)
        return machine.ports, (Listener(port=22, address="0.0.0.0", direct=True),)

    def console(self, ref: str, tail: int | None) -> AsyncIterator[bytes]:
        self.get(ref)
        lines = [b"one\n", b"two \xff\n", b"three\n"]
        return _pieces(lines if tail is None else lines[-tail:])

    def files(self, ref: str) -> Files:
        self.get(ref)
        raise NotImplementedError("tests/integration/test_files.py has a whole server")

    def follow_console(self, ref: str, tail: int | None) -> AsyncIterator[bytes]:
        """Ends, since nothing else would end it here."""
        return self.console(ref, tail)

    @contextmanager
    def follow(self, ref: str | None, after: str | None) -> Iterator[Follower]:
        machine_id = None if ref is None else self.get(ref).id
        with self.events.following(after, machine_id) as follower:
            yield follower

    async def activity(self, ref: str) -> Activity:
        self.get(ref)
        if self.active is None:
            raise CapacityError("The data plane does not answer at this moment; try again")
        return self.active

    def everything(self) -> builtins.list[Machine]:
        return [*self._machines.values()]

    async def report(self, machines: bool) -> Report | None:
        self.reports += 1
        self.asked.set()
        await self.may_report.wait()
        return self.reported

    def set_pid(self, ref: str, pid: int) -> None:
        """Makes a process the machine's."""
        machine = self.get(ref)
        self._machines[machine.id] = msgspec.structs.replace(machine, pid=pid)

    def _turn(
        self, machine: Machine, status: Status, *, started_at: datetime | None = None
    ) -> Machine:
        turned = msgspec.structs.replace(
            machine, status=status, started_at=started_at or machine.started_at
        )
        self._machines[machine.id] = turned
        return turned

    def _maybe_fail(self) -> None:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error


class Api(msgspec.Struct):
    """One server's parts: a client with the first key, and keys of every scope."""

    app: FastAPI
    client: httpx.AsyncClient
    fleet: MemoryFleet
    keyring: Keyring
    keys: dict[str, str]
    gate: asyncio.Event
    templates: FakeDriver

    async def machine(self, **fields: object) -> str:
        """Makes a machine; its id."""
        asked = {"name": "web", "vcpu_count": 1, "mem_size_mib": 128} | fields
        answer = await self.client.post("/machines", json=asked)
        assert answer.status_code == 201, answer.text
        made: str = answer.json()["id"]
        return made


def asgi_scope(kind: str, path: str, key: str) -> dict[str, Any]:
    """What an ASGI call of a client with that key begins with; `kind`: http or websocket."""
    path, _, query = path.partition("?")
    return {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"authorization", f"Bearer {key}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": {"http": "http", "websocket": "ws"}[kind],
        "http_version": "1.1",
        "root_path": "",
    }


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environment = {
        "HYPERFLEET_HOME": str(tmp_path),
        "DATABASE_PATH": str(tmp_path / "record.db"),
        "HYPERFLEET_MAX_BODY_BYTES": "262144",
        "PROXY_HOST_SUFFIX": "local.dev",
    }
    return load(environment, None).settings


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    database = await open_database(settings.database_url, settings.database_path)
    keyring = Keyring(SqlKeyStore(database))
    keys = {
        scope.value: (await keyring.create(name=scope, scopes=(scope,), expires_at=None)).secret
        for scope in Scope
    }
    fleet = MemoryFleet()
    gate = asyncio.Event()
    gate.set()
    templates = FakeDriver(templates=2)
    metrics = Metrics(
        Instruments(driver="fake", proxy_pid=lambda: None),
        machines=fleet.everything,
        ask=fleet.report,
        per_machine=settings.hyperfleet_metrics_per_machine,
    )
    parts = Parts(fleet, keyring, settings, Urls.of(settings, 4000), metrics, templates)
    app = create_app(parts, not_ready=lambda: None if gate.is_set() else "machines are adopted")
    transport = httpx.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {keys['*']}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api", headers=headers
    ) as client:
        yield Api(app, client, fleet, keyring, keys, gate, templates)
    await database.close()


async def _pieces(lines: list[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of an error; asserts its shape."""
    assert set(answer.json()) == {"error"}, answer.text
    found = answer.json()["error"]
    assert set(found) == {"code", "message"}
    assert answer.headers["X-Request-ID"]
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, found["code"], found["message"]
