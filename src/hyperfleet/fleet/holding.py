"""A machine's process in this control plane's hands: met, taken over, attended, let go of."""

from __future__ import annotations

import asyncio
import contextlib

from hyperfleet.errors import GuestError, HyperfleetError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import console, discovery, layout
from hyperfleet.fleet.clock import set_clock
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.looker import Looker
from hyperfleet.fleet.running import News, Running
from hyperfleet.fleet.state import State, now
from hyperfleet.fleet.tools import Tools
from hyperfleet.lifecycle import Status
from hyperfleet.machine import ExposedPort
from hyperfleet.vmm.driver import LaunchSpec, Process

# After adoption: routes should be right when they are published, but not wait for one that hangs.
FIRST_LOOK_S = 2.0


class Holding:
    """One machine's; `running` is None while it has no process, or nobody holds it."""

    def __init__(self, state: State, tools: Tools, news: News) -> None:
        self.running: Running | None = None
        self._state = state
        self._tools = tools
        self._news = news

    @property
    def launch(self) -> LaunchSpec:
        """What finds the machine's process and files."""
        machine = self._state.machine
        return layout.known_launch(machine, self._tools.layout.directory(machine.id))

    async def meet(self, process: Process, link: AgentLink) -> None:
        """Holds one that has come up, and sees its ports, before it is said to run."""
        self.hold(process, await process.forwards(), link)
        await self._first_look()

    async def take_over(self, process: Process) -> None:
        """Holds one that ran before this control plane did; looked at and attended.

        Raises:
            GuestError: it can't be held; it is let go of.
        """
        try:
            ways = await process.forwards()
        except BaseException:
            process.release()
            raise
        self._state.see(discovery.unseen(self._state.machine.spec.exposed_ports, ways))
        running = self.hold(process, ways)
        reach(Point.ADOPT_HELD)
        if self._state.status is Status.PAUSED:
            # It may have been written down and not done.
            with contextlib.suppress(GuestError):
                await process.pause()
        else:
            # It stands still if it was being copied.
            stood = False
            with contextlib.suppress(GuestError):
                stood = await process.resume()
            # Asked first, so that nothing falls between what the look sees and what is news.
            running.looker.hear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_S):
                    if stood:
                        await set_clock(self._state.machine, running, self._tools)
                    await self._first_look()
        await self._state.publish()
        reach(Point.ADOPT_DONE)
        self.attend()

    def hold(
        self, process: Process, ways: dict[int, str], link: AgentLink | None = None
    ) -> Running:
        """Holds a process that has these ways in; nothing is looked at yet."""
        if link is None:
            link = AgentLink(process)
            link.keep()
        process.when_stalled(lambda why: self._news.stalled(process, why))
        link.on_fault(lambda fault: self._news.wronged(process, fault))
        looker = Looker(
            process,
            link,
            exposed=self._state.machine.spec.exposed_ports,
            known_ways=ways,
            interval=self._tools.config.poll_interval,
            slots=self._tools.slots,
            observer=self._tools.observer,
            on_sight=lambda sight: self._news.seen(process, sight),
            on_command=lambda state: self._news.commanded(process, state),
        )
        # A former run's panic must not be told as the end of this one.
        console_start = console.size(self._tools.driver.console(self.launch))
        self.running = Running(process, link, looker, console_start=console_start)
        return self.running

    async def tell_time(self) -> None:
        """Sets the guest's clock, if it is held and goes on."""
        running = self.running
        if running is not None and running.process.stalled is None:
            async with self._tools.slots.telling:
                await set_clock(self._state.machine, running, self._tools)

    def attend(self) -> None:
        """From here on its end is seen, its console bounded, its ports looked at if it runs."""
        assert self.running is not None  # noqa: S101 - held before
        machine_id = self._state.machine.id
        self._tools.consoles.keep(machine_id, self._tools.driver.console(self.launch))
        self.running.attend(machine_id, self._news.ended)
        if self._state.status is Status.RUNNING:
            self.running.looker.begin()

    async def unhold(self) -> Running | None:
        """Nothing is looked at any more; what was held is the caller's."""
        running, self.running = self.running, None
        self._tools.consoles.leave(self._state.machine.id)
        if running is not None:
            await running.be_still()
        return running

    def no_ways(self) -> tuple[ExposedPort, ...]:
        """The ports of one that has no process."""
        return discovery.unseen(self._state.machine.spec.exposed_ports, {})

    async def _first_look(self) -> None:
        """What listens already. A guest that can't tell is none the worse for it."""
        assert self.running is not None  # noqa: S101 - held just before
        with contextlib.suppress(HyperfleetError):
            sight = await self.running.looker.look()
            self._state.see(discovery.merge(self.no_ways(), sight, now()))
