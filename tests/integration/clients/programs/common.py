"""What the programs in Python share: their input, their output, the bytes of bodies."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_PIECE = bytes(i * 31 % 251 for i in range(64 * 1024))
_SHORT = 4096

Json = dict[str, Any]


def content(size: int) -> bytes:
    """The bytes of every body of a size."""
    return (_PIECE * (size // len(_PIECE) + 1))[:size]


def run_all(one: Callable[[str, Json], Awaitable[Json]]) -> None:
    """Runs each scenario of the input by `one(origin, scenario)`; what it can't do is its error."""

    async def run() -> None:
        asked = json.loads(sys.stdin.readline())
        for scenario in asked["scenarios"]:
            try:
                result = await one(asked["origin"], scenario)
            except Exception as error:  # noqa: BLE001 (of whatever library)
                result = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps({"name": scenario["name"], **result}) + "\n")
            # What is told before the program gets stuck must be there.
            sys.stdout.flush()

    asyncio.run(run())


def answer(status: int, headers: Iterable[tuple[str, str]], body: bytes, **more: Any) -> Json:
    """An answer as the output has it; `more`: trailers, interim."""
    return {
        "status": status,
        "headers": {name.lower(): value for name, value in headers},
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "text": body.decode(errors="replace") if len(body) < _SHORT else None,
        "trailers": None,
        "interim": None,
        **more,
    }


def message(data: str | bytes) -> Any:
    """A WebSocket's message as the output has it."""
    if isinstance(data, str):
        return data
    return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
