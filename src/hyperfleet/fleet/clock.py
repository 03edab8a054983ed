"""The clock of a machine that stood still: it stood still as well."""

from __future__ import annotations

import logging

from hyperfleet.errors import HyperfleetError
from hyperfleet.fleet.running import Running, before_end
from hyperfleet.fleet.tools import Tools
from hyperfleet.machine import Machine

_log = logging.getLogger(__name__)

# For the agent of a machine that goes on, whose host may be busy.
_AGENT_WAIT_S = 5.0


async def set_clock(machine: Machine, running: Running, tools: Tools) -> None:
    """Tells a guest that goes on what time it is; one that does not hear it goes on as well."""
    cards = tools.networks.of(machine.network).introduce(machine.network)

    async def tell() -> None:
        agent = await running.link.agent(_AGENT_WAIT_S)
        await agent.configure(machine.spec.name, cards)

    try:
        # Whoever waits for one that has ended hears of its end.
        await before_end(running.process, tell())
    except HyperfleetError as error:
        _log.warning("machine %s: its clock may be late: %s", machine.id, error)
