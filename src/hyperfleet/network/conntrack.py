"""The connections of guests that the kernel tracks. All calls block.

Source: the kernel's ctnetlink, by pyroute2. An entry is found by its first packet: who sent it, to
whom.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from hyperfleet.errors import GuestError
from hyperfleet.network import netlink


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A connection, as its first packet had it; `port` is the receiver's."""

    source: str
    destination: str
    protocol: int
    port: int | None


def cut(address: str, unwanted: Callable[[Flow], bool] = lambda _flow: True) -> int:
    """Forgets connections that `address` began or was the aim of; how many.

    What is still sent on one is then a new connection, for the rules to decide on.

    Raises:
        GuestError: the kernel would not.
    """
    count = 0
    try:
        with netlink.tracking() as table:
            for entry, flow in [*_of(table)]:
                if address in (flow.source, flow.destination) and unwanted(flow):
                    count += _forget(table, entry)
    except OSError as error:
        raise GuestError(f"tracked connections can't be cut: {error}") from error
    return count


def spoken_to(addresses: Collection[str]) -> set[str]:
    """Those of the addresses that a tracked connection is from or to.

    Raises:
        GuestError: the kernel would not say.
    """
    wanted, found = set(addresses), set[str]()
    try:
        with netlink.tracking() as table:
            for _, flow in _of(table):
                found |= wanted & {flow.source, flow.destination}
    except OSError as error:
        raise GuestError(f"tracked connections can't be read: {error}") from error
    return found


def _of(table: Any) -> Iterator[tuple[Any, Flow]]:
    # As late as `netlink` loads the rest of it.
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple  # noqa: PLC0415

    for message in table.dump():
        first = message.get_attr("CTA_TUPLE_ORIG")
        entry = NFCTAttrTuple.from_netlink(socket.AF_INET, first)
        yield (
            entry,
            Flow(
                source=entry.saddr,
                destination=entry.daddr,
                protocol=entry.proto,
                port=getattr(entry, "dport", None),
            ),
        )


def _forget(table: Any, entry: Any) -> int:
    try:
        with netlink.refusals():
            table.entry("del", tuple_orig=entry)
    except OSError as error:
        # It ended meanwhile.
        if error.errno != errno.ENOENT:
            raise
        return 0
    return 1
