"""Unix sockets in folders of any depth.

A socket's address holds at most 107 bytes of path (unix(7)), a home may lie deeper. The folder is
opened and named through /proc/self/fd, which is short whatever it stands for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, to be handed to a child; replaces what was there.

    The socket takes connections into its backlog from now on, before its owner accepts.

    Raises:
        OSError: the folder is missing or not ours to write.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as address:
            listener.bind(address)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


async def connect(path: Path) -> socket.socket:
    """A connection to the socket at `path`.

    Raises:
        OSError: it is missing, or nobody listens there any more.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        with _short(path) as address:
            # A full backlog is EAGAIN at once for Unix sockets, never a wait: no loop needed.
            await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
