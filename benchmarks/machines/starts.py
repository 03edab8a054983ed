"""Starts: a boot beside clones of a template and of a snapshot, one and twenty at once."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.machines import process, real
from benchmarks.machines.api import Connection
from support.server import Server

ROUNDS = 9
CROWDS = 3
CROWD = 20
FIRST_BYTE = 0.15
CPU = 0.4
_MIB = 128
_PORT = 80
_TEMPLATE_S = 60.0
# Debian's nginx, as its package brings it.
_SERVE = ["nginx"]
_PAGE = b"<!DOCTYPE html>"


@dataclass(frozen=True)
class One:
    """One machine's start. Seconds: until the API said that it runs, and until its page began."""

    up: float
    page: float


@dataclass(frozen=True)
class Crowd:
    """Many at once, until the last one's page began. `cpu`: seconds, of all; memory: MiB each."""

    seconds: float
    cpu: float
    pss: float
    private: float


@dataclass(frozen=True)
class Samples:
    """Of rounds, each of which has all in turn. `still`: seconds of the longest request."""

    cold: list[One]
    warm: list[One]
    woken: list[One]
    cloned: list[One]
    still: list[float]
    cold_crowds: list[Crowd]
    warm_crowds: list[Crowd]


def measure(root: Path, rounds: int, crowds: int) -> list[Figure]:
    """Runs it; raises RuntimeError where images or QEMU are missing."""
    images = root / ".hyperfleet"
    if not (images / "debian-rootfs.ext4").exists() or shutil.which("qemu-system-x86_64") is None:
        msg = "images or QEMU are not here: run make setup"
        raise RuntimeError(msg)
    settings: dict[str, Any] = {
        "LOG_LEVEL": "warning",
        "HYPERFLEET_NETWORK": "user",
        # No way out, which is a process of its own beside QEMU.
        "HYPERFLEET_NETWORK_RESTRICT": "true",
    }
    with ExitStack() as stack:
        boots = stack.enter_context(Server(images=images, HYPERFLEET_TEMPLATES="0", **settings))
        clones = stack.enter_context(Server(images=images, **settings))
        return figures(asyncio.run(_sample(boots, clones, rounds, crowds)))


def figures(samples: Samples) -> list[Figure]:
    """Ratios within rounds, which a busy host slows alike; and what they are made of. Pure."""
    cold, warm = samples.cold, samples.warm
    pages = [one.page / other.page for one, other in zip(warm, cold, strict=True)]
    ups = [one.up / other.up for one, other in zip(warm, cold, strict=True)]
    found = [
        Figure(
            "starts",
            "warm start to the first byte of nginx's page, beside a boot's",
            statistics.median(pages),
            "times",
            FIRST_BYTE,
            f"{_median(warm, 'page'):.2f} and {_median(cold, 'page'):.2f} s, of which nginx's own"
            f" start takes {_nginx(warm):.2f} and {_nginx(cold):.2f}; rounds: {len(pages)},"
            f" {min(pages):.2f} to {max(pages):.2f}",
        ),
        Figure(
            "starts",
            "warm start until it can be used, beside a boot",
            statistics.median(ups),
            "times",
            None,
            f"{_median(warm, 'up'):.2f} and {_median(cold, 'up'):.2f} s",
        ),
    ]
    wakes = [one.page / other.page for one, other in zip(samples.woken, cold, strict=True)]
    found.append(
        Figure(
            "starts",
            "wake to the first byte of nginx's page, beside a boot's",
            statistics.median(wakes),
            "times",
            None,
            f"{_median(samples.woken, 'page'):.2f} s; it slept, so nginx runs already",
        )
    )
    clones = [one.page / other.page for one, other in zip(samples.cloned, cold, strict=True)]
    found += [
        Figure(
            "starts",
            "new machine of a snapshot to the first byte of nginx's page, beside a boot's",
            statistics.median(clones),
            "times",
            None,
            f"{_median(samples.cloned, 'page'):.2f} s with its making; nginx runs in the snapshot",
        ),
        Figure(
            "starts",
            "a machine stands still while a snapshot of it is made",
            statistics.median(samples.still) * 1000,
            "ms",
            None,
            f"the longest request meanwhile; at most {max(samples.still) * 1000:.0f} ms; of"
            f" machines of {_MIB} MiB",
        ),
    ]
    if samples.cold_crowds:
        found += _of_crowds(samples.cold_crowds, samples.warm_crowds)
    return found


