"""Whose turn is next: one queue for each key, and the keys take turns. Pure, no I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Tickets that wait; one key's many do not hold up another's few."""

    def __init__(self) -> None:
        # Keys that have tickets, the next one first; each with its tickets, the oldest first.
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, key: str, ticket: T) -> None:
        """A ticket of `key`'s, after those that it has."""
        self._waiting.setdefault(key, deque()).append(ticket)
        self._length += 1

    def remove(self, key: str, ticket: T) -> None:
        """It does not wait any more; no error when it does not."""
        tickets = self._waiting.get(key)
        if tickets is not None and ticket in tickets:
            tickets.remove(ticket)
            self._length -= 1
            if not tickets:
                del self._waiting[key]

    def take(self) -> T | None:
        """The next ticket, which waits no more; None when none waits."""
        if not self._waiting:
            return None
        key, tickets = self._waiting.popitem(last=False)
        ticket = tickets.popleft()
        self._length -= 1
        if tickets:
            # Behind all others.
            self._waiting[key] = tickets
        return ticket
