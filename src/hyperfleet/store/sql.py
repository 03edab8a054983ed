"""The record of machines in the database; keeps the promises of `store.interface`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hyperfleet.errors import ConflictError, NotFoundError
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    CommandState,
    ExposedPort,
    Machine,
    MachineNetwork,
    MachineSpec,
    Start,
)
from hyperfleet.store.database import Database
from hyperfleet.store.interface import RestingAddress
from hyperfleet.store.tables import MachineRow, RestingAddressRow


class SqlMachineStore:
    """Machines in `database`; each call that changes something is one durable transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, machine: Machine) -> None:
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(MachineRow).values(_to_row(machine)))
        except IntegrityError as error:
            raise ConflictError(
                f"A machine named {machine.spec.name} (or with id {machine.id}) exists"
            ) from error

    async def save(self, machine: Machine) -> None:
        async with self._database.write() as connection:
            result = await connection.execute(
                update(MachineRow).where(MachineRow.id == machine.id).values(_to_row(machine))
            )
            if result.rowcount == 0:
                raise NotFoundError(f"Machine not found: {machine.id}")

    async def remove(self, machine_id: str) -> None:
        async with self._database.write() as connection:
            removed = await connection.execute(
                delete(MachineRow).where(MachineRow.id == machine_id).returning(MachineRow.network)
            )
            for raw in removed.scalars().all():
                network = msgspec.convert(raw, MachineNetwork)
                if network.tap_ip is not None:
                    await _rest(connection, network.guest_ip)

    async def all(self) -> list[Machine]:
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(MachineRow.__table__).order_by(MachineRow.sequence)
            )
            return [_from_row(row) for row in rows]


class SqlAddressStore:
    """Implements `interface.AddressStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def resting(self) -> list[RestingAddress]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(RestingAddressRow.__table__))
            return [RestingAddress(guest_ip=row.guest_ip, since=row.since) for row in rows]

    async def rested(self, guest_ips: Collection[str]) -> None:
        async with self._database.write() as connection:
            for guest_ip in guest_ips:
                await connection.execute(
                    delete(RestingAddressRow).where(RestingAddressRow.guest_ip == guest_ip)
                )


async def _rest(connection: AsyncConnection, guest_ip: str | None) -> None:
    row = RestingAddressRow
    await connection.execute(delete(row).where(row.guest_ip == guest_ip))
    await connection.execute(insert(row).values(guest_ip=guest_ip, since=datetime.now(UTC)))


def _to_row(machine: Machine) -> dict[str, Any]:
    return {
        "id": machine.id,
        "name": machine.spec.name,
        "status": machine.status.value,
        "spec": msgspec.to_builtins(machine.spec),
        "vmm": machine.vmm,
        "network": msgspec.to_builtins(machine.network),
        "pid": machine.pid,
        "lifecycle": machine.lifecycle,
        "error_message": machine.error_message,
        "created_at": machine.created_at,
        "updated_at": machine.updated_at,
        "started_at": machine.started_at,
        "restarts": machine.restarts,
        "next_start_at": machine.next_start_at,
        "host_boot": machine.host_boot,
        "guest_fault": machine.guest_fault,
        "last_start": msgspec.to_builtins(machine.last_start),
        "command": msgspec.to_builtins(machine.command),
    }


def _from_row(row: Row[Any]) -> Machine:
    spec = msgspec.convert(row.spec, MachineSpec)
    return Machine(
        id=row.id,
        spec=spec,
        status=Status(row.status),
        vmm=row.vmm,
        network=msgspec.convert(row.network, MachineNetwork),
        ports=tuple(ExposedPort(port=port) for port in spec.exposed_ports),
        pid=row.pid,
        lifecycle=row.lifecycle,
        error_message=row.error_message,
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        restarts=row.restarts,
        next_start_at=row.next_start_at,
        host_boot=row.host_boot,
        guest_fault=row.guest_fault,
        last_start=msgspec.convert(row.last_start, Start | None),
        command=msgspec.convert(row.command, CommandState | None),
    )
