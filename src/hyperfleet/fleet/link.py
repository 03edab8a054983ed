"""The way to a machine's agent: connected, and connected again whenever its channel is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

from hyperfleet.errors import GuestError, HyperfleetError, OperationTimeoutError
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.calls import BrokenProtocolError
from hyperfleet.vmm.driver import Process

_log = logging.getLogger(__name__)

# One attempt; the agent's greeting is sent again and again within it.
_ATTEMPT_S = 10.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 10.0
# A session that lasted so long was a sound one. A guest that greets and then breaks the protocol
# would otherwise have the host connect again without a pause, hundreds of times a second.
_SOUND_AFTER_S = 10.0


class AgentLink:
    """Holds at most one connection, as the channel bears only one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._agent: Agent | None = None
        self._connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._on_fault: Callable[[str], None] = lambda _: None

    async def connect(self, timeout: float) -> Agent:  # noqa: ASYNC109
        """The first connection, within `timeout` seconds; from then on it is kept.

        Raises:
            OperationTimeoutError: no agent answered in time.
            GuestError: what answered is no agent that this side understands.
        """
        agent = await self._attempt(timeout)
        self._hold(agent)
        self.keep()
        return agent

    def on_fault(self, hears: Callable[[str], None]) -> None:
        """Has `hears` told what the guest did whenever its channel is given up for a breach."""
        self._on_fault = hears

    def keep(self) -> None:
        """Connects from now on, whenever there is no connection, until `close`."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(
                self._keep(), name=f"agent of process {self._process.pid}"
            )

    async def agent(self, timeout: float) -> Agent:  # noqa: ASYNC109
        """The agent; waits up to `timeout` seconds for a lost channel to come back.

        Raises:
            GuestError: it did not come back.
        """
        if self._agent is not None and not self._agent.lost:
            # Almost always; a timer for each of ten thousand looks is some of what they cost.
            return self._agent
        try:
            async with asyncio.timeout(timeout):
                return await self.connected()
        except TimeoutError as error:
            raise GuestError("the machine's agent can't be reached at present") from error

    async def connected(self) -> Agent:
        """The agent; waits for as long as there is none."""
        while self._agent is None or self._agent.lost:
            # The keeper has yet to see the loss, perhaps.
            self._connected.clear()
            await self._connected.wait()
        return self._agent

    async def close(self) -> None:
        """Ends the connection and the keeping of it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        await self._drop()

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            if self._agent is not None:
                begun = time.monotonic()
                await self._agent.closed()
                _log.info("process %s: the agent's channel was lost", self._process.pid)
                if (fault := self._agent.fault) is not None:
                    self._on_fault(fault)
                await self._drop()
                if time.monotonic() - begun >= _SOUND_AFTER_S:
                    pause = _FIRST_PAUSE_S
                else:
                    pause = await _rest(pause)
            try:
                self._hold(await self._attempt(_ATTEMPT_S))
            except HyperfleetError as error:
                _log.info("process %s: no agent: %s", self._process.pid, error)
                if isinstance(error, BrokenProtocolError):
                    self._on_fault(error.message)
                pause = await _rest(pause)

    async def _attempt(self, timeout: float) -> Agent:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self._process.channel()
        except TimeoutError as error:
            raise OperationTimeoutError("the agent's channel did not open") from error
        return await Agent.connect(reader, writer, timeout=timeout)

    def _hold(self, agent: Agent) -> None:
        self._agent = agent
        self._connected.set()

    async def _drop(self) -> None:
        agent, self._agent = self._agent, None
        self._connected.clear()
        if agent is not None:
            with contextlib.suppress(HyperfleetError, OSError):
                await agent.close()


async def _rest(pause: float) -> float:
    """Waits about `pause` seconds; returns how long to wait the next time."""
    await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
    return min(2 * pause, _LONGEST_PAUSE_S)
