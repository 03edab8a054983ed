"""`hyperfleet backup` and `restore`: the record of machines and keys, out and back in."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hyperfleet.machine import ID_PATTERN, Machine
from hyperfleet.server.lock import locked
from hyperfleet.settings import Settings
from hyperfleet.store import backup
from hyperfleet.store.database import database_file, open_database
from hyperfleet.store.sql import SqlMachineStore


class Restored(msgspec.Struct, frozen=True):
    """What a restore has done.

    `aside` is where the database from before is (None: there was none). `strangers` are folders of
    machines that the record does not know; `diskless` the names of machines that have run and
    whose folders are gone.
    """

    machines: int
    aside: Path | None
    strangers: tuple[Path, ...]
    diskless: tuple[str, ...]


def back_up(settings: Settings, file: Path, *, force: bool) -> None:
    """Writes the record to `file`; a server may run. Raises as `store.backup.copy` does."""
    backup.copy(_database(settings), file, force=force)


def restore(settings: Settings, file: Path) -> Restored:
    """Puts the record in `file` in the place of the one that is there, which is kept aside.

    Raises:
        SettingsError: a server runs on this home or database.
        ValidationError: `file` is no whole record that this version can use.
    """
    home, database = settings.hyperfleet_home, _database(settings)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        held.enter_context(locked(home / "lock", f"HYPERFLEET_HOME {home}"))
        held.enter_context(locked(Path(f"{database}.lock"), f"the database {database}"))
        fresh = database.with_name(f"{database.name}.restored")
        # One that was cut off may have left its own, a journal included.
        _clear(fresh)
        try:
            backup.copy(file, fresh, force=True)
            machines = asyncio.run(_brought_up_to_date(fresh))
            aside = None
            if database.exists():
                moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
                aside = database.with_name(f"{database.name}.before-{moment}")
                backup.copy(database, aside, force=False)
            backup.put(fresh, database)
        finally:
            _clear(fresh)
    return _compared(machines, home / "machines", aside)


def _database(settings: Settings) -> Path:
    return database_file(settings.database_url, settings.database_path)


def _clear(fresh: Path) -> None:
    for end in ("", "-wal", "-shm"):
        fresh.with_name(f"{fresh.name}{end}").unlink(missing_ok=True)


async def _brought_up_to_date(fresh: Path) -> list[Machine]:
    """Applies the migrations that it lacks, and reads what it says."""
    database = await open_database(None, fresh)
    try:
        return await SqlMachineStore(database).all()
    finally:
        await database.close()


def _compared(machines: list[Machine], folders: Path, aside: Path | None) -> Restored:
    known = {machine.id for machine in machines}
    there = sorted(folders.iterdir()) if folders.is_dir() else []
    names = {path.name for path in there}
    return Restored(
        machines=len(machines),
        aside=aside,
        strangers=tuple(
            path for path in there if ID_PATTERN.match(path.name) and path.name not in known
        ),
        diskless=tuple(
            machine.spec.name
            for machine in machines
            if machine.lifecycle and machine.id not in names
        ),
    )
