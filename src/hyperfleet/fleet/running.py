"""A machine's process with what hangs on it: agent, looks, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from hyperfleet.errors import GuestError, HyperfleetError
from hyperfleet.fleet.discovery import Sight
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.looker import Looker
from hyperfleet.machine import CommandState
from hyperfleet.vmm.cgroup import OutOfMemory
from hyperfleet.vmm.driver import Exit, Process

T = TypeVar("T")

_log = logging.getLogger(__name__)

# From the agent's word that it shuts down to the process's end, beyond the grace.
_POWER_OFF_S = 10.0
# At a stop or a sync: a channel that is lost at this moment may come back.
_AGENT_WAIT_S = 3.0
# A channel that breaks is mostly the first sign of a process that ends.
_END_AFTER_BREAK_S = 2.0


class News(Protocol):
    """Hears of what a running machine does by itself; `process` tells one run from the next."""

    def ended(self, process: Process, ended: Exit) -> None:
        """Its process has ended."""

    def stalled(self, process: Process, why: str | None) -> None:
        """It stands still by itself; None: it has gone on, with a clock that is late."""

    def seen(self, process: Process, sight: Sight) -> None:
        """Its ports were looked at."""

    def commanded(self, process: Process, state: CommandState) -> None:
        """Its guest has told how it stands with the machine's command."""

    def wronged(self, process: Process, fault: str) -> None:
        """Its guest has broken the agent's protocol."""


class Running:
    """Held by this control plane; its owner alone has it do anything."""

    def __init__(
        self, process: Process, link: AgentLink, looker: Looker, *, console_start: int
    ) -> None:
        """`console_start`: bytes on its console so far; what it dies of is told after them."""
        self.console_start = console_start
        self.process = process
        self.link = link
        self.looker = looker
        self._watcher: asyncio.Task[None] | None = None

    def attend(self, name: str, on_end: Callable[[Process, Exit], None]) -> None:
        """From here on its end is seen."""

        async def watch() -> None:
            on_end(self.process, await self.process.wait())

        self._watcher = asyncio.create_task(watch(), name=f"end of {name}")

    async def be_still(self) -> None:
        """Nothing is looked at or watched for any more."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait((watcher,))
        await self.looker.end()

    async def sync(self, name: str) -> None:
        """The guest's disks are right from now on also without its memory, if it can do that."""
        try:
            await (await self.link.agent(_AGENT_WAIT_S)).sync()
        except HyperfleetError as error:
            _log.info("machine %s: not all is on its disk: %s", name, error)

    async def power_off(self, grace: float) -> None:
        """In order if the guest can, within its time (seconds); by force if not."""
        with contextlib.suppress(TimeoutError, HyperfleetError):
            async with asyncio.timeout(grace + _POWER_OFF_S):
                # One that stands still hears nothing; of one that runs this changes nothing.
                await self.process.resume()
                agent = await self.link.agent(_AGENT_WAIT_S)
                # The guest may be gone before its answer is; one that gives none hangs.
                with contextlib.suppress(GuestError):
                    async with asyncio.timeout(max(grace, _AGENT_WAIT_S)):
                        await agent.shutdown(grace)
                await self.process.wait()
        await self.process.kill()

    async def let_go(self) -> None:
        """Closes everything of this side's; the process runs on."""
        await self.looker.end()
        await self.link.close()
        self.process.release()


async def before_end(process: Process, act: Coroutine[Any, Any, T]) -> T | Exit:
    """What `act` returns; given up when the process ends, and then how that ended."""
    doing = asyncio.create_task(act)
    end = asyncio.create_task(process.wait())
    try:
        await asyncio.wait((doing, end), return_when=asyncio.FIRST_COMPLETED)
        if doing.done() and doing.exception() is not None:
            await asyncio.wait((end,), timeout=_END_AFTER_BREAK_S)
        if end.done():
            return end.result()
        return await doing
    finally:
        doing.cancel()
        end.cancel()
        await asyncio.wait((doing, end))


def describe(ended: Exit) -> str:
    """How a process ended, in words."""
    if ended.out_of_memory is not None:
        return _starved(ended.out_of_memory)
    if ended.powered_off:
        return "it powered off"
    if ended.signal is not None:
        return f"its process was killed by signal {ended.signal}"
    if ended.code is not None:
        return f"exit status {ended.code}"
    return "how is not known"


def _starved(want: OutOfMemory) -> str:
    """Why the host's kernel has killed it."""
    if want is OutOfMemory.HOST:
        return "the host was out of memory, and its kernel killed the machine's processes"
    return (
        "its processes wanted more memory of the host than its cgroup allows, and were killed: "
        "HYPERFLEET_CGROUP_MEMORY_MIB is what they may have beside the guest's"
    )