def _of_crowds(cold: list[Crowd], warm: list[Crowd]) -> list[Figure]:
    pairs = [*zip(warm, cold, strict=True)]
    return [
        Figure(
            "starts",
            f"CPU of {CROWD} warm starts at once, beside boots'",
            statistics.median(one.cpu / other.cpu for one, other in pairs),
            "times",
            CPU,
            f"{_median(warm, 'cpu'):.1f} and {_median(cold, 'cpu'):.1f} s, nginx's start in it;"
            f" rounds: {len(pairs)}",
        ),
        Figure(
            "starts",
            f"{CROWD} at once until the last one's page, beside boots",
            statistics.median(one.seconds / other.seconds for one, other in pairs),
            "times",
            None,
            f"{_median(warm, 'seconds'):.1f} and {_median(cold, 'seconds'):.1f} s",
        ),
        Figure(
            "starts",
            "memory of each of them (Pss), beside one that booted",
            statistics.median(one.pss / other.pss for one, other in pairs),
            "times",
            None,
            f"{_median(warm, 'pss'):.0f} and {_median(cold, 'pss'):.0f} MiB, of which"
            f" {_median(warm, 'private'):.0f} and {_median(cold, 'private'):.0f} are its own;"
            f" machines of {_MIB} MiB",
        ),
    ]


def _median(samples: list[Any], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in samples))


def _nginx(samples: list[One]) -> float:
    return statistics.median(one.page - one.up for one in samples)


async def _sample(boots: Server, clones: Server, rounds: int, crowds: int) -> Samples:
    for server in (boots, clones):
        # Not counted: it warms the host's caches for both.
        await _one(server, "first")
    await _template_is_there(clones)
    samples = Samples([], [], [], [], [], [], [])
    for number in range(rounds):
        turns = [(boots, samples.cold), (clones, samples.warm)]
        for server, kept in turns if number % 2 else turns[::-1]:
            kept.append(await _one(server, f"m{number}", warm=server is clones))
        samples.woken.append(await _woken(clones, f"s{number}"))
        cloned, still = await _cloned(clones, f"k{number}")
        samples.cloned.append(cloned)
        samples.still.append(still)
        print(
            f"  start {number}: cold {samples.cold[-1].page:.2f},"
            f" warm {samples.warm[-1].page:.2f}, woken {samples.woken[-1].page:.2f},"
            f" of a snapshot {cloned.page:.2f} s",
            file=sys.stderr,
        )
    for number in range(crowds):
        samples.cold_crowds.append(await _crowd(boots, warm=False))
        samples.warm_crowds.append(await _crowd(clones, warm=True))
        print(
            f"  crowd {number}: cold {samples.cold_crowds[-1].seconds:.1f},"
            f" warm {samples.warm_crowds[-1].seconds:.1f} s",
            file=sys.stderr,
        )
    return samples


async def _template_is_there(server: Server) -> None:
    connection = await Connection.open(server.api_url, server.key)
    try:
        deadline = time.monotonic() + _TEMPLATE_S
        while not (await connection.ask("GET", "/templates"))["templates"]:
            if time.monotonic() > deadline:
                msg = "no template was made"
                raise RuntimeError(msg)
            await asyncio.sleep(0.1)
    finally:
        connection.close()


async def _one(server: Server, name: str, *, warm: bool | None = None) -> One:
    connection = await Connection.open(server.api_url, server.key)
    try:
        await _create(connection, name)
        one, _ = await _until_page(server, connection, name, warm=warm)
        await _delete(connection, name)
    finally:
        connection.close()
    return one


async def _woken(server: Server, name: str) -> One:
    """A machine that serves falls asleep, uncounted, and is woken."""
    connection = await Connection.open(server.api_url, server.key)
    try:
        await _create(connection, name)
        await _until_page(server, connection, name, warm=True)
        await connection.ask("POST", f"/machines/{name}/sleep")
        began = time.perf_counter()
        machine = await connection.ask("POST", f"/machines/{name}/start")
        up = time.perf_counter() - began
        if machine["last_start"]["how"] != "memory":
            msg = f"a start was not as it should be: {machine['last_start']}"
            raise RuntimeError(msg)
        await _page(server, name)
        page = time.perf_counter() - began
        await _delete(connection, name)
    finally:
        connection.close()
    return One(up, page)


