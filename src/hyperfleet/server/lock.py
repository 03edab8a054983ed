"""One control plane a home, and a database: a lock that ends with its holder, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hyperfleet.errors import SettingsError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds `path` for this process. The file stays; the lock (flock(2)) is what counts.

    Raises:
        SettingsError: another process holds it; says which, and since when.
    """
    # O_NOFOLLOW: nobody may make us write our pid through a link.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise SettingsError(f"{path} can't be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid, _, since = _told(descriptor).partition(" ")
            raise SettingsError(
                f"{what} is in use by another hyperfleet serve (process {pid or 'unknown'}"
                f"{since and f', since {since}'}); stop that one, or choose another"
            ) from error
        os.ftruncate(descriptor, 0)
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        os.pwrite(descriptor, f"{os.getpid()} {since}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> int | None:
    """The process that holds `path` now, or None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _told(descriptor).partition(" ")[0]
        return int(pid) if pid.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)


def _told(descriptor: int) -> str:
    """What its holder has written into it: its pid, and since when it holds it."""
    return os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
