"""A machine's state: written down before it is true, told to whoever waits, published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from hyperfleet.errors import NotFoundError, OperationTimeoutError, ValidationError
from hyperfleet.fleet import discovery
from hyperfleet.lifecycle import AT_REST, Status, may_go
from hyperfleet.machine import (
    Cause,
    ExposedPort,
    Machine,
    MachineChange,
    MachineSpec,
    Restart,
)
from hyperfleet.proxy.interface import RouteSink
from hyperfleet.store.interface import MachineStore

_log = logging.getLogger(__name__)


def now() -> datetime:
    """The time, UTC, to the microsecond (what databases keep)."""
    return datetime.now(UTC)


def changed(spec: MachineSpec, change: MachineChange) -> MachineSpec:
    """The spec with what is to be different.

    Raises:
        ValidationError: options for a port that is not exposed then.
    """
    wanted = msgspec.structs.asdict(change)
    given = {name: new for name, new in wanted.items() if new is not None}
    fresh = msgspec.structs.replace(spec, **given)
    if change.port_options is not None:
        check_port_options(fresh)
        return fresh
    # They go with the exposure, as what was measured of a port does.
    left = tuple(one for one in fresh.port_options if one.port in fresh.exposed_ports)
    return msgspec.structs.replace(fresh, port_options=left)


def check_port_options(spec: MachineSpec) -> None:
    """Options are of exposed ports alone, so that a port that was mistyped is noticed.

    Raises:
        ValidationError: they are not.
    """
    for one in spec.port_options:
        if one.port not in spec.exposed_ports:
            raise ValidationError(
                f"port_options names port {one.port}, which is not exposed: "
                f"add {one.port} to exposed_ports"
            )


class State:
    """Changed by the machine's owner only; read by everyone."""

    def __init__(
        self,
        machine: Machine,
        store: MachineStore,
        routes: RouteSink,
        note: Callable[[Machine, Machine, Cause], None],
    ) -> None:
        """`note` hears of each change: the machine before, the machine since, and why."""
        self.machine = machine
        # Why whatever changes now does.
        self.cause = Cause.REQUEST
        self._note = note
        self.removed = False
        self._store = store
        self._routes = routes
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def status(self) -> Status:
        """Where the machine is in its life."""
        return self.machine.status

    async def go(self, status: Status, **changes: Any) -> None:
        """Records that the machine is (or is about to be) `status`, then lets it be seen.

        Raises:
            whatever the store does: then nothing has changed.
        """
        fresh = self._after(status, changes)
        await self._store.save(fresh)
        self._set(fresh)

    async def amend(self, change: MachineChange) -> None:
        """Records what the user wants changed; the status stays. Raises as `go` does."""
        spec = changed(self.machine.spec, change)
        ports = discovery.exposing(self.machine.ports, spec.exposed_ports)
        changes: dict[str, Any] = {"spec": spec, "ports": ports}
        if change.restart is Restart.NEVER and self.status in AT_REST:
            changes["next_start_at"] = None
        await self.go(self.status, **changes)

    async def fall(self, status: Status, **changes: Any) -> None:
        """As `go` for what has happened anyway: true here even if it can't be recorded.

        The record then says less than the truth, which the next control plane finds and mends.
        """
        fresh = self._after(status, changes)
        try:
            await self._store.save(fresh)
        except Exception:  # noqa: BLE001 - whatever a store raises
            _log.exception("machine %s: %s could not be recorded", fresh.id, status)
        self._set(fresh)

    def see(self, ports: tuple[ExposedPort, ...]) -> None:
        """What discovery found. Volatile, so not recorded."""
        self._set(msgspec.structs.replace(self.machine, ports=ports))

    def stall(self, why: str | None) -> None:
        """It stands still by itself, or not any more (None). Not recorded: its process tells."""
        self._set(msgspec.structs.replace(self.machine, stalled=why))

    def remove(self) -> None:
        """The machine is no more."""
        self.removed = True
        self._wake()

    async def blame(self, fault: str) -> None:
        """Its guest has broken the agent's protocol; once for each way of doing so in a row."""
        if fault != self.machine.guest_fault:
            _log.warning("machine %s: %s", self.machine.id, fault)
            await self.go(self.status, guest_fault=fault)

    async def publish(self) -> None:
        """Makes the data plane decide by the machine as it now stands."""
        await self._routes.publish(self.machine)

    async def withdraw(self) -> None:
        """Makes the data plane forget the machine."""
        await self._routes.withdraw(self.machine.id)

    async def reach(self, status: Status, timeout: float) -> Machine:  # noqa: ASYNC109
        """Returns when the machine is `status`; `timeout` in seconds.

        Raises:
            OperationTimeoutError: it was not, in time.
            NotFoundError: it was deleted.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._is(status):
                    if self.removed:
                        raise NotFoundError(f"Machine not found: {self.machine.id}")
                    await self._change()
        except TimeoutError as error:
            raise OperationTimeoutError(
                f"machine {self.machine.spec.name!r} is {self.machine.status}, "
                f"and was not {status} within {timeout:g} s"
            ) from error
        return self.machine

    def _is(self, status: Status) -> bool:
        """Whether it is so altogether: one that falls asleep has its process until it sleeps."""
        falls = status is Status.SLEEPING and self.machine.pid is not None
        return self.machine.status is status and not falls

    def _after(self, status: Status, changes: dict[str, Any]) -> Machine:
        before = self.machine
        if status is not before.status and not may_go(before.status, status):
            raise RuntimeError(f"machine {before.id}: {before.status} can't become {status}")
        if status is not Status.RUNNING:
            changes["stalled"] = None
        return msgspec.structs.replace(before, status=status, updated_at=now(), **changes)

    def _set(self, fresh: Machine) -> None:
        before, self.machine = self.machine, fresh
        self._note(before, fresh, self.cause)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
