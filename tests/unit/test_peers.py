"""Whose socket is at the other end of a connection: real processes, real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hyperfleet.api import peers

# Connects to the address and port in its arguments; ends with its standard input.
CLIENT = (
    "import socket, sys; c = socket.create_connection((sys.argv[1], int(sys.argv[2]))); "
    "c.sendall(b'x'); sys.stdin.read()"
)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if request.param == "::1" else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as made:
        made.settimeout(30)
        yield made


def ends(connection: socket.socket) -> tuple[Any, Any]:
    """The peer's address and port, and ours, as a server is told them."""
    return connection.getpeername()[:2], connection.getsockname()[:2]


def test_a_connection_of_a_machines_process(listener: socket.socket) -> None:
    address, port = listener.getsockname()[:2]
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, address, str(port)], stdin=subprocess.PIPE
    ) as client:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1) == b"x"
            peer, here = ends(connection)
            assert peers.is_machines(peer, here, [os.getpid(), client.pid])
            assert not peers.is_machines(peer, here, [os.getpid()])
            assert not peers.is_machines(peer, here, [])
            client.communicate()
            # Nobody's any more; who sent it is not known.
            assert connection.recv(1) == b""
            assert peers.is_machines(peer, here, [os.getpid()])


def test_a_process_that_has_ended_holds_nothing(listener: socket.socket) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with socket.create_connection(listener.getsockname()[:2]):
        connection, _ = listener.accept()
        with connection:
            assert not peers.is_machines(*ends(connection), [gone.pid])
