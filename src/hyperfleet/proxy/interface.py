"""What passes between `fleet` and the data plane's side of the control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from hyperfleet.machine import Machine


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent said of a port: connect to `upstream`, or (None) nothing listens there."""

    upstream: str | None


# (machine id, port) -> the agent's answer, or None when it could not be asked.
Probe = Callable[[str, int], Awaitable[Answer | None]]


class RouteSink(Protocol):
    """Takes machines as they change and makes the data plane decide by them."""

    async def publish(self, machine: Machine) -> None:
        """The machine as it now stands. Returns when the data plane decides by it.

        Returns also when the data plane is away or slow (bounded wait, logged): it gets the
        whole table when it is back.
        """

    async def withdraw(self, machine_id: str) -> None:
        """The machine is gone; returns as `publish` does."""
