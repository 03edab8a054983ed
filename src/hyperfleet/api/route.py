"""What every request passes before its handler: key, scope, readiness, query names, body.

In this order, so that nobody without a key makes us read or parse anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import sys
import time
import typing
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from hyperfleet.api import peers
from hyperfleet.api.endpoints import ENDPOINTS, Endpoint
from hyperfleet.api.parts import Parts
from hyperfleet.api.validation import an_object_of, explain, parse_json, quote, unknown
from hyperfleet.auth.attempts import Attempts
from hyperfleet.auth.keyring import Keyring
from hyperfleet.auth.keys import Key
from hyperfleet.errors import (
    CapacityError,
    ForbiddenError,
    RateLimitedError,
    RequestTimeoutError,
    TooLargeError,
    UnauthorizedError,
    ValidationError,
)

# Before the key, among the subprotocols that a WebSocket's client offers.
KEY_SUBPROTOCOL = "hyperfleet.key."

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guard(msgspec.Struct, frozen=True):
    """What the guarded routes of one app go by; lies in `app.state.guard`.

    `keyring` None: no key is asked for. `attempts` counts keys that open nothing. `not_ready` says
    why requests can't be served yet, or None when they can. A body may have `max_body_bytes` and
    take `arrival_s` seconds to come.
    """

    keyring: Keyring | None
    attempts: Attempts
    not_ready: Callable[[], str | None]
    max_body_bytes: int
    arrival_s: float


class GuardedRoute(APIRoute):
    """A route that its row in `ENDPOINTS` guards."""

    # Whether the handler reads the body itself, as it comes.
    streamed = False

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        endpoint = ENDPOINTS[self.name]
        body = _annotation(self.body_field.field_info) if self.body_field else None
        query = next((_annotation(field.field_info) for field in self.dependant.query_params), None)

        async def guarded(request: Request) -> Response:
            guard: Guard = request.app.state.guard
            await admit(request, endpoint, guard)
            check_query(request, query)
            if not self.streamed:
                raw = await _read(request, guard)
                request = _Parsed(request, raw, _document(request, raw, body))
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise ValidationError(explain(error.errors(), body, query)) from error

        return guarded


class StreamedRoute(GuardedRoute):
    """The same, whose bodies are not read before the handler is called."""

    streamed = True


class _Parsed(Request):
    """A request whose body has been read and parsed by us."""

    def __init__(self, request: Request, raw: bytes, document: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._document = document

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> Any:
        return self._document


def _annotation(field: Any) -> type[BaseModel] | None:
    found = field.annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


async def admit(request: HTTPConnection, endpoint: Endpoint, guard: Guard) -> None:
    """Whether whoever asks may have this endpoint now; notes whose key it is.

    Raises:
        UnauthorizedError, ForbiddenError, RateLimitedError, CapacityError: not.
    """
    if endpoint.scope is None:
        return
    if guard.keyring is not None:
        key = await _authenticate(request, guard.keyring, guard.attempts)
        structlog.contextvars.bind_contextvars(key_id=key.id)
        request.state.key_id = key.id
        if not key.allows(endpoint.scope):
            raise ForbiddenError(f"This key lacks the scope {endpoint.scope}")
    else:
        await _refuse_strangers(request)
    reason = guard.not_ready()
    if reason is not None:
        raise CapacityError(reason)


async def _authenticate(request: HTTPConnection, keyring: Keyring, attempts: Attempts) -> Key:
    secret = _bearer(request)
    address = request.scope["client"][0]
    wait = attempts.wait(address, time.monotonic())
    if wait > 0 and not keyring.has_met(secret):
        seconds = math.ceil(wait)
        message = f"Too many keys that are not valid came from {address}; wait {seconds} s"
        raise RateLimitedError(message, retry_after=seconds)
    try:
        return await keyring.authenticate(secret)
    except UnauthorizedError:
        attempts.failed(address, time.monotonic())
        raise


async def _refuse_strangers(request: HTTPConnection) -> None:
    """Without keys, neither a web page that the user has open nor a guest may steer machines.

    A page can send requests to loopback under a name of its own (DNS rebinding: the Host tells) or
    across origins (the Origin tells); the user's own tools send neither. A guest can send what it
    likes to the host's loopback, through its machine's process.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if not _is_loopback(host):
        raise ForbiddenError("With DISABLE_AUTH, only localhost is answered as Host")
    if origin is not None and origin.partition("://")[2] != host:
        raise ForbiddenError("With DISABLE_AUTH, requests from other origins are refused")
    parts: Parts = request.app.state.parts
    machines, _ = parts.machines.list(status=None, labels=(), limit=sys.maxsize, offset=0)
    pids = [machine.pid for machine in machines if machine.pid is not None]
    peer, here = request.scope["client"], request.scope["server"]
    if not pids:
        return
    if await asyncio.to_thread(peers.is_machines, peer, here, pids):
        raise ForbiddenError("With DISABLE_AUTH, requests from inside machines are refused")


def _is_loopback(authority: str) -> bool:
    try:
        name = urlsplit(f"//{authority}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _bearer(request: HTTPConnection) -> str:
    """The token of `Authorization: Bearer TOKEN` (RFC 6750, 2.1).

    A browser's WebSocket can send no such header: it offers the token as a subprotocol.
    """
    given = request.headers.getlist("authorization")
    offered = request.scope.get("subprotocols", ())
    keys = [name for name in offered if name.startswith(KEY_SUBPROTOCOL)]
    if len(keys) == 1 and not given:
        return str(keys[0].removeprefix(KEY_SUBPROTOCOL))
    if not given:
        raise UnauthorizedError("A key is needed: Authorization: Bearer hf_…")
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise UnauthorizedError("The Authorization header must be one, of the form Bearer hf_…")
    return token.strip(" ")


def check_query(request: HTTPConnection, query: type[BaseModel] | None) -> None:
    """Whether the query's names are those of `query`, and none stands there twice.

    Raises:
        ValidationError: not; says which.
    """
    fields = query.model_fields if query else {}
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in fields:
            raise ValidationError(unknown("query parameter", name, list(fields)))
        if name in seen and typing.get_origin(fields[name].annotation) is not list:
            raise ValidationError(f"{name} stands in the query twice; it may be there once")
        seen.add(name)


async def _read(request: Request, guard: Guard) -> bytes:
    """The whole body; what is announced is believed only to refuse it early."""
    limit = guard.max_body_bytes
    announced = request.headers.get("content-length", "")
    received = bytearray()
    if not announced.isdigit() or int(announced) <= limit:
        try:
            async with asyncio.timeout(guard.arrival_s):
                async for chunk in request.stream():
                    received += chunk
                    if len(received) > limit:
                        break
                else:
                    return bytes(received)
        except TimeoutError as error:
            message = f"The body did not arrive within {guard.arrival_s:g} s"
            raise RequestTimeoutError(message) from error
    raise TooLargeError(f"The body is too large: at most {limit} bytes are read")


def _document(request: Request, raw: bytes, body: type[BaseModel] | None) -> Any:
    if body is None:
        if raw.strip() not in (b"", b"{}"):
            raise ValidationError("This endpoint takes no body")
        return None
    if not raw:
        raise ValidationError(f"A body is needed: {an_object_of(body)}")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        shown = quote(media_type) if media_type else "missing"
        raise ValidationError(f"Content-Type must be application/json; it is {shown}")
    return parse_json(raw)
