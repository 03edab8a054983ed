"""Room for connections that wait at the ports another process listens on.

QEMU's user-mode network listens with a backlog of 1 (libslirp, `tcpx_listen`): of a few clients
that connect at once the kernel lets two in, the others try again after a second. A socket's backlog
can be raised by whoever holds a copy of it, and pidfd_getfd(2) gives one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
from collections.abc import Collection
from pathlib import Path

_log = logging.getLogger(__name__)

# The same on every architecture (pidfd_getfd(2), Linux 5.6).
_SYS_PIDFD_GETFD = 438
# As many as the kernel lets any server have by default (net.core.somaxconn).
_BACKLOG = 4096

_libc = ctypes.CDLL(None, use_errno=True)


def deepen(pid: int, ports: Collection[int]) -> int:
    """Gives each TCP socket on which process `pid` listens at one of `ports` a deep backlog.

    Returns how many there were. 0 where the host does not let us (it needs what a debugger
    needs, ptrace(2)): everything works then, but bursts of connections are slow.
    """
    deepened = 0
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        for number in _sockets_of(pid):
            with contextlib.suppress(OSError), _copy(pidfd, number) as copy:
                if _listens_at(copy, ports):
                    copy.listen(_BACKLOG)
                    deepened += 1
    except OSError as error:
        _log.debug("process %d keeps its sockets to itself: %s", pid, error)
    finally:
        os.close(pidfd)
    return deepened


def _sockets_of(pid: int) -> list[int]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # One may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if str(entry.readlink()).startswith("socket:"):
                found.append(int(entry.name))
    return found


def _copy(pidfd: int, number: int) -> socket.socket:
    copied = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if copied < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return socket.socket(fileno=copied)


def _listens_at(candidate: socket.socket, ports: Collection[int]) -> bool:
    return (
        candidate.family == socket.AF_INET
        and candidate.type == socket.SOCK_STREAM
        and bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and candidate.getsockname()[1] in ports
    )
