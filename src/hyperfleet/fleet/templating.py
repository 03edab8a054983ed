"""Templates are made behind starts, one at a time, if possible when nobody waits for a boot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Hashable

import msgspec

from hyperfleet.errors import HyperfleetError
from hyperfleet.fleet.admission import Boots
from hyperfleet.fleet.disk_room import DiskRoom
from hyperfleet.vmm.driver import Driver, LaunchSpec, Recipe

# Shapes that may be wanted at once; the one that was not booted for longest is forgotten.
_MOST_WANTED = 100
# In the queue of boots, where every key has a turn of its own.
_KEY = "templates"

_log = logging.getLogger(__name__)


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """`machine_id`: the last machine that booted for want of it; `boots`: how many have."""

    recipe: Recipe
    machine_id: str
    boots: int


class Templating:
    """Has a driver make templates of what it has booted, the one that most have booted for first.

    What is wanted outlives the machine that wanted it: most of those that boot again and again live
    no longer than it takes until nothing boots.
    """

    def __init__(self, driver: Driver, boots: Boots, disk_room: DiskRoom, wait: float) -> None:
        """`wait`: seconds that a template waits until nothing boots, before it takes a turn."""
        self._driver = driver
        self._boots = boots
        self._disk_room = disk_room
        self._wait = wait
        # By shape; the one that was booted last is the last.
        self._wanted: dict[Hashable, _Wish] = {}
        self._making: asyncio.Task[None] | None = None

    def want(self, launch: LaunchSpec) -> None:
        """A machine has booted: the next start of its shape need not. Returns at once."""
        recipe = self._driver.recipe(launch)
        if recipe is None:
            return
        before = self._wanted.pop(recipe.shape, None)
        boots = 1 if before is None else before.boots + 1
        self._wanted[recipe.shape] = _Wish(recipe=recipe, machine_id=launch.id, boots=boots)
        if len(self._wanted) > _MOST_WANTED:
            del self._wanted[next(iter(self._wanted))]
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make_all(), name="templates")

    async def close(self) -> None:
        """Makes no more; what is half-made is removed."""
        self._wanted.clear()
        if self._making is not None:
            self._making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._making

    async def _make_all(self) -> None:
        while self._wanted:
            async with self._turn():
                # The last of those that most have booted for.
                wish = max(reversed(self._wanted.values()), key=lambda one: one.boots)
                del self._wanted[wish.recipe.shape]
                await self._make(wish)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """When nothing boots; where boots do not end, one among them, since clones end them."""
        try:
            async with asyncio.timeout(self._wait):
                await self._boots.quiet()
        except TimeoutError:
            place = self._boots.enter(_KEY, bounded=False)
            try:
                await place.turn()
                yield
            finally:
                place.leave()
        else:
            yield

    async def _make(self, wish: _Wish) -> None:
        machine_id, recipe = wish.machine_id, wish.recipe
        try:
            with self._disk_room.taking(recipe.mem_size_mib << 20, "what it has in memory"):
                await recipe.make()
        except HyperfleetError as error:
            _log.warning("no template like machine %s: %s", machine_id, error)
        except Exception:  # noqa: BLE001 - a start that is no quicker is no failure
            _log.exception("no template like machine %s", machine_id)
