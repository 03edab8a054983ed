"""A file system that is soon full."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Makes `folder` an empty file system of this size, gone afterwards."""
    folder.mkdir()
    size = f"size={mebibytes}m"
    _run("mount", "-t", "tmpfs", "-o", size, "hyperfleet-test", str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))


def grow(folder: Path, mebibytes: int) -> None:
    """Another size for one of these."""
    _run("mount", "-o", f"remount,size={mebibytes}m", str(folder))


def fill(folder: Path) -> Path:
    """Leaves no byte free in `folder`'s file system; the file that takes it."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return file


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
