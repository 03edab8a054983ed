"""A machine that is to answer only begins no connection; keys of the API are not lent to guests."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hyperfleet.network import gate, user
from support import plain
from support.server import Server
from support.zygote import Zygote

SERVE = "mkdir -p /www; echo hello > /www/index.html; httpd -h /www"


def test_a_restricted_guest_serves_and_reaches_nothing(
    images: Path, templates: Path, zygote: Zygote
) -> None:
    with (
        Server(
            zygote=zygote, images=images, templates=templates, HYPERFLEET_NETWORK_RESTRICT="true"
        ) as server,
        socket.create_server(("127.0.0.1", 0)) as local,
    ):
        local.setblocking(False)
        server.create("web", exposed_ports=[80])
        server.start_machine("web")
        for address in (user.GATEWAY, gate.GATEWAY, "127.0.0.1"):
            port = local.getsockname()[1]
            said = server.exec("web", "timeout", "5", "nc", address, str(port))
            assert said["exit_code"] != 0
            assert said["stdout"] == ""
        with pytest.raises(BlockingIOError):
            local.accept()
        server.sh("web", SERVE)
        assert plain.get(f"{server.proxy_url}/proxy/web/80/").text == "hello\n"
        server.run("down")
