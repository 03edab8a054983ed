"""Servers as processes, with a fleet in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import plain
from support.zygote import Zygote

PROGRAM = Path(__file__).with_name("serve_memory.py")
HYPERFLEET = Path(sys.executable).with_name("hyperfleet")
# Seconds; a loaded machine is slow, a hanging server is for ever.
PATIENCE = 60


class Server:
    """One server's process; tests wait on the lines of its standard output."""

    def __init__(self, zygote: Zygote, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = clean_environment() | {"PORT": "0", "PROXY_PORT": "0"} | environment
        ours, theirs = os.pipe()
        self._out = os.fdopen(ours)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until its end
        with os.fdopen(theirs, "w") as out:
            self._process = zygote.serve(
                folder, self.environment, out.fileno(), self._errors.fileno()
            )
        self.pid = self._process.pid
        self.said: list[str] = []
        # Whatever happens, no test waits longer than this for a line.
        self._limit = threading.Timer(PATIENCE, self._process.send_signal, (signal.SIGKILL,))
        self._limit.daemon = True
        self._limit.start()

    def wait_for(self, pattern: str) -> str:
        """Reads until a line matches; the line's first group."""
        for line in self._out:
            self.said.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(f"{pattern} was never said: {self.said} {self.end()}")

    def client(self) -> httpx.Client:
        """Waits until it is ready; a client with the first key."""
        url = self.wait_for(r"API +(http://\S+)")
        self.wait_for(r"Driver +(\w+)")
        key = (self.folder / ".hyperfleet" / "api-key").read_text().strip()
        return httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, verify=plain.NOBODY
        )

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Waits for its end: exit code, the rest of its output, its errors."""
        with self._out, self._errors:
            rest = self._out.read()
            code = self._process.wait(PATIENCE)
            self._limit.cancel()
            self._errors.seek(0)
            return code, rest, self._errors.read()

    def kill(self) -> None:
        """Ends it if it has not ended."""
        self._process.send_signal(signal.SIGKILL)
        if not self._out.closed:
            self.end()


def clean_environment() -> dict[str, str]:
    """What a program needs to start here, and no settings."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture(scope="session")
def memory_zygote() -> Iterator[Zygote]:
    with Zygote(PROGRAM) as made:
        yield made


@pytest.fixture
def serve(memory_zygote: Zygote, tmp_path: Path) -> Iterator[Any]:
    """Starts servers in one folder; ends those that a test leaves."""
    started: list[Server] = []

    def start(**environment: str) -> Server:
        server = Server(memory_zygote, tmp_path, **environment)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


def run(server: Server, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`hyperfleet ARGUMENTS…` in the server's folder."""
    return subprocess.run(
        [HYPERFLEET, *arguments],
        cwd=server.folder,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
