"""The API as one ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from hyperfleet import __version__
from hyperfleet.api import (
    disks,
    document,
    errors,
    exec_stream,
    files,
    keys,
    machines,
    processes,
    service,
    snapshots,
    streams,
    templates,
)
from hyperfleet.api.head import HeadAsGet
from hyperfleet.api.measured import Measured
from hyperfleet.api.parts import Parts
from hyperfleet.api.request_log import RequestLog
from hyperfleet.api.route import Guard
from hyperfleet.auth.attempts import Attempts


def create_app(parts: Parts, *, not_ready: Callable[[], str | None]) -> FastAPI:
    """The application. `not_ready` says why requests can't be served yet, or None."""
    app = FastAPI(
        title="Hyperfleet",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    app.state.parts = parts
    app.state.guard = Guard(
        keyring=None if parts.settings.disable_auth else parts.keyring,
        attempts=Attempts(parts.settings.hyperfleet_failed_keys_per_minute),
        not_ready=not_ready,
        max_body_bytes=parts.settings.hyperfleet_max_body_bytes,
        arrival_s=parts.settings.hyperfleet_request_arrival_ms / 1000,
    )
    routers = (
        machines.router,
        processes.router,
        files.router,
        files.uploads,
        streams.router,
        snapshots.router,
        disks.router,
        templates.router,
        keys.router,
        service.router,
    )
    for router in routers:
        app.include_router(router)
    app.include_router(exec_stream.router)
    errors.install(app, [route for router in routers for route in router.routes])
    # The last one added is the outermost.
    app.add_middleware(Measured, observe=parts.metrics.instruments.request)
    app.add_middleware(HeadAsGet)
    app.add_middleware(RequestLog)
    app.openapi = _described_once(app)  # type: ignore[method-assign]
    return app


def _name(route: APIRoute) -> str:
    return route.name


def _described_once(app: FastAPI) -> Callable[[], dict[str, Any]]:
    return cache(lambda: document.describe(app))
