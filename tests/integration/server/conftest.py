"""`hyperfleet serve` as a process, with a fleet in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import plain

PROGRAM = Path(__file__).with_name("serve_memory.py")
HYPERFLEET = Path(sys.executable).with_name("hyperfleet")
# Seconds; a loaded machine is slow, a hanging server is for ever.
PATIENCE = 60


class Server:
    """One server's process; tests wait on the lines of its standard output."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = clean_environment() | {"PORT": "0", "PROXY_PORT": "0"} | environment
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", PROGRAM],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.said: list[str] = []
        # Whatever happens, no test waits longer than this for a line.
        self._limit = threading.Timer(PATIENCE, self._process.kill)
        self._limit.daemon = True
        self._limit.start()

    def wait_for(self, pattern: str) -> str:
        """Reads until a line matches; the line's first group."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
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
        out, errors = self._process.communicate(timeout=PATIENCE)
        self._limit.cancel()
        return self._process.returncode, out, errors

    def kill(self) -> None:
        """Ends it if it has not ended."""
        self._limit.cancel()
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def clean_environment() -> dict[str, str]:
    """What a program needs to start here, and no settings."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Starts servers in one folder; ends those that a test leaves."""
    started: list[Server] = []

    def start(**environment: str) -> Server:
        server = Server(tmp_path, **environment)
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
