"""Processes that have a name, through the whole server; the machines are fakes.

What needs a process that speaks while it runs: tests/contract/agent/test_kept.py and
tests/e2e/test_kept_processes.py.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from hyperfleet.client import (
    ApiError,
    AsyncClient,
    AsyncProcessStream,
    Client,
    Process,
    ProcessExit,
    ProcessStream,
)
from support import proxy
from support.need import Need
from support.page import Page
from support.server import Server
from support.zygote import Zygote

LIMIT = 20


@pytest.fixture(scope="module")
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as running:
        running.create("web")
        running.start_machine("web")
        running.create("still")
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.api_url, server.key) as client:
        yield client
        for process in client.list_processes("web"):
            try:
                client.kill_process("web", process.name)
            except ApiError as error:
                # One whose end was just taken is gone in a moment, by itself.
                if error.code != "NOT_FOUND":
                    raise


def opened(server: Server, **first: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.api_port}/machines/web/exec"
    headers = {"Authorization": f"Bearer {server.key}"}
    client = connect(url, additional_headers=headers, proxy=None, open_timeout=LIMIT, legacy=True)
    client.send(json.dumps(first))
    return client


def next_of(client: ClientConnection) -> Any:
    message = client.recv(LIMIT)
    return message if isinstance(message, bytes) else json.loads(message)


def cut(client: ClientConnection) -> None:
    """Breaks the connection: no close frame, no word."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def process(client: Client, name: str) -> Process:
    [one] = [one for one in client.list_processes("web") if one.name == name]
    return one


def left(client: Client, name: str) -> Process:
    """It, when nobody is attached any more."""
    deadline = time.monotonic() + LIMIT
    while (one := process(client, name)).attached:
        assert time.monotonic() < deadline
    return one


def stream(server: Server, *command: str, **more: Any) -> ProcessStream:
    return ProcessStream(server.api_url, server.key, "web", command, **more)


def attached(server: Server, name: str) -> ProcessStream:
    return ProcessStream.attach(server.api_url, server.key, "web", name)


def test_a_connection_that_breaks_takes_nothing_along(server: Server, client: Client) -> None:
    cat = opened(server, command=["cat"], name="build")
    found = {"type": "attached", "offset": 0, "dropped": 0, "stdin": True, "terminal": False}
    assert next_of(cat) == found
    cat.send(b"one ")
    assert next_of(cat) == {"type": "stdin_taken", "bytes": 4}
    cut(cat)
    one = left(client, "build")
    assert (one.argv, one.exit_code, one.untaken, one.dropped) == (("cat",), None, 0, 0)
    cat = opened(server, attach="build")
    assert next_of(cat) == found
    assert process(client, "build").attached
    cat.send(b"two")
    cat.send('{"type": "eof"}')
    said = [next_of(cat), next_of(cat), next_of(cat)]
    exited = {"type": "exited", "exit_code": 0, "signal": None, "timed_out": False}
    assert said == [{"type": "stdin_taken", "bytes": 3}, b"\x01one two", exited]
    # Neither its output nor its end was told as taken.
    cut(cat)
    assert left(client, "build").untaken == 7
    cat = opened(server, attach="build")
    assert [next_of(cat) for _ in range(3)] == [found | {"stdin": False}, b"\x01one two", exited]
    cat.send('{"type": "output_taken", "bytes": 7}')
    cut(cat)
    assert left(client, "build").untaken == 0
    cat = opened(server, attach="build")
    assert [next_of(cat), next_of(cat)] == [found | {"stdin": False, "offset": 7}, exited]
    cat.send('{"type": "end_taken"}')
    with pytest.raises(ConnectionClosed):
        cat.recv(LIMIT)
    assert cat.close_code == 1000
    assert client.list_processes("web") == ()


