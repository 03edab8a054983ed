"""The interface of a kind of network: what `fleet` and a driver ask of it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

import msgspec

from hyperfleet.errors import GuestError
from hyperfleet.guest.values import GuestNetwork
from hyperfleet.machine import Egress, Machine, MachineNetwork
from hyperfleet.vmm.driver import LaunchSpec

# A line for QEMU's human monitor, and its answer (text, also when it is an error).
Monitor = Callable[[str], Awaitable[str]]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card of QEMU's, and what is behind it.

    `backend`: the value of its `-netdev`, with `id` in it. `mac` is its hardware address, `mtu`
    what its guest is told to be the largest packet, None: nothing.
    """

    id: str
    backend: str
    mac: str | None
    mtu: int | None = None


class Joint(msgspec.Struct, frozen=True, kw_only=True):
    """What QEMU is started with so that its machine is attached.

    `inherited`: open file descriptors that `cards` name. Whoever asked for the joint closes
    them here once QEMU has its own copies, or will never run.
    """

    cards: Sequence[Card]
    inherited: tuple[int, ...] = ()


class Network(Protocol):
    """A kind of network. What it makes for a machine is found again by the machine's record."""

    @property
    def mode(self) -> str:
        """`user` or `tap`, as in `MachineNetwork.mode`."""

    async def open(self, machines: Collection[Machine], *, wanted: bool) -> None:
        """Before all else: the record's machines of this kind; what no record knows is removed.

        `wanted`: new machines are to be attached so.

        Raises:
            SettingsError: `wanted`, and this host or its settings don't allow it.
        """

    async def close(self) -> None:
        """The control plane ends; machines that run stay attached."""

    def check(self, egress: Egress, *, running: bool) -> None:
        """Whether a machine, which is `running` or not, can be held to `egress`.

        Raises:
            ValidationError: not by this kind.
            InvalidStateError: not while it runs.
        """

    async def assign(self, machine_id: str) -> MachineNetwork:
        """What a new machine is to be recorded with, unlike all others. Makes nothing yet.

        Raises:
            CapacityError: there is no address left.
        """

    def release(self, network: MachineNetwork, *, used: bool) -> None:
        """The machine is no more; with `used` it may have been running since `assign`."""

    def introduce(self, network: MachineNetwork) -> GuestNetwork:
        """What the machine's guest is told about its card."""

    async def attach(self, launch: LaunchSpec) -> Joint:
        """Makes what the machine is attached by, with a way in for each of its `ports`.

        The machine has no process; what is left of an earlier one is replaced.

        Raises:
            GuestError: the host would not; the message holds its words.
        """

    async def detach(self, launch: LaunchSpec) -> None:
        """Takes away all that `attach` made; no error where there is nothing.

        The machine has no process any more. Safe to repeat.
        """

    async def permit(self, launch: LaunchSpec) -> None:
        """Holds the running machine to `launch.egress` from now on.

        Connections of its guest's that this forbids are cut.

        Raises:
            GuestError: the host would not; what was in force is.
        """

    async def forward(self, monitor: Monitor, launch: LaunchSpec, guest_port: int) -> str:
        """Makes a way in: the `ADDRESS:PORT` that the host connects to.

        Raises:
            GuestError: refused; the message holds the words.
        """

    async def unforward(
        self, monitor: Monitor, launch: LaunchSpec, guest_port: int, address: str
    ) -> None:
        """Takes the way in at `address` away; no error when there is none."""

    async def forwards(self, monitor: Monitor, launch: LaunchSpec) -> dict[int, str]:
        """Every way in that was made, guest port to `ADDRESS:PORT`.

        Where ways are there without being made: those to `launch.ports`.
        """


class Networks:
    """The kinds that this host has; new machines get the first."""

    def __init__(self, first: Network, *others: Network) -> None:
        self.first = first
        self._by_mode = {network.mode: network for network in (first, *others)}

    async def open(self, machines: Collection[Machine]) -> None:
        """Opens each kind with its machines; raises as `Network.open` does."""
        for mode, network in self._by_mode.items():
            own = [machine for machine in machines if machine.network.mode == mode]
            await network.open(own, wanted=network is self.first)

    async def close(self) -> None:
        """Closes each."""
        for network in self._by_mode.values():
            await network.close()

    def of(self, network: MachineNetwork) -> Network:
        """The kind that a machine is recorded with.

        Raises:
            GuestError: this host does not have it now.
        """
        kind = self._by_mode.get(network.mode)
        if kind is None:
            raise GuestError(
                f"the machine is attached by {network.mode!r}, which this host does not have now:"
                " `hyperfleet doctor` says what is missing"
            )
        return kind


def guest_mac(machine_id: str) -> str:
    """The machine's hardware address: from its id, so the same at every start.

    Locally administered, unicast (IEEE 802c: the two low bits of the first octet are 10).
    """
    digest = hashlib.sha256(machine_id.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x52, *digest[:5]))


def host_address(machine_id: str) -> str:
    """Where on the host's loopback the machine's forwards are: one of 16 million addresses.

    Never in 127.0.0.0/16, where the host's own servers are.
    """
    digest = hashlib.sha256(f"forwards of {machine_id}".encode()).digest()
    return f"127.{1 + digest[0] % 255}.{digest[1]}.{1 + digest[2] % 254}"


def template_mac(number: int) -> str:
    """The hardware address of card `number` (from 0) in a template, until a clone has its own."""
    return f"52:54:00:ff:ff:{number:02x}"
