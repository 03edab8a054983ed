"""Processes over a WebSocket, through the whole server; the machines are fakes.

What needs a real process (terminals, signals, being held up): tests/contract/agent/test_streams.py
and tests/e2e/test_exec_stream.py.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hyperfleet.client import (
    ApiError,
    AsyncProcessStream,
    ProcessExit,
    ProcessStream,
    UnreachableError,
)
from support import proxy
from support.need import Need
from support.page import Page
from support.ports import free_port
from support.server import Server
from support.zygote import Zygote

LIMIT = 20
MOST_INPUT = 1024 * 1024


@pytest.fixture(scope="module")
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(
        zygote=zygote, HYPERFLEET_VMM="fake", HYPERFLEET_REQUEST_ARRIVAL_MS="1000"
    ) as running:
        running.create("web", env={"FROM_SPEC": "yes"})
        running.start_machine("web")
        running.create("still")
        yield running


def opened(server: Server, ref: str = "web", **more: Any) -> ClientConnection:
    more.setdefault("additional_headers", {"Authorization": f"Bearer {server.key}"})
    url = f"ws://127.0.0.1:{server.api_port}/machines/{ref}/exec"
    return connect(url, proxy=None, open_timeout=LIMIT, legacy=True, **more)


def asked(server: Server, *command: str, **more: Any) -> ClientConnection:
    client = opened(server)
    client.send(json.dumps({"command": command, **more}))
    return client


def heard(client: ClientConnection) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Both outputs and the other messages, up to the close."""
    said, orders = {1: b"", 2: b""}, []
    try:
        while True:
            message = client.recv(LIMIT)
            if isinstance(message, bytes):
                said[message[0]] += message[1:]
            else:
                orders.append(json.loads(message))
    except ConnectionClosed:
        return said[1], said[2], orders


def failure(client: ClientConnection) -> tuple[str, str]:
    """The error that is the last message, its code and its words."""
    *_, last = heard(client)[2]
    assert last["type"] == "error"
    return last["error"]["code"], last["error"]["message"]


def exited(code: int, signal: str | None = None) -> dict[str, Any]:
    return {"type": "exited", "exit_code": code, "signal": signal, "timed_out": False}


def test_output_and_end(server: Server) -> None:
    before = len(streams(server))
    client = asked(server, "sh", "-c", "echo out; exit 3", stdin=False)
    assert heard(client) == (b"out\n", b"", [exited(3)])
    assert client.close_code == 1000
    assert next_stream(server, before)["outcome"] == "exit 3"
    assert server.key not in json.dumps(streams(server))


def test_input_is_told_as_taken(server: Server) -> None:
    client = asked(server, "cat")
    client.send(b"one ")
    client.send(b"two")
    client.send('{"type": "eof"}')
    out, _, orders = heard(client)
    assert out == b"one two"
    assert orders == [
        {"type": "stdin_taken", "bytes": 4},
        {"type": "stdin_taken", "bytes": 3},
        exited(0),
    ]


def test_much_output_comes_whole(server: Server) -> None:
    client = asked(server, "cat")
    data = bytes(range(256)) * 3000
    client.send(data)
    client.send('{"type": "eof"}')
    assert heard(client)[0] == data


def test_the_machines_environment_and_the_calls_own(server: Server) -> None:
    client = asked(server, "env", stdin=False, env={"MINE": "1"})
    lines = heard(client)[0].decode().splitlines()
    assert {"FROM_SPEC=yes", "MINE=1"} <= set(lines)


def test_a_program_that_is_missing(server: Server) -> None:
    client = asked(server, "no-such-program")
    assert heard(client) == (b"", b"no-such-program: not found\n", [exited(127)])


def test_a_signal(server: Server) -> None:
    client = asked(server, "sleep", "60", stdin=False)
    client.send('{"type": "signal", "signal": "TERM"}')
    assert heard(client)[2] == [exited(128 + 15, "TERM")]


def test_a_browser_offers_its_key_as_a_subprotocol(server: Server) -> None:
    names = ["hyperfleet.exec", f"hyperfleet.key.{server.key}"]
    client = opened(server, additional_headers={}, subprotocols=names)
    assert client.subprotocol == "hyperfleet.exec"
    client.send('{"command": ["echo", "hello"], "stdin": false}')
    assert heard(client)[0] == b"hello\n"


