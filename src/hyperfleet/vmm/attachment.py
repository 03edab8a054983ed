"""What a driver asks of a kind of network; `hyperfleet.network` has the kinds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

# A line for QEMU's human monitor, and its answer (text, also when it is an error).
Monitor = Callable[[str], Awaitable[str]]


class Attachment(Protocol):
    """How a QEMU machine's card is joined to the host, and the ways in to it."""

    def arguments(self, machine_id: str, guest_mac: str, ports: Sequence[int]) -> list[str]:
        """Arguments for QEMU's command line, with a way in for each of the guest's `ports`."""

    async def forward(self, monitor: Monitor, machine_id: str, guest_port: int) -> str:
        """Makes a way in: the host's `ADDRESS:PORT`.

        Raises:
            GuestError: QEMU refused; the message holds its words.
        """

    async def unforward(self, monitor: Monitor, guest_port: int, address: str) -> None:
        """Takes the way at the host's `address` away; no error when there is none."""

    async def forwards(self, monitor: Monitor) -> dict[int, str]:
        """Every way in, guest port to host address."""
