"""Processes that have a name, in a real machine: they outlive networks and control planes."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from hyperfleet.client import Client, Process, ProcessStream
from support.server import Server
from support.zygote import Zygote

pytestmark = pytest.mark.vm

LIMIT = 60
# 588,895 bytes: more than a window, less than is kept while nobody is there.
COUNT = "seq 100000"
NUMBERS = "".join(f"{number}\n" for number in range(1, 100001)).encode()


@pytest.fixture(scope="module")
def server(images: Path, templates: Path, zygote: Zygote) -> Iterator[Server]:
    with Server(zygote=zygote, images=images, templates=templates) as running:
        running.create("web", mem_size_mib=112)
        running.start_machine("web")
        yield running


class Attached:
    """A client that says what it has taken; it can be cut off."""

    def __init__(self, server: Server, **first: Any) -> None:
        url = f"ws://127.0.0.1:{server.api_port}/machines/web/exec"
        headers = {"Authorization": f"Bearer {server.key}"}
        self.client: ClientConnection = connect(
            url, additional_headers=headers, proxy=None, open_timeout=LIMIT, legacy=True
        )
        self.client.send(json.dumps(first))
        self.found = self.next()
        # What was said besides output.
        self.orders: list[dict[str, Any]] = []

    @classmethod
    def runs(cls, server: Server, name: str, script: str) -> Self:
        return cls(server, command=["sh", "-c", script], stdin=False, name=name)

    def next(self) -> Any:
        message = self.client.recv(LIMIT)
        return message if isinstance(message, bytes) else json.loads(message)

    def output(self, size: int, *, take: bool = True) -> bytes:
        """At least so many bytes of output, or all; with `take` told as taken."""
        said = b""
        try:
            while len(said) < size:
                match self.next():
                    case bytes(data):
                        said += data[1:]
                        if take:
                            self.order(type="output_taken", bytes=len(data) - 1)
                    case {"type": "exited"} as order:
                        self.orders.append(order)
                        self.order(type="end_taken")
                    case order:
                        self.orders.append(order)
        except ConnectionClosed:
            pass
        return said

    def until(self, words: bytes) -> None:
        """Reads on until it has said `words`."""
        said = b""
        while words not in said:
            said += self.output(1)

    def order(self, **order: Any) -> None:
        self.client.send(json.dumps(order))

    def cut(self) -> None:
        """As a network that breaks: what was on its way is lost, and no word of it."""
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.socket.close()


def listed(server: Server) -> tuple[Process, ...]:
    with Client(server.api_url, server.key) as client:
        return client.list_processes("web")


def test_numbers_without_a_gap_through_cuts_and_a_crash(server: Server) -> None:
    first = Attached.runs(server, "count", COUNT)
    said = first.output(100_000)
    # Read, and not told as taken: as if it had been lost on its way.
    first.output(50_000, take=False)
    first.cut()
    second = Attached(server, attach="count")
    assert second.found == {
        "type": "attached",
        "offset": len(said),
        "dropped": 0,
        "stdin": False,
        "terminal": False,
    }
    said += second.output(100_000)
    server.kill()
    second.output(1 << 30, take=False)
    server.start()
    [one] = listed(server)
    assert (one.name, one.attached, one.dropped) == ("count", False, 0)
    third = Attached(server, attach="count")
    # What the crash has kept from the guest comes twice, and says so.
    again = third.found["offset"]
    assert again <= len(said)
    rest = third.output(1 << 30)
    assert said[:again] + rest == NUMBERS
    assert rest.startswith(said[again:])
    exited = {"type": "exited", "exit_code": 0, "signal": None, "timed_out": False}
    assert third.orders == [exited]
    assert listed(server) == ()


def test_the_second_client_takes_the_place_of_the_first(server: Server) -> None:
    script = "echo one; read x < /go; echo two; exit 5"
    server.sh("web", "rm -f /go; mkfifo /go")
    first = Attached.runs(server, "shared", script)
    assert first.output(4) == b"one\n"
    second = Attached(server, attach="shared")
    assert first.output(1) == b""
    assert first.orders[0]["error"]["code"] == "CONFLICT"
    server.sh("web", "echo > /go")
    assert second.output(1 << 30) == b"two\n"
    assert second.orders[0]["exit_code"] == 5


def test_what_ended_while_nobody_was_there(server: Server) -> None:
    server.sh("web", "rm -f /go; mkfifo /go")
    Attached.runs(server, "gone", "read x < /go; echo out; echo err >&2; exit 7").cut()
    # Its group has gone when nothing has the file open any more.
    server.sh("web", "echo > /go")
    with Client(server.api_url, server.key) as client:
        while client.list_processes("web")[0].exit_code is None:
            pass
    with ProcessStream.attach(server.api_url, server.key, "web", "gone") as stream:
        said = {output.is_error: output.data for output in stream}
    assert said == {False: b"out\n", True: b"err\n"}
    assert stream.exit is not None
    assert stream.exit.exit_code == 7
    assert listed(server) == ()


def test_a_shell_that_is_left_and_found_again_after_a_crash(server: Server) -> None:
    terminal = {"rows": 24, "columns": 80}
    shell = Attached(server, command=["sh"], name="shell", terminal=terminal)
    # A shell forgets what was typed before its prompt.
    shell.until(b"# ")
    shell.client.send(b"KEPT=yes; echo set-$((1+1))\n")
    shell.until(b"set-2\r\n")
    server.kill()
    server.start()
    shell = Attached(server, attach="shell")
    assert shell.found["terminal"]
    shell.client.send(b"echo $KEPT-still; exit 3\n")
    assert b"yes-still\r\n" in shell.output(1 << 30)
    assert shell.orders[-1]["exit_code"] == 3


def test_one_is_killed_with_all_that_it_started(server: Server) -> None:
    server.sh("web", "rm -f /go; mkfifo /go")
    script = "setsid sh -c 'echo $$ > /go; exec sleep 1000' & wait"
    Attached.runs(server, "tree", script).cut()
    pid = server.sh("web", "cat /go").strip()
    with Client(server.api_url, server.key) as client:
        client.kill_process("web", "tree")
    server.sh("web", f"while [ -e /proc/{pid} ]; do sleep 0.1; done")
    assert listed(server) == ()
