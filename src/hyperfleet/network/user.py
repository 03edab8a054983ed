"""Rootless networking: QEMU's own user-mode stack (slirp) for ways in, passt for the way out.

Every machine sees the same addresses, on two cards. By the first the host reaches the guest's
ports, each by a forward from a port of its own loopback, made and taken away while the machine
runs; the guest can begin nothing there (`restrict=on`). Each machine has a loopback address of its
own (all of 127.0.0.0/8 is local, RFC 1122, 3.2.1.3), so that a port which one machine has given up
is never another's: a route that is late by a moment leads nowhere, not to a stranger. Source:
QEMU's manual, "Network emulation", `-netdev user`, `hostfwd_add`.

The second is the guest's way out, see `network.gate`; a machine that may not go out, or whose host
can't let it, has none.

A connection to a forward is accepted whatever happens in the guest, so it never shows that a
server is there; only the agent's word does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from hyperfleet.errors import GuestError, InvalidStateError, ValidationError
from hyperfleet.guest.values import GuestNetwork
from hyperfleet.machine import Egress, Machine, MachineNetwork
from hyperfleet.network import gate
from hyperfleet.network.gate import Gates
from hyperfleet.network.interface import Card, Joint, Monitor, guest_mac, host_address, template_mac
from hyperfleet.vmm.driver import LaunchSpec

_log = logging.getLogger(__name__)

MODE = "user"
GUEST_IP = "10.0.2.15"
GUEST_ADDRESS = f"{GUEST_IP}/24"
GATEWAY = "10.0.2.2"
DNS = ("10.0.2.3",)

_NETDEV = "n0"
_OUTWARD = "n1"
# What passt carries at once; the guest's driver takes it over (virtio 1.2, VIRTIO_NET_F_MTU).
_MTU = 65520
# `TCP[HOST_FORWARD]  12       127.0.0.1 43211       10.0.2.15    80     0     0`
_FORWARD = re.compile(
    r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+(?P<host>[\d.]+)\s+(?P<port>\d+)\s+[\d.]+\s+(?P<guest>\d+)\s",
    re.MULTILINE,
)


def parse_forwards(usernet: str) -> dict[int, str]:
    """What `info usernet` says of forwards: guest port to `ADDRESS:PORT` of the host."""
    return {
        int(match["guest"]): f"{match['host']}:{match['port']}"
        for match in _FORWARD.finditer(usernet)
    }


def assigned(machine_id: str) -> MachineNetwork:
    """What a machine is recorded with. All have the same address."""
    return MachineNetwork(mode=MODE, guest_ip=GUEST_IP, guest_mac=guest_mac(machine_id))


def outward_mac(network: MachineNetwork) -> str:
    """The hardware address of the card by which the guest goes out."""
    # As unlike to any machine's first as two machines' are to each other: those begin with 52.
    return f"56{str(network.guest_mac)[2:]}"


class UserNetwork:
    """Implements `interface.Network`. Holds no state: QEMU knows its forwards."""

    mode = MODE

    def __init__(self, gates: Gates | None = None) -> None:
        """Without `gates` machines begin no connections, they only answer those to their ports."""
        self._gates = gates
        # What was last told of why there is no way out: once is enough.
        self._told: str | None = None

    async def open(self, machines: Collection[Machine], *, wanted: bool) -> None:
        """Nothing is kept beside what QEMU has."""

    async def close(self) -> None:
        """Gates stay with their machines."""
        if self._gates is not None:
            self._gates.close()

    def check(self, egress: Egress, *, running: bool) -> None:
        """See `interface.Network.check`. All or nothing, and QEMU is told at its start."""
        if not isinstance(egress, str):
            raise ValidationError(
                "egress: a list of networks needs a machine that is attached by tap"
                " (HYPERFLEET_NETWORK=tap); by user networking it is all or none"
            )
        if running:
            raise InvalidStateError(
                "egress can't be changed while the machine runs: it is attached by user"
                " networking; stop it first"
            )

    async def assign(self, machine_id: str) -> MachineNetwork:
        """See `interface.Network.assign`."""
        return assigned(machine_id)

    def release(self, network: MachineNetwork, *, used: bool) -> None:
        """Its addresses are nobody else's in any case."""

    def introduce(self, network: MachineNetwork) -> GuestNetwork:
        """See `interface.Network.introduce`."""
        return GuestNetwork(
            address=GUEST_ADDRESS,
            gateway=GATEWAY,
            dns=DNS,
            mac=network.guest_mac,
            found_as=template_mac(0),
            outward=GuestNetwork(
                address=gate.ADDRESS,
                gateway=gate.GATEWAY,
                dns=(gate.DNS,),
                mac=outward_mac(network),
                found_as=template_mac(1),
            ),
        )

    async def attach(self, launch: LaunchSpec) -> Joint:
        """See `interface.Network.attach`. Port 0 lets the host's kernel choose a free one."""
        forwards = "".join(f",hostfwd={_rule(launch.id, port)}" for port in launch.ports)
        inward = Card(
            id=_NETDEV,
            backend=f"user,id={_NETDEV},ipv6=off,restrict=on{forwards}",
            mac=launch.network.guest_mac,
        )
        out = await self._way_out(launch)
        if out is None:
            return Joint(cards=(inward,))
        outward = Card(
            id=_OUTWARD,
            backend=f"stream,id={_OUTWARD},server=off,addr.type=fd,addr.str={out}",
            mac=outward_mac(launch.network),
            mtu=_MTU,
        )
        return Joint(cards=(inward, outward), inherited=(out,))

    async def _way_out(self, launch: LaunchSpec) -> int | None:
        if self._gates is None or launch.egress == "none":
            return None
        try:
            out = await self._gates.open(
                launch.directory, outward_mac(launch.network), launch.cgroup
            )
        except GuestError as error:
            if self._told != str(error):
                self._told = str(error)
                _log.warning(
                    "machines have no way out, only ways in, from machine %s on: %s;"
                    " `hyperfleet doctor` says what is missing",
                    launch.name,
                    error,
                )
            return None
        self._told = None
        return out

    async def detach(self, launch: LaunchSpec) -> None:
        """With QEMU all of it ends by itself."""
        if self._gates is not None:
            await self._gates.ended(launch.directory)

    async def permit(self, launch: LaunchSpec) -> None:
        """QEMU was told at its start; `check` lets nothing else through."""

    async def forward(self, monitor: Monitor, launch: LaunchSpec, guest_port: int) -> str:
        """A way to `guest_port`: the host's `ADDRESS:PORT`.

        Raises:
            GuestError: QEMU refused it.
        """
        # The monitor's errors come as text; success is silent.
        words = await monitor(f"hostfwd_add {_NETDEV} {_rule(launch.id, guest_port)}")
        if words.strip():
            raise GuestError(f"no way in to port {guest_port}: {words.strip()[:200]}")
        address = (await self.forwards(monitor, launch)).get(guest_port)
        if address is None:
            raise GuestError(f"no way in to port {guest_port}: QEMU does not list the one it made")
        return address

    async def unforward(
        self, monitor: Monitor, launch: LaunchSpec, guest_port: int, address: str
    ) -> None:
        """Takes the way at `address` away; connections through it live on."""
        del launch, guest_port
        await monitor(f"hostfwd_remove {_NETDEV} tcp:{address}")

    async def forwards(self, monitor: Monitor, launch: LaunchSpec) -> dict[int, str]:
        """Every way in that QEMU has."""
        del launch
        return parse_forwards(await monitor("info usernet"))


def _rule(machine_id: str, guest_port: int) -> str:
    return f"tcp:{host_address(machine_id)}:0-:{guest_port}"
