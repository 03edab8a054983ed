"""What a server gets by the options of its port: the same for pages and for WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Origin

from hyperfleet.machine import Machine, PortOptions
from hyperfleet.proxy.process import DataPlaneConfig
from support import plain
from support.data_plane import PATIENCE, WEB, a_machine, opened

SITE = "dev.example.com:4000"
ORIGIN = Origin(f"http://{SITE}")


class Server:
    """Answers pages and WebSockets, and keeps what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        self._asked: asyncio.Queue[Request] = asyncio.Queue()

    def note(self, connection: ServerConnection, request: Request) -> Response | None:
        self._asked.put_nowait(request)
        return None if "Upgrade" in request.headers else connection.respond(200, "page")

    async def asked(self) -> tuple[str, str, str, str | None]:
        """Of the next request: path, Host, X-Forwarded-Host, X-Forwarded-Prefix."""
        request = await asyncio.wait_for(self._asked.get(), PATIENCE)
        headers = request.headers
        assert headers.get("Origin", ORIGIN) == ORIGIN
        prefix = headers.get("X-Forwarded-Prefix")
        return request.path, headers["Host"], headers["X-Forwarded-Host"], prefix


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with serve(echo, "127.0.0.1", 0, process_request=made.note) as serving:
        host, port = next(iter(serving.sockets)).getsockname()
        made.address = f"{host}:{port}"
        yield made


async def test_pages_and_websockets_get_what_the_options_say(
    config: DataPlaneConfig, server: Server
) -> None:
    path = f"/proxy/{WEB}/80/app"
    prefix = f"/proxy/{WEB}/80"

    async def both() -> tuple[tuple[str, str, str, str | None], ...]:
        async with httpx.AsyncClient(verify=plain.NOBODY) as client:
            answer = await client.get(
                f"http://127.0.0.1:{config.port}{path}", headers={"Host": SITE}
            )
        assert (answer.status_code, answer.text) == (200, "page")
        page = await server.asked()
        uri = f"ws://{SITE}{path}"
        async with connect(uri, host="127.0.0.1", port=config.port, origin=ORIGIN) as socket:
            await socket.send("ping")
            assert await socket.recv() == "ping"
        return page, await server.asked()

    def machine(options: PortOptions) -> Machine:
        return a_machine(upstream=server.address, options=(options,))

    async with opened(config, a_machine(upstream=server.address)) as plane:
        assert await both() == (("/app", SITE, SITE, prefix),) * 2
        await plane.publish(machine(PortOptions(port=80, host="localhost:5173")))
        assert await both() == (("/app", "localhost:5173", SITE, prefix),) * 2
        await plane.publish(machine(PortOptions(port=80, strip_prefix=False)))
        assert await both() == ((path, SITE, SITE, None),) * 2
        await plane.publish(machine(PortOptions(port=80, host="localhost", strip_prefix=False)))
        assert await both() == ((path, "localhost", SITE, None),) * 2
