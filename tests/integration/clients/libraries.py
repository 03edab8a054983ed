"""The clients: a program of `programs/` for each library, how it is started, what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from integration.clients.limits import CANNOT
from support.need import Need
from support.page import CHECKOUT

# Seconds, as a guard.
PATIENCE = 120.0
PROGRAMS = Path(__file__).parent / "programs"
CACHE = CHECKOUT / ".cache"
# What of a scenario its client is not to know.
EXPECTED = ("seen", "most_connects", "subprotocol", "closed")


class Client(NamedTuple):
    """A program of `programs/`; `command` asks for what it needs of the host."""

    name: str
    command: Callable[[Need], list[str]]


def _python(name: str) -> Callable[[Need], list[str]]:
    return lambda need: [sys.executable, "-m", f"integration.clients.programs.{name}.client"]


def _curl(need: Need) -> list[str]:
    need("curl")
    return _python("curl")(need)


def _fetch(need: Need) -> list[str]:
    return [need("node"), f"{PROGRAMS}/fetch/client.mjs"]


def _ws(need: Need) -> list[str]:
    need.that((CACHE / "node/node_modules/ws").is_dir(), "run scripts/bootstrap clients")
    return [need("node"), f"{PROGRAMS}/ws/client.mjs"]


def _go(need: Need) -> list[str]:
    """Built here: what nobody has changed is had from Go's own cache."""
    built = CACHE / "clients-go"
    # Not made fast, nor with C: a third less to compile, the library's own sources included.
    command = [need("go"), "build", "-gcflags=all=-N -l", "-o", str(built), "."]
    environment = ENVIRONMENT | {"GOCACHE": str(CACHE / "go"), "GOTOOLCHAIN": "local"}
    environment |= {"CGO_ENABLED": "0"}
    # It uses no module but itself.
    environment |= {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOPROXY": "off"}
    subprocess.run(command, cwd=PROGRAMS / "go", env=environment, check=True)
    return [str(built)]


HTTP_CLIENTS = (
    Client("curl", _curl),
    Client("httpx", _python("httpx")),
    Client("aiohttp", _python("aiohttp")),
    Client("fetch", _fetch),
    Client("go", _go),
)
WEBSOCKET_CLIENTS = (
    Client("websockets", _python("websockets")),
    Client("aiohttp", _python("aiohttp")),
    Client("ws", _ws),
)
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.environ.get("HOME", "/"),
    "PYTHONPATH": str(CHECKOUT / "tests"),
    "NODE_PACKAGES": str(CACHE / "node/node_modules"),
}


def run(client: Client, need: Need, origin: str, scenarios: tuple[Any, ...]) -> dict[str, Any]:
    """What a client tells of its scenarios, by their names, until its end or until it got stuck.

    `origin`: `http://127.0.0.1:PORT` of the data plane.
    """
    asked = [
        {name: value for name, value in msgspec.to_builtins(one).items() if name not in EXPECTED}
        for one in scenarios
        if (client.name, one.name) not in CANNOT
    ]
    with subprocess.Popen(
        client.command(need),
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        output, _ = process.communicate(json.dumps({"origin": origin, "scenarios": asked}) + "\n")
        guard.cancel()
    told = [json.loads(line) for line in output.splitlines()]
    return {result["name"]: result for result in told}
