"""The ports that the server needs, taken before anything else is touched."""

from __future__ import annotations

import socket

from hyperfleet.errors import SettingsError

_BACKLOG = 2048


def listen(name: str, address: str, port: int) -> socket.socket:
    """A socket that listens there; `name` is the setting that gives the port.

    Raises:
        SettingsError: the port is taken, or this address is none of this host's.
    """
    listener = _bind(name, address, port)
    # Connections inherit it (tcp(7)). Else the second write of an answer, its body, waits for the
    # client's delayed acknowledgement of the first: 40 ms for each request on a kept connection.
    # asyncio sets it only for sockets whose protocol is named.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def free_port(name: str, address: str) -> int:
    """A port that is free there now: what 0 stands for, for a process that has yet to start."""
    with _bind(name, address, 0) as trial:
        port: int = trial.getsockname()[1]
        return port


def _bind(name: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the last server's connections to time out (tcp(7)).
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise SettingsError(
            f"{name} {port} on {address} can't be used: {error.strerror}; "
            f"stop what holds it, or set {name} to a free port"
        ) from error
    return bound
