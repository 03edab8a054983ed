"""What the data plane forwards is read alike by servers that have nothing in common.

Whatever a client sends (the table of cases, smuggling and all), a server behind the proxy must see
the very requests that the table names: as many, the same lines, the same bodies.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import h11
import pytest

from support.cases import Forwarded, cases
from support.need import Need
from support.proxy import Proxy, machine
from support.server import free_port

# Seconds; generous, for a loaded machine.
PATIENCE = 30.0


class Reader(Protocol):
    """A server that takes down what it reads."""

    port: int

    def seen(self) -> list[tuple[Forwarded, bool]]:
        """The requests so far, in order, each with whether it has surely come whole."""


class H11Reader(socketserver.ThreadingTCPServer):
    """A server on h11."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _H11Handler)
        self.port: int = self.server_address[1]
        self.requests: list[Forwarded] = []

    def seen(self) -> list[tuple[Forwarded, bool]]:
        return [(request, True) for request in self.requests]


class _H11Handler(socketserver.BaseRequestHandler):
    server: H11Reader

    def handle(self) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        line, body = "", b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return
            if event is h11.NEED_DATA:
                connection.receive_data(self.request.recv(65536))
            elif isinstance(event, h11.Request):
                method, target = event.method.decode(), event.target.decode("latin-1")
                line, body = f"{method} {target} HTTP/{event.http_version.decode()}", b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.server.requests.append(Forwarded(line=line, body=body))
                answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                for part in (answer, h11.EndOfMessage()):
                    self.request.sendall(connection.send(part) or b"")
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            else:
                return


class NginxReader:
    """nginx, whose access log takes down; it reads bodies since it passes them on to itself."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port, behind = free_port(), free_port()
        self._log = folder / "access.log"
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = folder / "nginx.conf"
        configuration.write_text(f"""
            daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
            events {{}}
            http {{
                {temporary}
                log_format seen escape=json
                    '["$request", "$request_body", "$upstream_status"]';
                access_log off;
                client_max_body_size 0; client_body_buffer_size 1m; keepalive_requests 100000;
                large_client_header_buffers 8 64k;
                server {{
                    listen 127.0.0.1:{self.port};
                    access_log {self._log} seen;
                    location / {{ proxy_pass http://127.0.0.1:{behind}; }}
                }}
                server {{ listen 127.0.0.1:{behind}; location / {{ return 200; }} }}
            }}
            """)
        self.process = subprocess.Popen([program, "-c", configuration, "-e", folder / "error.log"])
        deadline = time.monotonic() + PATIENCE
        while not _accepts(self.port):
            assert self.process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline

    def seen(self) -> list[tuple[Forwarded, bool]]:
        entries = map(json.loads, self._log.read_text(encoding="latin-1").splitlines())
        return [
            # What broke off, or what nginx refuses by itself, was passed on to nobody.
            (Forwarded(line=line, body=body.encode("latin-1")), bool(behind))
            for line, body, behind in entries
        ]


@pytest.fixture(params=["h11", "nginx"])
def reader(request: pytest.FixtureRequest, need: Need, tmp_path: Path) -> Iterator[Reader]:
    if request.param == "nginx":
        nginx = NginxReader(need("nginx"), tmp_path)
        yield nginx
        nginx.process.terminate()
        nginx.process.wait(PATIENCE)
        return
    with H11Reader() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(reader: Reader, need: Need, tmp_path: Path) -> Iterator[int]:
    """A data plane alone, its machines those of the table, their upstream the reader; its port."""
    ports = {80: reader.port, 8080: reader.port}
    machines = [
        machine("web", ports, machine_id="abc123def456"),
        machine("my-box", {80: reader.port}, machine_id="stopped00000", status="stopped"),
    ]
    with Proxy(need, tmp_path, machines, ".local.dev") as running:
        yield running.port


def test_every_case_is_read_as_the_table_has_it(reader: Reader, proxy: int) -> None:
    table = [case for case in cases() if case.sent]
    assert len(table) > 200
    done = 0
    for number, case in enumerate(table):
        _send(proxy, case.sent)
        # Once this one is taken down, so is all that came before it.
        last = Forwarded(line=f"GET /last/{number} HTTP/1.1", body=b"")
        _send(proxy, f"GET /proxy/web/80/last/{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        found = _up_to(reader, done, last)
        read = [request for request, whole in found if whole or not case.broken]
        assert read == case.forwarded, f"{case.name}: {case.sent[:200]!r}"
        done += len(found) + 1


def _up_to(reader: Reader, done: int, last: Forwarded) -> list[tuple[Forwarded, bool]]:
    """What came after the first `done` requests and before `last`, which has to come."""
    deadline = time.monotonic() + PATIENCE
    while not (found := reader.seen()[done:]) or found[-1][0] != last:
        assert time.monotonic() < deadline, f"{last} does not come: {found}"
    return found[:-1]


def _send(port: int, data: bytes) -> None:
    """Sends, and reads until the end."""
    # It may be refused before all was sent.
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), PATIENCE) as client,
    ):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass


def _accepts(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
