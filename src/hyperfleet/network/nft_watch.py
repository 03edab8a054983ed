"""Hears of tables of nftables that are removed, whoever does it.

A firewall that is loaded anew often begins with `flush ruleset`, which takes everybody's rules.
Source: the kernel's nfnetlink.h and nf_tables.h (multicast group NFNLGRP_NFTABLES), netlink(7).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator

_NETLINK_NETFILTER = 12
_GROUP = 7
_SUBSYSTEM_NFTABLES = 10
_DELTABLE = 2
_HEADER = struct.Struct("=IHHII")
_READ_BYTES = 1 << 16


class Watch:
    """While it is open, `on_loss` is called when a table may have been removed."""

    def __init__(self, on_loss: Callable[[], None]) -> None:
        """Begins. Raises OSError where the kernel has no nftables."""
        self._on_loss = on_loss
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        try:
            self._socket.bind((0, 1 << (_GROUP - 1)))
        except BaseException:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Ends it."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        lost = False
        while True:
            try:
                messages = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                # More was said than was read in time, so it may have been among it.
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            lost = lost or (_SUBSYSTEM_NFTABLES << 8 | _DELTABLE) in set(kinds(messages))
        if lost:
            self._on_loss()


def kinds(messages: bytes) -> Iterator[int]:
    """The types of netlink messages that follow each other; what is cut off is left out."""
    at = 0
    while at + _HEADER.size <= len(messages):
        length, kind, *_ = _HEADER.unpack_from(messages, at)
        if length < _HEADER.size:
            return
        yield kind
        at += (length + 3) & ~3
