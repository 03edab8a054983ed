"""Sees when the host's clock moves by itself: the host was suspended, or its clock was set.

Guests count on from what they were told, by a clock that stands still while the host is suspended
(Linux's CLOCK_MONOTONIC, clock_gettime(2)): so they are late then, or wrong.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable

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
        clock: Callable[[], float] = time.time,
        gone_by: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does nothing yet.

        Args:
            on_move: hears of each move.
            clock: the time of day, seconds.
            gone_by: the time that has gone by while the host ran, seconds.
        """
        self._on_move = on_move
        self._clock = clock
        self._gone_by = gone_by
        self._offset: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Watches from now on, until `end`."""
        self._offset = self._read()
        self._wait()

    def end(self) -> None:
        """Watches no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Tells if the clock has moved since the last time."""
        offset = self._read()
        if offset is None or self._offset is None:
            self._offset = offset if offset is not None else self._offset
            return
        moved = offset - self._offset
        if abs(moved) < _MOVED_S:
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

    def _read(self) -> float | None:
        """How far one is ahead of the other; None: this process was held up each time."""
        for _ in range(_ATTEMPTS):
            before = self._gone_by()
            offset = self._clock() - before
            if self._gone_by() - before < _AT_ONCE_S:
                return offset
        return None
