"""Copies of files that are mostly holes, or that the file system can share."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import BinaryIO

# ioctl_ficlone(2).
_FICLONE = 0x4004_9409
_MOST = 1 << 30


def copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copies all of `source` to the empty `target`: shared until either is written to, or by data.

    Shared where the file system can (btrfs, xfs); else holes stay holes.

    Raises:
        OSError: it could not be read or written.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
    except OSError:
        # It can't, or not between these two.
        os.truncate(target.fileno(), os.fstat(source.fileno()).st_size)
        for start, end in _extents(source.fileno()):
            _copy_range(source.fileno(), target.fileno(), start, end)


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where there is data (lseek(2))."""
    place = 0
    while True:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        place = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, place


def _copy_range(source: int, target: int, place: int, end: int) -> None:
    with contextlib.suppress(OSError):
        # From one file system to another older kernels can't.
        while place < end and (
            copied := os.copy_file_range(source, target, min(end - place, _MOST), place, place)
        ):
            place += copied
    while place < end:
        data = os.pread(source, min(end - place, 1 << 20), place)
        if not data:
            return
        os.pwrite(target, data, place)
        place += len(data)
