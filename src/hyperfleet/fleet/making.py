"""How machines come to be: made from what a user asks for, or of a snapshot."""

from __future__ import annotations

import asyncio

import msgspec

from hyperfleet.errors import ConflictError, ValidationError
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import discovery, layout, sizes, snapshotting
from hyperfleet.fleet.events import Events
from hyperfleet.fleet.owner import Owner
from hyperfleet.fleet.roster import Roster
from hyperfleet.fleet.state import State, changed, check_port_options, now
from hyperfleet.fleet.tools import Tools
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    Cause,
    EventKind,
    Machine,
    MachineChange,
    MachineNetwork,
    MachineSpec,
    SnapshotInfo,
    new_machine_id,
)
from hyperfleet.network.interface import Network
from hyperfleet.proxy.interface import RouteSink


class Maker:
    """Enters machines into a fleet, and takes them out of it."""

    def __init__(self, tools: Tools, roster: Roster, routes: RouteSink, events: Events) -> None:
        self._tools = tools
        self._roster = roster
        self._routes = routes
        self._events = events

    async def create(self, spec: MachineSpec) -> Machine:
        """See `Fleet.create`."""
        network = self._tools.networks.first
        self._check(spec, network)
        check_port_options(spec)
        machine_id = self._new_id()
        with self._tools.disks.claiming(machine_id, spec.disks):
            address = await network.assign(machine_id)
            try:
                machine = self._machine(machine_id, spec, address, Status.PENDING)
                owner = await self._record(machine)
            except BaseException:
                network.release(address, used=False)
                raise
        return await self._told(owner)

    async def clone(self, snapshot: str, name: str, change: MachineChange) -> Machine:
        """See `Fleet.clone`."""
        snapshots = self._tools.snapshots
        info = snapshots.get(snapshot)
        # A data disk is another machine's, or nobody's.
        spec = msgspec.structs.replace(info.spec, disks=())
        spec = msgspec.structs.replace(changed(spec, change), name=name)
        if spec.disks and info.has_memory:
            raise ValidationError(
                f"disks: snapshot {snapshot!r} has a memory, which knows of no data disks"
            )
        network = self._network_for(info, spec)
        machine_id = self._new_id()
        with (
            snapshots.using(snapshot) as folder,
            self._tools.disks.claiming(machine_id, spec.disks),
        ):
            address = await network.assign(machine_id)
            status = Status.SLEEPING if info.has_memory else Status.STOPPED
            machine = self._machine(machine_id, spec, address, status)
            fresh = await asyncio.to_thread(self._tools.layout.fresh, machine_id)
            try:
                launch = layout.known_launch(machine, fresh)
                if info.has_memory:
                    await self._tools.driver.check_memory(folder, launch)
                await snapshotting.copy(self._tools, folder, fresh, launch)
                # Whole before it is recorded: a record without it would boot another disk.
                await asyncio.to_thread(self._tools.layout.decide, machine_id)
                reach(Point.CLONE_DECIDED)
                owner = await self._record(machine)
            except BaseException:
                network.release(address, used=False)
                await asyncio.to_thread(self._tools.layout.forget, machine_id)
                raise
        reach(Point.CLONE_RECORDED)
        await self._place(owner)
        return await self._told(owner)

    def enter(self, machine: Machine) -> Owner:
        """The machine is one of the fleet's; its owner."""
        state = State(machine, self._tools.store, self._routes, self._noted)
        owner = Owner(state, self._tools)
        self._tools.admission.note(machine)
        self._tools.disks.assign(machine.id, [disk.disk for disk in machine.spec.disks])
        self._roster.enter(owner)
        return owner

    def leave(self, owner: Owner) -> None:
        """It is not any more."""
        self._roster.leave(owner)
        self._tools.admission.forget(owner.machine.id)
        self._tools.disks.assign(owner.machine.id, ())

    def _new_id(self) -> str:
        machine_id = new_machine_id()
        while machine_id in self._roster:
            machine_id = new_machine_id()
        return machine_id

    def _network_for(self, info: SnapshotInfo, spec: MachineSpec) -> Network:
        """What a clone is attached by: the cards of a memory are there already.

        Raises as `Fleet.clone` does.
        """
        if info.vmm != self._tools.driver.name:
            raise ValidationError(
                f"snapshot {info.name!r} belongs to the {info.vmm} driver; this control plane runs "
                f"with {self._tools.driver.name} (HYPERFLEET_VMM)"
            )
        networks = self._tools.networks
        network = networks.of(info.network) if info.has_memory else networks.first
        self._check(spec, network)
        if spec.egress != info.spec.egress:
            network.check(spec.egress, running=info.has_memory)
        return network

    def _check(self, spec: MachineSpec, network: Network) -> None:
        self._must_be_new(spec.name)
        sizes.check(spec, self._tools.config, self._tools.driver)
        network.check(spec.egress, running=False)
        self._tools.images.kernel(spec.kernel_image_path)
        sizes.check_disk(spec, self._tools.images.root_disk(spec.rootfs_path))

    def _must_be_new(self, name: str) -> None:
        if name in self._roster:
            raise ConflictError(f"name: another machine is called {name!r}")

    def _machine(
        self, machine_id: str, spec: MachineSpec, network: MachineNetwork, status: Status
    ) -> Machine:
        moment = now()
        return Machine(
            id=machine_id,
            spec=spec,
            status=status,
            vmm=self._tools.driver.name,
            network=network,
            ports=discovery.unseen(spec.exposed_ports, {}),
            created_at=moment,
            updated_at=moment,
        )

    async def _record(self, machine: Machine) -> Owner:
        # Asked again: much has been waited for since.
        self._must_be_new(machine.spec.name)
        # Entered first: two requests for one name at the same time are told apart here.
        owner = self.enter(machine)
        reach(Point.CREATE_BEGUN)
        try:
            await self._tools.store.add(machine)
        except BaseException:
            self.leave(owner)
            raise
        return owner

    async def _place(self, owner: Owner) -> None:
        """A clone's folder takes its place."""
        try:
            await asyncio.to_thread(self._tools.layout.swap, owner.machine.id)
        except BaseException:
            self.leave(owner)
            await self._tools.store.remove(owner.machine.id)
            raise

    async def _told(self, owner: Owner) -> Machine:
        self._events.add(EventKind.CREATED, owner.machine, Cause.REQUEST, now())
        reach(Point.CREATE_RECORDED)
        await self._routes.publish(owner.machine)
        return owner.machine

    def _noted(self, before: Machine, after: Machine, cause: Cause) -> None:
        self._tools.admission.note(after)
        self._events.changed(before, after, cause, now())
