"""Sees when the host's clock moves by itself: the host was suspended, or its clock was set.

Guests count on from what they were told, by a clock that stands still while the host is suspended
(Linux's CLOCK_MONOTONIC, clock_gettime(2)): so they are late then, or wrong. How far the two clocks
are apart is noted in a file, for the next control plane: machines run on without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
# A clock that is kept by slewing (adjtime(3)) takes the other one along, so less is nobody's step.
_MOVED_S = 0.25
# Both clocks are read at one moment, if this task is not held up in between.
_AT_ONCE_S = 0.01
_ATTEMPTS = 10


class HostClock:
    """Compares the clock with the time that has gone by, once a second."""

    def __init__(
        self,
        on_move: Callable[[], None],
        *,
        note: Path,
        host_boot: str,
        clock: Callable[[], float] = time.time,
        gone_by: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does nothing yet.

        Args:
            on_move: hears of each move.
            note: where it is noted how the clocks stand.
            host_boot: what tells this boot of the host from others, in which nothing of it holds;
                empty: nothing is noted.
            clock: the time of day, seconds.
            gone_by: the time that has gone by while the host ran, seconds.
        """
        self._on_move = on_move
        self._clock = clock
        self._gone_by = gone_by
        self._file = note
        self._boot = host_boot
        self._offset: float | None = None
        self._noted: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Watches from now on, until `end`; tells at once if it has moved since the last note."""
        self._offset = self._noted = self._last_note()
        self.look()
        self._wait()

    def end(self) -> None:
        """Watches no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Tells if the clock has moved since the last time."""
        offset = self._read()
        if offset is None:
            return
        if self._offset is None:
            self._offset = offset
        moved = offset - self._offset
        if abs(moved) < _MOVED_S:
            # Whoever was to be told has had a second for it.
            self._take_note()
            return
        self._offset = offset
        _log.info(
            "the host's clock has moved by %+.1f s (it was suspended, or its clock was set): "
            "machines that run are told the time",
            moved,
        )
        self._on_move()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_EVERY_S, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        self._wait()
        self.look()

    def _last_note(self) -> float | None:
        with contextlib.suppress(OSError, ValueError):
            boot, offset = self._file.read_text(encoding="ascii").split()
            if boot == self._boot:
                return float(offset)
        return None

    def _take_note(self) -> None:
        if not self._boot or self._noted == self._offset:
            return
        # One that is cut short is none. It need not outlive the host's boot, so it is not synced.
        with contextlib.suppress(OSError):
            self._file.write_text(f"{self._boot} {self._offset!r}\n", encoding="ascii")
            self._noted = self._offset

    def _read(self) -> float | None:
        """How far one is ahead of the other; None: this process was held up each time."""
        for _ in range(_ATTEMPTS):
            before = self._gone_by()
            offset = self._clock() - before
            if self._gone_by() - before < _AT_ONCE_S:
                return offset
        return None
