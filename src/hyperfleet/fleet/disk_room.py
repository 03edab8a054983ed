"""The room on the home's disk: some of it stays free, for the record and for machines that write.

What takes room knowingly (a snapshot, a copy, a saved memory, a new disk, a start) asks here first.
What guests write into disks that they have is not held back by this: they are stopped where there
is no room at all, and go on when there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperfleet.errors import CapacityError

_MIB = 1 << 20


class DiskRoom:
    """One for a home. `reserve_mib` stays free; 0: only what is there is asked."""

    def __init__(self, home: Path, reserve_mib: int) -> None:
        self._home = home.absolute()
        self._reserve = reserve_mib * _MIB
        # What is being written, and may be on the disk already: counted twice rather than never.
        self._promised = 0

    @contextmanager
    def taking(self, most: int, what: str) -> Iterator[None]:
        """Up to so many bytes are written in the block, for `what`.

        Raises:
            CapacityError: there is no room for them; says what is short.
        """
        self.must_have(most, what)
        self._promised += most
        try:
            yield
        finally:
            self._promised -= most

    def must_have(self, most: int, what: str) -> None:
        """The same for what is not known to be written soon, or is next to nothing; raises so."""
        free = self._free()
        if most <= free - self._reserve - self._promised:
            return
        promised = f", {_mib(self._promised)} MiB are being written" if self._promised else ""
        raise CapacityError(
            f"disk: {what} may take {_mib(most)} MiB, and {_mib(free)} MiB are free where "
            f"{self._home} lies{promised}; {_mib(self._reserve)} MiB of it stay so "
            "(HYPERFLEET_DISK_RESERVE_MIB): remove snapshots, disks or machines"
        )

    def _free(self) -> int:
        """Bytes that may be written by whoever this is (statvfs(3), f_bavail)."""
        there = next(part for part in (self._home, *self._home.parents) if part.exists())
        seen = os.statvfs(there)
        return seen.f_bavail * seen.f_frsize


def _mib(size: int) -> int:
    """Rounded up: a need is not called 0."""
    return -(-size // _MIB)