async def _cloned(server: Server, name: str) -> tuple[One, float]:
    """A new machine of a snapshot; and how long the first one stood still for that."""
    connection = await Connection.open(server.api_url, server.key)
    try:
        await _create(connection, name)
        await _until_page(server, connection, name, warm=True)
        made = asyncio.Event()
        asking = asyncio.create_task(_longest(server, name, made))
        try:
            body = {"name": name}
            await connection.ask("POST", f"/machines/{name}/snapshots", body, wanted=201)
        finally:
            made.set()
        still = await asking
        clone = f"{name}-clone"
        began = time.perf_counter()
        body = {"name": clone}
        await connection.ask("POST", f"/snapshots/{name}/clone", body, wanted=201)
        await connection.ask("POST", f"/machines/{clone}/start")
        up = time.perf_counter() - began
        await _page(server, clone)
        page = time.perf_counter() - began
        await _delete(connection, name)
        await _delete(connection, clone)
        await connection.ask("DELETE", f"/snapshots/{name}", wanted=204)
    finally:
        connection.close()
    return One(up, page), still


async def _longest(server: Server, name: str, over: asyncio.Event) -> float:
    """Seconds of the longest request of those that follow each other until it is `over`."""
    longest = 0.0
    while not over.is_set():
        began = time.perf_counter()
        await _page(server, name)
        longest = max(longest, time.perf_counter() - began)
    return longest


async def _page(server: Server, name: str) -> None:
    path = f"/proxy/{name}/{_PORT}/"
    await asyncio.to_thread(real.first_byte, server.proxy_port, path, beginning=_PAGE)


async def _until_page(
    server: Server, connection: Connection, name: str, *, warm: bool | None
) -> tuple[One, int]:
    """And its process's id."""
    began = time.perf_counter()
    machine = await connection.ask("POST", f"/machines/{name}/start")
    up = time.perf_counter() - began
    if warm is not None and machine["last_start"]["how"] != ("template" if warm else "boot"):
        msg = f"a start was not as it should be: {machine['last_start']}"
        raise RuntimeError(msg)
    done = await connection.ask("POST", f"/machines/{name}/exec", {"cmd": _SERVE})
    if done["exit_code"]:
        raise RuntimeError(done["stderr"])
    await _page(server, name)
    return One(up, time.perf_counter() - began), int(machine["pid"])


async def _crowd(server: Server, *, warm: bool) -> Crowd:
    names = [f"c{number}" for number in range(CROWD)]
    connections = [await Connection.open(server.api_url, server.key) for _ in names]
    both = [*zip(connections, names, strict=True)]
    try:
        for connection, name in both:
            await _create(connection, name)
        began = time.perf_counter()
        done = await asyncio.gather(
            *(_until_page(server, connection, name, warm=warm) for connection, name in both)
        )
        seconds = time.perf_counter() - began
        pids = [pid for _, pid in done]
        cpu = sum(process.cpu_seconds(pid) for pid in pids)
        memory = [_memory(pid) for pid in pids]
        for connection, name in both:
            await _delete(connection, name)
    finally:
        for connection in connections:
            connection.close()
    pss = sum(one["Pss"] for one in memory) / CROWD
    private = sum(one["Private_Clean"] + one["Private_Dirty"] for one in memory) / CROWD
    return Crowd(seconds, cpu, pss / 1024, private / 1024)


async def _create(connection: Connection, name: str) -> None:
    body = {
        "name": name,
        "vcpu_count": 1,
        "mem_size_mib": _MIB,
        "rootfs_path": ".hyperfleet/debian-rootfs.ext4",
        "exposed_ports": [_PORT],
    }
    await connection.ask("POST", "/machines", body, wanted=201)


async def _delete(connection: Connection, name: str) -> None:
    await connection.ask("DELETE", f"/machines/{name}?force=true", wanted=204)


def _memory(pid: int) -> dict[str, int]:
    """KiB, by the names of proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}