def test_whoever_attaches_takes_the_place_of_who_is(server: Server, client: Client) -> None:
    first = opened(server, command=["cat"], name="cat")
    next_of(first)
    second = opened(server, attach="cat")
    assert next_of(second)["type"] == "attached"
    last = next_of(first)
    assert last["error"] == {
        "code": "CONFLICT",
        "message": "another client has attached to cat",
    }
    with pytest.raises(ConnectionClosed):
        first.recv(LIMIT)
    assert first.close_code == 1008
    second.send(b"mine")
    second.send('{"type": "eof"}')
    assert [next_of(second), next_of(second)] == [
        {"type": "stdin_taken", "bytes": 4},
        b"\x01mine",
    ]
    assert process(client, "cat").exit_code == 0


def test_more_output_than_the_window_is_told_as_it_is_taken(server: Server, client: Client) -> None:
    data = bytes(range(256)) * 3000
    with stream(server, "cat", name="much") as cat:
        cat.write(data)
        cat.end_input()
    left(client, "much")
    with attached(server, "much") as again:
        assert b"".join(output.data for output in again) == data
        assert again.exit == ProcessExit(exit_code=0, signal=None, timed_out=False)
    assert client.list_processes("web") == ()


def test_too_much_is_lost_and_told(server: Server, client: Client) -> None:
    mib = 1024 * 1024
    server.sh("web", "cat > /big", stdin="x" * (mib + 5))
    unread = opened(server, command=["cat", "/big"], stdin=False, name="big")
    assert next_of(unread)["type"] == "attached"
    next_of(unread)
    cut(unread)
    one = left(client, "big")
    assert (one.untaken, one.dropped) == (mib, 5)
    with attached(server, "big") as again:
        assert again.attachment is not None
        assert (again.attachment.offset, again.attachment.dropped) == (5, 5)
        assert sum(len(output.data) for output in again) == mib


@pytest.mark.parametrize(
    ("first", "code", "words"),
    [
        ({"attach": "nobody"}, "NOT_FOUND", "no process nobody is there"),
        ({"attach": "No Name"}, "VALIDATION_ERROR", "attach must be a DNS label"),
        ({"attach": "a", "command": ["ls"]}, "VALIDATION_ERROR", 'unknown field "command"'),
        ({"command": ["ls"], "name": "No Name"}, "VALIDATION_ERROR", "name must be a DNS label"),
        ({"command": ["cat"], "name": "taken"}, "CONFLICT", "a process taken is there already"),
    ],
)
def test_what_is_refused(
    server: Server, client: Client, first: dict[str, Any], code: str, words: str
) -> None:
    with stream(server, "cat", name="taken"):
        refused = opened(server, **first)
        error = next_of(refused)["error"]
    assert error["code"] == code
    assert words in error["message"]
    with pytest.raises(ConnectionClosed):
        refused.recv(LIMIT)
    assert refused.close_code == 1008


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ('{"type": "output_taken", "bytes": 1}', "more output is told as taken than was told"),
        ('{"type": "output_taken", "bytes": 0}', "this is none"),
        ('{"type": "end_taken"}', "an end was told as taken that was not told"),
    ],
)
def test_what_was_not_told_is_not_taken(
    server: Server, client: Client, order: str, words: str
) -> None:
    cat = opened(server, command=["cat"], name="cat")
    next_of(cat)
    cat.send(order)
    assert words in next_of(cat)["error"]["message"]
    assert left(client, "cat").exit_code is None


def test_a_program_that_is_missing(server: Server, client: Client) -> None:
    with stream(server, "no-such-program", name="build") as missing:
        assert missing.attachment is None
        assert [output.data for output in missing] == [b"no-such-program: not found\n"]
    assert missing.exit == ProcessExit(exit_code=127, signal=None, timed_out=False)
    assert client.list_processes("web") == ()


def test_the_list_and_the_end_of_one(server: Server, client: Client) -> None:
    with stream(server, "sleep", "60", stdin=False, name="one"):
        with stream(server, "sleep", "61", stdin=False, name="two") as two:
            names = [(one.name, one.argv) for one in client.list_processes("web")]
            assert names == [("one", ("sleep", "60")), ("two", ("sleep", "61"))]
            client.kill_process("web", "two")
            assert list(two) == []
            assert two.exit == ProcessExit(exit_code=137, signal="KILL", timed_out=False)
        with pytest.raises(ApiError, match="no process two is there") as refused:
            client.kill_process("web", "two")
        assert refused.value.status == 404
    for ref, words in (("still", "start it first"), ("nobody", "Machine not found: nobody")):
        with pytest.raises(ApiError, match=words):
            client.list_processes(ref)
        with pytest.raises(ApiError, match=words):
            ProcessStream.attach(server.api_url, server.key, ref, "one")


