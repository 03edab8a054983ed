"""The record of machines in memory: for tests, and for trying things without a database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import msgspec

from hyperfleet.errors import ConflictError, NotFoundError
from hyperfleet.machine import ExposedPort, Machine
from hyperfleet.store.interface import RestingAddress


class MemoryStore:
    """Implements both of `interface`; forgets what is volatile, as a database would."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._resting: dict[str, RestingAddress] = {}

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
        machine = self._machines.pop(machine_id, None)
        if machine is not None and machine.network.tap_ip and machine.network.guest_ip:
            guest_ip = machine.network.guest_ip
            self._resting[guest_ip] = RestingAddress(guest_ip=guest_ip, since=datetime.now(UTC))

    async def resting(self) -> list[RestingAddress]:
        """See `AddressStore.resting`."""
        return list(self._resting.values())

    async def rested(self, guest_ips: Collection[str]) -> None:
        """See `AddressStore.rested`."""
        for guest_ip in guest_ips:
            self._resting.pop(guest_ip, None)

    async def all(self) -> list[Machine]:
        """See `MachineStore.all`."""
        return [
            msgspec.structs.replace(
                machine,
                ports=tuple(ExposedPort(port=port) for port in machine.spec.exposed_ports),
                stalled=None,
            )
            for machine in sorted(self._machines.values(), key=lambda one: one.created_at)
        ]
