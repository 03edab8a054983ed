"""What the handlers work with: put into the app by `create_app`, handed to them by FastAPI."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Depends, Request

from hyperfleet.api.interface import Machines, Metrics
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


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _caller(request: Request) -> str:
    return getattr(request.state, "key_id", "")


# The id of the key that the request came with; empty where none is asked for.
TheCaller = Annotated[str, Depends(_caller)]
TheParts = Annotated[Parts, Depends(_parts)]
