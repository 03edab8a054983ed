"""What passes between `fleet` and the data plane's side of the control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

import msgspec

from hyperfleet.machine import Machine
from hyperfleet.wire import control


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


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the data plane has counted, in all and for each machine that was ever asked."""

    counters: control.Counters
    machines: tuple[control.MachineMeters, ...]


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on between clients and a machine now.

    `connections` are the data plane's to the machine, idle ones among them; `requests_in_flight`
    have not been answered whole, `tunnels` (WebSockets) among them. `last_at` is when the last byte
    of a request, a response or a tunnel passed, UTC; None: none did since the data plane started.
    """

    connections: int = 0
    requests_in_flight: int = 0
    tunnels: int = 0
    last_at: datetime | None = None


class Traffic(Protocol):
    """Knows what goes on between clients and machines."""

    async def activity(self, machine_id: str) -> Activity | None:
        """Of one machine; None when the data plane is away or slow."""
