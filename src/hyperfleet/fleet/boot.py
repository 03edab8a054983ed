"""From a process that was spawned to a guest that knows who it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from hyperfleet.errors import GuestError, OperationTimeoutError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import console, layout
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.pulse import until_stuck
from hyperfleet.fleet.running import before_end, describe
from hyperfleet.fleet.tools import Tools
from hyperfleet.guest.agent import Agent
from hyperfleet.machine import Machine
from hyperfleet.vmm.driver import Exit, LaunchSpec, Process

_log = logging.getLogger(__name__)

# What is done with a guest that has come up: its process, and the way to its agent.
Meet = Callable[[Process, AgentLink], Coroutine[Any, Any, None]]


class _Stuck(msgspec.Struct, frozen=True):
    """The guest hangs, and by what that is seen."""

    why: str


class Boot:
    """One start of a machine, by this control plane or begun by another."""

    def __init__(
        self, machine: Machine, tools: Tools, *, launch: Callable[[], LaunchSpec], meet: Meet
    ) -> None:
        """`launch` is asked, and may raise, only when a process is to be spawned.

        `meet` is a part of the boot: in the same time, and given up when the process ends.
        """
        self._machine = machine
        self._tools = tools
        self._launch = launch
        self._meet = meet
        directory = tools.layout.directory(machine.id)
        self._console = tools.driver.console(layout.known_launch(machine, directory))
        self._console_start = 0
        # What is waited for, and what went before, as an error says it.
        self._awaited = ""
        self._again = ""

    async def start(self) -> Process:
        """Spawns a process and has it come up; raises as `come_up` does, and as the driver."""
        self._console_start = console.size(self._console)
        return await self.come_up(await self._spawn())

    async def come_up(self, process: Process) -> Process:
        """Returns when the guest is met: its process, which is another one if the first hung.

        Raises:
            GuestError, OperationTimeoutError: it did not come up; with its console's last words.
        """
        deadline = self._tools.config.boot_deadline
        try:
            async with asyncio.timeout(deadline):
                outcome = await before_end(process, self._introduce(process, once=False))
                if isinstance(outcome, _Stuck):
                    process = await self._start_anew(process, outcome.why)
                    outcome = await before_end(process, self._introduce(process, once=True))
        except TimeoutError as error:
            what = f"the machine did not come up within {deadline:g} s: {self._awaited}"
            if (time := process.cpu_time()) is not None:
                what = f"{what}; its process has used {time.used:.1f} s of CPU"
            raise OperationTimeoutError(await self._told(f"{what}{self._again}")) from error
        except OperationTimeoutError as error:
            what = f"the machine did not come up: {error}"
            raise OperationTimeoutError(await self._told(what)) from error
        if isinstance(outcome, Exit):
            what = f"the machine ended while it booted ({describe(outcome)})"
            raise GuestError(await self._told(what))
        return process

    async def _introduce(self, process: Process, *, once: bool) -> _Stuck | None:
        """Agent found, guest told about itself, and met; or stuck, if it was not `once` before."""
        link = AgentLink(process)
        self._awaited = "its agent has not answered"
        try:
            connecting = link.connect(self._tools.config.boot_deadline)
            agent = await (connecting if once else self._before_stuck(process, connecting))
            if isinstance(agent, _Stuck):
                await link.close()
                return agent
            self._awaited = "its agent has not taken its name and addresses"
            network = self._machine.network
            cards = self._tools.networks.of(network).introduce(network)
            await agent.configure(self._machine.spec.name, cards)
        except BaseException:
            await link.close()
            raise
        reach(Point.BOOT_CONFIGURED)
        self._awaited = "its ports could not be seen"
        await self._meet(process, link)
        return None

    async def _before_stuck(
        self, process: Process, connects: Coroutine[Any, Any, Agent]
    ) -> Agent | _Stuck:
        """The agent, unless its guest is seen to hang before it answers."""
        connecting = asyncio.create_task(connects)
        watching = asyncio.create_task(
            until_stuck(process, self._tools.config.pulse, self._machine.spec.vcpu_count)
        )
        try:
            await asyncio.wait((connecting, watching), return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                return _Stuck(watching.result())
            return connecting.result()
        finally:
            for task in (connecting, watching):
                task.cancel()
            await asyncio.gather(connecting, watching, return_exceptions=True)

    async def _start_anew(self, process: Process, why: str) -> Process:
        _log.warning("machine %s hangs as it boots (%s); it is started anew", self._machine.id, why)
        self._again = f"; it had been started anew, since {why} before its agent answered"
        await process.kill()
        return await self._spawn()

    async def _spawn(self) -> Process:
        process = await self._tools.driver.start(self._launch())
        reach(Point.BOOT_SPAWNED)
        return process

    async def _told(self, what: str) -> str:
        return await console.with_reason(what, self._console, self._console_start)
