"""Templates are made behind starts, one at a time, when nobody waits for a boot."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from hyperfleet.errors import HyperfleetError
from hyperfleet.fleet.admission import Boots
from hyperfleet.fleet.disk_room import DiskRoom
from hyperfleet.vmm.driver import Driver, LaunchSpec

_log = logging.getLogger(__name__)


class Templating:
    """Has a driver make templates of what it has booted."""

    def __init__(self, driver: Driver, boots: Boots, disk_room: DiskRoom) -> None:
        self._driver = driver
        self._boots = boots
        self._disk_room = disk_room
        # The last one booted of each machine; what comes later replaces it.
        self._wanted: dict[str, LaunchSpec] = {}
        self._making: asyncio.Task[None] | None = None

    def want(self, launch: LaunchSpec) -> None:
        """A machine has booted: the next start of its shape need not. Returns at once."""
        self._wanted[launch.id] = launch
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make(), name="templates")

    async def close(self) -> None:
        """Makes no more; what is half-made is removed."""
        self._wanted.clear()
        if self._making is not None:
            self._making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._making

    async def _make(self) -> None:
        while self._wanted:
            # It takes the place of a boot, behind all that somebody waits for.
            await self._boots.quiet()
            if not self._wanted:
                return
            machine_id, launch = self._wanted.popitem()
            try:
                with self._disk_room.taking(launch.mem_size_mib << 20, "what it has in memory"):
                    await self._driver.prepare(launch)
            except HyperfleetError as error:
                _log.warning("no template like machine %s: %s", machine_id, error)
            except Exception:  # noqa: BLE001 - a start that is no quicker is no failure
                _log.exception("no template like machine %s", machine_id)
