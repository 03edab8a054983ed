"""What `fleet` asks of the record of machines. `store.sql` keeps it in a database."""

from __future__ import annotations

from typing import Protocol

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
        """Forgets a machine; no error when there is none."""

    async def all(self) -> list[Machine]:
        """Every machine, oldest first."""
