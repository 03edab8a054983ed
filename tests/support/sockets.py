"""What listens, as a network namespace's tables in /proc tell (proc(5), /proc/net/tcp)."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import NamedTuple

_LISTENS = "0A"  # TCP_LISTEN, net/tcp_states.h


class Listening(NamedTuple):
    """A listening TCP socket. `address` is as the table has it, see `shown`."""

    address: str
    port: int
    inode: str


def listening(table: Path) -> list[Listening]:
    """The listening sockets of a table, /proc/PID/net/tcp or tcp6."""
    found = []
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENS:
            address, _, port = fields[1].rpartition(":")
            found.append(Listening(address, int(port, 16), fields[9]))
    return found


def connected(table: Path, address: str, port: int) -> int:
    """How many TCP sockets a table has at an address and port, but those that listen."""
    fields = [line.split() for line in table.read_text().splitlines()[1:]]
    here = f"{shown(address)}:{port:04X}"
    return sum(
        here in (local, remote) and state != _LISTENS for _, local, remote, state, *_ in fields
    )


def shown(address: str) -> str:
    """An IPv4 address as tables show it: as the processor has it in memory."""
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"
