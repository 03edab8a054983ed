"""Whether a connection comes out of a machine: user-mode networking lets guests reach loopback.

A guest's connection is made by its machine's process on the host, so the socket at the other end is
one of that process's. Sources: proc(5), /proc/net/tcp and /proc/PID/fd.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Collection
from pathlib import Path

_WORD = 4


def is_machines(peer: tuple[str, int], server: tuple[str, int], pids: Collection[int]) -> bool:
    """Whether the socket bound to `peer` and connected to `server` is held by one of `pids`.

    One that nobody holds any more counts as held: a guest may send a request and drop the
    connection at once, and who asks without waiting for the answer loses nothing.
    """
    if not pids:
        return False
    inode = _inode(peer, server)
    return inode is None or any(_holds(pid, f"socket:[{inode}]") for pid in pids)


def _inode(local: tuple[str, int], remote: tuple[str, int]) -> str | None:
    """The inode of a TCP socket of this host; None when no process holds it."""
    table = Path("/proc/self/net/tcp6" if ":" in local[0] else "/proc/self/net/tcp")
    ends = [_hexadecimal(*local), _hexadecimal(*remote)]
    with table.open(encoding="ascii") as lines:
        for line in lines:
            fields = line.split()
            if fields[1:3] == ends:
                return fields[9] if fields[9] != "0" else None
    return None


def _hexadecimal(address: str, port: int) -> str:
    """As the kernel prints it: each 32-bit word of the address in the host's byte order."""
    packed = ipaddress.ip_address(address).packed
    words = (packed[at : at + _WORD] for at in range(0, len(packed), _WORD))
    return f"{''.join(f'{int.from_bytes(word, sys.byteorder):08X}' for word in words)}:{port:04X}"


def _holds(pid: int, socket: str) -> bool:
    try:
        descriptors = list(os.scandir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return False
    except PermissionError:
        # A machine's, and not to be looked into: nobody is let in for that.
        return True
    for descriptor in descriptors:
        try:
            if Path(descriptor.path).readlink() == Path(socket):
                return True
        except FileNotFoundError:
            continue
    return False
