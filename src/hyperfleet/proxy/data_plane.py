"""Supervision of the data plane: adopt or start it, keep it fed, start it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from hyperfleet import __version__, unix_sockets
from hyperfleet.errors import SettingsError
from hyperfleet.machine import Machine
from hyperfleet.proxy import process
from hyperfleet.proxy.interface import Activity, Probe, Report
from hyperfleet.proxy.link import Link
from hyperfleet.proxy.process import DataPlaneConfig
from hyperfleet.proxy.routes import Table
from hyperfleet.wire import WireError, control

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# Seconds.
_HELLO_DEADLINE = 3.0
_START_DEADLINE = 10.0
_APPLY_DEADLINE = 2.0
_DRAIN = 10.0
_DEATH = 0.5
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0


class _OtherProtocolError(Exception):
    """The data plane that runs can't be talked to, but can be taken over from."""


class DataPlane:
    """Owns the data plane's process and the routes it decides by.

    A `RouteSink`, and what knows the `Traffic`.

    Machines may be published before `open` and while the data plane is away: it gets the whole
    table as soon as it is there.
    """

    def __init__(self, config: DataPlaneConfig, probe: Probe) -> None:
        self._config = config
        self._probe = probe
        self._table = Table()
        self._unsent: deque[control.Change] = deque()
        self._resync = False
        self._wake = asyncio.Event()
        self._link: Link | None = None
        self._child: subprocess.Popen[bytes] | None = None
        # Children that were relieved and finish what they have.
        self._relieved: list[subprocess.Popen[bytes]] = []
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The data plane's process id while connected to it."""
        return self._link.hello.pid if self._link else None

    async def check(self) -> None:
        """Whether `open` will find its port: free, or held by our own data plane.

        Raises:
            SettingsError: somebody else holds it.
        """
        try:
            with await unix_sockets.connect(self._config.socket):
                return
        except OSError:
            process.check_port_is_free(self._config.bind, self._config.port)

    async def open(self) -> None:
        """Adopts the data plane that runs, if its settings are ours, else starts one.

        One that runs with other settings is relieved by the new one, and finishes what it has: no
        request is lost. Returns when the data plane decides by the routes known now.

        Raises:
            SettingsError: its port is taken, or it refuses its settings (in its own words). One
                that ran before serves on.
        """
        link = await self._adopt() or await self._start()
        ready = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(link, ready), name="data-plane")
        await ready.wait()

    async def close(self, *, keep_running: bool) -> None:
        """Ends the supervision; with `keep_running` the data plane serves on with its routes."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        link, self._link = self._link, None
        if link is not None:
            if not keep_running:
                await self._drain(link)
            await link.close()
        elif not keep_running:
            await self._end_child()
        self._reap()

    async def publish(self, machine: Machine) -> None:
        """See `RouteSink.publish`."""
        await self._step(self._table.upsert(machine))

    async def withdraw(self, machine_id: str) -> None:
        """See `RouteSink.withdraw`."""
        await self._step(self._table.remove(machine_id))

    async def report(self, *, machines: bool) -> Report | None:
        """What it has counted, `machines`' too; None while it is away, or slow."""

        async def ask(link: Link) -> Report:
            meters = await link.meters() if machines else ()
            return Report(counters=await link.counters(), machines=meters)

        return await self._asked(ask)

    async def activity(self, machine_id: str) -> Activity | None:
        """See `Traffic.activity`."""

        async def ask(link: Link) -> Activity:
            for meters in await link.meters(machine_id):
                return Activity(
                    connections=meters.connections,
                    requests_in_flight=meters.in_flight,
                    tunnels=sum(port.tunnels for port in meters.ports),
                    last_at=datetime.now(UTC) - timedelta(milliseconds=meters.idle_ms),
                )
            return Activity()

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[Link], Awaitable[T]]) -> T | None:
        """What it answers; None while it is away, or slow."""
        if self._link is None:
            return None
        with contextlib.suppress(TimeoutError, ConnectionError, WireError):
            async with asyncio.timeout(_APPLY_DEADLINE):
                return await ask(self._link)
        return None

    async def _step(self, change: control.Change | None) -> None:
        link = self._link
        if link is None:
            return  # the next session begins with a snapshot that has it
        if change is not None:
            self._unsent.append(change)
            self._wake.set()
        # Without a change of our own somebody else's may still be on its way: wait for that too.
        number = self._table.number
        try:
            async with asyncio.timeout(_APPLY_DEADLINE):
                await link.wait_applied(number)
        except TimeoutError:
            _log.warning("data_plane_slow", number=number, applied=link.applied)

    async def _adopt(self) -> Link | None:
        """The link to the data plane that runs; one with other settings is relieved first."""
        try:
            link = await self._connect()
        except OSError:
            return None  # no socket, or nobody behind it
        except _OtherProtocolError:
            return await self._started(take_over=True)
        if link is None:
            return None
        theirs = dict(link.hello.arguments)
        differing = [name for name, value in self._config.pairs() if theirs.get(name) != value]
        if link.hello.version == __version__ and not differing:
            _log.info("data_plane_adopted", pid=link.hello.pid)
            return link
        _log.info("data_plane_replaced", pid=link.hello.pid, differing=differing)
        if process.door(self._config).exists():
            await link.close()
            return await self._started(take_over=True)
        # One of before there were take-overs.
        await self._drain(link)
        await link.close()
        return None

    async def _connect(self) -> Link | None:
        """A link with hellos shaken; None when what listened was deaf, and is gone now.

        Raises:
            OSError: nobody listens.
            SettingsError: what listens is no data plane at all.
            _OtherProtocolError: a data plane of another version.
        """
        try:
            return await Link.connect(self._config.socket, self._probe, deadline_s=_HELLO_DEADLINE)
        except (TimeoutError, WireError) as error:
            # It holds our socket and port, and can't be talked to.
            _log.warning("data_plane_unusable", reason=str(error))
            with await unix_sockets.connect(self._config.socket) as connection:
                pid = process.peer_pid(connection)
            program = process.program_of(pid)
            if program is None:
                # It made the socket, and has ended since: relieved, or dead.
                return None
            if program != self._config.binary.name:
                raise SettingsError(
                    f"{self._config.socket} is held by process {pid}, which is no data plane:"
                    " stop it, then start again."
                ) from error
            if isinstance(error, WireError) and process.door(self._config).exists():
                raise _OtherProtocolError from error
            await process.end(pid, grace_s=0)
            return None

    async def _start(self) -> Link:
        try:
            process.check_port_is_free(self._config.bind, self._config.port)
        except SettingsError:
            # By one that is deaf or not quite dead? One that drains has let the port go.
            await self._end_child()
            process.check_port_is_free(self._config.bind, self._config.port)
        return await self._started(take_over=False)

    async def _started(self, *, take_over: bool) -> Link:
        if self._child is not None:
            self._relieved.append(self._child)
        self._child = process.spawn(self._config, take_over=take_over)
        try:
            async with asyncio.timeout(_START_DEADLINE):
                while self._child.poll() is None:
                    with contextlib.suppress(OSError, _OtherProtocolError):
                        link = await self._connect()
                        if link is not None and link.hello.pid == self._child.pid:
                            _log.info("data_plane_started", pid=link.hello.pid)
                            return link
                        if link is not None:
                            # The old one, to the last.
                            await link.close()
                    await asyncio.sleep(_FIRST_WAIT / 5)
        except TimeoutError:
            await self._end_child()
        except BaseException:
            # Nobody else would: it has no routes yet, and nobody will send it any.
            self._child.kill()
            self._child.wait()
            raise
        self._reap()
        said = process.last_line(self._config.log)
        raise SettingsError(f"hyperfleet-proxy did not start: {said or 'it said nothing'}")

    async def _keep(self, link: Link | None, ready: asyncio.Event) -> None:
        wait = _FIRST_WAIT
        while True:
            if link is not None:
                self._link = link
                await self._session(link, ready)
                # Not reached when `close` cancels us: the link is then its to end.
                self._link = None
                await link.close()
                self._reap()
                _log.warning("data_plane_lost", pid=link.hello.pid)
                wait = _FIRST_WAIT
            try:
                link = await self._adopt() or await self._start()
            except (SettingsError, OSError) as error:
                _log.error("data_plane_away", reason=str(error), next_try_s=wait)
                link = None
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    async def _session(self, link: Link, ready: asyncio.Event) -> None:
        """Feeds one link until it ends."""
        self._ask_for_snapshot()  # a session begins with the whole table
        tasks = [
            asyncio.create_task(link.run(self._ask_for_snapshot), name="data-plane-read"),
            asyncio.create_task(self._send(link), name="data-plane-send"),
            asyncio.create_task(self._settle(link, ready), name="data-plane-settle"),
        ]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.warning("data_plane_session_ended", reason=str(outcome))

    async def _settle(self, link: Link, ready: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.wait_applied(self._table.number), _APPLY_DEADLINE)
        ready.set()

    def _ask_for_snapshot(self) -> None:
        self._resync = True
        self._wake.set()

    async def _send(self, link: Link) -> None:
        while True:
            if self._resync:
                self._resync = False
                self._unsent.clear()
                await link.send(self._table.snapshot())
            elif self._unsent:
                await link.send([self._unsent.popleft()])
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _drain(self, link: Link) -> None:
        with contextlib.suppress(ConnectionError):
            await link.send([control.Drain(timeout_ms=int(_DRAIN * 1000))])
        await process.end(link.hello.pid, grace_s=_DRAIN + 2)
        # Started by root it is another user by now, who may not remove root's files.
        self._config.socket.unlink(missing_ok=True)
        process.door(self._config).unlink(missing_ok=True)
        self._reap()

    async def _end_child(self) -> None:
        if self._child is not None:
            await process.end(self._child.pid, grace_s=_DEATH)
            self._reap()

    def _reap(self) -> None:
        self._relieved = [child for child in self._relieved if child.poll() is None]
        if self._child is not None and self._child.poll() is not None:
            self._child = None
