"""The supervision of the data plane against the real one: adoption, death, floods, bad company."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest

from hyperfleet import binaries, unix_sockets
from hyperfleet.errors import SettingsError, SetupError
from hyperfleet.lifecycle import Status
from hyperfleet.machine import ExposedPort, Machine, MachineNetwork, MachineSpec
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.interface import Answer
from hyperfleet.proxy.link import Link
from hyperfleet.proxy.process import DataPlaneConfig
from hyperfleet.wire import control
from support.need import Need
from support.server import free_port

# A supervision that lets its data plane serve on leaves a child behind, as its own end would.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

# Seconds; generous, for a loaded machine.
PATIENCE = 30.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = "aaaaaaaaaaaa"
OK = (200, "ok")
STOPPED = (503, '{"error":"Machine is not running"}')


def a_machine(
    machine_id: str = WEB,
    *,
    status: Status = Status.RUNNING,
    upstream: str | None = None,
    listening: bool = True,
) -> Machine:
    return Machine(
        id=machine_id,
        spec=MachineSpec(
            name=f"m-{machine_id}",
            vcpu_count=1,
            mem_size_mib=64,
            kernel_image_path="k",
            rootfs_path="r",
        ),
        status=status,
        vmm="fake",
        network=MachineNetwork(mode="user"),
        ports=(ExposedPort(port=80, listening=listening, upstream=upstream),),
        lifecycle=1,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.fixture
def config(need: Need, tmp_path: Path) -> Iterator[DataPlaneConfig]:
    try:
        binary = binaries.proxy()
    except SetupError as error:
        need.that(False, str(error))
    made = DataPlaneConfig(
        binary=binary,
        socket=tmp_path / "proxy.sock",
        log=tmp_path / "proxy.log",
        bind="127.0.0.1",
        port=free_port(),
        arguments=(("workers", "2"), ("prefix", "/proxy")),
    )
    yield made
    # What a test that failed left running.
    for pid in _holders(made):
        os.kill(pid, signal.SIGKILL)


async def nobody_asks(machine: str, port: int) -> Answer | None:
    raise AssertionError("no probe was expected")


@contextlib.asynccontextmanager
async def opened(
    config: DataPlaneConfig,
    *machines: Machine,
    probe: Callable[[str, int], Awaitable[Answer | None]] = nobody_asks,
) -> AsyncIterator[DataPlane]:
    plane = DataPlane(config, probe)
    for machine in machines:
        await plane.publish(machine)
    await plane.open()
    try:
        yield plane
    finally:
        await plane.close(keep_running=False)


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    """A server in a machine; its `ADDRESS:PORT`. It answers each request after its first byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(until_end, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def page(config: DataPlaneConfig, machine_id: str = WEB) -> tuple[int, str]:
    # Without certificates, whose loading takes longer than all of the rest.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501
        url = f"http://127.0.0.1:{config.port}/proxy/{machine_id}/80/"
        answer = await client.get(url, timeout=PATIENCE)
        return answer.status_code, answer.text


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


def alive(pid: int) -> bool:
    """A process that runs; one that its parent has not reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def test_it_is_adopted_with_every_connection(config: DataPlaneConfig, upstream: str) -> None:
    machine = a_machine(upstream=upstream)
    first = DataPlane(config, nobody_asks)
    await first.publish(machine)
    await first.open()
    pid = first.pid
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
    request = f"GET /proxy/{WEB}/80/ HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    # Half of it before, half after the change of guard.
    writer.write(request[:20])
    await writer.drain()
    await first.close(keep_running=True)
    assert await page(config) == OK
    async with opened(config, machine) as second:
        assert second.pid == pid
        writer.write(request[20:])
        assert (
            await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        )
        assert await reader.readexactly(2) == b"ok"
        await second.publish(a_machine(status=Status.STOPPED))
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_a_machine_that_went_meanwhile_is_gone(
    config: DataPlaneConfig, upstream: str
) -> None:
    first = DataPlane(config, nobody_asks)
    await first.publish(a_machine(upstream=upstream))
    await first.open()
    await first.close(keep_running=True)
    async with opened(config):
        assert (await page(config))[0] == 404


@pytest.mark.parametrize("change", ["arguments", "port"])
async def test_with_other_settings_it_is_replaced(config: DataPlaneConfig, change: str) -> None:
    first = DataPlane(config, nobody_asks)
    await first.open()
    old = first.pid
    assert old is not None
    await first.close(keep_running=True)
    other = (
        msgspec.structs.replace(config, port=free_port())
        if change == "port"
        else msgspec.structs.replace(config, arguments=(("workers", "1"), ("prefix", "/proxy")))
    )
    async with opened(other) as second:
        assert second.pid != old
        assert not alive(old)
        assert (await page(other))[0] == 404


async def test_killed_it_is_started_again_with_its_routes(
    config: DataPlaneConfig, upstream: str
) -> None:
    many = [a_machine(f"{number:012}", status=Status.STOPPED) for number in range(500)]
    async with opened(config, a_machine(upstream=upstream), *many) as plane:
        for _ in range(2):
            old = plane.pid
            assert old is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
            os.kill(old, signal.SIGKILL)
            began = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            await until(lambda old=old: plane.pid not in (None, old))  # type: ignore[misc]
            # What is published now is behind the whole table.
            await plane.publish(a_machine("b" * 12, upstream=upstream))
            assert await page(config) == OK
            assert await page(config, "0" * 12) == STOPPED
            # About 0.1 s; the bound is for a machine that is busy with other things.
            assert time.monotonic() - began < 5
            await plane.withdraw("b" * 12)


async def test_a_burst_arrives_whole_and_in_order(config: DataPlaneConfig, upstream: str) -> None:
    async with opened(config) as plane:
        machines = [f"{number:012}" for number in range(500)]
        await asyncio.gather(
            *(plane.publish(a_machine(name, status=Status.STOPPED)) for name in machines),
            *(plane.publish(a_machine(name, upstream=upstream)) for name in machines),
            # One that changes all the time ends as it was last.
            *(
                plane.publish(a_machine(status=status, upstream=upstream))
                for _ in range(100)
                for status in (Status.RUNNING, Status.STOPPED)
            ),
        )
        assert await page(config) == STOPPED
        for name in machines[::50]:
            assert await page(config, name) == OK
        await asyncio.gather(*(plane.withdraw(name) for name in machines))
        assert (await page(config, machines[0]))[0] == 404
        assert (await page(config, machines[-1]))[0] == 404


async def test_a_number_that_is_missing_is_asked_for(config: DataPlaneConfig) -> None:
    plane = DataPlane(config, nobody_asks)
    await plane.open()
    await plane.close(keep_running=True)
    link = await Link.connect(config.socket, nobody_asks, deadline_s=PATIENCE)
    asked = asyncio.Event()
    running = asyncio.create_task(link.run(asked.set))
    async with asyncio.timeout(PATIENCE):
        await link.send([control.SnapshotBegin(number=1), control.SnapshotEnd(number=1)])
        assert await link.wait_applied(1)
        await link.send([control.Change(number=3, upsert=(), remove=("x",))])
        await asked.wait()
        await link.send([control.SnapshotBegin(number=3), control.SnapshotEnd(number=3)])
        assert await link.wait_applied(3)
    await link.close()
    await running
    async with opened(config):
        assert (await page(config))[0] == 404


async def test_two_control_planes_do_not_end_the_data_plane(
    config: DataPlaneConfig, upstream: str
) -> None:
    machine = a_machine(upstream=upstream)
    async with opened(config, machine) as plane:
        pid = plane.pid
        # The newest wins; the supervision comes back, and its table with it.
        link = await Link.connect(config.socket, nobody_asks, deadline_s=PATIENCE)
        await link.send([control.SnapshotBegin(number=1), control.SnapshotEnd(number=1)])
        await link.close()
        async with asyncio.timeout(PATIENCE):
            while await page(config) != OK:
                await plane.publish(machine)
        assert plane.pid == pid


async def test_a_probe_goes_to_the_agent_and_its_word_counts(
    config: DataPlaneConfig, upstream: str
) -> None:
    answers: dict[str, Answer | Exception | None] = {
        "listens": Answer(upstream=upstream),
        "closed": Answer(upstream=None),
        "unknown": None,
        "broken": RuntimeError("the agent is confused"),
    }
    asked: list[tuple[str, int]] = []

    async def probe(machine: str, port: int) -> Answer | None:
        asked.append((machine, port))
        answer = answers[machine.rstrip("0")]
        if isinstance(answer, Exception):
            raise answer
        return answer

    ids = {name: name.ljust(12, "0") for name in answers}
    machines = [a_machine(id_, listening=False) for id_ in ids.values()]
    async with opened(config, *machines, probe=probe):
        assert await page(config, ids["listens"]) == OK
        for name in ("closed", "unknown", "broken"):
            status, text = await page(config, ids[name])
            assert (status, text) == (502, '{"error":"Failed to connect to upstream"}'), name
    assert asked == [(ids[name], 80) for name in answers]


async def test_probes_that_hang_do_not_hang_the_link(
    config: DataPlaneConfig, upstream: str
) -> None:
    stuck = asyncio.Event()

    async def probe(machine: str, port: int) -> Answer | None:
        if machine != WEB:
            await stuck.wait()
        return Answer(upstream=upstream)

    # More than are answered at once.
    hanging = [a_machine(f"{number:012}", listening=False) for number in range(100)]
    async with opened(config, a_machine(listening=False), *hanging, probe=probe) as plane:
        waiting = [asyncio.create_task(page(config, machine.id)) for machine in hanging]
        counters = await plane.counters()
        assert counters is not None
        for task in waiting:
            assert (await task)[0] == 502
        assert await page(config) == OK


async def test_closed_it_is_gone_or_serves_on(config: DataPlaneConfig, upstream: str) -> None:
    plane = DataPlane(config, nobody_asks)
    await plane.publish(a_machine(upstream=upstream))
    await plane.open()
    pid = plane.pid
    assert pid is not None
    await plane.close(keep_running=True)
    assert alive(pid)
    assert await page(config) == OK
    async with opened(config) as again:
        assert again.pid == pid
    assert not alive(pid)
    assert not config.socket.exists()
    with socket.socket() as trial:
        assert trial.connect_ex(("127.0.0.1", config.port)) != 0


async def test_closed_while_it_is_away_nothing_is_left(config: DataPlaneConfig) -> None:
    for turns in range(0, 50, 10):
        plane = DataPlane(config, nobody_asks)
        await plane.open()
        pid = plane.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda plane=plane, pid=pid: plane.pid != pid)  # type: ignore[misc]
        # Somewhere between noticing the death and shaking the new one's hand.
        for _ in range(turns):
            await asyncio.sleep(0)
        await plane.close(keep_running=False)
        assert _holders(config) == []


def _holders(config: DataPlaneConfig) -> list[int]:
    """Data planes that run in the folder of the control socket."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                here = (entry / "cwd").readlink() == config.socket.parent
            except OSError:
                continue
            if here:
                found.append(int(entry.name))
    return found


async def test_a_port_that_somebody_else_holds(config: DataPlaneConfig, upstream: str) -> None:
    with socket.create_server(("127.0.0.1", config.port)):
        plane = DataPlane(config, nobody_asks)
        with pytest.raises(SettingsError, match=f"PROXY_PORT {config.port}"):
            await plane.check()
        with pytest.raises(SettingsError, match=f"PROXY_PORT {config.port}"):
            await plane.open()
        await plane.close(keep_running=False)
    async with opened(config, a_machine(upstream=upstream)) as plane:
        await plane.check()
        pid = plane.pid
        assert pid is not None
        # Taken while the data plane is dead: it comes back when the port does.
        os.kill(pid, signal.SIGSTOP)
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: _bound(holder, config.port))
        holder.listen()
        await until(lambda: plane.pid != pid)
        holder.close()
        await until(lambda: plane.pid not in (None, pid))
        await plane.publish(a_machine("b" * 12))
        assert await page(config) == OK


