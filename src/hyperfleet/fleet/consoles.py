"""Keeps the consoles of all machines within their bound: one look at all of them now and then.

A look for each machine by itself would cost the loop a third of a millisecond, ten thousand times.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from hyperfleet.fleet import console

_log = logging.getLogger(__name__)

# A guest that floods its console fills the host's disk no further than in this time.
_EVERY_S = 2.0


class Consoles:
    """One for a fleet."""

    def __init__(self, every: float = _EVERY_S) -> None:
        """`every`: seconds between two looks."""
        self._every = every
        self._logs: dict[str, Path] = {}
        self._keeping: asyncio.Task[None] | None = None

    def keep(self, machine_id: str, log: Path) -> None:
        """A machine writes to this file from here on, which need not be there yet."""
        self._logs[machine_id] = log
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep(), name="consoles")

    def leave(self, machine_id: str) -> None:
        """The machine's console is not looked at any more; it need not have been."""
        self._logs.pop(machine_id, None)

    async def close(self) -> None:
        """Looks at none any more."""
        self._logs.clear()
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    async def _keep(self) -> None:
        while self._logs:
            await asyncio.sleep(self._every)
            for machine_id, log in await asyncio.to_thread(_outgrown, [*self._logs.items()]):
                # Else the machine is somebody's who puts another file there.
                if self._logs.get(machine_id) == log:
                    _bound(machine_id, log)


def _outgrown(logs: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Those that are to be cut. One that can't be looked at keeps no other from it."""
    found = []
    for machine_id, log in logs:
        with contextlib.suppress(OSError):
            if console.outgrown(log):
                found.append((machine_id, log))
    return found


def _bound(machine_id: str, log: Path) -> None:
    try:
        console.bound(log)
    except OSError:
        _log.exception("machine %s: its console could not be cut", machine_id)
