"""What the processes of one test run share: which stages have failed, and what is told at the end.

With pytest-xdist tests run in workers, which have no terminal and know nothing of each other.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest


class Shared:
    """One run's, in a folder that the first process makes and all write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def failed(self, stage: int) -> None:
        """Notes that a test of that stage has failed."""
        (self.folder / f"failed-{stage}").touch()

    def failed_before(self, stage: int) -> int | None:
        """The first stage before this one of which a test has failed."""
        return next((it for it in range(stage) if (self.folder / f"failed-{it}").exists()), None)

    def tell(self, text: str) -> None:
        """Has the run say so when it ends, whatever is captured."""
        (self.folder / f"told-{os.getpid()}-{next(self._numbers):06}").write_text(text)

    def told(self) -> list[str]:
        """All that is to be said, the oldest first."""
        files = self.folder.glob("told-*")
        return [it.read_text() for it in sorted(files, key=lambda it: it.stat().st_mtime_ns)]


SHARED = pytest.StashKey[Shared]()
