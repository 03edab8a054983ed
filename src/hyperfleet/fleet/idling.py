"""When a machine that may sleep has been idle for long enough.

In use is one with a request in flight, or whose WebSockets have carried a byte, or in which
somebody runs a process or moves a file by the API, within its `sleep_after_s`. What only runs in
the guest is no use of it: servers wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from hyperfleet.fleet.state import State, now
from hyperfleet.lifecycle import Status
from hyperfleet.proxy.interface import Activity, Traffic

# The data plane is away: asked again.
_AGAIN_S = 5.0


class Idling:
    """Watches one machine. Costs a timer while it runs and may sleep, else nothing."""

    def __init__(self, state: State, traffic: Traffic, doze: Callable[[], None]) -> None:
        """`doze` hears when it has been idle for long enough."""
        self._state = state
        self._traffic = traffic
        self._doze = doze
        # What is watched for; 0: nothing.
        self._after = 0
        self._uses = 0
        self._used_at: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def using(self) -> Iterator[None]:
        """The block is a use of the machine."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._used_at = now()

    def watch(self) -> None:
        """The machine is another one now: it began to run, or may sleep after another time."""
        after = self._state.machine.spec.sleep_after_s
        after = after if self._state.status is Status.RUNNING else 0
        if after == self._after:
            # News of a machine is no use of it: it is looked at when it would have been.
            return
        self.close()
        self._after = after
        if after:
            self._set(after)

    def close(self) -> None:
        """Watches no more."""
        for waiting in (self._timer, self._looking):
            if waiting is not None:
                waiting.cancel()
        self._timer = self._looking = None
        self._after = 0

    async def is_idle(self) -> bool:
        """Whether it has been, for as long as it takes, up to now."""
        left = await self._left()
        return left is not None and left <= 0

    def _set(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds, 0.01), self._look_soon)

    def _look_soon(self) -> None:
        self._timer = None
        self._looking = asyncio.create_task(self._look(), name=f"idle {self._state.machine.id}")

    async def _look(self) -> None:
        left = await self._left()
        machine = self._state.machine
        if machine.status is not Status.RUNNING or not machine.spec.sleep_after_s:
            return
        if left is not None and left <= 0:
            self._doze()
            # Asked again where it does not come to it.
            left = None
        self._set(_AGAIN_S if left is None else left)

    async def _left(self) -> float | None:
        """Seconds until it may sleep; None: it can't be told, or never."""
        machine = self._state.machine
        after = machine.spec.sleep_after_s
        if not after:
            return None
        if self._uses:
            return after
        activity = await self._traffic.activity(machine.id)
        if activity is None:
            return None
        if activity.requests_in_flight > activity.tunnels:
            return after
        return (self._last(activity) + timedelta(seconds=after) - now()).total_seconds()

    def _last(self, activity: Activity) -> datetime:
        machine = self._state.machine
        times = (activity.last_at, self._used_at, machine.started_at)
        return max((time for time in times if time is not None), default=machine.updated_at)
