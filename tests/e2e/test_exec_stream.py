"""A terminal in a real machine, over the WebSocket that a browser would open."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from support.need import Need
from support.page import CHECKOUT, Page
from support.server import Server

pytestmark = pytest.mark.vm

LIMIT = 60
NODE_PACKAGES = CHECKOUT / ".cache/node/node_modules"
# After the reference's example: types a line, and prints the exit code.
TYPES = """
socket.addEventListener("open", () => socket.send(new TextEncoder().encode("exit 7\\n")));
socket.onerror = (error) => console.log(error.message);
socket.onmessage = ({ data }) => {
    if (typeof data !== "string") return;
    const told = JSON.parse(data);
    if (told.type !== "stdin_taken") console.log(told.type, told.exit_code);
};
"""


@pytest.fixture(scope="module")
def machine(server: Server) -> Iterator[str]:
    server.create("web", mem_size_mib=112)
    server.start_machine("web")
    yield "web"
    server.api.post("/machines/web/stop")


class Process:
    """One, and what it has said."""

    def __init__(self, server: Server, machine: str, *command: str, **more: Any) -> None:
        self.said = b""
        self.end: dict[str, Any] = {}
        names = [Subprotocol("hyperfleet.exec"), Subprotocol(f"hyperfleet.key.{server.key}")]
        url = f"ws://127.0.0.1:{server.api_port}/machines/{machine}/exec"
        self.client: ClientConnection = connect(
            url, subprotocols=names, proxy=None, open_timeout=LIMIT, legacy=True
        )
        self.client.send(json.dumps({"command": command, **more}))

    def order(self, **order: Any) -> None:
        self.client.send(json.dumps(order))

    def keys(self, data: bytes) -> None:
        self.client.send(data)

    def until(self, words: bytes) -> bytes:
        """What it says up to `words` and with them; the rest is for the next."""
        while words not in self.said:
            message = self.client.recv(LIMIT)
            if isinstance(message, bytes):
                self.said += message[1:]
            else:
                assert json.loads(message)["type"] == "stdin_taken", message
        before, _, self.said = self.said.partition(words)
        return before + words

    def rest(self) -> bytes:
        """What it says to its end."""
        try:
            while True:
                message = self.client.recv(LIMIT)
                if isinstance(message, bytes):
                    self.said += message[1:]
                else:
                    self.end = json.loads(message)
        except ConnectionClosed:
            return self.said


def test_a_shell_at_a_terminal(server: Server, machine: str) -> None:
    # A shell forgets what was typed before its prompt.
    shell = Process(server, machine, "sh", terminal={"rows": 30, "columns": 100})
    shell.until(b"# ")
    shell.keys(b"stty size; tty\n")
    shell.until(b"30 100\r\n")
    shell.until(b"/dev/pts/")
    shell.order(type="resize", rows=50, columns=132)
    shell.until(b"# ")
    shell.keys(b"stty size\n")
    shell.until(b"50 132\r\n")
    shell.until(b"# ")
    # An interrupt ends what runs in front, not the shell.
    shell.keys(b"sh -c 'echo be''gun; exec sleep 1000'\n")
    shell.until(b"begun\r\n")
    shell.keys(b"\x03")
    shell.until(b"# ")
    shell.keys(b"echo $?\n")
    shell.until(b"130\r\n")
    shell.until(b"# ")
    shell.keys(b"exit 7\n")
    shell.rest()
    assert shell.end == {"type": "exited", "exit_code": 7, "signal": None, "timed_out": False}


def test_whoever_leaves_a_terminal_hangs_it_up(server: Server, machine: str) -> None:
    script = "trap 'touch /hung-up; exit' HUP; echo ready; while :; do sleep 0.1; done"
    waits = Process(server, machine, "sh", "-c", script, terminal={"rows": 24, "columns": 80})
    waits.until(b"ready\r\n")
    waits.client.close()
    server.sh(machine, "while [ ! -e /hung-up ]; do sleep 0.1; done")


def test_much_goes_through_and_comes_back(server: Server, machine: str) -> None:
    data = bytes(range(256)) * 4096
    cat = Process(server, machine, "cat")
    half = len(data) // 2
    cat.keys(data[:half])
    cat.keys(data[half:])
    cat.order(type="eof")
    assert cat.rest() == data
    assert cat.end["exit_code"] == 0


class Terminal:
    """A terminal here, and a command that somebody sits at."""

    def __init__(self, server: Server, *arguments: str) -> None:
        self._near, self._far = os.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self._far)
        server.environment["TERM"] = "vt100"
        far = dict.fromkeys(("stdin", "stdout", "stderr"), self._far)
        self.command = server.popen(*arguments, **far)
        self._said = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def keys(self, data: bytes) -> None:
        os.write(self._near, data)

    def until(self, words: bytes) -> None:
        deadline = time.monotonic() + LIMIT
        while words not in self._said:
            ready, _, _ = select.select([self._near], [], [], max(0, deadline - time.monotonic()))
            assert ready, self._said
            self._said += os.read(self._near, 65536)
        self._said = self._said.partition(words)[2]

    def seated(self) -> None:
        """Waits until keys go on as they are pressed; what was typed before is lost."""
        deadline = time.monotonic() + LIMIT
        while self.after() == self.before:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def after(self) -> list[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._far)

    def close(self) -> None:
        self.command.kill()
        self.command.wait()
        os.close(self._near)
        os.close(self._far)


def test_a_shell_by_the_command_line(server: Server, machine: str) -> None:
    with contextlib.closing(Terminal(server, "shell", machine)) as here:
        here.until(b"# ")
        here.keys(b"echo $TERM-up; stty size\n")
        here.until(b"vt100-up\r\n24 80\r\n")
        here.until(b"# ")
        here.resize(33, 99)
        here.command.send_signal(signal.SIGWINCH)
        # The size arrives by itself, some moments later.
        here.keys(b"until stty size | grep 33; do sleep 0.1; done\n")
        here.until(b"33 99\r\n")
        here.until(b"# ")
        # Ctrl-C is the process's in there.
        here.keys(b"sh -c 'echo be''gun; exec sleep 1000'\n")
        here.until(b"begun\r\n")
        here.keys(b"\x03")
        here.until(b"# ")
        here.keys(b"echo still-$((1+1))\n")
        here.until(b"still-2\r\n")
        here.until(b"# ")
        assert here.after() != here.before
        here.keys(b"exit 7\n")
        assert here.command.wait(LIMIT) == 7
        assert here.after() == here.before


def test_a_shell_with_a_name_outlives_its_terminal(server: Server, machine: str) -> None:
    arguments = ("exec", "-i", "-t", "--name", "mine", machine, "--", "sh")
    with contextlib.closing(Terminal(server, *arguments)) as here:
        here.until(b"# ")
        here.keys(b"KEPT=yes; echo set-$((1+1))\n")
        here.until(b"set-2\r\n")
        here.until(b"# ")
        here.command.send_signal(signal.SIGHUP)
        assert here.command.wait(LIMIT) == -signal.SIGHUP
    with contextlib.closing(Terminal(server, "attach", machine, "mine")) as here:
        here.seated()
        here.keys(b"echo $KEPT-still\n")
        here.until(b"yes-still\r\n")
        here.until(b"# ")
        here.keys(b"stty size; exit 7\n")
        here.until(b"24 80\r\n")
        assert here.command.wait(LIMIT) == 7
        assert here.after() == here.before
    assert server.run("ps", "--json", machine).stdout.split() == ["{", '"processes":', "[]", "}"]


def test_the_references_example_for_browsers(server: Server, machine: str, need: Need) -> None:
    """In Node, with the WebSocket of npm's ws, which is as theirs are."""
    node = need("node")
    need.that(NODE_PACKAGES.is_dir(), "npm's packages are missing: run scripts/bootstrap clients")
    [example] = Page("docs/reference/exec-stream.md").blocks("js")
    assert f"localhost:3000/machines/{machine}/exec" in example
    here = example.replace("localhost:3000", f"127.0.0.1:{server.api_port}")
    done = subprocess.run(
        [
            node,
            "-e",
            f'const {{ WebSocket }} = require("ws"), {{ key }} = process.env;{here}{TYPES}',
        ],
        env={**os.environ, "NODE_PATH": str(NODE_PACKAGES), "key": server.key},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("exited 7\n", 0), done.stderr
