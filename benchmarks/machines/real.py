"""One QEMU machine: what we add to QEMU's own start, and to a round trip to the agent."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.machines.api import Connection
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import ExecRequest, GuestNetwork
from hyperfleet.network import user
from support.ports import free_port
from support.server import Server

ROUNDS = 7
START = 1.15
EXEC = 3.0
_EXECS = 200
_BOOT_S = 120.0
_MIB = 128
_PAGE = b"here\n"
_SERVE = "printf 'here\\n' > /index.html && httpd -h / -p {port}"
_PORT = 80
_FD_SET = re.compile(r"/dev/fdset/\d+")
_OWN_FD = re.compile(r"/proc/self/fd/(\d+)")
_HOST_FORWARD = re.compile(rf"(hostfwd=tcp:)([\d.]+):0-:{_PORT}")


@dataclass(frozen=True)
class Samples:
    """Seconds, a pair for each round; and of an exec and a round trip, in turn."""

    ours: list[float]
    bare: list[float]
    round_trips: list[float]
    execs: list[float]
    by_api: list[float]
    in_guest: float
    """Of one `true` that a shell in the guest runs: what no host can save."""


def measure(root: Path, rounds: int) -> list[Figure]:
    """Runs it; raises RuntimeError where images or QEMU are missing."""
    images = root / ".hyperfleet"
    check(images)
    # No way out, which is a process of its own beside QEMU.
    with Server(
        images=images,
        LOG_LEVEL="warning",
        HYPERFLEET_NETWORK="user",
        HYPERFLEET_NETWORK_RESTRICT="true",
        # Boots, as the bare line does.
        HYPERFLEET_TEMPLATES="0",
    ) as server:
        return figures(asyncio.run(_sample(server, rounds)))


def check(images: Path) -> None:
    """Raises RuntimeError where images or QEMU are missing."""
    if not (images / "minimal-rootfs.ext4").exists() or shutil.which("qemu-system-x86_64") is None:
        msg = "images or QEMU are not here: run make setup"
        raise RuntimeError(msg)


def figures(samples: Samples) -> list[Figure]:
    """Ratios within rounds, which a busy host slows alike; and what they are made of. Pure."""
    pairs = sorted(ours / bare for ours, bare in zip(samples.ours, samples.bare, strict=True))
    ours, bare = statistics.median(samples.ours), statistics.median(samples.bare)
    trip, run = statistics.median(samples.round_trips), statistics.median(samples.execs)
    api = statistics.median(samples.by_api)
    return [
        Figure(
            "real",
            "start to the first byte through the proxy, beside QEMU's own",
            statistics.median(pairs),
            "times",
            START,
            f"{ours:.2f} and {bare:.2f} s; rounds: {len(pairs)}, {pairs[0]:.2f} to {pairs[-1]:.2f}",
        ),
        Figure(
            "real",
            "exec of `true` over the agent's channel, beside a round trip",
            run / trip,
            "times",
            EXEC,
            f"{run * 1000:.2f} and {trip * 1000:.2f} ms, of {len(samples.execs)} in turn; "
            f"{samples.in_guest * 1000:.2f} ms where the guest's own shell runs it",
        ),
        Figure(
            "real",
            "exec of `true` through the API, beside a round trip",
            api / trip,
            "times",
            EXEC,
            f"{api * 1000:.2f} ms: HTTP, key, queue and log of the control plane are in it",
        ),
    ]


def qemu_version() -> str:
    """As it says itself."""
    said = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return said.splitlines()[0].replace("QEMU emulator version", "QEMU")


async def _sample(server: Server, rounds: int) -> Samples:
    connection = await Connection.open(server.api_url, server.key)
    folder = Path(tempfile.mkdtemp(prefix="hf-bare-"))
    try:
        # Not counted: it gives the line, and warms the host's caches for both.
        line, directory = await _the_line(server, connection, folder)
        ours: list[float] = []
        bare: list[float] = []
        for number in range(rounds):
            turns = [ours, bare] if number % 2 else [bare, ours]
            for turn in turns:
                if turn is ours:
                    turn.append(await _start_ours(server, connection, f"m{number}"))
                else:
                    turn.append(await _start_bare(line, directory))
            print(f"  start {number}: ours {ours[-1]:.2f}, bare {bare[-1]:.2f} s", file=sys.stderr)
        trips, execs, by_api, in_guest = await _execs(connection, line, directory)
        return Samples(ours, bare, trips, execs, by_api, in_guest)
    finally:
        connection.close()
        shutil.rmtree(folder)


async def _the_line(server: Server, connection: Connection, folder: Path) -> tuple[list[str], Path]:
    """A running machine's command line, and a copy of its directory as it was before its start."""
    machine = await _create(connection, "line")
    await connection.ask("POST", "/machines/line/start")
    pid = (await connection.ask("GET", "/machines/line"))["pid"]
    line = _words(int(pid))
    await connection.ask("POST", "/machines/line/stop")
    copy = folder / "machine"
    shutil.copytree(server.home / "machines" / machine["id"], copy, symlinks=True)
    return line, copy


def _words(pid: int) -> list[str]:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    return by_path(words, lambda number: str(Path(f"/proc/{pid}/fd/{number}").readlink()))


def by_path(words: Sequence[str], path: Callable[[str], str]) -> list[str]:
    """A line with the files' paths, where it has descriptors that QEMU inherited. Pure.

    The disk's base, which it takes out of a set of descriptors, lies in the machine's directory.
    """
    kept: list[str] = []
    for word, before in zip(words, ("", *words), strict=False):
        if before == "-add-fd":
            kept.pop()
        else:
            by_name = _OWN_FD.sub(lambda found: path(found[1]), word)
            kept.append(_FD_SET.sub("base.raw", by_name))
    return kept


