"""A machine that stands still for a while: its processors do not run, its memory stays."""

from __future__ import annotations

import contextlib

from hyperfleet.errors import GuestError, HyperfleetError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import discovery
from hyperfleet.fleet.clock import set_clock
from hyperfleet.fleet.running import Running
from hyperfleet.fleet.state import State, now
from hyperfleet.fleet.tools import Tools
from hyperfleet.lifecycle import Status


class Pausing:
    """One machine's pauses. The owner calls these one at a time."""

    def __init__(self, state: State, tools: Tools) -> None:
        self._state = state
        self._tools = tools

    async def pause(self, running: Running | None) -> None:
        """From running to paused. Written down first, so clients are turned away before.

        Raises:
            GuestError: its process would not; it runs.
        """
        assert running is not None  # noqa: S101 - a machine that runs is held
        await running.looker.end()
        await self._state.go(Status.PAUSED)
        reach(Point.PAUSE_RECORDED)
        await self._state.publish()
        reach(Point.PAUSE_PUBLISHED)
        try:
            await running.process.pause()
        except GuestError:
            await self._run_on(running)
            raise

    async def go_on(self, running: Running | None) -> None:
        """From paused to running, its clock set.

        Raises:
            GuestError: its process would not; it is paused.
        """
        assert running is not None  # noqa: S101 - a machine that is paused is held
        await running.process.resume()
        reach(Point.RESUME_DONE)
        await set_clock(self._state.machine, running, self._tools)
        await self._run_on(running)

    async def _run_on(self, running: Running) -> None:
        with contextlib.suppress(HyperfleetError):
            sight = await running.looker.look()
            self._state.see(discovery.merge(self._state.machine.ports, sight, now()))
        await self._state.go(Status.RUNNING, stalled=running.process.stalled)
        reach(Point.RESUME_RECORDED)
        await self._state.publish()
        running.looker.begin()
