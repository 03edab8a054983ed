"""The real agent binary on a Unix socket, as root and as nobody."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hyperfleet.guest.agent import Agent
from hyperfleet.wire import WireError, slip
from hyperfleet.wire import guest as wire

ROOT = Path(__file__).parents[3]
NOBODY = 65534
# Seconds; of things that take milliseconds.
LIMIT = 20


@pytest.fixture(scope="session")
def agent_binary() -> Iterator[Path]:
    """A copy that anyone may run, of what cargo builds (it does nothing when it is built)."""
    build = ["cargo", "build", "--quiet", "--package", "hyperfleet-guest-agent"]
    subprocess.run(build, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    with tempfile.TemporaryDirectory(prefix="hyperfleet-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copy(target / "debug/hyperfleet-guest-agent", folder))


# Where root runs the tests, the agent is also tried as another user.
@pytest.fixture(params=["self", "nobody"] if os.geteuid() == 0 else ["self"])
def agent_user(request: pytest.FixtureRequest) -> int | None:
    """Whom the agent runs as; None: as who runs the tests."""
    return NOBODY if request.param == "nobody" else None


@pytest.fixture
def folder(agent_user: int | None) -> Iterator[Path]:
    """A folder that belongs to the agent's user. Short, for the sake of socket names."""
    with tempfile.TemporaryDirectory(prefix="hyperfleet-test-") as name:
        if agent_user is not None:
            os.chown(name, agent_user, agent_user)
        yield Path(name)


class Agents:
    """One agent's process, and the hosts that connect to it."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path, console: Path) -> None:
        self.process = process
        self.path = path
        # What stands for a machine's console.
        self.console = console
        self.connected: list[Agent] = []

    async def connect(self) -> Agent:
        agent = await Agent.connect(*await self.stream(), timeout=LIMIT)
        self.connected.append(agent)
        return agent

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), LIMIT)


@pytest.fixture
async def agents(
    agent_binary: Path, agent_user: int | None, folder: Path, tmp_path: Path
) -> AsyncIterator[Agents]:
    path, console = folder / "agent", tmp_path / "console"
    with console.open("ab") as written:
        process = await asyncio.create_subprocess_exec(
            agent_binary,
            "--test-socket",
            path,
            stdout=asyncio.subprocess.PIPE,
            stderr=written,
            user=agent_user,
            group=agent_user,
            extra_groups=None if agent_user is None else [],
        )
    # It says so on standard output when it listens.
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"
    agents = Agents(process, path, console)
    yield agents
    for agent in agents.connected:
        await agent.close()
    if process.returncode is None:
        process.terminate()
    exit_code = await agents.exit_code()
    sys.stderr.write(console.read_text(errors="replace"))
    assert exit_code == 0


@pytest.fixture
async def agent(agents: Agents) -> Agent:
    return await agents.connect()


class Raw:
    """A host that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = slip.Reader()
        self._received: list[wire.FromGuest] = []

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, message: wire.ToGuest) -> None:
        self.write(slip.frame(wire.encode(message)))

    def exec(self, call_id: int, script: str, *, stdin: bool = False) -> None:
        call = wire.ExecCall(
            argv=("sh", "-c", script),
            env=(),
            cwd=None,
            timeout_ms=1000 * LIMIT,
            stdin=stdin,
            output_limit=1 << 40,
        )
        self.send(wire.Exec(id=call_id, exec=call))

    async def receive(self, *, cut: bool = False) -> wire.FromGuest:
        """The next message. `cut`: a new hello may have cut off a frame that was being written."""
        while not self._received:
            data = await asyncio.wait_for(self.reader.read(65536), LIMIT)
            assert data, "the agent closed the connection"
            for payload in self._frames.feed(data):
                if cut and isinstance(payload, WireError):
                    continue
                assert isinstance(payload, bytes), payload
                self._received.append(wire.decode_from_guest(payload))
        return self._received.pop(0)

    async def hello(
        self, nonce: int, *, low: int = 1, high: int = 1, ignore_before: bool = False
    ) -> wire.Welcome:
        self.send(wire.Hello(nonce=nonce, min=low, max=high))
        message = await self.receive(cut=ignore_before)
        while ignore_before and not isinstance(message, wire.Welcome):
            message = await self.receive(cut=True)
        assert isinstance(message, wire.Welcome)
        assert message.nonce == nonce
        return message


@pytest.fixture
async def raw(agents: Agents) -> AsyncIterator[Raw]:
    host = Raw(*await agents.stream())
    yield host
    host.writer.close()
    await host.writer.wait_closed()


class Fifo:
    """A named pipe: tells, without polling, when a process in the guest opens it or has gone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def write(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.to_thread(self.path.write_bytes, data), LIMIT)

    async def read(self) -> bytes:
        return await asyncio.wait_for(asyncio.to_thread(self.path.read_bytes), LIMIT)

    def end(self) -> asyncio.Task[bytes]:
        """Done when every process that had it open for writing has gone."""
        return asyncio.create_task(self.read())

    async def opened(self) -> asyncio.Task[bytes]:
        """Waits until a process has it open for writing; then as `end`, which has to be awaited:
        a loop that closes before its thread has begun leaves the file open."""
        reading = await asyncio.wait_for(asyncio.to_thread(self.path.open, "rb"), LIMIT)

        def read() -> bytes:
            with reading:
                return reading.read()

        return asyncio.create_task(asyncio.to_thread(read))


@pytest.fixture
def fifo(folder: Path) -> Fifo:
    path = folder / "fifo"
    os.mkfifo(path)
    path.chmod(0o666)
    return Fifo(path)
