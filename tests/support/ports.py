"""Numbers of ports for what has to be told its own in advance, each given to one process alone.

To bind port 0, look, and let go is a race: until the program that is told the number binds it, the
kernel may give it to anybody's connection, and another run of the tests to one of its servers. So
these lie outside of what the kernel gives by itself (ip(7), ip_local_port_range), and a process
keeps a block of them for as long as it lives, by a name of an abstract Unix socket (unix(7)): such
names are a network namespace's own, as ports are, and go with their holder, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

# Below are numbers of well-known services, and those that browsers refuse (fetch, "bad port").
_LOWEST = 11_000
_END = 65_536
_BLOCK = 100

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_lock = threading.Lock()


def free_port() -> int:
    """A TCP port that nobody has, on no address of this host, and that is given to nobody else.

    Where the kernel's own leave too few, others are taken, which only tests are kept from.
    """
    with _lock:
        return next(_ports)


def keep(port: int) -> bool:
    """Takes a port of one's own choice for this process, if nobody has it; whether it did."""
    with _lock:
        return _keep(str(port)) and _is_free(port)


def _all() -> Iterator[int]:
    """Every port that this process can have, a block of neighbours at a time."""
    low, high = map(int, RANGE.read_text().split())
    firsts = list(range(_LOWEST, _END - _BLOCK + 1, _BLOCK))
    random.shuffle(firsts)
    # Those outside of the kernel's range first.
    firsts.sort(key=lambda first: low < first + _BLOCK and first <= high)
    for first in firsts:
        if _keep(f"{first}-"):
            yield from (port for port in range(first, first + _BLOCK) if _is_free(port))
    raise AssertionError("all ports are held by other tests")


_ports = _all()


def _keep(name: str) -> bool:
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0hyperfleet-tests-port-{name}")
    except OSError:
        holder.close()
        return False
    # Its descriptor is closed by the end of the process, which gives the name back.
    holder.detach()
    return True


def _is_free(port: int) -> bool:
    """Connections of the past that still wait do not count, as they don't to servers."""
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        # A host without IPv6 refuses the socket or the address: nobody has the port there.
        with contextlib.suppress(OSError), socket.socket(family) as trial:
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((anywhere, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
                raise
    return True
