"""A client that sends what it likes, in pieces that the proxy gets one at a time."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from .readers import PATIENCE

_ESTABLISHED = "01"


def exchange(port: int, *pieces: bytes) -> None:
    """Sends the pieces, each when the one before has been read, and reads until the end."""
    # It may be refused before all was sent.
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), PATIENCE) as client,
    ):
        own = client.getsockname()[1]
        for piece in pieces[:-1]:
            client.sendall(piece)
            _until_read(own, port)
        client.sendall(pieces[-1])
        with contextlib.suppress(OSError):  # not connected any more
            client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass


def _until_read(own: int, peer: int) -> None:
    """Waits until `peer` has read what came from `own` (ports), as the kernel tells, or is gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        queues = [
            fields[4].partition(":")[2]
            for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
            if fields[1].endswith(f":{peer:04X}")
            and fields[2].endswith(f":{own:04X}")
            and fields[3] == _ESTABLISHED
        ]
        if not any(int(queue, 16) for queue in queues):
            return
        assert time.monotonic() < deadline, "the proxy does not read"
