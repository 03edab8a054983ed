"""What a control plane before this one had decided of machines' folders, and not done."""

from __future__ import annotations

import asyncio
import logging

from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import layout
from hyperfleet.fleet.tools import Tools
from hyperfleet.machine import Machine

_log = logging.getLogger(__name__)


async def complete(tools: Tools) -> list[Machine]:
    """Completes it, and removes what was left half-made; the machines that there are then."""
    for machine_id in tools.layout.condemned():
        _log.info("machine %s: its deletion was cut off; completed", machine_id)
        await tools.store.remove(machine_id)
        reach(Point.ADOPT_DELETING)
        doomed = tools.layout.doomed(machine_id)
        await tools.driver.remove(layout.nameless_launch(machine_id, doomed))
    machines = await tools.store.all()
    recorded = {machine.id for machine in machines}
    await asyncio.to_thread(tools.layout.complete_swaps, recorded)
    await asyncio.to_thread(tools.snapshots.open)
    await asyncio.to_thread(tools.disks.open)
    return machines
