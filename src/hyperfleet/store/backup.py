"""Copies of the database as it stands at one moment, and back.

By SQLite's online backup (sqlite.org/backup.html), so that a server may write meanwhile; a copy is
one file, without a journal beside it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hyperfleet.durable import sync_folder
from hyperfleet.errors import ConflictError, ValidationError
from hyperfleet.store.database import is_known_revision

# While a writer holds the database the copy waits for it, in seconds.
_BUSY_S = 10.0


def copy(source: Path, target: Path, *, force: bool) -> None:
    """Writes `source`'s content to `target`, mode 0600: whole, or not at all.

    Raises:
        ConflictError: `target` is there, and not `force`.
        ValidationError: `source` is no database of ours, or `target` can't be written.
    """
    if target.exists() and not force:
        raise ConflictError(f"{target} is there already; --force overwrites it")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValidationError(f"{target} is the database itself")
    fresh = target.with_name(f"{target.name}.new")
    try:
        _make(source, fresh)
        if force:
            fresh.replace(target)
        else:
            # As a rename, but none over a file that has come up meanwhile.
            target.hardlink_to(fresh)
            fresh.unlink()
        sync_folder(target.parent)
    except FileExistsError as error:
        raise ConflictError(f"{target} is there already; --force overwrites it") from error
    except OSError as error:
        raise ValidationError(f"{target} can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def put(fresh: Path, target: Path) -> None:
    """Puts the database `fresh` in the place of `target`, in one step.

    Nobody may have either open. Before that step the old one stands, after it the new one.
    """
    for database in (fresh, target):
        if database.exists():
            # What is still in the journal goes into the file; an old journal beside a new file
            # would be taken for its own.
            with contextlib.closing(sqlite3.connect(database, timeout=_BUSY_S)) as opened:
                opened.execute("PRAGMA journal_mode=DELETE")
    fresh.replace(target)
    sync_folder(target.parent)


def _make(source: Path, fresh: Path) -> None:
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        with _read(source) as origin, contextlib.closing(sqlite3.connect(fresh)) as made:
            _check(origin, source)
            origin.backup(made)
            made.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise ValidationError(f"{fresh} can't be written: {error}") from error
    descriptor = os.open(fresh, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _read(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise ValidationError(f"{file}: there is no such file")
    uri = f"{file.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as database:
        yield database


def _check(database: sqlite3.Connection, file: Path) -> None:
    try:
        [[verdict]] = database.execute("PRAGMA quick_check(1)").fetchall()
        revisions = [one for (one,) in database.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.Error as error:
        raise ValidationError(f"{file} is no database of Hyperfleet's: {error}") from error
    if not revisions:
        raise ValidationError(f"{file} is no database of Hyperfleet's: it holds nothing")
    if verdict != "ok":
        raise ValidationError(f"{file} is damaged: {verdict}")
    if not all(is_known_revision(one) for one in revisions):
        raise ValidationError(f"{file} was made by a later version of Hyperfleet; use that one")
