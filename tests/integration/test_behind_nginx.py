"""docs/how-to/production.md: the API behind nginx, with what has no end and what is large."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from hyperfleet.client import Client, Event, Missed, ProcessStream
from support import proxy
from support.need import Need
from support.nginx import nginx
from support.page import Page
from support.ports import free_port
from support.server import Server
from support.zygote import Zygote

LIMIT = 30
# nginx takes 1 MiB, and keeps it back, unless it is told otherwise.
BIG = os.urandom(5 << 20)


@pytest.fixture
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as running:
        yield running


@pytest.fixture
def url(server: Server, tmp_path: Path, need: Need) -> Iterator[str]:
    """Without TLS, else as the page has it."""
    port = free_port()
    block = Page("docs/how-to/production.md").block_with("proxy_pass", "nginx")
    plain = re.sub(r"^ *ssl_.*\n", "", block, flags=re.MULTILINE)
    assert "listen 443 ssl;" in plain
    filled = plain.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};").replace(
        "http://localhost:3000", server.api_url
    )
    with nginx(need("nginx"), tmp_path, filled, port):
        yield f"http://127.0.0.1:{port}"


def test_the_api_behind_nginx(server: Server, url: str) -> None:
    with Client(url, server.key) as client, ThreadPoolExecutor() as pool:
        machine = client.create_machine(name="web", vcpu_count=1, mem_size_mib=128)
        client.change_machine("web", labels={"a": "b"})
        # It is told when it happens, although the stream has no end: nothing is kept back.
        events = client.follow_events(machine="web", after=_before_all(url, server.key))
        assert [_kind(next(events)) for _ in range(2)] == ["created", "changed"]
        coming = pool.submit(next, events)
        client.start_machine(machine.id)
        assert _kind(coming.result(LIMIT)) == "status"
        client.write_file("web", "/big", BIG)
        assert b"".join(client.read_file("web", "/big")) == BIG
        with ProcessStream(url, server.key, "web", ["cat"]) as process:
            process.write(b"through")
            process.end_input()
            assert b"".join(output.data for output in process) == b"through"


def _before_all(url: str, key: str) -> str:
    """The id of what was before the first event."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("GET", f"{url}/events", headers=headers, timeout=LIMIT) as answer:
        last = next(line for line in answer.iter_lines() if line.startswith("id: "))
    return f"{last.removeprefix('id: ').partition('-')[0]}-0"


def _kind(event: Event | Missed) -> str:
    assert isinstance(event, Event)
    return event.type
