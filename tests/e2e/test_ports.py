"""Servers of a real machine that begin to listen and end, while nobody asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hyperfleet.client import AsyncClient, Event, Missed
from support import plain
from support.server import Server
from support.zygote import Zygote

pytestmark = pytest.mark.vm

LIMIT_S = 120
# Polls that find nothing in time.
NEVER_MS = 3_600_000
# A web server whose pages begin another one, and end it: no exec, after which ports are looked at.
SERVE = """
mkdir -p /www/cgi-bin && cd /www/cgi-bin
cat > begin <<'END'
#!/bin/sh
httpd -p $QUERY_STRING:8080 -h /www
printf 'Content-Type: text/plain\\n\\ndone\\n'
END
cat > end <<'END'
#!/bin/sh
kill $(ps | awk '/[h]ttpd -p .*:8080/ { print $1 }')
printf 'Content-Type: text/plain\\n\\ndone\\n'
END
chmod +x begin end && httpd -p 80 -h /www
"""


async def test_servers_are_known_at_their_machines_word(images: Path, zygote: Zygote) -> None:
    with Server(
        zygote=zygote, images=images, PROXY_EXPOSED_PORT_POLL_INTERVAL_MS=str(NEVER_MS)
    ) as server:
        server.create(
            "web",
            rootfs_path=".hyperfleet/minimal-rootfs.ext4",
            vcpu_count=2,
            exposed_ports=[80, 8080],
        )
        server.start_machine("web")
        async with AsyncClient(server.api_url, server.key) as client, asyncio.timeout(LIMIT_S):
            told = client.follow_events(machine="web", after=server.last_event())
            server.sh("web", SERVE)
            for address in ("0.0.0.0", "127.0.0.1"):
                _ask(server, f"begin?{address}")
                assert await _next(told) == address
                _is_reached(server)
                _ask(server, "end")
                assert await _next(told) is None
            # The next control plane is told as well, of what happens meanwhile too.
            _ask(server, "begin?0.0.0.0")
            assert await _next(told) == "0.0.0.0"
            server.kill()
            _ask(server, "end")
            server.start()
            _ask(server, "begin?127.0.0.1")
            await _until(told, "127.0.0.1")


def _ask(server: Server, page: str) -> None:
    assert plain.get(f"{server.proxy_url}/proxy/web/80/cgi-bin/{page}").text == "done\n"


def _is_reached(server: Server) -> None:
    answer = plain.get(f"{server.proxy_url}/proxy/web/8080/nothing")
    # The server's own answer: it has no such page.
    assert answer.status_code == httpx.codes.NOT_FOUND


async def _next(told: AsyncIterator[Event | Missed]) -> str | None:
    """Where the other server listens since the next event of it."""
    async for event in told:
        if isinstance(event, Event) and event.port is not None and event.port.port == 8080:
            return event.port.address
    raise AssertionError


async def _until(told: AsyncIterator[Event | Missed], address: str) -> None:
    while await _next(told) != address:
        pass
