"""What must still be there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Writes a file whose content is durable when this returns; its name is once its folder is.

    Raises:
        OSError: no room, or not ours to write.
    """
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Returns when what was written to a file is durable.

    Raises:
        OSError: it could not be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """The same for all that is in a folder of files, and their names.

    Raises:
        OSError: it could not be.
    """
    for path in folder.iterdir():
        sync(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Returns when the names in `folder` are durable: a rename is once its folder is (fsync(2)).

    Raises:
        OSError: the folder can't be opened or written.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
