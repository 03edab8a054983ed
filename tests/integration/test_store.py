"""The record in real SQLite files: made from nothing, kept, refused when it can't be right."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine

from hyperfleet.auth import keys
from hyperfleet.auth.keyring import Keyring
from hyperfleet.auth.keys import Scope
from hyperfleet.errors import (
    CapacityError,
    ConflictError,
    NotFoundError,
    RecordError,
    SettingsError,
)
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    CommandPhase,
    CommandState,
    EgressRule,
    ExposedPort,
    Machine,
    MachineNetwork,
    MachineSpec,
    PortOptions,
    Restart,
    new_machine_id,
)
from hyperfleet.store import database as database_module
from hyperfleet.store.database import Database, open_database
from hyperfleet.store.interface import AddressStore, MachineStore
from hyperfleet.store.keys import SqlKeyStore
from hyperfleet.store.memory import MemoryStore
from hyperfleet.store.sql import SqlAddressStore, SqlMachineStore
from hyperfleet.store.tables import Base
from hyperfleet.store.upgrade import migration_config, upgrade

NOW = datetime(2030, 1, 31, 12, 30, 15, 123456, tzinfo=UTC)


def a_machine(name: str) -> Machine:
    return Machine(
        id=new_machine_id(),
        spec=MachineSpec(
            name=name,
            vcpu_count=2,
            mem_size_mib=512,
            kernel_image_path="vmlinux",
            kernel_args="quiet",
            rootfs_path="root.ext4",
            exposed_ports=(80, 8080),
            env={"A": "é", "B": ""},
            labels={"tier": "front"},
            restart=Restart.ALWAYS,
            autostart=True,
            egress=(
                EgressRule(network="192.0.2.0/24", protocol="tcp", ports=(80, 443)),
                EgressRule(network="198.51.100.7/32"),
            ),
            port_options=(PortOptions(port=80, host="localhost", strip_prefix=False),),
            cmd=("server", "--port", "80"),
            cwd="/srv",
        ),
        status=Status.RUNNING,
        vmm="fake",
        network=MachineNetwork(mode="user", guest_ip="10.0.2.15", guest_mac="52:54:00:00:00:01"),
        ports=(ExposedPort(port=80), ExposedPort(port=8080)),
        pid=1234,
        lifecycle=3,
        error_message="once",
        created_at=NOW,
        updated_at=NOW + timedelta(seconds=1),
        started_at=NOW + timedelta(seconds=2),
        restarts=3,
        next_start_at=NOW + timedelta(seconds=3),
        host_boot="0f7b9d7e-6f0e-4b8e-9d5b-0c6f1a2b3c4d",
        guest_fault="the guest broke the agent's protocol: port 0",
        command=CommandState(state=CommandPhase.WAITING, exit_code=137, signal="KILL", restarts=2),
    )


def modes(folder: Path) -> dict[str, int]:
    """The files in a folder, with their permissions."""
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(None, tmp_path / "record.db")
    yield opened
    await opened.close()


async def test_a_machine_comes_back_whole(tmp_path: Path) -> None:
    machine = a_machine("web")
    database = await open_database(None, tmp_path / "record.db")
    await SqlMachineStore(database).add(machine)
    await database.close()
    database = await open_database(None, tmp_path / "record.db")
    assert await SqlMachineStore(database).all() == [machine]
    await database.close()


async def test_what_is_volatile_is_not_kept(database: Database) -> None:
    seen = ExposedPort(port=80, listening=True, since=NOW, address="::", upstream="127.0.0.1:9")
    machine = msgspec.structs.replace(a_machine("web"), ports=(seen, ExposedPort(port=8080)))
    store = SqlMachineStore(database)
    await store.add(machine)
    [found] = await store.all()
    assert found.ports == (ExposedPort(port=80), ExposedPort(port=8080))


async def test_save_remove_and_order(database: Database) -> None:
    store = SqlMachineStore(database)
    first, second, third = machines = [a_machine(name) for name in ("z", "a", "m")]
    for machine in machines:
        await store.add(machine)
    turned = msgspec.structs.replace(first, status=Status.STOPPED, pid=None, error_message=None)
    await store.save(turned)
    await store.remove(second.id)
    await store.remove(second.id)
    assert await store.all() == [turned, third]
    with pytest.raises(NotFoundError):
        await store.save(second)


async def test_ids_and_names_are_unique(database: Database) -> None:
    store = SqlMachineStore(database)
    machine = a_machine("web")
    await store.add(machine)
    for twin in (a_machine("web"), msgspec.structs.replace(a_machine("other"), id=machine.id)):
        with pytest.raises(ConflictError):
            await store.add(twin)
    assert await store.all() == [machine]


async def test_keys(database: Database) -> None:
    store = SqlKeyStore(database)
    secret = keys.new_secret()
    key = keys.new_key(secret, name="ci", scopes=(Scope.READ, Scope.EXEC), now=NOW, expires_at=NOW)
    await store.add(key)
    assert await store.all() == [key] == await store.by_prefix(secret[:11])
    assert await store.by_prefix("hf_") == []
    await store.touch(key.id, NOW)
    assert (await store.all())[0].last_used_at == NOW
    assert await store.revoke(key.id, NOW)
    assert not await store.revoke(key.id, NOW)
    assert not await store.revoke("none", NOW)
    assert (await store.all())[0].revoked_at == NOW


async def test_one_first_key(database: Database) -> None:
    store = SqlKeyStore(database)
    first, second = (
        keys.new_key(keys.new_secret(), name=name, scopes=(Scope.ALL,), now=NOW, expires_at=None)
        for name in ("first", "second")
    )
    assert await store.needs_first()
    assert await store.add_first(first)
    assert not await store.needs_first()
    assert not await store.add_first(second)
    assert await store.all() == [first]
    # Even when every key is gone: the mark stays.
    await store.revoke(first.id, NOW)
    assert not await store.needs_first()


async def test_migrations_make_what_the_code_expects(database: Database) -> None:
    async with database.read() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Base.metadata)
        )
    assert differences == []


async def test_durability(database: Database, tmp_path: Path) -> None:
    async with database.read() as connection:
        journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar()
    # 2 is FULL (SQLite: PRAGMA synchronous).
    assert (journal, synchronous) == ("wal", 2)
    assert modes(tmp_path) == {"record.db": 0o600, "record.db-shm": 0o600, "record.db-wal": 0o600}


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    machine = a_machine("web")

    async def fail_half_way() -> None:
        async with database.write() as connection:
            await connection.exec_driver_sql("INSERT INTO marks VALUES ('x', '2030-01-01')")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await fail_half_way()
    await SqlMachineStore(database).add(machine)
    async with database.read() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM marks")).scalar() == 0


async def test_a_database_that_is_full_is_a_shortage(database: Database) -> None:
    store = SqlMachineStore(database)
    kept = a_machine("kept")
    await store.add(kept)
    async with database.write() as connection:
        # The pages that there are, and no more.
        await connection.exec_driver_sql("PRAGMA max_page_count=1")
    large = a_machine("large")
    spec = msgspec.structs.replace(large.spec, env={"A": "x" * 100_000})
    with pytest.raises(CapacityError, match="can't be written to: database or disk is full"):
        await store.add(msgspec.structs.replace(large, spec=spec))
    assert await store.all() == [kept]


async def test_a_database_that_another_program_holds_is_a_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 10)
    database = await open_database(None, tmp_path / "record.db")
    store = SqlMachineStore(database)
    keyring = Keyring(SqlKeyStore(database))
    issued = await keyring.create(name="ci", scopes=(Scope.READ,), expires_at=None)
    other = sqlite3.connect(tmp_path / "record.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CapacityError, match="can't be written to: database is locked"):
        await store.add(a_machine("web"))
    # Reading goes on, and so does letting people in, which would note the key's use.
    assert (await keyring.authenticate(issued.secret)).id == issued.key.id
    other.rollback()
    other.close()
    await store.add(a_machine("web"))
    await database.close()


async def test_those_who_wait_for_a_database_that_is_held_are_told_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 500)
    monkeypatch.setattr(database_module, "_LEAST_BUSY_MS", 1)
    patience: list[int] = []
    database = await open_database(None, tmp_path / "record.db")

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("PRAGMA busy_timeout="):
            patience.append(int(statement.partition("=")[2]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        store = SqlMachineStore(database)
        other = sqlite3.connect(tmp_path / "record.db")
        other.execute("BEGIN IMMEDIATE")
        adding = [asyncio.create_task(store.add(a_machine(f"m{one}"))) for one in range(20)]
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert [type(result) for result in results] == [CapacityError] * 20
        # The first has waited for all of them.
        assert patience == [1] * len(patience)
        assert patience
        other.rollback()
        other.close()
        # Then as patiently as ever.
        await store.add(a_machine("web"))
        await store.add(a_machine("more"))
        assert patience[-1] == 500
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        await database.close()


async def test_a_file_overwritten_while_it_is_open_is_told_with_the_way_back(
    tmp_path: Path,
) -> None:
    file = tmp_path / "record.db"
    await (await open_database(None, file)).close()
    database = await open_database(None, file)
    store = SqlMachineStore(database)
    await database.close()
    file.write_bytes(b"\xa5" * file.stat().st_size)
    for act in (store.all(), store.add(a_machine("web"))):
        with pytest.raises(RecordError, match=r"record\.db can't be used.*hyperfleet restore"):
            await act
    await database.close()


async def test_a_database_that_another_program_keeps_from_being_read_is_a_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 10)
    database = await open_database(None, tmp_path / "record.db")
    store = SqlMachineStore(database)
    await database.close()
    other = sqlite3.connect(tmp_path / "record.db", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CapacityError, match="can't be read: database is locked"):
        await store.all()
    other.execute("ROLLBACK")
    other.close()
    assert await store.all() == []
    await database.close()


@pytest.mark.parametrize("size", [150, 5000])
async def test_a_torn_file_is_refused_with_the_way_back(tmp_path: Path, size: int) -> None:
    file = tmp_path / "record.db"
    await (await open_database(None, file)).close()
    torn = file.read_bytes()[:size]
    file.write_bytes(torn)
    with pytest.raises(SettingsError, match=r"record\.db can't be used.*hyperfleet restore"):
        await open_database(None, file)
    assert file.read_bytes() == torn


async def test_by_url(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/by-url.db", tmp_path / "other.db")
    await database.close()
    assert modes(tmp_path) == {"by-url.db": 0o600}


async def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is a text file, and it is long enough to be read" * 9)
    with pytest.raises(SettingsError, match=r"text\.db can't be used"):
        await open_database(None, tmp_path / "text.db")
    with pytest.raises(SettingsError, match="folder is not there"):
        await open_database(None, tmp_path / "no" / "where.db")
    with pytest.raises(SettingsError, match="can't be used"):
        await open_database(None, tmp_path)


async def test_a_database_of_a_later_version(tmp_path: Path) -> None:
    file = tmp_path / "record.db"
    await (await open_database(None, file)).close()
    later = sqlite3.connect(file)
    later.execute("UPDATE alembic_version SET version_num = '9999'")
    later.commit()
    later.close()
    with pytest.raises(SettingsError, match="later version"):
        await open_database(None, file)


def test_states_of_the_tables_are_numbered_in_their_order() -> None:
    scripts = ScriptDirectory.from_config(migration_config()).walk_revisions()
    assert database_module.revisions() == [script.revision for script in scripts][::-1]


async def test_a_record_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    spec = {
        "name": "web",
        "vcpu_count": 1,
        "mem_size_mib": 64,
        "kernel_image_path": "k",
        "rootfs_path": "r",
    }
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, "0001")
        connection.exec_driver_sql(
            "INSERT INTO machines (id, name, status, spec, vmm, network, lifecycle, created_at,"
            " updated_at) VALUES ('abc123def456', 'web', 'stopped', ?, 'fake',"
            " '{\"mode\": \"user\"}', 1, '2030-01-31 12:00:00', '2030-01-31 12:00:00')",
            (json.dumps(spec),),
        )
    engine.dispose()
    database = await open_database(None, path)
    [machine] = await SqlMachineStore(database).all()
    assert (machine.spec.restart, machine.spec.autostart) == (Restart.NEVER, False)
    assert (machine.restarts, machine.next_start_at, machine.host_boot) == (0, None, None)
    assert machine.guest_fault is None
    assert machine.spec.egress == "all"
    assert (machine.spec.cmd, machine.spec.cwd, machine.command) == ((), None, None)
    await database.close()


@pytest.mark.parametrize("kept", ["sql", "memory"])
async def test_an_address_of_its_own_rests_once_its_machine_is_removed(
    database: Database, kept: str
) -> None:
    memory = MemoryStore()
    machines: MachineStore = memory if kept == "memory" else SqlMachineStore(database)
    addresses: AddressStore = memory if kept == "memory" else SqlAddressStore(database)
    tap = MachineNetwork(mode="tap", guest_ip="172.30.0.2", tap_ip="172.30.0.1")
    before = datetime.now(UTC)
    for number in range(2):
        machine = msgspec.structs.replace(a_machine(f"m{number}"), network=tap)
        await machines.add(machine)
        assert len(await addresses.resting()) == number
        await machines.remove(machine.id)
        await machines.remove(machine.id)
        # Once more: the address was given again, and was not forgotten before.
        [resting] = await addresses.resting()
        assert resting.guest_ip == "172.30.0.2"
        assert before <= resting.since <= datetime.now(UTC)
    shared = a_machine("shared")
    await machines.add(shared)
    await machines.remove(shared.id)
    assert len(await addresses.resting()) == 1
    await addresses.rested(["172.30.0.2", "172.30.0.6"])
    assert await addresses.resting() == []
