"""Clients that connect at once to a process that listens with a backlog of 1, as QEMU does."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hyperfleet.vmm import backlog

# Listens at two ports, tells them, accepts nobody, and ends when its standard input does.
LISTENS = """
import socket, sys
kept = [socket.create_server(("127.0.0.1", 0), backlog=1) for _ in range(2)]
print(*(one.getsockname()[1] for one in kept), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[tuple[int, list[int]]]:
    command = [sys.executable, "-c", LISTENS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, [int(port) for port in process.stdout.readline().split()]


async def test_all_clients_are_let_in(listener: tuple[int, list[int]]) -> None:
    pid, (port, other) = listener
    assert backlog.deepen(pid, {port}) == 1
    await asyncio.wait_for(_connect(port, 64), 10)
    # The one that was not named is left as it was: the third client waits.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_connect(other, 3), 0.5)


async def _connect(port: int, clients: int) -> None:
    """Returns when so many are let in together."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(clients):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)


def test_what_is_not_there_is_no_error(listener: tuple[int, list[int]]) -> None:
    pid, _ = listener
    assert backlog.deepen(pid, {1}) == 0
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert backlog.deepen(child.pid, {1}) == 0
