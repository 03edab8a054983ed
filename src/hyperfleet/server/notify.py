"""Tells a service manager where the server stands (sd_notify(3)): one datagram for each word."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"


def tell(word: str, environment: Mapping[str, str] = os.environ) -> None:
    """Sends `word` to the socket that NOTIFY_SOCKET names, if there is one.

    A manager that does not listen is no reason to stop serving.
    """
    name = environment.get("NOTIFY_SOCKET", "")
    # Abstract sockets begin with @ there, with NUL for the kernel (unix(7)).
    if not name.startswith(("/", "@")):
        return
    address = f"\0{name[1:]}" if name.startswith("@") else name
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.sendto(word.encode(), address)