async def _create(connection: Connection, name: str) -> dict[str, str]:
    body = {
        "name": name,
        "vcpu_count": 1,
        "mem_size_mib": _MIB,
        "rootfs_path": ".hyperfleet/minimal-rootfs.ext4",
        "exposed_ports": [_PORT],
    }
    machine: dict[str, str] = await connection.ask("POST", "/machines", body, wanted=201)
    return machine


async def _start_ours(server: Server, connection: Connection, name: str) -> float:
    await _create(connection, name)
    began = time.perf_counter()
    await connection.ask("POST", f"/machines/{name}/start")
    command = ["sh", "-c", _SERVE.format(port=_PORT)]
    await connection.ask("POST", f"/machines/{name}/exec", {"cmd": command})
    await asyncio.to_thread(first_byte, server.proxy_port, f"/proxy/{name}/{_PORT}/")
    seconds = time.perf_counter() - began
    await connection.ask("POST", f"/machines/{name}/stop")
    await connection.ask("DELETE", f"/machines/{name}", wanted=204)
    return seconds


async def _start_bare(line: list[str], directory: Path) -> float:
    began = time.perf_counter()
    async with _bare(line, directory) as (agent, address, port):
        await _run(agent, "sh", "-c", _SERVE.format(port=_PORT))
        await asyncio.to_thread(first_byte, port, "/", address)
        return time.perf_counter() - began


@asynccontextmanager
async def _bare(line: list[str], directory: Path) -> AsyncIterator[tuple[Agent, str, int]]:
    """QEMU with the machine's own line, nothing of the control plane about it."""
    with tempfile.TemporaryDirectory(prefix="hf-bare-") as name:
        here = Path(name) / "machine"
        shutil.copytree(directory, here, symlinks=True)
        for old in (*here.glob("*.sock"), *here.glob("*.pid"), *here.glob("console.log")):
            old.unlink()
        sockets = {key: _listening(here / f"{key}.bare") for key in ("qmp", "agent")}
        port = free_port()
        command, address = bare_command(
            line, port, {key: one.fileno() for key, one in sockets.items()}
        )
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            command,
            cwd=here,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[one.fileno() for one in sockets.values()],
        )
        try:
            for one in sockets.values():
                one.close()
            reader, writer = await asyncio.open_unix_connection(here / "agent.bare")
            agent = await Agent.connect(reader, writer, timeout=_BOOT_S)
            try:
                network = GuestNetwork(
                    address=user.GUEST_ADDRESS, gateway=user.GATEWAY, dns=user.DNS
                )
                await agent.configure("bare", network, _BOOT_S)
                yield agent, address, port
            finally:
                await agent.close()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def bare_command(line: list[str], port: int, descriptors: dict[str, int]) -> tuple[list[str], str]:
    """The machine's line with descriptors and a host's port of its own; where that port is. Pure.

    Raises:
        ValueError: it is no line of a machine with that exposed port.
    """
    found = next((match for word in line if (match := _HOST_FORWARD.search(word))), None)
    if found is None:
        msg = f"no forward to port {_PORT} in {line}"
        raise ValueError(msg)
    words = []
    for given in line:
        word = _HOST_FORWARD.sub(rf"\g<1>\g<2>:{port}-:{_PORT}", given)
        for key, descriptor in descriptors.items():
            word = re.sub(rf"^(socket,id={key},fd=)\d+", rf"\g<1>{descriptor}", word)
        words.append(word)
    return words, found[2]


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen(1)
    return listener


def first_byte(
    port: int, path: str, address: str = "127.0.0.1", *, beginning: bytes = _PAGE
) -> None:
    """Gets a page that begins so.

    Raises:
        RuntimeError: it does not.
    """
    connection = http.client.HTTPConnection(address, port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK or not body.startswith(beginning):
        msg = f"{path}: {answer.status} {body[:200]!r}"
        raise RuntimeError(msg)


async def _run(agent: Agent, *command: str) -> None:
    result = await agent.exec(
        ExecRequest(argv=command, timeout=60, cwd="/", env={}, stdin=b"", output_limit=4096)
    )
    if result.exit_code != 0:
        msg = f"{command}: {result.stderr!r}"
        raise RuntimeError(msg)


async def _execs(
    connection: Connection, line: list[str], directory: Path
) -> tuple[list[float], list[float], list[float], float]:
    trips: list[float] = []
    execs: list[float] = []
    by_api: list[float] = []
    await _create(connection, "exec")
    await connection.ask("POST", "/machines/exec/start")
    async with _bare(line, directory) as (agent, _, _):
        for _ in range(_EXECS):
            began = time.perf_counter()
            await agent.ping(10)
            trips.append(time.perf_counter() - began)
            began = time.perf_counter()
            await _run(agent, "true")
            execs.append(time.perf_counter() - began)
            began = time.perf_counter()
            await connection.ask("POST", "/machines/exec/exec", {"cmd": ["true"]})
            by_api.append(time.perf_counter() - began)
        loop = f"i=0; while [ $i -lt {_EXECS} ]; do /bin/true; i=$((i+1)); done"
        began = time.perf_counter()
        await _run(agent, "sh", "-c", loop)
        in_guest = (time.perf_counter() - began) / _EXECS
    await connection.ask("DELETE", "/machines/exec?force=true", wanted=204)
    return trips, execs, by_api, in_guest
