"""Ports: how soon a server in a guest is known on the host, and what an idle machine costs it."""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import sys
import time
from asyncio import StreamReader
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from benchmarks.figures import Figure
from benchmarks.machines import process, real
from benchmarks.machines.api import Connection
from support.server import Server

ROUNDS = 20
IDLE_S = 30.0
KNOWN_MS = 300.0
IDLE_PERCENT = 0.5
# Without any setting.
_DEFAULT_MS = 10_000
# Polls that find a server within the same time, less what a look takes.
_POLL_MS = 250
_MIB = 128
# Of the web server that opens and closes the other port when it is asked to.
_DOOR = 80
_PORT = 8080
# A guest may have so many looks at once; between samples it is quiet for long enough to have them.
_QUIET_S = 2.5
_EVENT_S = 60.0
# After a start, until nothing of it goes on any more.
_SETTLE_S = 10.0
_SERVE = f"""
mkdir -p /www/cgi-bin && cd /www/cgi-bin
cat > open <<'END'
#!/bin/sh
httpd -p {_PORT} -h /www
printf 'Content-Type: text/plain\\n\\ndone\\n'
END
cat > close <<'END'
#!/bin/sh
kill $(ps | awk '/[h]ttpd -p {_PORT}/ {{ print $1 }}')
printf 'Content-Type: text/plain\\n\\ndone\\n'
END
chmod +x open close && httpd -p {_DOOR} -h /www
"""


@dataclass(frozen=True)
class Idle:
    """Seconds of CPU in so many seconds: of a machine's QEMU, and what its control plane adds.

    `without`: what the control plane takes without a machine.
    """

    seconds: float
    qemu: float
    control_plane: float
    without: float

    @property
    def percent(self) -> float:
        """Of one processor, both together."""
        return 100 * (self.qemu + self.control_plane) / self.seconds


@dataclass(frozen=True)
class Samples:
    """Of servers that begin and end: seconds from the request that has the guest do it.

    `done`: until it says that it is; the others: until the event. `by_event` and `by_poll` are of
    both machines while nothing went on.
    """

    done: list[float]
    begun: list[float]
    ended: list[float]
    by_event: Idle
    by_poll: Idle


def measure(root: Path, rounds: int) -> list[Figure]:
    """Runs it; raises RuntimeError where images or QEMU are missing."""
    images = root / ".hyperfleet"
    real.check(images)
    settings: dict[str, Any] = {
        "LOG_LEVEL": "warning",
        "HYPERFLEET_NETWORK": "user",
        # No way out, which is a process of its own beside QEMU; and none that is made meanwhile.
        "HYPERFLEET_NETWORK_RESTRICT": "true",
        "HYPERFLEET_TEMPLATES": "0",
    }
    with ExitStack() as stack:
        events, polls = (
            stack.enter_context(
                Server(images=images, PROXY_EXPOSED_PORT_POLL_INTERVAL_MS=str(interval), **settings)
            )
            for interval in (_DEFAULT_MS, _POLL_MS)
        )
        return figures(asyncio.run(_sample(events, polls, rounds)))


def figures(samples: Samples) -> list[Figure]:
    """What is told of them. Pure."""
    done = statistics.median(samples.done)
    found = [
        _latency(f"a server that {what}, until its event has come: the slowest", times, done)
        for what, times in (("begins to listen", samples.begun), ("ends", samples.ended))
    ]
    event, poll = samples.by_event, samples.by_poll
    return [
        *found,
        Figure(
            "ports",
            "CPU of an idle machine, what its control plane does for it included",
            event.percent,
            "%",
            IDLE_PERCENT,
            f"QEMU {_percent(event.qemu, event)}, control plane"
            f" {_percent(event.control_plane, event)}, which takes {_percent(event.without, event)}"
            f" without a machine; in {event.seconds:.0f} s",
        ),
        Figure(
            "ports",
            f"the same where it is asked every {_POLL_MS} ms",
            poll.percent,
            "%",
            None,
            f"QEMU {_percent(poll.qemu, poll)}, control plane"
            f" {_percent(poll.control_plane, poll)}; {poll.percent / event.percent:.0f} times as"
            " much",
        ),
    ]


def _latency(title: str, times: list[float], done: float) -> Figure:
    return Figure(
        "ports",
        title,
        1000 * max(times),
        "ms",
        KNOWN_MS,
        f"median {1000 * statistics.median(times):.0f} of {len(times)}; from the request on that"
        f" has a CGI script do it, whose answer takes {1000 * done:.0f}",
    )


