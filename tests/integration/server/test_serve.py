"""The server's life: what it says at start, who it lets be, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support import plain
from support.ports import free_port

from .conftest import PATIENCE, Server

Serve = Callable[..., Server]


def test_a_service_manager_hears_when_it_is_ready_and_when_it_stops(
    serve: Serve, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        server = serve(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
        with server.client() as client:
            assert client.get("/ready").json() == {"status": "ready"}
        server.tell(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert server.end()[0] == 0


def test_start_and_end(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with server.client() as client:
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.get("/machines/web").json()["status"] == "running"
        assert "server" not in client.get("/health").headers
    banner = "".join(server.said)
    shown = re.search(r"Key +(hf_\w{32}) ", banner)
    assert shown is not None
    key_file = tmp_path / ".hyperfleet" / "api-key"
    assert key_file.read_text() == f"{shown[1]}\n"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert re.search(r"Proxy +http://localhost:\d+/proxy/\{machine\}/\{port\}/", banner)
    assert "Driver  memory" in banner
    server.tell(signal.SIGTERM)
    code, out, _ = server.end()
    assert code == 0
    assert "backend closed" in out
    assert "1 machine runs on (web)" in out
    assert "`hyperfleet serve` takes over again" in out


def test_the_first_key_is_shown_once(serve: Serve, tmp_path: Path) -> None:
    first = serve()
    first.client().close()
    first.tell(signal.SIGINT)
    assert first.end()[0] == 0
    before = (tmp_path / ".hyperfleet" / "api-key").read_text()
    second = serve()
    with second.client() as client:
        assert client.get("/keys").status_code == 200
    assert before.strip() not in "".join(second.said)
    assert (tmp_path / ".hyperfleet" / "api-key").read_text() == before


def test_a_new_database_in_an_old_home_keeps_the_old_key(serve: Serve, tmp_path: Path) -> None:
    """The old database still opens to its key, and to nothing else."""
    keys = []
    for name in ("first.db", "second.db", "third.db"):
        server = serve(DATABASE_PATH=name)
        server.client().close()
        keys.append((tmp_path / ".hyperfleet" / "api-key").read_text())
        server.tell(signal.SIGTERM)
        _, _, errors = server.end()
        assert ("the key of the one before it is now in" in errors) == (name != "first.db")
    assert len(set(keys)) == len(keys)
    for name, key in (("api-key.old", keys[0]), ("api-key.old2", keys[1]), ("api-key", keys[2])):
        file = tmp_path / ".hyperfleet" / name
        assert file.read_text() == key
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_health_is_answered_while_machines_are_adopted(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    port = free_port()
    server = serve(OPEN_GATE=str(gate), PORT=str(port))
    # Opening it for writing returns when the server has opened it for reading: it is adopting.
    with (
        gate.open("wb"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=plain.NOBODY) as client,
    ):
        assert client.get("/health").json() == {"status": "ok"}
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "machines are being adopted" in answer.json()["error"]["message"]
    with server.client() as client:
        assert client.get("/ready").status_code == 200


def test_a_stop_while_machines_are_adopted_waits_for_none(serve: Serve) -> None:
    server = serve(OPEN_HANGS="1")
    server.wait_for("open hangs (here)")
    server.tell(signal.SIGTERM)
    code, out, errors = server.end()
    assert (code, errors) == (0, "")
    assert "backend closed" in out
    assert "Driver" not in out


def test_a_request_that_outlasts_the_server_is_told(serve: Serve) -> None:
    server = serve()
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/machines/stuck/stop", timeout=PATIENCE)
        server.wait_for("stop is stuck (here)")
        server.tell(signal.SIGTERM)
        answer = asked.result()
    assert answer.status_code == 503
    assert answer.json() == {"error": {"code": "CAPACITY", "message": "The server is stopping"}}
    assert server.end()[0] == 0


@pytest.mark.parametrize(
    ("adopting", "said"), [({}, r"Driver +(\w+)"), ({"OPEN_HANGS": "1"}, "open hangs (here)")]
)
def test_an_api_that_is_gone_is_the_end_of_its_server(
    serve: Serve, adopting: dict[str, str], said: str
) -> None:
    server = serve(API_FAILS="no more ticks", **adopting)
    server.wait_for(said)
    code, out, errors = server.end()
    assert code == 1
    assert errors.endswith("OSError: no more ticks\n")
    # All else ends in order; a service manager begins anew.
    assert "backend closed" in out


def test_two_servers_in_one_home(serve: Serve) -> None:
    first = serve()
    first.client().close()
    second = serve(DATABASE_PATH="other.db")
    code, _, errors = second.end()
    assert code == 2
    assert "HYPERFLEET_HOME .hyperfleet is in use by another hyperfleet serve" in errors
    assert re.search(rf"\(process {first.pid}, since 20[-0-9]+T[:0-9]+Z\)", errors)


def test_two_servers_on_one_database(serve: Serve) -> None:
    serve().client().close()
    code, _, errors = serve(HYPERFLEET_HOME="other").end()
    assert code == 2
    assert "the database hyperfleet.db is in use" in errors


def test_a_server_that_was_killed_leaves_the_home_free(serve: Serve) -> None:
    first = serve()
    first.client().close()
    first.kill()
    serve().client().close()


def test_a_port_that_is_taken(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        code, out, errors = serve(PORT=port).end()
    assert (code, out) == (2, "")
    assert errors == (
        f"hyperfleet: PORT {port} on 127.0.0.1 can't be used: Address already in use; "
        "stop what holds it, or set PORT to a free port\n"
    )
    assert not (tmp_path / "hyperfleet.db").exists()


def test_what_the_backend_refuses(serve: Serve) -> None:
    server = serve(OPEN_FAILS="PROXY_PORT 4000 on 127.0.0.1 can't be used")
    code, out, errors = server.end()
    assert code == 2
    assert errors == "hyperfleet: PROXY_PORT 4000 on 127.0.0.1 can't be used\n"
    assert "backend closed" in out


def test_a_home_that_cant_be(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, errors = serve(HYPERFLEET_HOME="file").end()
    assert code == 2
    assert errors.startswith("hyperfleet: HYPERFLEET_HOME file can't be made: ")


def test_a_database_that_cant_be(serve: Serve) -> None:
    code, _, errors = serve(DATABASE_PATH="no/where.db").end()
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert "no/where.db" in errors


def test_without_auth(serve: Serve, tmp_path: Path) -> None:
    server = serve(DISABLE_AUTH="true")
    url = server.wait_for(r"API +(http://\S+)")
    assert plain.get(f"{url}/machines/web").status_code == 200
    assert not (tmp_path / ".hyperfleet" / "api-key").exists()


def test_misspelt_settings_are_warned_about(serve: Serve) -> None:
    server = serve(PROXY_PREFX="/x")
    server.client().close()
    server.tell(signal.SIGTERM)
    assert "did you mean PROXY_PREFIX?" in server.end()[2]


@pytest.mark.parametrize(
    "raw", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\n"]
)
def test_what_is_no_request_gets_an_error_of_the_usual_shape(serve: Serve, raw: bytes) -> None:
    server = serve()
    with server.client() as client:
        address, port = client.base_url.host, client.base_url.port
    with socket.create_connection((address, port)) as connection:
        connection.sendall(raw)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: " in head
    assert json.loads(body) == {
        "error": {"code": "VALIDATION_ERROR", "message": "Invalid HTTP request received"}
    }


FIELDS = b"".join(b"X-%d: y\r\n" % number for number in range(200))


@pytest.mark.parametrize(
    ("begun", "rest"),
    [
        # At once or in pieces, and without an end.
        (b"X: " + b"y" * 70_000 + b"\r\n\r\n", b""),
        (b"X: " + b"y" * 40_000, b"y" * 30_000 + b"\r\n\r\n"),
        (b"X: " + b"y" * 40_000, b"y" * 30_000),
        (FIELDS + b"\r\n", b""),
        (FIELDS[:500], FIELDS[500:] + b"\r\n"),
    ],
    ids=["at once", "in pieces", "without end", "fields", "fields in pieces"],
)
def test_a_head_over_the_bound(serve: Serve, begun: bytes, rest: bytes) -> None:
    server = serve()
    with server.client() as client:
        address, port = client.base_url.host, client.base_url.port
        with socket.create_connection((address, port), timeout=PATIENCE) as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + begun)
            # Answered, so the server has what was sent before.
            assert client.get("/health").status_code == 200
            raw.sendall(rest)
            head, _, body = _answer(raw).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ")
        assert b"connection: close" in head.lower()
        assert json.loads(body)["error"] == {
            "code": "HEAD_TOO_LARGE",
            "message": "The request's head is over 64 KiB or 128 fields",
        }
        # What is within it is served.
        fields = {f"X-{number}": "y" * 500 for number in range(100)}
        assert client.get("/health", headers=fields).status_code == 200


@pytest.mark.parametrize("split", [1, 5000])
def test_a_body_over_the_limit_over_a_real_socket(serve: Serve, split: int) -> None:
    """The answer comes though the body goes on for ever, and the connection ends."""
    server = serve(HYPERFLEET_MAX_BODY_BYTES="1024")
    with server.client() as client:
        address, port = client.base_url.host, client.base_url.port
        authorization = client.headers["Authorization"]
    with socket.create_connection((address, port)) as raw:
        raw.sendall(
            b"POST /machines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/json\r\nAuthorization: "
            + authorization.encode()
            + b"\r\n\r\n"
        )
        for _ in range(0, 2048, split):
            raw.sendall(f"{split:x}\r\n".encode() + b"x" * split + b"\r\n")
        answer = b""
        while part := raw.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"TOO_LARGE" in answer


def _answer(raw: socket.socket) -> bytes:
    """All that comes until the server closes."""
    answer = b""
    while part := raw.recv(65536):
        answer += part
    return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET /health HTTP/1.1\r\nHost: loc", b"HTTP/1.1 408 "),
        (b"\r\n", b""),
        (
            b"POST /keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n%s\r\n{",
            b"HTTP/1.1 408 ",
        ),
        # Answered before its body has come, which is then waited for no longer than a head.
        (b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 404 "),
    ],
)
def test_a_request_that_does_not_come(serve: Serve, sent: bytes, status: bytes) -> None:
    server = serve(HYPERFLEET_REQUEST_ARRIVAL_MS="300")
    with server.client() as client:
        address, port = client.base_url.host, client.base_url.port
        key = f"Authorization: {client.headers['Authorization']}\r\n".encode()
        with socket.create_connection((address, port), timeout=PATIENCE) as raw:
            raw.sendall(sent.replace(b"%s", key))
            begun = raw.recv(65536)
            if status.endswith(b" 404 "):
                # The rest drips in.
                raw.sendall(b"}")
            assert (begun + _answer(raw)).startswith(status)
        # An ordinary one may wait between its requests as before.
        assert client.get("/health").status_code == 200


def test_one_connection_too_many(serve: Serve) -> None:
    server = serve(HYPERFLEET_MAX_API_CONNECTIONS="2")
    with server.client() as client:
        address, port = client.base_url.host, client.base_url.port
        client.get("/health")
        with socket.create_connection((address, port)) as second:
            # It is counted once it was answered.
            second.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
            with socket.create_connection((address, port)) as third:
                refused = _answer(third)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b'"code":"CAPACITY"' in refused
        assert client.get("/health").status_code == 200


def test_no_key_is_ever_logged(serve: Serve) -> None:
    server = serve(LOG_LEVEL="debug", LOG_FORMAT="json")
    with server.client() as client:
        good = client.headers["Authorization"].removeprefix("Bearer ")
        bad = "hf_" + "b" * 32
        assert client.get("/keys").status_code == 200
        secret = client.post("/keys", json={"name": "k", "scopes": ["*"]}).json()["key"]
        for headers in ({"Authorization": f"Bearer {bad}"}, {"Authorization": f"Basic {bad}"}):
            assert client.get("/machines", headers=headers).status_code == 401
        assert client.get(f"/machines?key={secret}").status_code == 400
        assert client.get("/nowhere", headers={"X-Request-ID": "seen-1"}).status_code == 404
    server.tell(signal.SIGTERM)
    _, _, errors = server.end()
    assert "seen-1" in errors
    for key in (good, bad, secret):
        assert key not in errors
