"""A data plane's settings, and a server in a machine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hyperfleet.proxy.process import DataPlaneConfig
from support import proxy
from support.data_plane import holders
from support.need import Need
from support.ports import free_port


@pytest.fixture
def config(need: Need, tmp_path: Path) -> Iterator[DataPlaneConfig]:
    made = DataPlaneConfig(
        binary=proxy.binary(need),
        socket=tmp_path / "proxy.sock",
        log=tmp_path / "proxy.log",
        bind="127.0.0.1",
        port=free_port(),
        arguments=(("workers", "2"), ("prefix", "/proxy")),
    )
    yield made
    # What a test that failed left running.
    for pid in holders(made):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    """A server in a machine; its `ADDRESS:PORT`. It answers each request after its first byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(until_end, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