def _percent(seconds: float, idle: Idle) -> str:
    return f"{100 * seconds / idle.seconds:.2f} %"


async def _sample(events: Server, polls: Server, rounds: int) -> Samples:
    servers = (events, polls)
    await asyncio.sleep(_SETTLE_S)
    without = await asyncio.gather(*(_used(server.pid) for server in servers))
    pids = [await _start(server) for server in servers]
    await asyncio.sleep(_SETTLE_S)
    used = await asyncio.gather(
        *(_used(pid, server.pid) for pid, server in zip(pids, servers, strict=True))
    )
    by_event, by_poll = (
        Idle(IDLE_S, qemu, max(0.0, whole - base), base)
        for (qemu, whole), (base,) in zip(used, without, strict=True)
    )
    kept = Samples([], [], [], by_event, by_poll)
    async with Ear(events) as ear:
        for number in range(rounds):
            for script, listens, times in (
                ("open", True, kept.begun),
                ("close", False, kept.ended),
            ):
                await asyncio.sleep(_QUIET_S)
                began = time.perf_counter()
                asking = asyncio.to_thread(_ask, events, script)
                at, answered = await asyncio.gather(ear.hears(listens=listens), asking)
                times.append(at - began)
                kept.done.append(answered - began)
            print(
                f"  server {number}: known after {1000 * kept.begun[-1]:.0f} ms,"
                f" its end after {1000 * kept.ended[-1]:.0f}",
                file=sys.stderr,
            )
    return kept


async def _start(server: Server) -> int:
    """A machine that serves the scripts; its process's id."""
    connection = await Connection.open(server.api_url, server.key)
    try:
        body = {
            "name": "m",
            "vcpu_count": 1,
            "mem_size_mib": _MIB,
            "rootfs_path": ".hyperfleet/minimal-rootfs.ext4",
            "exposed_ports": [_DOOR, _PORT],
        }
        await connection.ask("POST", "/machines", body, wanted=201)
        machine = await connection.ask("POST", "/machines/m/start")
        serve = {"cmd": ["sh", "-c", _SERVE]}
        done = await connection.ask("POST", "/machines/m/exec", serve)
        if done["exit_code"]:
            raise RuntimeError(done["stderr"])
    finally:
        connection.close()
    return int(machine["pid"])


async def _used(*pids: int) -> list[float]:
    """Seconds of CPU of each of these processes in `IDLE_S`."""
    before, began = [process.cpu_seconds(pid) for pid in pids], time.perf_counter()
    await asyncio.sleep(IDLE_S)
    scale = IDLE_S / (time.perf_counter() - began)
    return [
        scale * (process.cpu_seconds(pid) - then) for pid, then in zip(pids, before, strict=True)
    ]


def _ask(server: Server, script: str) -> float:
    """Has the guest run it; when it had answered."""
    path = f"/proxy/m/{_DOOR}/cgi-bin/{script}"
    real.first_byte(server.proxy_port, path, beginning=b"done")
    return time.perf_counter()


class Ear:
    """Follows the events of the machine's other port."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader: StreamReader
        self._close: Any

    async def __aenter__(self) -> Self:
        place = urlsplit(self._server.api_url)
        self._reader, writer = await asyncio.open_connection(place.hostname, place.port)
        self._close = writer.close
        head = "GET /events?machine=m HTTP/1.1\r\nHost: bench\r\n"
        writer.write(f"{head}Authorization: Bearer {self._server.key}\r\n\r\n".encode())
        status = (await self._reader.readuntil(b"\r\n\r\n")).split()[1]
        if int(status) != http.client.OK:
            msg = f"/events: {status!r}"
            raise RuntimeError(msg)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def hears(self, *, listens: bool) -> float:
        """When the next event of it came.

        Raises:
            RuntimeError: it is of something else than was awaited.
        """
        async with asyncio.timeout(_EVENT_S):
            while True:
                line = await self._reader.readline()
                at = time.perf_counter()
                if line.startswith(b"data:"):
                    port = json.loads(line.removeprefix(b"data:")).get("port") or {}
                    if port.get("port") == _PORT:
                        if port["listening"] is not listens:
                            msg = f"an event that was not awaited: {line!r}"
                            raise RuntimeError(msg)
                        return at
