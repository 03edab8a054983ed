"""What a guest reaches of the host's loopback: not the API, and nothing at all when restricted."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from support.server import Server

# From inside, the host's loopback is 10.0.2.2. busybox's nc ends with its input, hence the sleep.
ASK = (
    "(printf 'GET /machines HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n';"
    " sleep 5) | nc 10.0.2.2 {port}; true"
)
SERVE = "mkdir -p /www; echo hello > /www/index.html; httpd -h /www"


def test_without_keys_a_guest_is_not_let_in(images: Path) -> None:
    with Server(images=images, DISABLE_AUTH="true") as server:
        # The first key's file is not there: the client asks without one.
        (server.home / "api-key").write_text("none")
        server.create("web")
        server.start_machine("web")
        answer = server.sh("web", ASK.format(port=server.api_port))
        assert answer.startswith("HTTP/1.1 403 ")
        assert "requests from inside machines are refused" in answer
        assert httpx.get(f"{server.api_url}/machines").json()["total"] == 1
        server.run("down")


def test_a_restricted_guest_serves_and_reaches_nothing(images: Path) -> None:
    with (
        Server(images=images, HYPERFLEET_NETWORK_RESTRICT="true") as server,
        socket.create_server(("127.0.0.1", 0)) as local,
    ):
        local.setblocking(False)
        server.create("web", exposed_ports=[80])
        server.start_machine("web")
        said = server.exec("web", "sh", "-c", ASK.format(port=local.getsockname()[1]))
        assert "can't connect" in said["stderr"]
        with pytest.raises(BlockingIOError):
            local.accept()
        server.sh("web", SERVE)
        assert httpx.get(f"{server.proxy_url}/proxy/web/80/").text == "hello\n"
        server.run("down")
