"""The interface of a driver: what `fleet` may ask of QEMU, Firecracker or the fake.

A driver owns processes and their files, nothing else: no database, no agent protocol, no state of
a machine. It gives a byte stream to the agent; what is said there is `hyperfleet.guest`'s.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Protocol

import msgspec

from hyperfleet.machine import Egress, How, MachineNetwork, TemplateInfo
from hyperfleet.vmm.cgroup import OutOfMemory


class DataDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk besides the one that a machine runs from.

    `file` is the host's, made by `Driver.make_disk`; the guest finds it by its `serial` number (up
    to 20 letters and digits) and mounts it at `mount_path`.
    """

    serial: str
    file: Path
    mount_path: str


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process of a machine is started from.

    `directory` is the machine's own (sockets, console log, pid file, overlay disk); everything
    that a driver makes for the machine lies in it; `disks` lie elsewhere. `ports` are the guest's
    TCP ports that shall have a way in from the start; `egress` is whom the guest may speak to by
    itself. `cgroup` is the driver's to fill in: where all processes of the machine begin.
    """

    id: str
    name: str
    directory: Path
    vcpu_count: int
    mem_size_mib: int
    kernel: Path
    initramfs: Path
    kernel_args: str | None
    base_disk: Path
    # Of the machine's own disk when it is made; None: as large as its base.
    disk_size_mib: int | None = None
    disks: tuple[DataDisk, ...] = ()
    network: MachineNetwork
    ports: tuple[int, ...] = ()
    egress: Egress = "all"
    cgroup: Path | None = None


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine's process ended. `code`, `signal`: None when it was not our child (adopted).

    `powered_off`: the guest switched itself off in order. A status of 0 does not say so: a guest
    that reboots after its kernel's panic ends with 0 as well. `out_of_memory`: the host's kernel
    has killed it, and for want of whose memory.
    """

    code: int | None = None
    signal: int | None = None
    powered_off: bool = False
    out_of_memory: OutOfMemory | None = None


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """How a process began. `template`: of which it is a clone.

    `note`: why it boots although there was a template.
    """

    how: How = How.BOOT
    template: str | None = None
    note: str | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a template is made, whatever becomes of the machine that it is to be like.

    `shape` is that of machines which can be its clones, and tells recipes apart. `make` returns
    when the template is there, or where there is to be none; it takes what a boot takes, and raises
    GuestError or CapacityError when it can't be made.
    """

    shape: Hashable
    mem_size_mib: int
    make: Callable[[], Awaitable[None]]


class CpuTime(msgspec.Struct, frozen=True):
    """A process's part of the host's processors, seconds since it began.

    `used`: it ran. `wanted`: it ran, or could have and waited for its turn; of all its threads.
    """

    used: float
    wanted: float


class Process(Protocol):
    """A machine's process, started or adopted."""

    @property
    def pid(self) -> int | None:
        """The host's process id; None where there is no process of its own (fake)."""

    @property
    def beginning(self) -> Beginning:
        """How it began; of one that was adopted nothing is known."""

    def cpu_time(self) -> CpuTime | None:
        """What it has used so far; None where that can't be told (it has ended; the fake).

        A boot that hangs and one on a host that is too busy for it differ by this.
        """

    async def channel(self) -> tuple[StreamReader, StreamWriter]:
        """A new connection to the agent's end. One at a time: the one before must be closed.

        Raises:
            GuestError: the process is gone.
        """

    async def forward(self, guest_port: int) -> str:
        """A way to the guest's `guest_port`: the host's `ADDRESS:PORT` to connect to.

        The same port gives the same address again. That a connection to it is accepted says
        nothing about the guest's server.
        """

    async def unforward(self, guest_port: int) -> None:
        """Takes the way away; no error when there is none."""

    async def forwards(self) -> dict[int, str]:
        """Every way there is, guest port to host address, as the process itself knows them."""

    async def pause(self) -> None:
        """Stops its processors; its memory stays. No error when they stand still already.

        Raises:
            GuestError: it would not, or has ended.
        """

    async def resume(self) -> bool:
        """Has its processors go on; whether they stood still. Raises as `pause` does."""

    @property
    def stalled(self) -> str | None:
        """Why its processors stand still by themselves now; None: not as far as is known."""

    def when_stalled(self, hears: Callable[[str | None], None]) -> None:
        """Has `hears` told why, whenever its processors stand still by themselves or do so now.

        And None when they go on.
        """

    async def save(self) -> None:
        """Stops its processors and saves all that it has in memory, whole or not at all.

        From then on `Driver.has_memory` is true, and the process is to be killed. If it fails the
        process stands still, and may go on.

        Raises:
            GuestError: it could not be saved.
            CapacityError: no room on the host's disk.
        """

    async def snapshot(self, into: Path) -> None:
        """Copies its memory and its disk, of one moment, into an empty folder.

        Its processors stand still at the end of that, or all the while, and do afterwards what they
        did. Not durable yet.

        Raises:
            GuestError: it could not be done.
            CapacityError: no room on the host's disk.
        """

    async def kill(self) -> None:
        """Ends the process at once and returns when it is gone; no error when it already is."""

    async def wait(self) -> Exit:
        """Returns when the process has ended (at once if it has). Many may wait."""

    def release(self) -> None:
        """Lets go of the process without ending it (the control plane stops, the machine runs on).

        Closes this side's sockets and watchers; `channel` connections are the caller's to close.
        """