@pytest.mark.parametrize(
    ("ref", "headers", "status", "code"),
    [
        ("web", {}, 401, "UNAUTHORIZED"),
        ("web", {"Authorization": "Bearer hf_wrong"}, 401, "UNAUTHORIZED"),
        ("nobody", None, 404, "NOT_FOUND"),
        ("web/exec?tty=1&", None, 400, "VALIDATION_ERROR"),
    ],
)
def test_who_may_not_is_told_by_a_status(
    server: Server, ref: str, headers: dict[str, str] | None, status: int, code: str
) -> None:
    more = {} if headers is None else {"additional_headers": headers}
    with pytest.raises(InvalidStatus) as refused:
        opened(server, ref, **more)
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body)["error"]["code"] == code


@pytest.mark.parametrize("scope", ["machines:read", "machines:write", "machines:exec"])
def test_a_key_needs_the_scope(server: Server, scope: str) -> None:
    made = server.api.post("/keys", json={"name": "one", "scopes": [scope]})
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    if scope == "machines:exec":
        opened(server, additional_headers=headers).close()
        return
    with pytest.raises(InvalidStatus) as refused:
        opened(server, additional_headers=headers)
    assert refused.value.response.status_code == 403
    assert b"machines:exec" in refused.value.response.body


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("{}", "cmd is required"),
        ("nonsense", "not JSON"),
        ('{"command": "ls -l"}', "command must be"),
        ('{"command": ["ls"], "terminal": {"rows": 0}}', "terminal must be an object with rows"),
        ('{"command": ["ls"], "timeout": 0}', "timeout must be a number of seconds"),
        ('{"command": ["ls"], "tty": true}', 'unknown field "tty"'),
        (b"ls", "must be text"),
    ],
)
def test_a_first_message_that_names_no_process(
    server: Server, first: str | bytes, words: str
) -> None:
    client = opened(server)
    client.send(first)
    code, message = failure(client)
    assert code == "VALIDATION_ERROR"
    assert words in message
    assert client.close_code == 1008


def test_a_first_message_that_does_not_come(server: Server) -> None:
    code, message = failure(opened(server))
    assert (code, "within 1 s" in message) == ("VALIDATION_ERROR", True)


def test_a_machine_that_does_not_run(server: Server) -> None:
    client = opened(server, "still")
    client.send('{"command": ["true"]}')
    code, message = failure(client)
    assert (code, client.close_code) == ("INVALID_STATE", 1011)
    assert "start it first" in message


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ('{"type": "dance"}', "this is none"),
        ('{"type": "resize", "rows": 0, "columns": 1}', "this is none"),
        ('{"type": "signal", "signal": "NOPE"}', "signal must be a signal's name"),
        ("[]", "this is none"),
    ],
)
def test_an_order_that_is_none(server: Server, order: str, words: str) -> None:
    client = asked(server, "sleep", "60", stdin=False)
    client.send(order)
    code, message = failure(client)
    assert (code, client.close_code) == ("VALIDATION_ERROR", 1008)
    assert words in message


def test_input_after_its_end(server: Server) -> None:
    client = asked(server, "sleep", "60")
    client.send('{"type": "eof"}')
    client.send(b"more")
    assert failure(client) == ("VALIDATION_ERROR", "there was input after its end")


def test_a_message_that_is_too_long(server: Server) -> None:
    client = asked(server, "cat")
    client.send(b"x" * (MOST_INPUT + 1))
    heard(client)
    assert client.close_code == 1009


def test_a_client_that_goes_takes_its_process_along(server: Server) -> None:
    before = len(streams(server))
    asked(server, "sleep", "60", stdin=False).close()
    assert next_stream(server, before)["outcome"] == "gone"


def test_the_plain_endpoint_of_the_same_path_is_as_it_was(server: Server) -> None:
    answer = server.api.get("/machines/web/exec")
    assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED
    assert server.sh("web", "echo plain") == "plain\n"


def test_an_upgrade_elsewhere_is_as_if_it_had_not_been_asked(server: Server) -> None:
    asked_for = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    answer = server.api.get("/machines/web", headers=asked_for)
    assert (answer.status_code, answer.json()["name"]) == (httpx.codes.OK, "web")


def test_the_server_stops_while_a_process_runs(need: Need, zygote: Zygote) -> None:
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as running:
        running.create("web")
        running.start_machine("web")
        client = asked(running, "sleep", "60", stdin=False)
        assert running.stop() == 0
        heard(client)
        assert client.close_code in (1006, 1011, 1012)


def streams(server: Server) -> list[dict[str, Any]]:
    """What the log says of streams that are over."""
    lines = server.log.read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [line for line in told if line["event"] == "exec stream"]