def test_a_stop_ends_what_is_kept(server: Server) -> None:
    server.create("short")
    server.start_machine("short")
    with ProcessStream(server.api_url, server.key, "short", ["cat"], name="cat"):
        pass
    server.api.post("/machines/short/stop")
    server.start_machine("short")
    assert server.api.get("/machines/short/processes").json() == {"processes": []}


def test_the_references_example(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    example = Page("docs/reference/exec-stream.md").block_with('name="talk"', "python")
    exec(example, {"url": server.api_url, "key": server.key})  # noqa: S102 - our own page
    assert capsys.readouterr().out == "b'hello'\n0\n"


async def test_with_asyncio(server: Server) -> None:
    url, key = server.api_url, server.key
    async with await AsyncProcessStream.open(url, key, "web", ["cat"], name="build") as cat:
        await cat.write(b"before ")
    async with await AsyncProcessStream.attach(url, key, "web", "build") as cat:
        await cat.write(b"after")
        await cat.end_input()
        assert b"".join([output.data async for output in cat]) == b"before after"
        assert cat.exit == ProcessExit(exit_code=0, signal=None, timed_out=False)
    with pytest.raises(ApiError, match="no process build is there"):
        await AsyncProcessStream.attach(url, key, "web", "build")
    async with AsyncClient(url, key) as client:
        assert await client.list_processes("web") == ()
        with pytest.raises(ApiError, match="no process build is there"):
            await client.kill_process("web", "build")


def test_by_the_command_line(server: Server, client: Client) -> None:
    done = server.run(
        "exec", "--name", "build", "--detach", "web", "--", "sh", "-c", "echo out; exit 3"
    )
    assert "hyperfleet attach web build" in done.stdout
    deadline = time.monotonic() + LIMIT
    while process(client, "build").exit_code is None:
        assert time.monotonic() < deadline
    listed = server.run("ps", "web").stdout.splitlines()
    assert listed[0].split() == ["NAME", "STATE", "SINCE", "UNSEEN", "LOST", "COMMAND"]
    assert listed[1].split()[:3] == ["build", "code", "3"]
    assert "sh -c 'echo out; exit 3'" in listed[1]
    assert json.loads(server.run("ps", "--json", "web").stdout)["processes"][0]["untaken"] == 4
    done = server.run("attach", "web", "build", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")
    done = server.run("attach", "web", "build", check=False)
    assert (done.returncode, done.stderr) == (1, "hyperfleet: no process build is there\n")
    server.run("exec", "--name", "long", "-d", "web", "--", "sleep", "60")
    server.run("kill", "web", "long")
    assert client.list_processes("web") == ()
    done = server.run("exec", "--detach", "web", "--", "true", check=False)
    assert done.returncode == 2
    done = server.run("exec", "-d", "--name", "no", "web", "--", "no-such-program", check=False)
    assert (done.returncode, done.stderr) == (127, "no-such-program: not found\n")


def test_input_goes_to_it_and_a_hangup_ends_the_command_alone(
    server: Server, client: Client
) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with server.popen("exec", "-i", "--name", "cat", "web", "--", "cat", **pipes) as command:
        deadline = time.monotonic() + LIMIT
        while not client.list_processes("web"):
            assert time.monotonic() < deadline
        command.send_signal(1)
        assert command.wait(LIMIT) == -1
    assert left(client, "cat").exit_code is None
    with server.popen("attach", "-i", "web", "cat", **pipes) as command:
        out, _ = command.communicate(b"hello", LIMIT)
    assert (command.returncode, out) == (0, b"hello")
