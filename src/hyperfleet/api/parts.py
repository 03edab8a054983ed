"""What the handlers work with: put into the app by `create_app`, handed to them by FastAPI."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import Depends, Request

from hyperfleet.api.interface import Machines, Metrics, Templates
from hyperfleet.api.listing import Listing
from hyperfleet.api.responses import Urls
from hyperfleet.auth.keyring import Keyring
from hyperfleet.settings import Settings


class Parts(msgspec.Struct, frozen=True):
    """All that the API stands on."""

    machines: Machines
    keyring: Keyring
    settings: Settings
    urls: Urls
    metrics: Metrics
    templates: Templates
    listing: Listing = msgspec.field(default_factory=Listing)
    # Set when the server stops: answers that have no end of their own end then.
    stopping: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


# Coroutines that wait for nothing: FastAPI calls plain functions in a thread, for every request.
async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def _caller(request: Request) -> str:
    return getattr(request.state, "key_id", "")


# The id of the key that the request came with; empty where none is asked for.
TheCaller = Annotated[str, Depends(_caller)]
TheParts = Annotated[Parts, Depends(_parts)]
