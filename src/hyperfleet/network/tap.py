"""Networking for root: a tap and four addresses for each machine, routed by the host.

The host's end of a tap is the guest's gateway. What may pass is decided by nftables (`ruleset`);
guests' connections to the outside leave with the host's address. The data plane connects to a
guest's own address, so a way in is nothing that has to be made.

A tap ends with the machine's process, whatever ends that; the rules outlive the control plane as
machines do, and are made anew from the record by the next one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Collection, Coroutine
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec

from hyperfleet.errors import CapacityError, GuestError, SettingsError
from hyperfleet.guest.values import GuestNetwork
from hyperfleet.lifecycle import ALIVE
from hyperfleet.machine import Egress, Machine, MachineNetwork
from hyperfleet.network import conntrack, device, nft, tap_host
from hyperfleet.network.blocks import Blocks, overlapping
from hyperfleet.network.conntrack import Flow
from hyperfleet.network.egress import permits
from hyperfleet.network.interface import Card, Joint, Monitor, guest_mac, template_mac
from hyperfleet.network.nft_watch import Watch
from hyperfleet.network.resolvers import resolvers
from hyperfleet.network.ruleset import Guest, Rules
from hyperfleet.store.interface import AddressStore
from hyperfleet.vmm.driver import LaunchSpec

_log = logging.getLogger(__name__)

MODE = "tap"
_NETDEV = "n0"


class TapConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say.

    `restrict`: guests only answer. `host_ports`: see `ruleset.Rules`. `dns`: whom guests ask for
    names; empty: whom the host asks. `users`: who of the host may connect to guests (root may).
    `flows`: as in `ruleset.Rules`.
    """

    home: Path
    subnet: IPv4Network
    restrict: bool = False
    host_ports: tuple[int, ...] = ()
    dns: tuple[str, ...] = ()
    users: tuple[int, ...] = ()
    flows: int = 4096


