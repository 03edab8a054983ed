"""Three servers that have no line of code in common, each taking down what it reads."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import h11
import msgspec

from support.cases import Forwarded
from support.need import Need
from support.ports import free_port

# Seconds; generous, for a loaded machine.
PATIENCE = 30.0
SCRIPT = Path(__file__).with_name("reader.js")


class Read(msgspec.Struct, frozen=True):
    """A request as a server reads it; `whole`: surely to its end."""

    request: Forwarded
    whole: bool


class Reader(Protocol):
    """A server that takes down what it reads; a context for as long as it runs."""

    name: str
    port: int
    shows_trailers: bool

    def seen(self, since: int) -> Sequence[Read]:
        """The requests from number `since` on, in order."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def up_to(reader: Reader, since: int, last: str) -> list[Read]:
    """What came from number `since` on and before the request line `last`, which has to come."""
    deadline = time.monotonic() + PATIENCE
    while not (found := reader.seen(since)) or found[-1].request.line != last:
        assert time.monotonic() < deadline, f"{reader.name}: {last} does not come: {found}"
        time.sleep(0)
    return list(found[:-1])


class H11Reader(socketserver.ThreadingTCPServer):
    """A server on h11."""

    name = "h11"
    shows_trailers = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _H11Handler)
        self.port: int = self.server_address[1]
        self.requests: list[Read] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def seen(self, since: int) -> Sequence[Read]:
        return self.requests[since:]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _H11Handler(socketserver.BaseRequestHandler):
    server: H11Reader

    def handle(self) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        request: h11.Request | None = None
        body = b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return
            if event is h11.NEED_DATA:
                connection.receive_data(self.request.recv(65536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                self.server.requests.append(Read(_of_h11(request, body, event), whole=True))
                answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                for part in (answer, h11.EndOfMessage()):
                    self.request.sendall(connection.send(part) or b"")
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            else:
                return


def _of_h11(request: h11.Request, body: bytes, end: h11.EndOfMessage) -> Forwarded:
    fields: dict[str, list[str]] = {}
    for name, value in request.headers:
        fields.setdefault(name.decode(), []).append(value.decode("latin-1"))
    line = b" ".join([request.method, request.target, b"HTTP/" + request.http_version])
    return Forwarded(
        line=line.decode("latin-1"),
        host=",".join(fields["host"]),
        length=_one(fields.get("content-length")),
        coding=_one(fields.get("transfer-encoding")),
        body=body,
        trailers=tuple((name.decode(), value.decode("latin-1")) for name, value in end.headers),
    )


def _one(values: list[str] | None) -> str | None:
    return None if values is None else ",".join(values)


class NodeReader:
    """Node's http module (llhttp)."""

    name = "node"
    shows_trailers = True

    def __init__(self, program: str) -> None:
        self._program = program
        self.port = 0
        self._requests: list[Read] = []

    def seen(self, since: int) -> Sequence[Read]:
        return self._requests[since:]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._program, SCRIPT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            told = json.loads(line)
            trailers = iter(told["trailers"])
            request = Forwarded(
                line=told["line"],
                host=told["host"],
                length=told["length"],
                coding=told["coding"],
                body=base64.b64decode(told["body"]),
                trailers=tuple((name.lower(), next(trailers)) for name in trailers),
            )
            self._requests.append(Read(request, whole=True))

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()
            self._thread.join()


class NginxReader:
    """nginx, whose access log takes down; it reads bodies since it passes them on to itself."""

    name = "nginx"
    shows_trailers = False

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.port, self._behind = free_port(), free_port()
        self._log = folder / "access.log"
        self._read = 0
        self._requests: list[Read] = []

    def __enter__(self) -> Self:
        folder = self._folder
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
                log_format seen escape=json '["$request", "$http_host", "$http_content_length",'
                    ' "$http_transfer_encoding", "$request_body", "$upstream_status"]';
                access_log off;
                client_max_body_size 0; client_body_buffer_size 1m; keepalive_requests 100000;
                large_client_header_buffers 8 64k;
                server {{
                    listen 127.0.0.1:{self.port};
                    access_log {self._log} seen;
                    location / {{ proxy_pass http://127.0.0.1:{self._behind}; }}
                }}
                server {{ listen 127.0.0.1:{self._behind}; location / {{ return 200; }} }}
            }}
            """)
        self._process = subprocess.Popen(
            [self._program, "-c", configuration, "-e", folder / "error.log"]
        )
        deadline = time.monotonic() + PATIENCE
        while not _accepts(self.port):
            assert self._process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.terminate()
            self._process.wait(PATIENCE)

    def seen(self, since: int) -> Sequence[Read]:
        with self._log.open("rb") as log:
            log.seek(self._read)
            fresh = log.read()
        # A line that is half written is read when it is whole.
        fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(fresh)
        for entry in fresh.decode("latin-1").splitlines():
            line, host, length, coding, body, behind = json.loads(entry)
            request = Forwarded(
                line=line,
                host=host,
                length=length or None,
                coding=coding or None,
                body=body.encode("latin-1"),
                trailers=(),
            )
            # What broke off, or what nginx refuses by itself, was passed on to nobody.
            self._requests.append(Read(request, whole=bool(behind)))
        return self._requests[since:]


def all_readers(need: Need, folder: Path) -> list[Reader]:
    return [H11Reader(), NodeReader(need("node")), NginxReader(need("nginx"), folder)]


def _accepts(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
