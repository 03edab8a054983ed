"""Hears a machine's news from its guest: has its ports looked at, and tells of its command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from hyperfleet.errors import GuestError
from hyperfleet.fleet.link import AgentLink
from hyperfleet.guest.values import News
from hyperfleet.machine import CommandState

# Seconds between one piece of news and the next question: several servers that a program starts are
# seen by one look.
_SHORTEST_S = 0.05
# A guest whose sockets come and go all the time costs its host one look in so many seconds. One
# that was quiet may have so many seconds' looks at once.
_EACH_S = 1.0
_SAVED_S = 8.0


class Source(Protocol):
    """Where news come from: an agent."""

    async def watch(self, seen: int) -> News:
        """See `Agent.watch`."""

    async def closed(self) -> None:
        """Returns when it tells no more."""


class Pace:
    """How soon a guest is asked again (the generic cell rate algorithm, ITU-T I.371). Pure."""

    def __init__(self) -> None:
        self._paid_until = 0.0

    def pause(self, now: float) -> float:
        """Seconds to wait after news that came at `now`, a clock's seconds."""
        self._paid_until = max(now, self._paid_until) + _EACH_S
        return max(_SHORTEST_S, self._paid_until - now - _SAVED_S)


class Watcher:
    """One machine's, while it runs. Asleep until its guest has news."""

    def __init__(
        self,
        link: AgentLink,
        look: Callable[[], object],
        on_command: Callable[[CommandState], None],
    ) -> None:
        """`look` has its ports looked at soon; `on_command` hears of its command with all news."""
        self._link = link
        self._look = look
        self._on_command = on_command
        self._pace = Pace()
        self._seen = 0
        self._missed = True
        self._watching: asyncio.Task[None] | None = None

    def begin(self, *, missed: bool = True) -> None:
        """Watches from now on, if it does not yet.

        `missed`: things may have happened before it began that no look sees if it has none taken.
        """
        if self._watching is None:
            self._missed = missed
            self._watching = asyncio.create_task(self._watch())

    async def end(self) -> None:
        """Watches no more, until `begin`: what happens meanwhile is news then."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait((watching,))

    async def _watch(self) -> None:
        while True:
            await self.follow(await self._link.connected())

    async def follow(self, agent: Source) -> None:
        """Has a look taken at each piece of news, until the agent's session is over."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                news = await agent.watch(self._seen)
                self._seen = news.number
                if news.command is not None:
                    self._on_command(news.command)
                missed, self._missed = self._missed, True
                if not missed:
                    continue
                self._look()
                await _rest(self._pace.pause(loop.time()))
        except GuestError:
            # Where the agent is too old to tell, looks now and then do.
            await agent.closed()


async def _rest(pause: float) -> None:
    await asyncio.sleep(pause)