class TapNetwork:
    """Implements `interface.Network`."""

    mode = MODE

    def __init__(self, config: TapConfig, addresses: AddressStore) -> None:
        """`addresses` remembers those that rest once their machine is gone."""
        self._config = config
        self._addresses = addresses
        self._rules = Rules(
            table=table_name(config.home),
            subnet=str(config.subnet),
            host_ports=() if config.restrict else config.host_ports,
            users=tuple(sorted({0, *config.users})),
            flows=config.flows,
        )
        self._blocks = Blocks(config.subnet)
        # Who is in the tables, by tap.
        self._guests: dict[str, Guest] = {}
        self._has_tables = False
        self._changing = asyncio.Lock()
        self._watch: Watch | None = None
        self._mending: asyncio.Task[None] | None = None
        self._may_be_lost = False

    async def open(self, machines: Collection[Machine], *, wanted: bool) -> None:
        """See `interface.Network.open`. The tables are as the record says, or gone."""
        self._blocks.load(
            [_guest_ip(machine.network) for machine in machines],
            [(one.guest_ip, one.since) for one in await self._addresses.resting()],
        )
        lacks = await asyncio.to_thread(tap_host.lacks)
        try:
            if lacks and (wanted or machines):
                raise GuestError("; ".join(f"{lack.what}: {lack.mend}" for lack in lacks))  # noqa: TRY301
            if wanted or machines:
                await self._must_be_ours(machines)
            if not lacks:
                await self._take_over([one for one in machines if one.status in ALIVE])
        except GuestError as error:
            if wanted:
                raise SettingsError(f"HYPERFLEET_NETWORK=tap: {error}") from error
            _log.exception("machines that are attached by tap can't be taken care of now")
            return
        if wanted:
            await self._warn()

    async def close(self) -> None:
        """See `interface.Network.close`. Without a machine that runs, no table is left."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait((self._mending,))
        async with self._changing:
            if self._has_tables and not self._guests:
                self._has_tables = False
                try:
                    await nft.apply(self._rules.nothing())
                except GuestError as error:
                    _log.warning("rules without machines are left: %s", error)

    def check(self, egress: Egress, *, running: bool) -> None:
        """Anything, at any time."""

    async def assign(self, machine_id: str) -> MachineNetwork:
        """See `interface.Network.assign`."""
        block = self._blocks.take()
        if block is None:
            await self._free_rested()
            block = self._blocks.take()
        if block is None:
            taken, resting, count = self._blocks.counts()
            raise CapacityError(
                f"HYPERFLEET_SUBNET={self._config.subnet} has no address left: of {count}, {taken}"
                f" are machines' and {resting} were deleted machines' a moment ago; delete some, or"
                " set a larger one"
            )
        tap_ip, guest_ip = block
        return MachineNetwork(
            mode=MODE,
            guest_ip=guest_ip,
            guest_mac=guest_mac(machine_id),
            tap_device=device.tap_name(machine_id),
            tap_ip=tap_ip,
        )

    def release(self, network: MachineNetwork, *, used: bool) -> None:
        """See `interface.Network.release`. The record has it that a used address rests."""
        if used:
            self._blocks.rest(_guest_ip(network), datetime.now(UTC))
        else:
            self._blocks.untake(_guest_ip(network))

    def introduce(self, network: MachineNetwork) -> GuestNetwork:
        """See `interface.Network.introduce`."""
        return GuestNetwork(
            address=f"{network.guest_ip}/{device.PREFIX_LENGTH}",
            gateway=network.tap_ip,
            dns=self._config.dns or resolvers(),
            mac=network.guest_mac,
            found_as=template_mac(0),
        )

    async def attach(self, launch: LaunchSpec) -> Joint:
        """See `interface.Network.attach`. The rules are there before the tap is."""
        network, guest = launch.network, self._guest(launch)
        await asyncio.to_thread(device.remove, guest.tap)
        await self._admit(guest)
        await self._forward()
        descriptor = await _make(network)
        return Joint(
            cards=(
                Card(
                    id=_NETDEV,
                    backend=f"tap,id={_NETDEV},fd={descriptor}",
                    mac=network.guest_mac,
                ),
            ),
            inherited=(descriptor,),
        )

    async def detach(self, launch: LaunchSpec) -> None:
        """See `interface.Network.detach`. Whoever still speaks to the guest begins anew."""
        tap = launch.network.tap_device
        if tap is None or tap not in self._guests:
            return
        await asyncio.to_thread(device.remove, tap)
        async with self._changing:
            guest = self._guests.pop(tap, None)
            if guest is not None:
                await self._apply(self._rules.leaving(guest))
        await asyncio.to_thread(conntrack.cut, _guest_ip(launch.network))

    async def permit(self, launch: LaunchSpec) -> None:
        """See `interface.Network.permit`."""
        guest = self._guest(launch)
        before = self._guests.get(guest.tap)
        if before is None or before == guest:
            return
        async with self._changing:
            self._guests[guest.tap] = guest
            try:
                await self._apply(self._rules.changing(before, guest))
            except BaseException:
                self._guests[guest.tap] = before
                raise
        await asyncio.to_thread(_cut_forbidden, guest)

    async def forward(self, monitor: Monitor, launch: LaunchSpec, guest_port: int) -> str:
        """The guest's own address."""
        del monitor
        return f"{launch.network.guest_ip}:{guest_port}"

    async def unforward(
        self, monitor: Monitor, launch: LaunchSpec, guest_port: int, address: str
    ) -> None:
        """Nothing was made for it."""

    async def forwards(self, monitor: Monitor, launch: LaunchSpec) -> dict[int, str]:
        """See `interface.Network.forwards`."""
        del monitor
        return {port: f"{launch.network.guest_ip}:{port}" for port in launch.ports}

    def _guest(self, launch: LaunchSpec) -> Guest:
        return self._guest_of(launch.network, launch.egress)

    def _guest_of(self, network: MachineNetwork, egress: Egress) -> Guest:
        assert network.tap_device is not None  # noqa: S101 - a record of this kind has all of it
        assert network.guest_mac is not None  # noqa: S101
        assert network.tap_ip is not None  # noqa: S101
        return Guest(
            tap=network.tap_device,
            mac=network.guest_mac,
            ip=_guest_ip(network),
            gateway=network.tap_ip,
            egress="none" if self._config.restrict else egress,
        )

    async def _warn(self) -> None:
        """Says what works less than it could."""
        for hindrance in await asyncio.to_thread(tap_host.hindrances):
            _log.warning("%s; to mend it: %s", hindrance.what, hindrance.mend)
        if not (self._config.dns or resolvers()):
            _log.warning(
                "guests can't look names up: this host's resolver is on its loopback, or there is"
                " none; HYPERFLEET_DNS names one that they can reach"
            )

    async def _must_be_ours(self, machines: Collection[Machine]) -> None:
        """Nobody else has addresses that machines would be given."""
        own = {str(machine.network.tap_device) for machine in machines}
        routes = await asyncio.to_thread(device.routes)
        found = overlapping(self._config.subnet, routes, own)
        if found is not None:
            raise GuestError(
                f"HYPERFLEET_SUBNET={self._config.subnet} overlaps {found[0]}, to which this host"
                f" has a route by {found[1]}: set another one"
            )

    async def _take_over(self, machines: Collection[Machine]) -> None:
        """The tables hold these machines and no others; a crash may have left anything."""
        guests = [self._guest_of(one.network, one.spec.egress) for one in machines]
        async with self._changing:
            self._guests = {guest.tap: guest for guest in guests}
            if guests:
                await self._replace()
                await self._forward()
            elif await nft.has_table("inet", self._rules.table):
                await nft.apply(self._rules.nothing())
        for guest in guests:
            if guest.egress != "all":
                await asyncio.to_thread(_cut_forbidden, guest)

    async def _forward(self) -> None:
        if await asyncio.to_thread(device.turn_forwarding_on):
            _log.warning(
                "this host forwards IPv4 from now on, for machines that are attached by tap"
                " (net.ipv4.ip_forward was 0)"
            )

    async def _admit(self, guest: Guest) -> None:
        async with self._changing:
            before = self._guests.get(guest.tap)
            self._guests[guest.tap] = guest
            try:
                if not self._has_tables:
                    await self._replace()
                elif before is None:
                    await self._apply(self._rules.joining(guest))
                else:
                    await self._apply(self._rules.changing(before, guest))
            except GuestError:
                del self._guests[guest.tap]
                raise

    async def _apply(self, transaction: str) -> None:
        """A change; where the tables are not as we think they are, the whole instead."""
        try:
            await _whole(nft.apply(transaction))
        except GuestError as error:
            _log.warning("the rules for machines are made anew: %s", error)
            await self._replace()

    async def _replace(self) -> None:
        self._has_tables = False
        await _whole(nft.apply(self._rules.whole(self._guests.values())))
        self._has_tables = True
        if self._watch is None:
            self._watch = Watch(self._look_after)

    def _look_after(self) -> None:
        self._may_be_lost = True
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._mend(), name="rules of nftables")

    async def _mend(self) -> None:
        while self._may_be_lost:
            self._may_be_lost = False
            async with self._changing:
                try:
                    await self._make_whole()
                except GuestError:
                    _log.exception("the rules for machines were removed and can't be made anew")

    async def _make_whole(self) -> None:
        tables = [await nft.has_table(family, self._rules.table) for family in ("inet", "arp")]
        if self._has_tables and not all(tables):
            _log.warning(
                "the rules for machines were removed (did a firewall flush the ruleset?) and are"
                " made anew"
            )
            await self._replace()

    async def _free_rested(self) -> None:
        """Those that have rested, and that nobody speaks to, may be given to machines again."""
        rested = self._blocks.rested(datetime.now(UTC))
        if not rested:
            return
        busy = await asyncio.to_thread(conntrack.spoken_to, rested)
        quiet = [guest_ip for guest_ip in rested if guest_ip not in busy]
        await self._addresses.rested(quiet)
        self._blocks.free(quiet)


def _guest_ip(network: MachineNetwork) -> str:
    assert network.guest_ip is not None  # noqa: S101 - a record of this kind has all of it
    return network.guest_ip


def _cut_forbidden(guest: Guest) -> None:
    """What the guest has begun and may not do any more. Blocks."""

    def is_forbidden(flow: Flow) -> bool:
        return (
            flow.source == guest.ip
            and flow.destination != guest.gateway
            and not permits(guest.egress, flow.destination, flow.protocol, flow.port)
        )

    conntrack.cut(guest.ip, is_forbidden)


async def _make(network: MachineNetwork) -> int:
    """A tap's descriptor, which nobody has when this is cancelled."""
    making = asyncio.ensure_future(asyncio.to_thread(device.make, network))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait((making,))
        if making.exception() is None:
            os.close(making.result())
        raise


async def _whole(act: Coroutine[Any, Any, None]) -> None:
    """Ends only when `act` has, whoever cancels it: a thread can't be called back."""
    doing = asyncio.ensure_future(act)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        raise


def table_name(home: Path) -> str:
    """What a home's tables are called."""
    digest = hashlib.sha256(str(home.absolute()).encode()).hexdigest()
    return f"hyperfleet_{digest[:8]}"
