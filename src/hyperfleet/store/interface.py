"""What `fleet` asks of the record of machines. `store.sql` keeps it in a database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

import msgspec

from hyperfleet.machine import Machine


class MachineStore(Protocol):
    """The record of machines: written before each act, read whole at start.

    What is volatile is not kept: a machine comes back with `ports` not listening and without
    upstreams; discovery finds them again.
    """

    async def add(self, machine: Machine) -> None:
        """Records a new machine.

        Raises:
            ConflictError: a machine has that id or name.
        """

    async def save(self, machine: Machine) -> None:
        """Records the machine as it now stands; durable when this returns.

        Raises:
            NotFoundError: it was never added, or was removed.
        """

    async def remove(self, machine_id: str) -> None:
        """Forgets a machine; no error when there is none.

        An address that was its own (`tap_ip` is set) rests from now on, see `AddressStore`: both
        are written in one step.
        """

    async def all(self) -> list[Machine]:
        """Every machine, oldest first."""


class RestingAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address of a machine that was removed, which somebody may still speak to."""

    guest_ip: str
    since: datetime


class AddressStore(Protocol):
    """The record of addresses that no machine may have for a while."""

    async def resting(self) -> list[RestingAddress]:
        """All of them."""

    async def rested(self, guest_ips: Collection[str]) -> None:
        """Forgets these: machines may have them again."""
