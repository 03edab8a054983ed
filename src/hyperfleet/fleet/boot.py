"""From a process that was spawned to a guest that knows who it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from hyperfleet.errors import GuestError, HyperfleetError, OperationTimeoutError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import console, layout
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.pulse import until_stuck
from hyperfleet.fleet.running import before_end, describe
from hyperfleet.fleet.tools import Tools
from hyperfleet.guest.agent import Agent
from hyperfleet.machine import How, Machine, Start
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
        # Why it boots although there was a template.
        self._note: str | None = None
        self._began: float | None = None
        self._suspect: str | None = None
        # What is waited for, and what went before, as an error says it.
        self._awaited = ""
        self._again = ""

    async def start(self) -> Process:
        """Spawns a process and has it come up; raises as `come_up` does, and as the driver."""
        self._began = time.monotonic()
        self._console_start = console.size(self._console)
        return await self.come_up(await self._spawn())

    def told(self, process: Process) -> Start | None:
        """How it went; None for one that another control plane began."""
        if self._began is None:
            return None
        return Start(
            how=process.beginning.how,
            duration_ms=round((time.monotonic() - self._began) * 1000),
            note=self._note,
        )

    async def come_up(self, process: Process) -> Process:
        """Returns when the guest is met: its process, which is another one if the first hung.

        Raises:
            GuestError, OperationTimeoutError: it did not come up; with its console's last words.
        """
        deadline = self._tools.config.boot_deadline
        try:
            async with asyncio.timeout(deadline):
                outcome = await self._try(process)
                if isinstance(outcome, _Stuck):
                    process = await self._start_anew(process, outcome.why)
                    outcome = await before_end(process, self._introduce(process, once=True))
        except TimeoutError as error:
            what = f"the machine did not come up within {deadline:g} s: {self._awaited}"
            if (cpu := process.cpu_time()) is not None:
                what = f"{what}; its process has used {cpu.used:.1f} s of CPU"
            raise OperationTimeoutError(await self._told(f"{what}{self._again}")) from error
        except OperationTimeoutError as error:
            what = f"the machine did not come up: {error}"
            raise OperationTimeoutError(await self._told(what)) from error
        if self._suspect is not None and outcome is None:
            # It boots, so it is the template that does not.
            await self._tools.driver.distrust(self._suspect)
        if isinstance(outcome, Exit):
            what = f"the machine ended while it booted ({describe(outcome)})"
            raise GuestError(await self._told(what))
        return process

    async def _try(self, process: Process) -> Exit | _Stuck | None:
        """The first of two tries. A clone that fails in any way is one that hangs."""
        if process.beginning.template is None:
            return await before_end(process, self._introduce(process, once=False))
        try:
            async with asyncio.timeout(self._tools.config.clone_deadline):
                outcome = await before_end(process, self._introduce(process, once=False))
        except (TimeoutError, HyperfleetError) as error:
            return _Stuck(str(error) or self._awaited)
        if isinstance(outcome, Exit):
            return _Stuck(f"it ended ({describe(outcome)})")
        return outcome

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
            try:
                limit = self._tools.config.boot_deadline
                disks = self._tools.disks.mounts(self._machine.spec.disks)
                await agent.configure(self._machine.spec.name, cards, limit, disks=disks)
                reach(Point.BOOT_CONFIGURED)
                await self._command(process, agent)
            except GuestError as error:
                raise GuestError(f"the machine did not come up: {error}") from error
        except BaseException:
            await link.close()
            raise
        self._awaited = "its ports could not be seen"
        await self._meet(process, link)
        return None

    async def _command(self, process: Process, agent: Agent) -> None:
        """Has it run, where it does not yet: what was in memory goes on as it was."""
        spec = self._machine.spec
        if spec.cmd and process.beginning.how is not How.MEMORY:
            self._awaited = "its agent has not taken its command"
            await agent.supervise(spec.cmd, spec.env, spec.cwd, spec.restart)

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
        template = process.beginning.template
        if template is None:
            _log.warning(
                "machine %s hangs as it boots (%s); it is started anew", self._machine.id, why
            )
            self._again = f"; it had been started anew, since {why} before its agent answered"
        else:
            self._note = f"a clone of template {template} did not come up: {why}"
            _log.warning("machine %s boots: %s", self._machine.id, self._note)
            self._again = f"; before it booted, {self._note}"
            self._suspect = template
        await process.kill()
        return await self._spawn(anew=template is not None)

    async def _spawn(self, *, anew: bool = False) -> Process:
        process = await self._tools.driver.start(self._launch(), anew=anew)
        self._note = process.beginning.note or self._note
        reach(Point.BOOT_SPAWNED)
        return process

    async def _told(self, what: str) -> str:
        return await console.with_reason(what, self._console, self._console_start)
