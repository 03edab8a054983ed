"""Keeps the consoles of all machines within their bound: one task looks at them all, in turns.

A task for each machine would cost the loop a third of a millisecond, ten thousand times. Nor does a
thread look at them: it would keep the interpreter from the loop for 5 ms at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from hyperfleet.fleet import console

_log = logging.getLogger(__name__)

# A guest that floods its console fills the host's disk no further than in twice this time.
_EVERY_S = 2.0
# So many are looked at without a pause, which takes half a millisecond.
_AT_ONCE = 100


class Consoles:
    """One for a fleet."""

    def __init__(self, every: float = _EVERY_S) -> None:
        """`every`: seconds in which each is looked at once."""
        self._every = every
        self._logs: dict[str, Path] = {}
        # Those that could not be cut the last time, which is said once.
        self._uncut: set[str] = set()
        self._keeping: asyncio.Task[None] | None = None

    def keep(self, machine_id: str, log: Path) -> None:
        """A machine writes to this file from here on, which need not be there yet."""
        self._logs[machine_id] = log
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep(), name="consoles")

    def leave(self, machine_id: str) -> None:
        """The machine's console is not looked at any more; it need not have been."""
        self._logs.pop(machine_id, None)
        self._uncut.discard(machine_id)

    async def close(self) -> None:
        """Looks at none any more."""
        self._logs.clear()
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    async def _keep(self) -> None:
        while self._logs:
            logs = [*self._logs.items()]
            pieces = [logs[at : at + _AT_ONCE] for at in range(0, len(logs), _AT_ONCE)]
            for piece in pieces:
                await asyncio.sleep(self._every / len(pieces))
                for machine_id, log in piece:
                    # Else the machine is somebody's who puts another file there.
                    if self._logs.get(machine_id) == log and _has_outgrown(log):
                        self._bound(machine_id, log)

    def _bound(self, machine_id: str, log: Path) -> None:
        try:
            console.bound(log)
        except OSError:
            if machine_id not in self._uncut:
                self._uncut.add(machine_id)
                _log.exception("machine %s: its console could not be cut", machine_id)
        else:
            self._uncut.discard(machine_id)


def _has_outgrown(log: Path) -> bool:
    """Whether it is to be cut. One that can't be looked at keeps no other from it."""
    try:
        return console.outgrown(log)
    except OSError:
        return False