def next_stream(server: Server, before: int) -> dict[str, Any]:
    """The line after the first `before`; it comes some moments after the client's last message."""
    deadline = time.monotonic() + LIMIT
    while len(lines := streams(server)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return lines[before]


def test_by_the_command_line(server: Server) -> None:
    done = server.run("exec", "web", "--", "sh", "-c", "echo out; exit 3", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")
    done = server.run("exec", "-e", "A=1", "-w", "/", "web", "--", "env")
    assert "A=1\n" in done.stdout
    done = server.run("exec", "web", "--", "no-such-program", check=False)
    assert (done.returncode, done.stderr) == (127, "no-such-program: not found\n")
    # Nothing is read from where it was started, unless asked.
    done = server.run("exec", "web", "--", "cat")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("exec", "nobody", "--", "true"), 1, "Machine not found: nobody"),
        (("exec", "still", "--", "true"), 1, "start it first"),
        (("exec", "-it", "web", "--", "sh"), 2, "no terminal"),
        (("shell", "web"), 2, "no terminal"),
        (("exec", "-e", "A", "web", "--", "env"), 2, "NAME=VALUE"),
        (("exec", "--timeout", "0", "web", "--", "env"), 1, "timeout must be"),
    ],
)
def test_what_the_command_line_refuses(
    server: Server, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = server.run(*arguments, check=False)
    assert done.returncode == code, done.stderr
    # The lines of a usage error are framed.
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_the_references_example(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    example, _ = Page("docs/reference/exec-stream.md").blocks("python")
    exec(example, {"url": server.api_url, "key": server.key})  # noqa: S102 - our own page
    assert capsys.readouterr().out == "b'hello'\n0\n"


async def test_with_asyncio(server: Server) -> None:
    data = bytes(range(256)) * 12_000
    async with await AsyncProcessStream.open(server.api_url, server.key, "web", ["cat"]) as cat:

        async def feed() -> None:
            await cat.write(data)
            await cat.end_input()

        feeding = asyncio.create_task(feed())
        said = [output async for output in cat]
        await feeding
        assert b"".join(output.data for output in said) == data
        assert not any(output.is_error for output in said)
        assert cat.exit == ProcessExit(exit_code=0, signal=None, timed_out=False)
        # It has ended: what it is told now is nobody's.
        await cat.write(b"more")
        await cat.signal("TERM")


async def test_what_is_refused_with_asyncio(server: Server) -> None:
    async def run(ref: str, *command: str) -> None:
        stream = AsyncProcessStream.open(server.api_url, server.key, ref, command, stdin=False)
        async with await stream as opened:
            async for _ in opened:
                pass

    with pytest.raises(ApiError, match="Machine not found: nobody"):
        await run("nobody", "true")
    with pytest.raises(ApiError, match="start it first"):
        await run("still", "true")
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match="No Hyperfleet server answers"):
        await AsyncProcessStream.open(url, None, "web", ["true"])


def test_what_nobody_answers_or_allows() -> None:
    with pytest.raises(UnreachableError, match="No Hyperfleet server answers"):
        ProcessStream(f"http://127.0.0.1:{free_port()}", None, "web", ["true"])


def test_a_machine_that_stops_ends_its_processes(server: Server) -> None:
    server.create("short")
    server.start_machine("short")
    client = opened(server, "short")
    client.send('{"command": ["sleep", "60"], "stdin": false}')
    server.sh("short", "true")
    server.api.post("/machines/short/stop")
    code, _ = failure(client)
    assert (code, client.close_code) == ("GUEST_ERROR", 1011)


def test_input_by_the_command_line_flows(server: Server) -> None:
    data = bytes(range(256)) * 12_000
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with server.popen("exec", "-i", "web", "--", "cat", **pipes) as cat:
        out, _ = cat.communicate(data, LIMIT)
    assert cat.returncode == 0
    assert out == data


def test_a_signal_by_the_command_line(server: Server) -> None:
    script = "echo up; sleep 60"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with server.popen("exec", "web", "--", "sh", "-c", script, **pipes) as child:
        before = len(streams(server))
        deadline = time.monotonic() + LIMIT
        # The fake tells its output at the end, so: until it runs by our asking again and again.
        while child.poll() is None and time.monotonic() < deadline:
            child.send_signal(signal.SIGTERM) if _listens(child.pid) else None
            time.sleep(0.05)
        assert child.wait(LIMIT) == 128 + 15
        assert next_stream(server, before)["outcome"] == "exit 143"


def _listens(pid: int) -> bool:
    """Whether it has a handler for SIGTERM (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)
