"""The one place where an error becomes a status, and the one shape in which it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from hyperfleet.errors import CapacityError, HyperfleetError, RateLimitedError

STATUS = {
    "VALIDATION_ERROR": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "CONFLICT": 409,
    "INVALID_STATE": 409,
    "TOO_LARGE": 413,
    "RATE_LIMITED": 429,
    "HEAD_TOO_LARGE": 431,
    "INTERNAL_ERROR": 500,
    "GUEST_ERROR": 502,
    "CAPACITY": 503,
    "TIMEOUT": 504,
}


# A path of any length needs no answer of that length.
_LONGEST_SHOWN = 200


def error_response(
    code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """`{"error": {"code", "message"}}` with the code's status."""
    return JSONResponse(
        {"error": {"code": code, "message": message}},
        status_code=STATUS[code],
        headers=dict(headers or {}),
    )


def internal_error(request_id: str) -> JSONResponse:
    """A 500 that tells nothing but where to look."""
    return error_response(
        "INTERNAL_ERROR",
        f"Something went wrong here; the server's log has the cause under request {request_id}",
    )


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Makes `app`, which has these routes, answer every error in our shape."""

    async def the_routers(request: Request, error: Exception) -> JSONResponse:
        """What the router says by itself: no such path, not by this method."""
        path = request.url.path
        if len(path) > _LONGEST_SHOWN:
            path = f"{path[:_LONGEST_SHOWN]}…"
        match error:
            case HTTPException(status_code=404):
                return error_response("NOT_FOUND", f"There is nothing at {path}")
            case HTTPException(status_code=405):
                # The router names the methods of the first route only.
                allowed = ", ".join(sorted(_methods(request, routes)))
                message = f"{path} takes {allowed}, not {request.method}"
                return error_response("METHOD_NOT_ALLOWED", message, {"Allow": allowed})
            case _:
                raise error

    app.add_exception_handler(HyperfleetError, _ours)
    app.add_exception_handler(HTTPException, the_routers)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HyperfleetError):
        raise error
    return respond(error)


def respond(error: HyperfleetError) -> JSONResponse:
    """The answer that an error is; what is no answer is raised."""
    if error.code not in STATUS or error.code == "INTERNAL_ERROR":
        raise error
    headers: dict[str, Any] = {}
    if error.code == "UNAUTHORIZED":
        # RFC 6750, 3: a challenge comes with every 401.
        headers["WWW-Authenticate"] = 'Bearer realm="hyperfleet"'
    if isinstance(error, RateLimitedError | CapacityError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.code in ("TOO_LARGE", "REQUEST_TIMEOUT"):
        # The rest of the body is not read, so nothing can follow on this connection.
        headers["Connection"] = "close"
    return error_response(error.code, error.message, headers)


def _methods(request: Request, routes: Sequence[BaseRoute]) -> set[str]:
    return {
        method
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
