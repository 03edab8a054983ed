"""`hyperfleet serve`: settings, lock, ports, record, fleet, API, in this order; and back again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
import uvicorn
from fastapi import FastAPI

from hyperfleet import __version__, failpoints, garbage
from hyperfleet.api.app import create_app
from hyperfleet.api.exec_stream import MOST_INPUT
from hyperfleet.api.interface import Machines, Metrics, Templates
from hyperfleet.api.parts import Parts
from hyperfleet.api.responses import Urls
from hyperfleet.auth.keyring import Issued, Keyring
from hyperfleet.errors import RecordError, SettingsError, SetupError
from hyperfleet.lifecycle import ALIVE
from hyperfleet.machine import Machine
from hyperfleet.server import logs, notify, ports
from hyperfleet.server.http11 import http11
from hyperfleet.server.lock import locked
from hyperfleet.settings import Loaded, Settings
from hyperfleet.store.database import Database, database_file, open_database
from hyperfleet.store.keys import SqlKeyStore

# How long requests in flight may take at the end, in seconds; machines' own work is not cut.
_LAST_REQUESTS = 10

log = structlog.get_logger("hyperfleet.server")


class Backend(Protocol):
    """All behind the API: fleet and data plane, put together."""

    @property
    def machines(self) -> Machines:
        """The fleet."""

    @property
    def metrics(self) -> Metrics:
        """What is counted."""

    @property
    def templates(self) -> Templates:
        """What machines are started from without booting."""

    @property
    def driver(self) -> str:
        """The driver in use, for people: `qemu (TCG)`."""

    async def open(self) -> None:
        """Adopts machines and data plane. SettingsError: the settings don't allow it."""

    def everything(self) -> list[Machine]:
        """Every machine."""

    async def close(self) -> None:
        """Lets go of what runs on; works after an `open` that failed or was cut off, too."""


Build = Callable[[Settings, Database], Backend]


def serve(loaded: Loaded, build: Build) -> int:
    """Runs the control plane until SIGTERM or SIGINT.

    Returns:
        0, or 2 when it could not start: the reason is on stderr, a line for each.
    """
    garbage.rarely()
    logs.configure(loaded.settings.log_level, loaded.settings.log_format)
    for warning in loaded.warnings:
        log.warning(warning)
    try:
        if point := failpoints.arm_from(os.environ):
            log.warning("this server kills itself where a test has asked for it", point=point)
        asyncio.run(_run(loaded.settings, build))
    except (SettingsError, SetupError, RecordError) as error:
        for line in error.message.splitlines():
            print(f"hyperfleet: {line}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


async def _run(settings: Settings, build: Build) -> None:
    home = settings.hyperfleet_home
    _make_home(home)
    with ExitStack() as held:
        held.enter_context(locked(home / "lock", f"HYPERFLEET_HOME {home}"))
        file = database_file(settings.database_url, settings.database_path)
        held.enter_context(locked(Path(f"{file}.lock"), f"the database {file}"))
        listener = held.enter_context(ports.listen("PORT", settings.host, settings.port))
        settings = _with_real_ports(settings, listener)
        async with AsyncExitStack() as opened:
            database = await open_database(settings.database_url, settings.database_path)
            opened.push_async_callback(database.close)
            keyring = Keyring(SqlKeyStore(database))
            first = None
            if not settings.disable_auth:
                first = await keyring.first_key(home / "api-key")
            await _serve(settings, build(settings, database), keyring, listener, first)


async def _serve(
    settings: Settings,
    backend: Backend,
    keyring: Keyring,
    listener: socket.socket,
    first: Issued | None,
) -> None:
    urls = Urls.of(settings, settings.proxy_port)
    starting: list[str] = ["The server is starting: machines are being adopted"]
    parts = Parts(backend.machines, keyring, settings, urls, backend.metrics, backend.templates)
    app = create_app(parts, not_ready=lambda: starting[0] if starting else None)
    try:
        # The API answers /health from here on; all else waits for the machines.
        async with _stop_signal() as stopped, _answering(app, settings, listener) as answers:
            # An API that is gone by itself leaves nothing that could be served or stopped.
            ends = (stopped, answers)
            try:
                if await _opened(backend, ends):
                    starting.clear()
                    _say(_banner(settings, backend, urls, first))
                    notify.tell(notify.READY)
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                notify.tell(notify.STOPPING)
                starting[:] = ["The server is stopping"]
                parts.stopping.set()
        left = [machine for machine in backend.everything() if machine.status in ALIVE]
    finally:
        await backend.close()
    _say(_farewell(left))


async def _opened(backend: Backend, ends: tuple[asyncio.Future[None], ...]) -> bool:
    """Opens it, or gives that up when one of `ends` is done; whether it was opened."""
    opening = asyncio.create_task(_open(backend))
    await asyncio.wait((opening, *ends), return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        opening.cancel()
        await asyncio.wait((opening,))
    if opening.cancelled():
        return False
    await opening
    return True


async def _open(backend: Backend) -> None:
    with garbage.lasting():
        await backend.open()


@asynccontextmanager
async def _answering(
    app: FastAPI, settings: Settings, listener: socket.socket
) -> AsyncIterator[asyncio.Future[None]]:
    """Serves `app` for as long as the block lasts, then finishes the requests in flight.

    What it gives is done when it serves no more; the block's end raises what has ended it.
    """
    config = uvicorn.Config(
        app,
        http=http11(
            arrival_s=settings.hyperfleet_request_arrival_ms / 1000,
            most=settings.hyperfleet_max_api_connections,
        ),
        ws="websockets-sansio",
        ws_max_size=MOST_INPUT,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_LAST_REQUESTS,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield serving
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Leaves signals to us: what they mean is more than the end of an HTTP server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _stop_signal() -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when SIGTERM or SIGINT has come."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield stopped
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"HYPERFLEET_HOME {home} can't be made: {error.strerror}") from error


def _with_real_ports(settings: Settings, listener: socket.socket) -> Settings:
    """Port 0 becomes the port that it stood for."""
    proxy_port = settings.proxy_port or ports.free_port("PROXY_PORT", settings.proxy_bind)
    return msgspec.structs.replace(settings, port=listener.getsockname()[1], proxy_port=proxy_port)


def _banner(settings: Settings, backend: Backend, urls: Urls, first: Issued | None) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    key_file = settings.hyperfleet_home / "api-key"
    key = "none is asked for (DISABLE_AUTH)"
    if first is not None:
        key = f"{first.secret}   (shown this once; kept in {key_file})"
    elif not settings.disable_auth:
        key = f"in {key_file}" if key_file.exists() else "as it was given to you"
    lines = [
        f"Hyperfleet {__version__}",
        f"  API     http://{host}:{settings.port}   (reference: /docs)",
        f"  Proxy   {urls.base()}{urls.prefix}/{{machine}}/{{port}}/",
    ]
    if urls.suffix is not None:
        lines.append(f"          http://{{machine}}-{{port}}{urls.suffix}:{urls.port}/")
    lines += [f"  Key     {key}", f"  Driver  {backend.driver}"]
    return "\n".join(lines)


def _farewell(left: list[Machine]) -> str:
    if not left:
        return "Stopped; no machine runs."
    names = ", ".join(machine.spec.name for machine in left[:10])
    more = f" and {len(left) - 10} more" if len(left) > 10 else ""  # noqa: PLR2004
    machines = "1 machine runs" if len(left) == 1 else f"{len(left)} machines run"
    return (
        f"Stopped. {machines} on ({names}{more}), served by the proxy as before.\n"
        "`hyperfleet serve` takes over again; then `hyperfleet down` ends everything."
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
