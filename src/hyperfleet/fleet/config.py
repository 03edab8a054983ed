"""What a fleet is told when it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from hyperfleet.fleet.capacity import Room
from hyperfleet.fleet.pulse import PulseLimits
from hyperfleet.fleet.revival import Limits


class FleetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and time limits. Times in seconds, memory in MiB."""

    # HYPERFLEET_HOME; the machines' directories lie in it.
    home: Path
    # Between two looks at a machine's listening ports.
    poll_interval: float = 10.0
    # From the spawn of the process to the agent's answer.
    boot_deadline: float = 60.0
    # What a clone of a template has to answer in, before its machine is booted instead; a clone
    # takes a tenth of a boot, and a busy host ten times that.
    clone_deadline: float = 10.0
    # When a guest that boots is taken to hang, and started anew, once.
    pulse: PulseLimits = PulseLimits()
    # What processes in the guest get to end by themselves, before they are killed.
    stop_grace: float = 5.0
    # More of them would only make each slower, up to the deadline.
    boots_at_once: int = 4
    # How many starts that were asked for may wait for their turn.
    boot_queue: int = 1000
    # A template is made when nothing boots; at the latest after this it takes the turn of a boot.
    template_wait: float = 5.0
    # What machines may be promised together; None: it is not counted.
    room: Room | None = None
    # What stays free of the home's disk.
    disk_reserve_mib: int = 0
    # None: all that the host has.
    largest_vcpu_count: int | None = None
    largest_mem_size_mib: int | None = None
    # How long exec waits for an agent whose channel was lost.
    agent_wait: float = 5.0
    # When machines that ended are started again.
    revival: Limits = Limits()
    # Which boot of the host this is; another one than a machine's: its process can't be there.
    host_boot: str = ""


class ImagesLike(Protocol):
    """Finds what machines boot from. `hyperfleet.images` has the real one."""

    def kernel(self, path: str) -> Path:
        """The kernel that a machine names.

        Raises:
            ValidationError: missing, outside the folders that may be used, or no kernel.
        """

    def root_disk(self, path: str) -> Path:
        """The base disk that a machine names; raises as `kernel` does."""

    def initramfs(self) -> Path:
        """The initramfs with the agent; raises as `kernel` does."""