def _bound(holder: socket.socket, port: int) -> bool:
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


async def test_garbage_on_the_control_socket_costs_nothing(
    config: DataPlaneConfig, upstream: str
) -> None:
    async with opened(config, a_machine(upstream=upstream)) as plane:
        pid = plane.pid
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x00\x00\x00\x05hello", b""):
            with await unix_sockets.connect(config.socket) as connection:
                await asyncio.get_running_loop().sock_sendall(connection, garbage)
        assert await page(config) == OK
        await plane.publish(a_machine(status=Status.STOPPED))
        assert await page(config) == STOPPED
        assert plane.pid == pid


async def test_what_holds_the_socket_and_is_no_data_plane_is_left_alone(
    config: DataPlaneConfig,
) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('proxy.sock'); s.listen();"
        "print('listens', flush=True)\nwhile True: s.accept()[0].sendall(b'x' * 100)"
    )
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=config.socket.parent, stdout=asyncio.subprocess.PIPE
    )
    assert stranger.stdout is not None
    assert await stranger.stdout.readline() == b"listens\n"
    plane = DataPlane(config, nobody_asks)
    with pytest.raises(SettingsError, match=f"{config.socket} is held by process {stranger.pid}"):
        await plane.open()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()
    async with opened(config):
        assert (await page(config))[0] == 404


async def test_a_data_plane_that_does_not_answer_is_replaced(config: DataPlaneConfig) -> None:
    first = DataPlane(config, nobody_asks)
    await first.open()
    old = first.pid
    assert old is not None
    await first.close(keep_running=True)
    os.kill(old, signal.SIGSTOP)
    async with opened(config) as second:
        assert second.pid != old
        assert not alive(old)
        assert (await page(config))[0] == 404
