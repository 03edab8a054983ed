"""Looks at a running machine's ports: at its guest's word, when somebody asks, and now and then."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable

from hyperfleet.errors import GuestError, HyperfleetError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import discovery
from hyperfleet.fleet.discovery import Sight
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.observer import Observer
from hyperfleet.fleet.watching import Watcher
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import Listener
from hyperfleet.machine import CommandState
from hyperfleet.vmm.driver import Process

_log = logging.getLogger(__name__)

_LOOKS_AT_ONCE = 32
_SUSPECTS_AT_ONCE = 8
_TOLD_AT_ONCE = 256
_ANSWER_S = 5.0
_JITTER = 0.1


class Slots:
    """How many looks run at once, in all machines, and how many are told the time.

    A machine that did not answer the last one waits among its like, so that a few which hang
    don't keep the others from being seen.
    """

    def __init__(self) -> None:
        self._sound = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._suspect = asyncio.Semaphore(_SUSPECTS_AT_ONCE)
        # For telling the time: those that don't hear keep no look from its turn.
        self.telling = asyncio.Semaphore(_TOLD_AT_ONCE)

    def slot(self, *, sound: bool) -> asyncio.Semaphore:
        """The one to hold during a look."""
        return self._sound if sound else self._suspect


class Looker:
    """One machine's. Each `Sight` goes to `on_sight`, whoever asked for it."""

    def __init__(
        self,
        process: Process,
        link: AgentLink,
        *,
        exposed: tuple[int, ...],
        known_ways: dict[int, str],
        interval: float,
        slots: Slots,
        observer: Observer,
        on_sight: Callable[[Sight], None],
        on_command: Callable[[CommandState], None],
    ) -> None:
        """Does nothing yet.

        Args:
            process: the machine's.
            link: to its agent.
            exposed: the ports to find ways to.
            known_ways: the ways in that the process has; what no port needs is taken away.
            interval: between two looks, seconds.
            slots: shared by all lookers.
            observer: counts looks.
            on_sight: hears of each look that succeeds.
            on_command: hears how it stands with the machine's command.
        """
        self._process = process
        self._link = link
        self._exposed = exposed
        # Every way in that the process has; and of them, by exposed port, those to a relay.
        self._ways = set(known_ways)
        self._relay_ways: dict[int, int] = {}
        self._interval = interval
        self._slots = slots
        self._observer = observer
        self._on_sight = on_sight
        self._sound = True
        self._now: asyncio.Task[Sight] | None = None
        self._next: asyncio.Task[Sight] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # One for all its timers. What lives from look to look is new to Python's search for
        # garbage each time, which at ten thousand machines stops all for as long as it is much.
        self._context = contextvars.Context()
        self._watcher = Watcher(link, self.nudge, on_command)

    @property
    def exposed(self) -> tuple[int, ...]:
        """The ports that it finds ways to."""
        return self._exposed

    def begin(self) -> None:
        """Looks at news from now on, and every `interval` seconds.

        The first time earlier, so that machines which began together are not looked at together.
        """
        self._watcher.begin()
        self._look_in(random.uniform(0, self._interval))  # noqa: S311 - no secret

    def hear(self) -> None:
        """News have it look from now on; what was before, the look sees that is taken next."""
        self._watcher.begin(missed=False)

    async def look(self) -> Sight:
        """A look that begins after this call; all who ask before it begins share it.

        Raises:
            GuestError, OperationTimeoutError: the agent can't be asked.
        """
        looking = self.nudge()
        await asyncio.wait((looking,))
        if looking.cancelled():
            # By `end`; whoever asks was not cancelled, and is to hear of it as of any failure.
            raise GuestError("the machine does not run any more")
        return looking.result()

    def nudge(self) -> asyncio.Task[Sight]:
        """Has a look taken soon; nobody need wait for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._now))
            self._next.add_done_callback(_retrieve)
        return self._next

    async def aim(self, exposed: tuple[int, ...]) -> dict[int, str]:
        """Other ports are exposed from now on, for a look that is under way as well.

        Returns their ways in by port, new ones made. Those that are not needed any more stay until
        `tidy`, so that the routes to them can be withdrawn first.

        Raises:
            GuestError: a way can't be made; the next look tries again.
        """
        self._exposed = exposed
        kept = self._relay_ways.keys() & set(exposed)
        self._relay_ways = {port: self._relay_ways[port] for port in kept}
        return {port: await self._way(self._relay_ways.get(port, port)) for port in exposed}

    async def tidy(self) -> None:
        """Takes away the ways in that no exposed port needs.

        Raises:
            GuestError: one can't be taken away; the next look tries again.
        """
        for way in sorted(self._ways - self._needed()):
            # It may have been exposed again while another was taken away.
            if way not in self._needed():
                self._ways.discard(way)
                try:
                    await self._process.unforward(way)
                except BaseException:
                    self._ways.add(way)
                    raise

    async def end(self) -> None:
        """No look from now on, until `begin` or `look`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._watcher.end()
        tasks = [task for task in (self._now, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._now = self._next = None

    def _tick(self) -> None:
        self._watcher.begin()
        # Nor do they fall into step.
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        self._look_in(self._interval * spread)
        self.nudge()

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._tick, context=self._context)

    async def _after(self, before: asyncio.Task[Sight] | None) -> Sight:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        try:
            sight = await self._at_once()
            self._sound = True
            self._observer.looked(seen=True)
            self._on_sight(sight)
        finally:
            if self._now is asyncio.current_task():
                self._now = None
        return sight

    async def _at_once(self) -> Sight:
        """A look, as soon as there is a slot for it."""
        try:
            # Without a slot: waiting for a channel costs nothing, and may take its whole time.
            await self._link.agent(_ANSWER_S)
            async with self._slots.slot(sound=self._sound):
                self._now, self._next = self._next, None
                return await self._take()
        except HyperfleetError as error:
            self._sound = False
            self._observer.looked(seen=False)
            if self._next is asyncio.current_task():
                self._next = None
            _log.info("process %s: no look at its ports: %s", self._process.pid, error)
            raise

    async def _take(self) -> Sight:
        agent = await self._link.agent(_ANSWER_S)
        listeners = await agent.listeners(timeout=_ANSWER_S)
        servers: dict[int, Listener | None] = {}
        upstreams: dict[int, str] = {}
        for port in self._exposed:
            server = discovery.choose(port, listeners)
            relay = None
            if server is not None and not server.direct:
                relay = await self._relay(agent, server)
                reach(Point.LOOK_RELAYED)
                if relay is None:
                    server = None
            if port not in self._exposed:
                # Aimed elsewhere meanwhile: what was taken away must not be made again.
                continue
            if relay is None:
                self._relay_ways.pop(port, None)
            else:
                self._relay_ways[port] = relay
            servers[port] = server
            upstreams[port] = await self._way(port if relay is None else relay)
        await self.tidy()
        reach(Point.LOOK_DONE)
        return Sight(listeners=tuple(listeners), servers=servers, upstreams=upstreams)

    async def _way(self, way: int) -> str:
        self._ways.add(way)
        return await self._process.forward(way)

    def _needed(self) -> set[int]:
        return {*self._exposed, *self._relay_ways.values()}

    async def _relay(self, agent: Agent, server: Listener) -> int | None:
        try:
            return await agent.relay(server.address, server.port)
        except HyperfleetError as error:
            # One port's trouble must not hide the others.
            _log.warning(
                "process %s: no relay to %s port %d: %s",
                self._process.pid,
                server.address,
                server.port,
                error,
            )
            return None


def _retrieve(task: asyncio.Task[Sight]) -> None:
    """Marks a failure as seen: whoever waited was told, and nobody need have waited."""
    if not task.cancelled():
        task.exception()
