"""The endpoints about the server itself; none asks for a key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from hyperfleet.api.page import PAGE_HEADERS, render
from hyperfleet.api.parts import TheParts
from hyperfleet.api.responses import HealthOut
from hyperfleet.api.route import Guard, GuardedRoute
from hyperfleet.errors import CapacityError

router = APIRouter(route_class=GuardedRoute, tags=["service"])


@router.get("/health", summary="Is the server there")
async def health() -> HealthOut:
    """Answers as long as the server does, while it starts too."""
    return HealthOut(status="ok")


@router.get("/ready", summary="Does the server take requests")
async def ready(request: Request) -> HealthOut:
    """200 when machines are adopted and requests are taken, else 503 with what is missing."""
    guard: Guard = request.app.state.guard
    reason = guard.not_ready()
    if reason is not None:
        raise CapacityError(reason)
    return HealthOut(status="ready")


@router.get(
    "/metrics",
    summary="Everything that is counted",
    response_class=PlainTextResponse,
)
async def metrics(request: Request, parts: TheParts) -> Response:
    """For Prometheus: its text format, or OpenMetrics where that is accepted."""
    text, media_type = await parts.metrics.scrape(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The same for people, on one page that loads nothing."""
    return HTMLResponse(render(request.app.openapi()), headers=PAGE_HEADERS)
