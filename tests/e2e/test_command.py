"""A real machine's own command: what it writes, how it ends, who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from hyperfleet.client import AsyncClient, CommandState, Event
from support import plain
from support.server import Server
from support.zygote import Zygote

pytestmark = pytest.mark.vm

LIMIT_S = 120
SERVE = "echo $WORD > index.html; echo it serves; exec httpd -f -p 80"
# Its page ends the command, by which nothing else is asked of the server.
MORTAL = """
mkdir -p /www/cgi-bin
printf '#!/bin/sh\\nkill -KILL '$$'\\nprintf "Content-Type: text/plain\\n\\ndone"\\n' \
    > /www/cgi-bin/end
chmod +x /www/cgi-bin/end
httpd -p 80 -h /www
sleep 100000
"""


async def test_it_serves_from_the_start_on_and_is_started_again(
    images: Path, zygote: Zygote
) -> None:
    async with _server(images, zygote) as (server, client):
        begin = server.last_event()
        await _create(client, SERVE, cwd="/root", env={"WORD": "hello"}, restart="always")
        await client.start_machine("web")
        await _until(client, begin, _serves)
        assert _page(server) == "hello\n"
        said = ""
        async for piece in client.follow_logs("web"):
            said += piece
            if "it serves" in said:
                break
        await client.exec_in_machine("web", ["killall", "httpd"])
        again = await _until(client, begin, lambda event: _has(event, "running", restarts=1))
        assert again.command == CommandState("running", 143, "TERM", 1)


async def test_its_end_is_known_to_a_server_that_was_not_there(
    images: Path, zygote: Zygote, templates: Path
) -> None:
    async with _server(images, zygote, templates) as (server, client):
        begin = server.last_event()
        await _create(client, MORTAL)
        await client.start_machine("web")
        await _until(client, begin, _serves)
        server.kill()
        assert _page(server, "cgi-bin/end") == "done"
        server.start()
        begin = server.last_event()
        ended = CommandState("exited", 137, "KILL", 0)
        while (machine := await client.get_machine("web")).command != ended:
            await _until(client, begin, lambda event: event.type == "command")
        assert machine.status == "running", "one can look at it"
        assert (await client.stop_machine("web")).command == ended


@asynccontextmanager
async def _server(
    images: Path, zygote: Zygote, templates: Path | None = None
) -> AsyncIterator[tuple[Server, AsyncClient]]:
    with Server(zygote=zygote, images=images, templates=templates) as server:
        async with (
            AsyncClient(server.api_url, server.key) as client,
            asyncio.timeout(LIMIT_S),
        ):
            yield server, client


async def _create(client: AsyncClient, script: str, **fields: object) -> None:
    await client.create_machine(
        name="web",
        vcpu_count=1,
        mem_size_mib=128,
        rootfs_path=".hyperfleet/minimal-rootfs.ext4",
        exposed_ports=[80],
        cmd=["sh", "-c", script],
        **fields,  # type: ignore[arg-type]
    )


def _page(server: Server, path: str = "") -> str:
    answer = plain.get(f"{server.proxy_url}/proxy/web/80/{path}")
    assert answer.status_code == httpx.codes.OK
    return answer.text


def _serves(event: Event) -> bool:
    return event.port is not None and event.port.listening


def _has(event: Event, state: str, restarts: int = 0) -> bool:
    command = event.command
    return command is not None and command.state == state and command.restarts >= restarts


async def _until(client: AsyncClient, after: str, wanted: Callable[[Event], bool]) -> Event:
    """The first event after that one which is so."""
    async for event in client.follow_events(after=after):
        if isinstance(event, Event) and wanted(event):
            return event
    raise AssertionError
