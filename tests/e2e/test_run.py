"""`hyperfleet run` with a real machine: from nothing to a URL, and back to nothing."""

from __future__ import annotations

import signal
import subprocess

import pytest

from support import plain
from support.server import END, Server

pytestmark = pytest.mark.vm

DISK = ".hyperfleet/minimal-rootfs.ext4"
SERVES = "echo up; echo hi > /index.html; exec httpd -f -v -p 127.0.0.1:80 -h /"


def test_from_nothing_to_a_url_and_back(server: Server) -> None:
    command = ["run", "-p", "80", "-m", "112", "--rootfs", DISK, "--", "sh", "-c", SERVES]
    with server.popen(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        try:
            assert running.stdout.readline() == b"up\n"
            words = "hyperfleet: port 80 is served at "
            while not (line := running.stderr.readline().decode()).startswith(words):
                assert line, "it ended"
            url = line.removeprefix(words).strip()
            # `.local.dev` is nobody's to resolve here.
            host = url.removeprefix("http://").split(":")[0]
            page = plain.get(server.proxy_url, headers={"Host": host})
            assert (page.status_code, page.text) == (200, "hi\n")
            running.send_signal(signal.SIGINT)
            assert running.wait(END) == 128 + signal.SIGINT
        finally:
            running.kill()
    assert server.api.get("/machines").json()["total"] == 0
    assert server.machine_processes() == []
