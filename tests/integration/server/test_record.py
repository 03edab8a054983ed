"""Backups of the record beside a running server, and a restore when none runs."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperfleet.auth.keyring import Keyring
from hyperfleet.auth.keys import Scope
from hyperfleet.errors import ConflictError, ValidationError
from hyperfleet.store import backup
from hyperfleet.store.database import open_database
from hyperfleet.store.keys import SqlKeyStore

from .conftest import Server, run

Serve = Callable[..., Server]


def test_out_of_a_running_server_and_back(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    client = server.client()
    made = client.post("/keys", json={"name": "ci", "scopes": ["machines:read"]}).json()
    done = run(server, "backup", "copy.db")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    client.delete(f"/keys/{made['id']}").raise_for_status()
    client.close()

    again = run(server, "backup", "copy.db")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "hyperfleet: copy.db is there already; --force overwrites it\n"
    assert run(server, "backup", "later.db").returncode == 0
    assert run(server, "backup", "later.db", "--force").returncode == 0

    early = run(server, "restore", "copy.db")
    assert early.returncode == 2
    assert f"in use by another hyperfleet serve (process {server.pid}, since " in early.stderr
    server.kill()

    # A machine that the record does not know, as one made after the backup would be.
    stranger = tmp_path / ".hyperfleet" / "machines" / "abc123def456"
    stranger.mkdir(parents=True)
    restored = run(server, "restore", "copy.db")
    assert restored.returncode == 0, restored.stderr
    assert f"{stranger.relative_to(tmp_path)} belongs to a machine" in restored.stdout
    [aside] = tmp_path.glob("hyperfleet.db.before-*")
    assert f"The record from before is in {aside.name}." in restored.stdout
    with serve().client() as client:
        names = [one["name"] for one in client.get("/keys").json()["keys"]]
    assert names == ["first", "ci"]
    assert _revoked(aside) == {"ci"}
    assert not list(tmp_path.glob("*.restored*")) + list(tmp_path.glob("*.new*"))


def _revoked(database: Path) -> set[str]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        rows = opened.execute("SELECT name FROM keys WHERE revoked_at IS NOT NULL").fetchall()
    opened.close()
    return {name for (name,) in rows}


@pytest.fixture
async def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.db"
    await (await open_database(None, path)).close()
    return path


async def test_a_copy_is_of_one_moment_while_it_is_written_to(record: Path, tmp_path: Path) -> None:
    database = await open_database(None, record)
    keyring = Keyring(SqlKeyStore(database))
    ended = threading.Event()
    copies = 0

    def copy() -> None:
        nonlocal copies
        while not ended.is_set():
            backup.copy(record, tmp_path / f"{copies}.db", force=False)
            copies += 1

    copying = threading.Thread(target=copy)
    copying.start()
    try:
        for number in range(60):
            await keyring.create(name=f"k{number}", scopes=(Scope.READ,), expires_at=None)
    finally:
        ended.set()
        copying.join()
    await database.close()
    assert copies
    counts = [_numbers(tmp_path / f"{number}.db") for number in range(copies)]
    assert all(numbers == list(range(len(numbers))) for numbers in counts)
    assert [len(numbers) for numbers in counts] == sorted(len(numbers) for numbers in counts)


def _numbers(database: Path) -> list[int]:
    opened = sqlite3.connect(database)
    assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = opened.execute("SELECT name FROM keys ORDER BY sequence").fetchall()
    opened.close()
    return [int(name.removeprefix("k")) for (name,) in rows]


def test_what_is_refused_as_a_source(record: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    later = shutil.copy(record, tmp_path / "later.db")
    with sqlite3.connect(later) as opened:
        opened.execute("UPDATE alembic_version SET version_num = '9999'")
    opened.close()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as opened:
        opened.execute("CREATE TABLE t (a)")
    opened.close()
    (tmp_path / "text").write_text("no database at all, " * 1000)
    torn = tmp_path / "torn.db"
    torn.write_bytes(record.read_bytes()[:-8192])
    for source, why in (
        (later, "was made by a later version"),
        (other, "is no database of Hyperfleet's"),
        (tmp_path / "text", "is no database of Hyperfleet's"),
        (torn, "is damaged|is no database"),
        (tmp_path / "nothing", "there is no such file"),
    ):
        with pytest.raises(ValidationError, match=why):
            backup.copy(Path(source), target, force=False)
        assert not target.exists()
    assert not list(tmp_path.glob("*.new*"))


def test_a_copy_that_fails_leaves_what_was_there(record: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    target.write_text("mine")
    with pytest.raises(ConflictError):
        backup.copy(record, target, force=False)
    with pytest.raises(ValidationError):
        backup.copy(tmp_path / "nothing", target, force=True)
    with pytest.raises(ValidationError, match="is the database itself"):
        backup.copy(record, record, force=True)
    assert target.read_text() == "mine"
    with pytest.raises(ValidationError, match="can't be written: No such file or directory"):
        backup.copy(record, tmp_path / "no" / "folder.db", force=False)


def test_an_old_journal_is_not_taken_for_the_new_databases(record: Path, tmp_path: Path) -> None:
    """As after a crash: the old database's last commits are in its journal alone."""
    fresh = tmp_path / "fresh.db"
    backup.copy(record, fresh, force=False)
    writer = sqlite3.connect(record)
    writer.execute("INSERT INTO marks VALUES ('late', '2030-01-31 12:00:00')")
    writer.commit()
    for end in ("", "-wal", "-shm"):
        shutil.copy(f"{record}{end}", tmp_path / f"crashed.db{end}")
    writer.close()
    backup.put(fresh, tmp_path / "crashed.db")
    opened = sqlite3.connect(tmp_path / "crashed.db")
    assert opened.execute("SELECT name FROM marks").fetchall() == []
    assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    opened.close()
    assert not (tmp_path / "crashed.db-wal").exists()
