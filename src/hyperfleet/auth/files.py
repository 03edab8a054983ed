"""Files that must be whole or not there, and read by nobody else."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from hyperfleet.durable import sync_folder


def set_aside(path: Path) -> Path | None:
    """Renames what is at `path` to `path.old`, `path.old2`, …; None when nothing is there."""
    names = itertools.chain(
        (f"{path.name}.old",), (f"{path.name}.old{n}" for n in itertools.count(2))
    )
    aside = next(one for name in names if not (one := path.with_name(name)).exists())
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def write_private(path: Path, text: str) -> None:
    """Replaces `path` by a file of mode 0600; after a crash it is the old one or the new, whole.

    Raises:
        OSError: the folder can't be written to.
    """
    # mkstemp makes it 0600 whatever the umask, and never opens what someone else has put there.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)
