"""The blocks of four addresses that machines get out of a subnet. Holds who has which; no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

# Network, host, guest, broadcast.
_SIZE = 4
# How long an address is nobody's at least, once its machine is gone: as long as a closed TCP
# connection may have segments on their way (RFC 9293, 3.4.1: twice the segment's lifetime).
REST = timedelta(minutes=4)


class Blocks:
    """Each taken by a machine, resting since one was deleted, or free.

    Those that were never used come first, then those that have been free for longest. Blocks of
    another subnet, which a setting meant before, are their machines' and come back to nobody.
    """

    def __init__(self, subnet: IPv4Network) -> None:
        self._first = int(subnet.network_address)
        self._count = subnet.num_addresses // _SIZE
        self._taken: set[int] = set()
        self._resting: dict[int, datetime] = {}
        self._fresh = 0
        self._free: deque[int] = deque()

    def load(self, taken: Iterable[str], resting: Iterable[tuple[str, datetime]]) -> None:
        """Begins with what the record says: guests' addresses, and since when some rest."""
        self._taken = {block for one in taken if (block := self._block(one)) is not None}
        self._resting = {
            block: since for one, since in resting if (block := self._block(one)) is not None
        }
        known = self._taken | self._resting.keys()
        self._fresh = max(known, default=-1) + 1
        self._free = deque(block for block in range(self._fresh) if block not in known)

    def take(self) -> tuple[str, str] | None:
        """A block's host and guest address; None: all are taken or resting."""
        if self._fresh < self._count:
            block = self._fresh
            self._fresh += 1
        elif self._free:
            block = self._free.popleft()
        else:
            return None
        self._taken.add(block)
        base = IPv4Address(self._first + block * _SIZE)
        return str(base + 1), str(base + 2)

    def untake(self, guest_ip: str) -> None:
        """It was never used."""
        block = self._block(guest_ip)
        if block in self._taken:
            self._taken.discard(block)
            self._free.append(block)

    def rest(self, guest_ip: str, since: datetime) -> None:
        """Its machine is gone."""
        block = self._block(guest_ip)
        if block is not None:
            self._taken.discard(block)
            self._resting[block] = since

    def rested(self, now: datetime) -> list[str]:
        """The guest addresses that have rested for long enough, by time alone."""
        return [
            str(IPv4Address(self._first + block * _SIZE + 2))
            for block, since in self._resting.items()
            if now - since >= REST
        ]

    def free(self, guest_ips: Iterable[str]) -> None:
        """They may be taken again."""
        for guest_ip in guest_ips:
            block = self._block(guest_ip)
            if block is not None and self._resting.pop(block, None) is not None:
                self._free.append(block)

    def counts(self) -> tuple[int, int, int]:
        """How many are taken, are resting, and there are."""
        return len(self._taken), len(self._resting), self._count

    def _block(self, guest_ip: str) -> int | None:
        block = (int(IPv4Address(guest_ip)) - self._first) // _SIZE
        return block if 0 <= block < self._count else None


def overlapping(
    subnet: IPv4Network, routes: Iterable[tuple[str, str]], own: Collection[str]
) -> tuple[str, str] | None:
    """The first of the host's routes (network, interface) that a machine's address could lie in.

    Routes by interfaces of our `own` are passed over.
    """
    for network, interface in routes:
        if interface not in own and IPv4Network(network).overlaps(subnet):
            return network, interface
    return None