class Driver(Protocol):
    """Starts and finds processes."""

    @property
    def name(self) -> str:
        """`qemu`, `firecracker` or `fake`."""

    @property
    def least_mem_mib(self) -> int:
        """The least memory that its guests boot with, MiB."""

    async def open(self) -> None:
        """Before all else; what a driver before this one left half-made is removed."""

    async def close(self) -> None:
        """Lets go of what it holds beside processes."""

    async def start(self, launch: LaunchSpec, *, anew: bool = False) -> Process:
        """Makes the machine's disk if it has none yet, spawns the process; the guest boots on.

        One that has a saved memory goes on from that, once. Else it is a clone of a template where
        there is one of its shape. Neither, and the memory is forgotten, if it is to be `anew`.

        Raises:
            GuestError: it would not start; the message holds its own words.
            ValidationError: kernel, initramfs or disk is missing or of the wrong kind.
            CapacityError: the host can't give now what the machine needs.
        """

    def has_memory(self, launch: LaunchSpec) -> bool:
        """Whether the machine, which has no process, has a saved memory."""

    async def forget_memory(self, launch: LaunchSpec) -> None:
        """Removes a saved memory; no error where there is none."""

    async def make_disk(self, file: Path, size_mib: int) -> None:
        """Makes a data disk with an empty file system; it takes no room yet. Not durable.

        Where the file is made longer later, guests have its file system take all of it.

        Raises:
            GuestError: it could not be made; the message says what is missing.
            CapacityError: no room on the host's disk.
        """

    async def copy(self, source: Path, target: Path) -> None:
        """Copies a disk, and memory if it is saved, from a folder to an empty one.

        Either is a machine's that has no process, or a snapshot's. Not durable yet.

        Raises:
            ValidationError: there is no disk.
            CapacityError: no room on the host's disk.
        """

    async def check_memory(self, folder: Path, launch: LaunchSpec) -> None:
        """Whether a machine can go on here from the memory that is saved in a snapshot's folder.

        Raises:
            ValidationError: it can't, and why.
        """

    def recipe(self, launch: LaunchSpec) -> Recipe | None:
        """How a template is made for machines like this one, which this driver has booted.

        Asked once, after the boot, while there is the machine. None: there is one, or can be none.
        """

    async def distrust(self, template_id: str) -> None:
        """A clone of it did not come up, and the machine did when it booted: it is thrown away."""

    def templates(self) -> list[TemplateInfo]:
        """All templates, the last used first."""

    async def remove_template(self, template_id: str) -> None:
        """Removes a template; its clones run on.

        Raises:
            NotFoundError: there is none of that name.
        """

    async def adopt(self, launch: LaunchSpec) -> Process | None:
        """The process that a control plane before this one started, or None when it is gone.

        It is gone, too, when its memory is saved: that is the machine then.

        Never takes a process for the machine's that is not (a reused pid).
        """

    def last_exit(self, launch: LaunchSpec) -> Exit:
        """What is still known of how a process ended that `adopt` did not find; before `sweep`."""

    async def sweep(self, launch: LaunchSpec) -> None:
        """Ends whatever process of this machine is left and removes sockets and pid files.

        Disk and console log stay. Safe at any time for a machine that is not alive.
        """

    async def remove(self, launch: LaunchSpec) -> None:
        """As `sweep`, then removes the machine's directory with all in it."""

    def disk_bytes(self, launch: LaunchSpec) -> int:
        """What the machine's own disk takes of the host's; 0: it has none yet. Blocks."""

    def console(self, launch: LaunchSpec) -> Path:
        """Where the console (serial port) is logged."""
