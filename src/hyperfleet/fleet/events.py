"""What has happened to machines, in order: kept for a while, and told to whoever follows.

Followers share what is kept and hold a place in it, so a slow one costs nothing; one that is
overtaken is told that it has missed something.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from hyperfleet.errors import CapacityError, ValidationError
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    Cause,
    CommandState,
    Event,
    EventKind,
    ExposedPort,
    Machine,
    MachineSpec,
)

# Events that are kept: a few MiB.
KEPT = 10_000
_MOST_FOLLOWERS = 256
# At once to one follower: between two portions others have their turn.
_PORTION = 100


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What comes next for a follower; `missed`: what came before it is not kept any more."""

    events: tuple[Event, ...]
    missed: bool = False


class Events:
    """Of one control plane. Its ids are its own: another one's are known to be another's."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._epoch = secrets.token_hex(4)
        # By number; the numbers have no gaps.
        self._events: dict[int, Event] = {}
        self._last = 0
        self._followers: set[Follower] = set()

    def add(
        self,
        kind: EventKind,
        machine: Machine,
        cause: Cause,
        at: datetime,
        *,
        before: Status | None = None,
        port: ExposedPort | None = None,
        fields: tuple[str, ...] = (),
        command: CommandState | None = None,
    ) -> None:
        """Something has happened to `machine`, which is as it is now."""
        self._last += 1
        failed = kind is EventKind.STATUS and machine.status is Status.FAILED
        message = machine.error_message if failed else None
        if kind is EventKind.FAULT:
            message = machine.guest_fault
        elif kind is EventKind.STALLED:
            message = machine.stalled
        self._events[self._last] = Event(
            id=self.id_of(self._last),
            kind=kind,
            at=at,
            cause=cause,
            machine_id=machine.id,
            machine_name=machine.spec.name,
            status=machine.status,
            before=before,
            message=message,
            port=port,
            fields=fields,
            command=command,
        )
        self._events.pop(self._last - self._kept, None)
        for follower in self._followers:
            follower.wake()

    def changed(self, before: Machine, after: Machine, cause: Cause, at: datetime) -> None:
        """A machine is not as it was: an event for each thing that people ask about."""
        if after.spec != before.spec:
            fields = _differing(before.spec, after.spec)
            self.add(EventKind.CHANGED, after, cause, at, fields=fields)
        if after.status is not before.status:
            self.add(EventKind.STATUS, after, cause, at, before=before.status)
        known = {port.port: port for port in before.ports}
        for port in after.ports:
            was = known.get(port.port, ExposedPort(port=port.port))
            if (port.listening, port.address) != (was.listening, was.address):
                self.add(EventKind.PORT, after, cause, at, port=port)
        if after.guest_fault is not None and after.guest_fault != before.guest_fault:
            self.add(EventKind.FAULT, after, cause, at)
        if after.command is not None and after.command != before.command:
            self.add(EventKind.COMMAND, after, cause, at, command=after.command)
        # Of one that does not run any more its status says more.
        if after.status is Status.RUNNING and after.stalled != before.stalled:
            self.add(EventKind.STALLED, after, cause, at)

    @contextmanager
    def following(self, after: str | None, machine_id: str | None) -> Iterator[Follower]:
        """Hears what comes after the event of that id (None: from now on), of one machine or all.

        Raises:
            ValidationError: it is no id of an event.
            CapacityError: too many listen.
        """
        place, missed = self._place(after)
        if len(self._followers) >= _MOST_FOLLOWERS:
            raise CapacityError(f"{_MOST_FOLLOWERS} clients follow events already; try again later")
        follower = Follower(self, place, missed=missed, machine_id=machine_id)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def between(self, place: int, most: int) -> tuple[Event, ...]:
        """Up to `most` events from the first after `place` on."""
        end = min(self._last, place + most)
        return tuple(self._events[number] for number in range(place + 1, end + 1))

    @property
    def oldest_place(self) -> int:
        """The place before the oldest event that is kept."""
        return max(0, self._last - self._kept)

    def id_of(self, number: int) -> str:
        """The id of an event; of 0: of what was before the first."""
        return f"{self._epoch}-{number}"

    def _place(self, after: str | None) -> tuple[int, bool]:
        if after is None:
            return self._last, False
        epoch, dash, number = after.partition("-")
        if not (dash and epoch and number.isascii() and number.isdigit()) or len(after) > 40:  # noqa: PLR2004
            raise ValidationError("Last-Event-ID must be the id of an event, as it was told")
        place = int(number)
        if epoch != self._epoch or place > self._last:
            # Another control plane's: what was between is not known here.
            return self.oldest_place, True
        return place, False


class Follower:
    """A place in what has happened. Made by `Events.following`."""

    def __init__(self, events: Events, place: int, *, missed: bool, machine_id: str | None) -> None:
        """For `Events.following` alone."""
        self._events = events
        self._place = place
        self._missed = missed
        self._machine_id = machine_id
        self._news = asyncio.Event()

    @property
    def id(self) -> str:
        """Of the last event that it was given, or that it passed over."""
        return self._events.id_of(self._place)

    def wake(self) -> None:
        """There is something new."""
        self._news.set()

    async def next(self, timeout: float) -> Batch | None:  # noqa: ASYNC109
        """What comes next; None when nothing of it came within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while (batch := self._take()) is None:
                    await self._news.wait()
                return batch
        except TimeoutError:
            return None

    def _take(self) -> Batch | None:
        """The next events that are for it, or None when it has passed all."""
        self._news.clear()
        missed, self._missed = self._missed, False
        if self._place < self._events.oldest_place:
            self._place, missed = self._events.oldest_place, True
        while events := self._events.between(self._place, _PORTION):
            self._place += len(events)
            mine = tuple(event for event in events if self._machine_id in (None, event.machine_id))
            if mine or missed:
                return Batch(events=mine, missed=missed)
        return Batch(events=(), missed=True) if missed else None


def _differing(before: MachineSpec, after: MachineSpec) -> tuple[str, ...]:
    return tuple(
        name
        for name in MachineSpec.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    )
