"""Thousands of machines of the fake driver behind a real `hyperfleet serve`: HTTP and SQLite."""

from __future__ import annotations

import asyncio
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import httpx

from benchmarks.figures import Figure
from benchmarks.machines import growth, process
from benchmarks.machines.api import Ask, Connection, Timing, time_all
from benchmarks.machines.growth import Turns, Work
from benchmarks.progress import Progress
from support.server import Server

T = TypeVar("T")

SIZES = (100, 1_000, 10_000)
_CONNECTIONS = 32
# Of requests that change nothing: enough for a p99, from a hundred machines on.
_READS = 1_000
_LISTS = 400
_PAGE = 100
# Rounds in which all numbers of machines take turns, and requests of a turn.
ROUNDS = 15
_TURN = {"get": 100, "list": 20, "create": 32, "start": 32, "stop": 32, "delete": 32}
# Rounds in which a fleet that is discovered and one that is not take turns.
_DISTURBED = 20
# Descriptors that serve needs beside one for each machine's port.
_SPARE = 1_000
# Far beyond what is expected: a busy host is to give a figure, too.
_ADOPTION_S = 600.0
_NEVER_MS = "3600000"
# Seconds in which every machine is looked at once, a thousand of them each second.
_LEAST_OFTEN = 1
# Seconds after which a long kind of work tells how far it is.
_TELL_S = 10.0
# A guess of what a machine takes from its making to its end, a size besides, and a round.
_MACHINE_S, _SIZE_S, _ROUND_S = 0.03, 10.0, 5.0
# The fake's machines outlive a control plane, and serve a port from their boot on.
_KERNEL_ARGS = "fake.survives=true fake.listens=80"
_SEEN = re.compile(
    r'^hyperfleet_discovery_looks_total\{[^}]*outcome="seen"[^}]*\} (\S+)', re.MULTILINE
)


@dataclass
class Measured:
    """What is found out about all sizes."""

    works: list[Work] = field(default_factory=list)
    turns: Turns = field(default_factory=dict)
    memory: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    adoption: list[tuple[int, float]] = field(default_factory=list)
    discovery: list[Figure] = field(default_factory=list)


def measure(sizes: tuple[int, ...], rounds: int = ROUNDS) -> list[Figure]:
    """Runs every size on a home of its own; figures of the largest, and the growth between.

    `rounds`: in which all sizes take turns.
    """
    _raise_descriptors(max(sizes) + _SPARE)
    measured = Measured()
    asyncio.run(_measure(sorted(sizes), measured, rounds))
    return [
        *growth.figures(measured.works),
        *growth.of_turns(measured.turns),
        *growth.of_sizes("adoption after kill -9, for one", "ms", measured.adoption),
        *(
            figure
            for of, memory in measured.memory.items()
            for figure in growth.of_sizes(f"{of}'s memory for one that runs", "KiB", memory)
        ),
        *measured.discovery,
    ]


def _server() -> Server:
    return Server(
        HYPERFLEET_VMM="fake",
        LOG_LEVEL="warning",
        HYPERFLEET_BOOTS_AT_ONCE="64",
        HYPERFLEET_MEMORY_OVERCOMMIT_PERCENT="10000",
        HYPERFLEET_CPU_OVERCOMMIT_PERCENT="1000000",
        HYPERFLEET_METRICS_PER_MACHINE="false",
        PROXY_EXPOSED_PORT_POLL_INTERVAL_MS=_NEVER_MS,
    )


async def _measure(sizes: Sequence[int], measured: Measured, rounds: int) -> None:
    """All grow; then they are asked in turns; then each has its end, with what only it can tell."""
    progress = Progress(
        {
            **{f"{size} machines grow": _SIZE_S + size * _MACHINE_S / 2 for size in sizes},
            "turns": rounds * len(sizes) * _ROUND_S,
            **{f"{size} machines end": _SIZE_S + size * _MACHINE_S / 2 for size in sizes},
        }
    )
    with ExitStack() as servers:
        crowds = []
        for size in sizes:
            server = _server()
            servers.callback(server.close)
            server.start()
            crowds.append(_Crowd(server, size, measured))
            await crowds[-1].grow()
            progress.done(f"{size} machines grow")
        await _turns(crowds, measured.turns, rounds)
        progress.done("turns")
        *fewer, most = crowds
        await most.reads()
        if fewer:
            await most.discovered(beside=fewer[-1])
        for crowd in crowds:
            await crowd.ends()
            progress.done(f"{crowd.size} machines end")


