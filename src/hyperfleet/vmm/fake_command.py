"""A fake guest's own command: run from its start on, and started again by its rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from hyperfleet.vmm.fake_calls import ENVIRONMENT
from hyperfleet.vmm.fake_programs import Killed, Programs, Run, System
from hyperfleet.wire import guest

# Seconds before it is started again; each wait is twice the one before.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_RAN_WELL = 60.0


class Command:
    """One guest's, from when it is told of it; the first counts."""

    def __init__(
        self,
        system: System,
        *,
        write: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        """`write` takes what it writes, when it has ended; `on_change` hears of another `state`."""
        self.state: guest.CommandMessage | None = None
        self._system = system
        self._write = write
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._asked: guest.CommandCall | None = None
        self._programs: Programs | None = None
        self._run: Run | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0.0
        self._wait = 0.0

    def supervise(self, asked: guest.CommandCall) -> None:
        """Has it run from now on, if none does or did."""
        if self._asked is None:
            self._asked = asked
            self._tell(guest.CommandMessage(state="running", code=None, signal=None, restarts=0))
            self._begin()

    def drop(self) -> None:
        """The guest is no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._run is not None:
            self._run.close()

    def _begin(self) -> None:
        assert self._asked is not None  # noqa: S101 - only what was asked for begins
        environment = {**ENVIRONMENT, **dict(self._asked.env)}
        self._programs = Programs(self._system, environment, self._asked.cwd or "/", b"")
        self._run = self._programs.run(self._asked.argv)
        self._begun = self._loop.time()
        self._step()

    def _begin_again(self) -> None:
        state = self.state
        assert state is not None  # noqa: S101 - it has ended before
        self._tell(msgspec.structs.replace(state, state="running", restarts=state.restarts + 1))
        self._begin()

    def _step(self) -> None:
        assert self._run is not None  # noqa: S101 - begun
        try:
            pause = next(self._run)
        except StopIteration as ending:
            self._end(code=ending.value, signal=None)
        except Killed as killed:
            self._end(code=None, signal=killed.number)
        else:
            self._timer = self._loop.call_later(pause, self._step)

    def _end(self, *, code: int | None, signal: int | None) -> None:
        assert self._programs is not None  # noqa: S101 - begun
        assert self._asked is not None  # noqa: S101 - begun
        assert self.state is not None  # noqa: S101 - begun
        self._write(bytes(self._programs.stdout + self._programs.stderr))
        rule = self._asked.restart
        again = rule == "always" or (rule == "on-failure" and code != 0)
        ended = msgspec.structs.replace(self.state, code=code, signal=signal)
        self._tell(msgspec.structs.replace(ended, state="waiting" if again else "exited"))
        if again:
            well = self._loop.time() - self._begun >= _RAN_WELL
            self._wait = (
                _FIRST_WAIT if well else min(max(_FIRST_WAIT, 2 * self._wait), _LONGEST_WAIT)
            )
            self._timer = self._loop.call_later(self._wait, self._begin_again)

    def _tell(self, state: guest.CommandMessage) -> None:
        self.state = state
        self._on_change()
