"""The database file: how it is opened, made durable and brought up to date."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hyperfleet.errors import CapacityError, RecordError, SettingsError

# How long a writer waits for another program, in milliseconds (SQLite: PRAGMA busy_timeout). Where
# one holds the file, who has waited in our queue waits for the rest of that, so that a hundred are
# not told one after the other; but so long in any case.
_BUSY_TIMEOUT_MS = 10_000
_LEAST_BUSY_MS = 50
# In a connection's `info`: what its timeout is.
_PATIENCE = "busy_timeout"

# What is not our doing and may pass: held by another program, made read-only, full, failing. The
# low byte of a code is the primary one (sqlite.org/rescode.html).
_PRIMARY = 0xFF
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
# The file itself is broken: torn, overwritten, or something else altogether.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One SQLite file, in WAL, synchronous=FULL: a commit that returned survives a power cut."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # SQLite has one writer at a time; in here they queue, instead of polling for the lock.
        self._writing = asyncio.Lock()
        # Whether the last writer found it held by another program.
        self._held = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to ask with.

        Raises:
            CapacityError: it can't be read now: another program holds it, say.
            RecordError: the file is damaged.
        """
        with self._told("read"):
            async with self._engine.connect() as connection:
                await _wait_at_most(connection, _BUSY_TIMEOUT_MS)
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed and durable when the block ends, undone when it raises.

        Raises:
            CapacityError: it can't be written to now: the disk is full, say.
            RecordError: the file is damaged.
        """
        asked = time.monotonic()
        with self._told("written to"):
            async with self._writing:
                waited_ms = round((time.monotonic() - asked) * 1000) if self._held else 0
                try:
                    async with self._engine.begin() as connection:
                        await _wait_at_most(connection, _BUSY_TIMEOUT_MS - waited_ms)
                        yield connection
                except DBAPIError as error:
                    self._held = _primary(error.orig) == sqlite3.SQLITE_BUSY
                    raise
                self._held = False

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            kind = _primary(error.orig)
            if kind in _PASSING:
                raise CapacityError(f"the database can't be {what}: {error.orig}") from error
            if kind in _DAMAGED:
                raise RecordError(_damaged(self._engine.url.database, error.orig)) from error
            raise

    async def close(self) -> None:
        """Closes the file."""
        await self._engine.dispose()


async def open_database(url: str | None, path: Path) -> Database:
    """Opens the database, makes it if need be, and applies the migrations it lacks.

    Raises:
        SettingsError: it can't be opened, is no database, or is from a later version.
    """
    target = _sqlite_url(url, path)
    shown = target.database
    if target.database is None or not Path(target.database).parent.is_dir():
        raise SettingsError(f"the database {shown} can't be made: its folder is not there")
    engine = create_async_engine(target)
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    try:
        # The environment of machines may hold secrets; WAL and journal get this file's mode.
        os.close(os.open(str(shown), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        async with engine.begin() as connection:
            await connection.run_sync(_migrate, str(shown))
    except (OSError, sqlite3.Error, DBAPIError) as error:
        await engine.dispose()
        cause = error.orig if isinstance(error, DBAPIError) else error
        if _primary(cause) in _DAMAGED:
            raise SettingsError(_damaged(shown, cause)) from error
        raise SettingsError(f"the database {shown} can't be used: {cause}") from error
    except BaseException:
        await engine.dispose()
        raise
    return Database(engine)


async def _wait_at_most(connection: AsyncConnection, milliseconds: int) -> None:
    patience = max(_LEAST_BUSY_MS, milliseconds)
    if connection.info[_PATIENCE] != patience:
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={patience}")
        connection.info[_PATIENCE] = patience


def database_file(url: str | None, path: Path) -> Path:
    """The file that `open_database` opens."""
    return Path(_sqlite_url(url, path).database or "")


def is_known_revision(revision: str) -> bool:
    """Whether this version knows that state of the tables."""
    return revision in revisions()


def revisions() -> list[str]:
    """Every state of the tables, oldest first: migrations are numbered, one after the other."""
    found = (MIGRATIONS / "versions").glob("[0-9]*_*.py")
    return sorted(path.name.partition("_")[0] for path in found)


def _primary(cause: BaseException | None) -> int:
    code: int = getattr(cause, "sqlite_errorcode", 0)
    return code & _PRIMARY


def _damaged(shown: str | None, cause: BaseException | None) -> str:
    return (
        f"the database {shown} can't be used: {cause}; stop the server, move the file with its "
        "-wal and -shm aside, and bring a backup back with `hyperfleet restore FILE`"
    )


def _sqlite_url(url: str | None, path: Path) -> URL:
    if url is None:
        return URL.create("sqlite+aiosqlite", database=str(path))
    return make_url(url).set(drivername="sqlite+aiosqlite")


def _prepare(connection: Any, record: Any) -> None:
    # Python's sqlite3 begins no transaction before DDL, so a migration would not be one; here
    # `_begin` does it for everything.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    record.info[_PATIENCE] = _BUSY_TIMEOUT_MS


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _migrate(connection: Connection, shown: str) -> None:
    known = revisions()
    if connection.dialect.has_table(connection, "alembic_version"):
        query = "SELECT version_num FROM alembic_version"
        rows = set(connection.exec_driver_sql(query).scalars())
        if rows == {known[-1]}:
            return
        if not rows <= set(known):
            raise SettingsError(
                f"the database {shown} was made by a later version of Hyperfleet; "
                "run that one, or choose another file with DATABASE_PATH"
            )
    # Slow to import, and most starts have nothing for it to do.
    from hyperfleet.store.upgrade import upgrade  # noqa: PLC0415

    upgrade(connection, "head")
