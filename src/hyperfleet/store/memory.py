"""The record of machines in memory: for tests, and for trying things without a database."""

from __future__ import annotations

import msgspec

from hyperfleet.errors import ConflictError, NotFoundError
from hyperfleet.machine import ExposedPort, Machine


class MemoryStore:
    """Implements `interface.MachineStore`; forgets what is volatile, as a database would."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}

    async def add(self, machine: Machine) -> None:
        """See `MachineStore.add`."""
        for known in self._machines.values():
            if machine.id == known.id or machine.spec.name == known.spec.name:
                raise ConflictError(f"name: another machine is called {machine.spec.name!r}")
        self._machines[machine.id] = machine

    async def save(self, machine: Machine) -> None:
        """See `MachineStore.save`."""
        if machine.id not in self._machines:
            raise NotFoundError(f"Machine not found: {machine.id}")
        self._machines[machine.id] = machine

    async def remove(self, machine_id: str) -> None:
        """See `MachineStore.remove`."""
        self._machines.pop(machine_id, None)

    async def all(self) -> list[Machine]:
        """See `MachineStore.all`."""
        return [
            msgspec.structs.replace(
                machine, ports=tuple(ExposedPort(port=port) for port in machine.spec.exposed_ports)
            )
            for machine in sorted(self._machines.values(), key=lambda one: one.created_at)
        ]
