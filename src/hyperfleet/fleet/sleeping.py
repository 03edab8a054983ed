"""A machine that sleeps: its memory is on disk, and it has no process."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from hyperfleet.errors import GuestError, HyperfleetError, InvalidStateError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import discovery
from hyperfleet.fleet.acts import Acts
from hyperfleet.fleet.pausing import Pausing
from hyperfleet.fleet.running import Running
from hyperfleet.fleet.state import State
from hyperfleet.fleet.tools import Tools
from hyperfleet.lifecycle import Status


class Sleeping:
    """One machine's sleep. The owner calls this one at a time; `Acts.boot` wakes it."""

    def __init__(self, state: State, tools: Tools, acts: Acts, pausing: Pausing) -> None:
        self._state = state
        self._tools = tools
        self._acts = acts
        self._pausing = pausing

    async def fall_asleep(self, may: Callable[[], Awaitable[bool]] | None = None) -> None:
        """From running or paused to sleeping. Written down first, so clients are turned away.

        `may` is asked once they are; if not, it runs on.

        Raises:
            GuestError, CapacityError: its memory could not be saved; it runs on, or is paused.
            InvalidStateError: it may not, after all.
        """
        running = self._acts.running
        assert running is not None  # noqa: S101 - a machine that has a guest is held
        before = self._state.status
        if before is Status.RUNNING:
            await running.looker.end()
            # What is on the disk then is right, whatever becomes of the memory.
            await running.sync(self._state.machine.id)
        await self._state.go(Status.SLEEPING)
        await self._state.publish()
        reach(Point.SLEEP_RECORDED)
        try:
            if may is not None and not await may():
                raise InvalidStateError("it is in use")
            most = self._acts.launch.mem_size_mib << 20
            with self._tools.disk_room.taking(most, "what it has in memory"):
                await running.process.save()
        except HyperfleetError:
            await self._stay(running, before)
            raise
        reach(Point.SLEEP_SAVED)
        await self._acts.unhold()
        await running.process.kill()
        await running.let_go()
        await self._tools.driver.sweep(self._acts.launch)
        reach(Point.SLEEP_ENDED)
        exposed = self._state.machine.spec.exposed_ports
        await self._state.go(Status.SLEEPING, pid=None, ports=discovery.unseen(exposed, {}))
        await self._state.publish()

    async def _stay(self, running: Running, before: Status) -> None:
        """It does not sleep after all."""
        if before is Status.RUNNING:
            with contextlib.suppress(GuestError):
                await self._pausing.go_on(running)
                return
        # One that has ended meanwhile is heard of next, and its death is one of a machine that ran;
        # one that could not be asked is looked at as any that runs.
        await self._state.go(before, stalled=running.process.stalled)
        await self._state.publish()
        if before is Status.RUNNING:
            running.looker.begin()
