"""What a template and its clones have in common: all of a machine that a kernel meets as it boots.

The root disk is not of it: a template stops before it has looked at one.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

from hyperfleet.machine import MachineNetwork
from hyperfleet.network.interface import Card, template_mac
from hyperfleet.vmm import qemu_command
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu_command import Data, Memory, Sockets

_CPUS = Path("/proc/cpuinfo")
# What in it differs from one processor of a host to the next, or from one moment to the next.
_CHANGING = (
    "processor",
    "cpu MHz",
    "core id",
    "apicid",
    "initial apicid",
    "bogomips",
    "physical id",
)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One shape of machine. `mtus`: of its cards, in their order; `qemu`: the program."""

    kernel: Path
    initramfs: Path
    kernel_args: str | None
    vcpu_count: int
    mem_size_mib: int
    mtus: tuple[int | None, ...]
    # How many besides the root disk.
    data_disks: int = 0
    qemu: str
    kvm: bool

    def key(self) -> str:
        """What tells it from all others, and from itself before anything of it was changed.

        The files by their identity and time, as a build system has it; QEMU's line as this version
        of Hyperfleet writes it.

        Raises:
            OSError: one of the files is gone.
        """
        return _digest([_identity(self.kernel), _identity(self.initramfs), self.line_key()])

    def line_key(self) -> str:
        """The same of what a guest that runs still depends on: QEMU, its line, the processor.

        Raises:
            OSError: QEMU is gone.
        """
        program = Path(shutil.which(self.qemu) or self.qemu)
        return _digest([_identity(program), self._line(), _processor() if self.kvm else ""])

    def cards(self) -> list[Card]:
        """Cards that lead nowhere, with a template's addresses.

        Nothing is behind them that has a state of its own, which clones might not have.
        """
        return [
            Card(
                id=f"n{number}",
                backend=f"hubport,id=n{number},hubid={number}",
                mac=template_mac(number),
                mtu=mtu,
            )
            for number, mtu in enumerate(self.mtus)
        ]

    def data(self) -> list[Data]:
        """What stands for data disks: a template never looks at them."""
        return [Data(serial=str(number), descriptor=None) for number in range(self.data_disks)]

    def launch(self, template_id: str, directory: Path) -> LaunchSpec:
        """What the template itself is started from. Its base disk is never looked at."""
        return LaunchSpec(
            id=template_id,
            name=template_id,
            directory=directory,
            vcpu_count=self.vcpu_count,
            mem_size_mib=self.mem_size_mib,
            kernel=self.kernel,
            initramfs=self.initramfs,
            kernel_args=self.kernel_args,
            base_disk=self.kernel,
            network=MachineNetwork(mode=""),
        )

    def _line(self) -> list[str]:
        """The command line, without what each machine or each run has of its own."""
        launch = msgspec.structs.replace(
            self.launch("", Path()), kernel=Path("kernel"), initramfs=Path("initramfs")
        )
        return qemu_command.command(
            launch,
            qemu="",
            kvm=self.kvm,
            # The rate is measured anew by each server.
            tsc_khz=None if self.kvm else 1,
            sockets=Sockets(qmp=0, agent=0),
            cards=self.cards(),
            disk="",
            data=self.data(),
            memory=Memory(0, shared=True),
        )


def shape_of(launch: LaunchSpec, cards: list[Card], *, qemu: str, kvm: bool) -> Shape:
    """The shape of a machine that is about to start."""
    return Shape(
        kernel=launch.kernel.absolute(),
        initramfs=launch.initramfs.absolute(),
        kernel_args=launch.kernel_args,
        vcpu_count=launch.vcpu_count,
        mem_size_mib=launch.mem_size_mib,
        mtus=tuple(card.mtu for card in cards),
        data_disks=len(launch.disks),
        qemu=qemu,
        kvm=kvm,
    )


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _processor() -> str:
    """What `-cpu host` depends on."""
    lines = _CPUS.read_text().splitlines()
    kept = sorted({line for line in lines if line.split("\t")[0].strip() not in _CHANGING})
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()
