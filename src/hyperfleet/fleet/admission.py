"""Starts are admitted here: there must be room on the host and in the queue of boots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from hyperfleet.errors import CapacityError
from hyperfleet.fleet import capacity
from hyperfleet.fleet.capacity import Promises, Room
from hyperfleet.fleet.turns import Turns
from hyperfleet.machine import Machine

# A boot takes some seconds; whoever is told to come again need not know it better.
_BOOT_S = 3
_LONGEST_RETRY_S = 60


class Place:
    """A start's place among the boots; its turn comes once."""

    def __init__(self, boots: Boots, key: str) -> None:
        self._boots = boots
        self._key = key
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = False

    async def turn(self) -> None:
        """Returns when it may boot."""
        await asyncio.shield(self._turn)

    def leave(self) -> None:
        """It has booted, or will not; the next one's turn comes. No error when it has left."""
        if not self._left:
            self._left = True
            self._boots.left(self._key, self, had_turn=self._turn.done())

    def call(self) -> None:
        """Its turn has come."""
        self._turn.set_result(None)


class Boots:
    """So many at once; the others queue, the keys in turn."""

    def __init__(self, at_once: int, longest: int) -> None:
        """`longest`: how many starts that somebody asks for may wait."""
        self._free = at_once
        self._at_once = at_once
        self._longest = longest
        self._turns: Turns[Place] = Turns()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def quiet(self) -> None:
        """Returns when nothing boots or waits to."""
        await self._quiet.wait()

    def enter(self, key: str, *, bounded: bool) -> Place:
        """A place for one more.

        Raises:
            CapacityError: `bounded`, and too many wait already.
        """
        if bounded and not self._free and len(self._turns) >= self._longest:
            again = min(_LONGEST_RETRY_S, _BOOT_S * len(self._turns) // self._at_once + 1)
            raise CapacityError(
                f"boots: {len(self._turns)} machines wait for their turn already "
                "(HYPERFLEET_BOOT_QUEUE); try again later",
                retry_after=again,
            )
        place = Place(self, key)
        self._quiet.clear()
        self._turns.add(key, place)
        self._call()
        return place

    def left(self, key: str, place: Place, *, had_turn: bool) -> None:
        """See `Place.leave`."""
        if had_turn:
            self._free += 1
        else:
            self._turns.remove(key, place)
        self._call()
        if self._free == self._at_once:
            self._quiet.set()

    def _call(self) -> None:
        while self._free and (place := self._turns.take()) is not None:
            self._free -= 1
            place.call()


class Admission:
    """One for all machines of a host."""

    def __init__(self, room: Room | None, boots: Boots) -> None:
        """`room`: None where nothing is counted."""
        self._room = room
        self._boots = boots
        self._promised = Promises()

    @contextlib.contextmanager
    def admitting(self, machine: Machine, key: str | None) -> Iterator[Place]:
        """A place for a start; in the block it is written down, or else nothing was promised.

        `key` is of whoever asks for the start; None: it is by itself, and waits however long.

        Raises:
            CapacityError: no room, or too many wait.
        """
        need = capacity.need_of(machine.spec)
        if self._room is not None and machine.id not in self._promised:
            short = capacity.shortage(self._room, self._promised, need)
            if short is not None:
                raise CapacityError(short)
        place = self._boots.enter(key or "", bounded=key is not None)
        held = machine.id in self._promised
        self._promised.keep(machine.id, need)
        try:
            yield place
        except BaseException:
            place.leave()
            if not held:
                self._promised.free(machine.id)
            raise

    def note(self, machine: Machine) -> None:
        """What has become of a machine: what it was promised is kept or free."""
        if capacity.holds(machine):
            self._promised.keep(machine.id, capacity.need_of(machine.spec))
        else:
            self._promised.free(machine.id)

    def forget(self, machine_id: str) -> None:
        """The machine is no more."""
        self._promised.free(machine_id)
