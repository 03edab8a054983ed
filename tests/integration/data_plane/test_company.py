"""The supervision against the real data plane, among strangers: taken ports, garbage, silence."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import pytest

from hyperfleet import unix_sockets
from hyperfleet.errors import SettingsError
from hyperfleet.lifecycle import Status
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.process import DataPlaneConfig
from support.data_plane import (
    OK,
    STOPPED,
    a_machine,
    alive,
    nobody_asks,
    opened,
    page,
    until,
)

# A supervision that lets its data plane serve on leaves a child behind, as its own end would.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


async def test_a_port_that_somebody_else_holds(config: DataPlaneConfig, upstream: str) -> None:
    with socket.create_server(("127.0.0.1", config.port)):
        plane = DataPlane(config, nobody_asks)
        with pytest.raises(SettingsError, match=f"PROXY_PORT {config.port}"):
            await plane.check()
        with pytest.raises(SettingsError, match=f"PROXY_PORT {config.port}"):
            await plane.open()
        await plane.close(keep_running=False)
    async with opened(config, a_machine(upstream=upstream)) as plane:
        await plane.check()
        pid = plane.pid
        assert pid is not None
        # Taken while the data plane is dead: it comes back when the port does.
        os.kill(pid, signal.SIGSTOP)
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: _bound(holder, config.port))
        holder.listen()
        await until(lambda: plane.pid != pid)
        holder.close()
        await until(lambda: plane.pid not in (None, pid))
        await plane.publish(a_machine("b" * 12))
        assert await page(config) == OK


def _bound(holder: socket.socket, port: int) -> bool:
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


async def test_garbage_on_the_control_socket_costs_nothing(
    config: DataPlaneConfig, upstream: str
) -> None:
    async with opened(config, a_machine(upstream=upstream)) as plane:
        pid = plane.pid
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x00\x00\x00\x05hello", b""):
            with await unix_sockets.connect(config.socket) as connection:
                await asyncio.get_running_loop().sock_sendall(connection, garbage)
        assert await page(config) == OK
        await plane.publish(a_machine(status=Status.STOPPED))
        assert await page(config) == STOPPED
        assert plane.pid == pid


async def test_what_holds_the_socket_and_is_no_data_plane_is_left_alone(
    config: DataPlaneConfig,
) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('proxy.sock'); s.listen();"
        "print('listens', flush=True)\nwhile True: s.accept()[0].sendall(b'x' * 100)"
    )
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=config.socket.parent, stdout=asyncio.subprocess.PIPE
    )
    assert stranger.stdout is not None
    assert await stranger.stdout.readline() == b"listens\n"
    plane = DataPlane(config, nobody_asks)
    with pytest.raises(SettingsError, match=f"{config.socket} is held by process {stranger.pid}"):
        await plane.open()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()
    async with opened(config):
        assert (await page(config))[0] == 404


async def test_a_data_plane_that_does_not_answer_is_replaced(config: DataPlaneConfig) -> None:
    first = DataPlane(config, nobody_asks)
    await first.open()
    old = first.pid
    assert old is not None
    await first.close(keep_running=True)
    os.kill(old, signal.SIGSTOP)
    async with opened(config) as second:
        assert second.pid != old
        assert not alive(old)
        assert (await page(config))[0] == 404
