"""What both clients tell httpx, and what its errors are to their callers. No I/O."""

from __future__ import annotations

from typing import Any

import httpx

from hyperfleet import __version__
from hyperfleet.client.answers import ApiError, UnreachableError, refusal
from hyperfleet.client.calls import Call

_CONNECT = 5.0


def headers_for(key: str | None) -> dict[str, str]:
    """Of every request."""
    headers = {"User-Agent": f"hyperfleet-client/{__version__}"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def options(call: Call[Any]) -> dict[str, Any]:
    """A call as `httpx.Client.request` takes it."""
    return {
        "method": call.method,
        "url": call.path,
        "params": list(call.query),
        "json": call.body,
        "timeout": httpx.Timeout(call.patience, connect=_CONNECT),
    }


def follow_request(call: Call[Any], **query: str) -> dict[str, Any]:
    """A call whose answer goes on, as `httpx.Client.stream` takes it; quiet for however long."""
    timeout = httpx.Timeout(None, connect=_CONNECT)
    return {**options(call), "params": [*call.query, *query.items()], "timeout": timeout}


def refused(answer: httpx.Response) -> ApiError:
    """The error that an answer is, its body read."""
    return refusal(answer.status_code, answer.content, answer.headers.get("X-Request-ID"))


def unreachable(url: str, error: httpx.HTTPError) -> UnreachableError:
    """There was no answer."""
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{url} did not answer in time")
    return UnreachableError(f"No Hyperfleet server answers at {url} ({error})")
