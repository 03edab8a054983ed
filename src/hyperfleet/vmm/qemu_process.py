"""A QEMU process under its driver's hand: QMP, the agent's channel, ways in, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from qemu.qmp import EventListener, Message, QMPClient, QMPError, Runstate

from hyperfleet import unix_sockets
from hyperfleet.errors import GuestError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import How
from hyperfleet.network.interface import Network
from hyperfleet.vmm import backlog, migration, qemu_disk, saved_memory
from hyperfleet.vmm.cgroup import Cgroups
from hyperfleet.vmm.driver import Beginning, CpuTime, Exit, LaunchSpec
from hyperfleet.vmm.host_process import HostProcess
from hyperfleet.vmm.qemu_spawn import AGENT_SOCKET, QMP_SOCKET

# A loaded host is slow; a monitor that says nothing for so long is stuck.
_MONITOR_TIMEOUT_S = 30.0
# Of gigabytes, on a slow disk.
_SAVING_S = 600.0
# A guest that was stopped for want of room on the host's disk tries again as often.
_DISK_RETRY_S = 5.0
# A guest that has gone on, and has not been stopped again within this time, has found room.
_DISK_TRIED_S = 0.5
_NO_ROOM = (
    "there is no room on the host's disk for what it writes; it waits, and goes on by itself when"
    " there is"
)
# QEMU has ended: what it still said on QMP is in the socket's buffer.
_LAST_WORDS_S = 2.0

# See qapi/run-state.json: whoever stopped it, and it was saved then.
_SAVED = "postmigrate"
_STILL = ("paused", _SAVED)

_log = logging.getLogger(__name__)

# The client logs every end of file as an error; what matters of it is told by our own errors.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class QemuProcess:
    """Implements `driver.Process`. Made by `connect`."""

    def __init__(
        self,
        host: HostProcess,
        launch: LaunchSpec,
        network: Network,
        beginning: Beginning,
        cgroups: Cgroups,
    ) -> None:
        self.beginning = beginning
        self._host = host
        self._launch = launch
        self._network = network
        self._cgroups = cgroups
        self._client: QMPClient | None = None
        self._powered_off = False
        # One at a time: a way that two ask for at once is made once.
        self._monitor_lock = asyncio.Lock()
        self._forwards: dict[int, str] = {}
        self._going_on: asyncio.Task[None] | None = None
        # Whether it is to stand still: of several reasons QEMU keeps the first alone.
        self._held = False
        self.stalled: str | None = None
        # How often its disk found no room.
        self._disk_errors = 0
        self._hears_stalled: Callable[[str | None], None] = lambda _: None
        self._end = asyncio.create_task(self._watch(), name=f"end of QEMU {host.pid}")

    @classmethod
    async def connect(
        cls,
        host: HostProcess,
        launch: LaunchSpec,
        network: Network,
        beginning: Beginning,
        cgroups: Cgroups,
        *,
        state: int | None = None,
    ) -> QemuProcess:
        """Reaches the process's monitor and learns the ways in that it has.

        `state`: a descriptor that it inherited, of what it is to take over first; it runs then.
        It is a template's without memory, or all of what a machine had when it fell asleep, which
        is removed before it runs.

        Raises:
            GuestError: it ended, or does not answer. `host` stays the caller's.
        """
        process = cls(host, launch, network, beginning, cgroups)
        try:
            # Whatever the network asks of it: events are heard, and it is seen to answer.
            async with process._asking() as client:
                if state is not None:
                    await process._take_over(client, state)
            process._forwards = await process._ask_forwards()
        except BaseException:
            process._let_go()
            raise
        process._let_clients_wait(process._forwards.values())
        return process

    @property
    def pid(self) -> int | None:
        """QEMU's process id."""
        return self._host.pid

    def cpu_time(self) -> CpuTime | None:
        """QEMU's, which is the guest's too."""
        return self._host.cpu_time()

    async def channel(self) -> tuple[StreamReader, StreamWriter]:
        """A connection to the virtio-serial port's socket."""
        self._must_live()
        try:
            connection = await unix_sockets.connect(self._launch.directory / AGENT_SOCKET)
        except OSError as error:
            raise GuestError(f"the agent's channel is not there: {error.strerror}") from error
        return await asyncio.open_unix_connection(sock=connection)

    def when_stalled(self, hears: Callable[[str | None], None]) -> None:
        """See `driver.Process`: it waits for room on the host's disk."""
        self._hears_stalled = hears
        if self.stalled is not None:
            hears(self.stalled)

    async def forward(self, guest_port: int) -> str:
        """The way to `guest_port`; made when there is none."""
        async with self._monitor_lock:
            known = self._forwards.get(guest_port)
            if known is None:
                known = await self._network.forward(self._monitor, self._launch, guest_port)
                self._forwards[guest_port] = known
                self._let_clients_wait((known,))
            return known

    async def unforward(self, guest_port: int) -> None:
        """Takes the way to `guest_port` away."""
        async with self._monitor_lock:
            address = self._forwards.get(guest_port)
            if address is not None:
                await self._network.unforward(self._monitor, self._launch, guest_port, address)
                # Only now: one that could not be taken away is still there.
                del self._forwards[guest_port]

    async def forwards(self) -> dict[int, str]:
        """What QEMU itself lists."""
        async with self._monitor_lock:
            self._forwards = await self._ask_forwards()
            return dict(self._forwards)

    async def pause(self) -> None:
        """QMP's `stop`."""
        with self._holding(still=True):
            async with self._asking() as client:
                await client.execute("stop")

    async def resume(self) -> bool:
        """QMP's `cont`."""
        with self._holding(still=False):
            async with self._asking() as client:
                stood = await _status(client) != "running"
                if stood:
                    await self._cont(client)
                return stood

    async def save(self) -> None:
        """See `driver.Process.save`."""
        with self._holding(still=True):
            async with self._asking(_SAVING_S) as client:
                await _stop(client)
                await saved_memory.write(client, self._launch.directory)

    async def snapshot(self, into: Path) -> None:
        """See `driver.Process.snapshot`."""
        held, self._held = self._held, True
        try:
            async with self._asking(_SAVING_S) as client:
                still = await _status(client) in _STILL or held
                if still:
                    await _stop(client)
                try:
                    await saved_memory.copy_to(client, self._launch.directory, into)
                    await asyncio.to_thread(qemu_disk.copy, self._launch.directory, into)
                    reach(Point.SNAPSHOT_STILL)
                finally:
                    if not still:
                        await client.execute("cont")
        finally:
            self._held = held

    async def is_unborn(self) -> bool:
        """Whether it waits for a state that it was to take over."""
        async with self._asking() as client:
            return await _status(client) == "inmigrate"

    async def kill(self) -> None:
        """SIGKILL, and returns when the process is gone."""
        await self._host.kill()
        await self.wait()

    async def wait(self) -> Exit:
        """How it ended, when it has."""
        return await asyncio.shield(self._end)

    def release(self) -> None:
        """Leaves QEMU running and frees its monitor for the next control plane."""
        self._let_go()
        self._host.release()

    def _let_go(self) -> None:
        self._end.cancel()
        if self._going_on is not None:
            self._going_on.cancel()
        client, self._client = self._client, None
        if client is not None:
            # Closing takes turns of the loop; the socket itself closes with the first.
            task = asyncio.ensure_future(_hang_up(client))
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    async def _watch(self) -> Exit:
        exit_ = await self._host.wait()
        if self._going_on is not None:
            self._going_on.cancel()
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    while client.runstate == Runstate.RUNNING:
                        await client.runstate_changed()
            await _hang_up(client)
        return msgspec.structs.replace(
            exit_,
            powered_off=self._powered_off,
            out_of_memory=self._cgroups.out_of_memory(self._launch.id),
        )

    def _let_clients_wait(self, ways: Iterable[str]) -> None:
        if ports := {int(way.rpartition(":")[2]) for way in ways}:
            backlog.deepen(self._host.pid, ports)

    async def _take_over(self, client: QMPClient, state: int) -> None:
        woken = self.beginning.how is How.MEMORY
        await self._host.before_end(migration.load(client, state, without_memory=not woken))
        self._must_live()
        if woken:
            reach(Point.WAKE_LOADED)
            await asyncio.to_thread(saved_memory.remove, self._launch.directory)
            reach(Point.WAKE_FORGOTTEN)
        await client.execute("cont")

    async def _ask_forwards(self) -> dict[int, str]:
        return await self._network.forwards(self._monitor, self._launch)

    async def _monitor(self, line: str) -> str:
        """The human monitor's answer to `line`, by QMP's human-monitor-command."""
        async with self._asking() as client:
            return str(await client.execute("human-monitor-command", {"command-line": line}))

    @contextlib.asynccontextmanager
    async def _asking(self, limit: float = _MONITOR_TIMEOUT_S) -> AsyncIterator[QMPClient]:
        """The monitor, for as long as it may take to answer.

        Raises:
            GuestError: it failed, or took longer.
        """
        self._must_live()
        try:
            async with asyncio.timeout(limit):
                yield await self._connected()
        except TimeoutError as error:
            raise GuestError(f"QEMU's monitor did not answer within {limit:.0f} s") from error
        except (QMPError, OSError, EOFError) as error:
            self._must_live()
            raise GuestError(f"QEMU's monitor failed: {error}") from error

    async def _connected(self) -> QMPClient:
        if self._client is not None:
            if self._client.runstate == Runstate.RUNNING:
                return self._client
            await _hang_up(self._client)
        client = QMPClient()
        client.register_listener(EventListener("SHUTDOWN", self._on_shutdown))
        client.register_listener(EventListener("BLOCK_IO_ERROR", self._on_disk_error))
        await client.connect(await unix_sockets.connect(self._launch.directory / QMP_SOCKET))
        self._client = client
        await self._see_whether_it_waits(client)
        return client

    def _on_disk_error(self, event: Message) -> bool:
        """QEMU has stopped the guest where its disk found no room on the host's (`werror=enospc`).

        Nothing is lost, and the write is tried again when the guest goes on.
        """
        data = event.get("data")
        if isinstance(data, dict) and data.get("action") == "stop":
            self._disk_errors += 1
            self._continue_later()
        return False

    def _continue_later(self) -> None:
        self._stall(_NO_ROOM)
        if self._going_on is None or self._going_on.done():
            self._going_on = asyncio.create_task(self._go_on(), name=f"QEMU {self.pid} goes on")

    async def _go_on(self) -> None:
        """Has it go on when there may be room, until there is, or the process ends."""
        while self.stalled is not None and not self._host.ended:
            await asyncio.sleep(_DISK_RETRY_S)
            with contextlib.suppress(GuestError):
                async with self._asking() as client:
                    if await self._see_whether_it_waits(client) and not self._held:
                        await self._cont(client)

    async def _see_whether_it_waits(self, client: QMPClient) -> bool:
        """Whether it stands still for want of room, which is told."""
        errors = self._disk_errors
        waits = await _status(client) == "io-error"
        if waits:
            self._continue_later()
        elif errors == self._disk_errors:
            # Else the answer is of before the last error.
            self._stall(None)
        return waits

    async def _cont(self, client: QMPClient) -> None:
        """Has it go on; one that waited for room has found some if no error comes in a while."""
        errors = self._disk_errors
        await client.execute("cont")
        if self.stalled is not None:
            await asyncio.sleep(_DISK_TRIED_S)
            if errors == self._disk_errors:
                self._stall(None)

    def _stall(self, why: str | None) -> None:
        if why == self.stalled:
            return
        self.stalled = why
        _log.warning("process %s: %s", self.pid, why or "it has found room, and goes on")
        self._hears_stalled(why)

    @contextlib.contextmanager
    def _holding(self, *, still: bool) -> Iterator[None]:
        """From now on it is to stand still, or not; as before if that can't be had."""
        before, self._held = self._held, still
        try:
            yield
        except BaseException:
            self._held = before
            raise

    def _on_shutdown(self, event: Message) -> bool:
        """Notes why QEMU ends (qapi/run-state.json, ShutdownCause); nothing is queued."""
        data = event.get("data")
        self._powered_off = isinstance(data, dict) and data.get("reason") == "guest-shutdown"
        return False

    def _must_live(self) -> None:
        if self._host.ended or self._end.cancelled():
            raise GuestError("the machine's process has ended")


async def _stop(client: QMPClient) -> None:
    """Has it stand still, and its disk in its own hands: QEMU lets go of that when it has saved."""
    if await _status(client) == _SAVED:
        await client.execute("cont")
    await client.execute("stop")


async def _status(client: QMPClient) -> str | None:
    """See qapi/run-state.json, RunState."""
    answer = await client.execute("query-status")
    return str(answer.get("status")) if isinstance(answer, dict) else None


_closing: set[asyncio.Future[None]] = set()


async def _hang_up(client: QMPClient) -> None:
    # It re-raises whatever ended the connection, which is over in any case.
    with contextlib.suppress(Exception):
        await client.disconnect()