async def _turns(crowds: Sequence[_Crowd], turns: Turns, rounds: int) -> None:
    """The same requests to every fleet, again and again: what the host does meanwhile hits all."""
    chance = random.Random(len(crowds))  # noqa: S311 - no secret
    for number in range(rounds):
        for what in _TURN:
            for crowd in chance.sample(crowds, len(crowds)):
                cpu_ms = await crowd.turn(what, number)
                turns.setdefault(what, {}).setdefault(crowd.size, []).append(cpu_ms)
    for what, sizes in turns.items():
        told = ", ".join(f"{median(each):.2f} of {size}" for size, each in sizes.items())
        print(f"  {what} in turns, ms of CPU: {told}", file=sys.stderr)


class _Crowd:
    """Machines of one server, all alike."""

    def __init__(self, server: Server, size: int, measured: Measured) -> None:
        self.size = size
        self._server = server
        self._measured = measured
        self._names = [f"m{number:05d}" for number in range(size)]

    async def grow(self) -> None:
        """Every machine is made, and started."""
        pids = {
            "control plane": self._server.pid,
            "data plane": process.running_in(self._server.home, "hyperfleet-proxy"),
        }
        bare = {of: process.memory(pid) for of, pid in pids.items()}
        await self._timed("create", self._names, _create)
        await self._timed("start", self._names, _post("start"))
        for of, pid in pids.items():
            grown = process.memory(pid) - bare[of]
            self._measured.memory.setdefault(of, []).append((self.size, grown / self.size / 1024))
        await self._all_are("running")
        # From here on what is listed has been shown before, in every fleet.
        pages = range(0, self.size, _PAGE)
        await self._timed(f"list of {_PAGE}, the first time", pages, _page, connections=1)

    async def reads(self) -> None:
        """What changes nothing: machines, and pages of the list."""
        chance = random.Random(self.size)  # noqa: S311 - no secret
        for what, count in self._counts().items():
            items, ask = self._read(what, chance, count)
            await self._timed(what, items, ask, connections=1)

    def _counts(self) -> dict[str, int]:
        """How many reads of each kind."""
        return {"get": min(_READS, self.size * 10), f"list of {_PAGE}": min(_LISTS, self.size)}

    def _read(self, what: str, chance: random.Random, count: int) -> tuple[list[Any], Ask[Any]]:
        """So many reads of a kind: what is asked for, and how."""
        if what == "get":
            return chance.choices(self._names, k=count), _get
        return self._offsets(chance, count), _page

    async def turn(self, what: str, number: int) -> float:
        """Requests of one kind; those that change something have machines of their own.

        After a turn of every kind, in their order, nothing of them is left.

        Returns:
            The control plane's CPU time for one, milliseconds.
        """
        count = _TURN[what]
        chance = random.Random(number)  # noqa: S311 - no secret
        if what in ("list", "get"):
            items, read = self._read(what, chance, count)
            _, cpu = await self._ask(items, read, connections=1)
        else:
            ask = {"create": _create, "delete": _delete}.get(what) or _post(what)
            _, cpu = await self._ask([f"x{one:05d}" for one in range(count)], ask)
        return cpu / count * 1000

    async def ends(self) -> None:
        """What follows a crash; then no machine."""
        await self.adopted()
        await self._timed("stop", self._names, _post("stop"))
        await self._timed("delete", self._names, _delete)
        _end(self._server)

    async def adopted(self) -> None:
        """The control plane is killed, and the next one has them all."""
        self._server.kill()
        began = time.monotonic()
        await asyncio.to_thread(self._server.start, _ADOPTION_S)
        seconds = time.monotonic() - began
        self._measured.adoption.append((self.size, seconds / self.size * 1000))
        await self._all_are("running")
        print(f"{self.size} machines adopted: ready after {seconds:.1f} s", file=sys.stderr)

    async def discovered(self, beside: _Crowd) -> None:
        """Reads while every machine is looked at, again and again.

        In turns with those of a fleet at which nobody looks, so that what the host does meanwhile
        hits both.
        """
        await self._is_seen_every(str(_often_s(self.size) * 1000))
        seen, began = self._seen(), time.monotonic()
        cpu = process.cpu_seconds(self._server.pid)
        # One whole round of looks, with nothing else to do.
        await asyncio.sleep(_often_s(self.size))
        busy = (process.cpu_seconds(self._server.pid) - cpu) / (time.monotonic() - began)
        looks = (self._seen() - seen) / (time.monotonic() - began)
        self._measured.discovery.append(
            Figure(
                "crowd",
                f"{self.size:,} machines: all seen every {_often_s(self.size)} s",
                looks,
                "machines a second",
                None,
                f"{busy:.0%} of one CPU; the guests of the fake run in it, too",
            )
        )
        for what, count in self._counts().items():
            asked = {crowd: Timing(0.0, []) for crowd in (self, beside)}
            for number in range(_DISTURBED):
                chance = random.Random(number)  # noqa: S311 - no secret
                for crowd in chance.sample((self, beside), 2):
                    items, ask = crowd._read(what, chance, -(-count // _DISTURBED))  # noqa: SLF001 - of its class
                    timing, _ = await crowd._ask(items, ask, connections=1)  # noqa: SLF001
                    asked[crowd] += timing
            p99s = (asked[beside].p99_ms, asked[self].p99_ms)
            self._measured.discovery.append(growth.disturbance(what, *p99s, looks, beside.size))
        await self._is_seen_every(_NEVER_MS)

    async def _timed(
        self, what: str, items: Sequence[T], ask: Ask[T], *, connections: int = 0
    ) -> Timing:
        """Asked of every item, and told as a kind of work of this size."""
        timing, cpu = await self._ask(
            items, ask, self._teller(what, len(items)), connections=connections
        )
        work = Work(what, self.size, len(items), timing.seconds, timing.p99_ms, cpu)
        self._measured.works.append(work)
        print(
            f"  {self.size} {what}: {work.rate:.0f}/s, p99 {work.p99_ms:.1f} ms, "
            f"CPU {work.cpu_ms:.2f} ms",
            file=sys.stderr,
        )
        return timing

    async def _ask(
        self,
        items: Sequence[T],
        ask: Ask[T],
        told: Callable[[int], None] = lambda _: None,
        *,
        connections: int = 0,
    ) -> tuple[Timing, float]:
        """Asked of every item; with it the control plane's CPU time for all, seconds."""
        with ExitStack() as stack:
            opened = []
            for _ in range(connections or min(_CONNECTIONS, self.size)):
                one = await Connection.open(self._server.api_url, self._server.key)
                stack.callback(one.close)
                opened.append(one)
            before = process.cpu_seconds(self._server.pid)
            timing = await time_all(opened, items, ask, told)
            return timing, process.cpu_seconds(self._server.pid) - before

    async def _is_seen_every(self, milliseconds: str) -> None:
        """By the next control plane, which is started at once."""
        self._server.environment["PROXY_EXPOSED_PORT_POLL_INTERVAL_MS"] = milliseconds
        _end(self._server)
        await asyncio.to_thread(self._server.start, _ADOPTION_S)

    def _offsets(self, chance: random.Random, count: int) -> list[int]:
        """Of pages of the list."""
        return [chance.randrange(max(1, self.size - _PAGE)) for _ in range(count)]

    def _teller(self, what: str, count: int) -> Callable[[int], None]:
        """Tells now and then how many of `count` are done."""
        last = time.monotonic()

        def told(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > _TELL_S:
                last = time.monotonic()
                print(f"  {self.size} {what}: {done} of {count}", file=sys.stderr)

        return told

    async def _all_are(self, status: str) -> None:
        connection = await Connection.open(self._server.api_url, self._server.key)
        try:
            answer = await connection.ask("GET", f"/machines?limit=1&status={status}")
        finally:
            connection.close()
        if answer["total"] != self.size:
            msg = f"{answer['total']} of {self.size} machines are {status}"
            raise RuntimeError(msg)

    def _seen(self) -> float:
        found = _SEEN.search(httpx.get(f"{self._server.api_url}/metrics", timeout=60).text)
        if found is None:
            msg = "/metrics does not count looks"
            raise RuntimeError(msg)
        return float(found[1])


def _end(server: Server) -> None:
    if server.stop() != 0:
        msg = f"the server did not end in order:\n{server.log.read_text()[-2000:]}"
        raise RuntimeError(msg)


def _often_s(size: int) -> int:
    return max(_LEAST_OFTEN, size // 1000)


async def _create(connection: Connection, name: str) -> None:
    body = {
        "name": name,
        "vcpu_count": 1,
        "mem_size_mib": 4,
        "kernel_args": _KERNEL_ARGS,
        "exposed_ports": [80],
        "labels": {"half": "one" if int(name[1:]) % 2 else "other"},
    }
    await connection.ask("POST", "/machines", body, wanted=201)


async def _get(connection: Connection, name: str) -> None:
    await connection.ask("GET", f"/machines/{name}")


async def _page(connection: Connection, offset: int) -> None:
    await connection.ask("GET", f"/machines?limit={_PAGE}&offset={offset}")


async def _delete(connection: Connection, name: str) -> None:
    await connection.ask("DELETE", f"/machines/{name}", wanted=204)


def _post(verb: str) -> Ask[str]:
    async def ask(connection: Connection, name: str) -> None:
        await connection.ask("POST", f"/machines/{name}/{verb}")

    return ask


def _raise_descriptors(wanted: int) -> None:
    """The fake's ways in are sockets of the control plane, one for each port.

    Raises:
        RuntimeError: the host allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        msg = f"{wanted} descriptors are needed, {hard} allowed (ulimit -Hn)"
        raise RuntimeError(msg)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
