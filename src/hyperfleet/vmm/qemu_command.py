"""QEMU's command line for a machine: a pure function of what is asked for.

Sources: QEMU's manual, "microvm (microvm)" and "Invocation". Paths are relative to the machine's
own directory, in which QEMU runs, so that no character of a path can be taken for syntax.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hyperfleet.network.interface import Card
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu_disk import DISK

CONSOLE = "console.log"
AGENT_PORT = "hyperfleet.agent"

# The kernel reboots at once when it panics, which -no-reboot turns into QEMU's end. The agent finds
# its disk by the last one. No mitigations: one user's guest is one trust domain, and they cost most
# where every instruction is translated.
KERNEL_ARGS = (
    "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check nokaslr mitigations=off "
    "cryptomgr.notests hyperfleet.root=/dev/vda"
)
# What TCG keeps of translated code: taken as it is used. The default grows to over 1 GB for each
# machine; in one that is too small a server's code is translated again and again.
_LEAST_TRANSLATIONS_MIB, _MOST_TRANSLATIONS_MIB = 48, 256
# The sets of descriptors (-add-fd) that hold the disk's base, and the first data disk.
_BASE_SET, _DATA_SET = 1, 2
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Memory(msgspec.Struct, frozen=True):
    """A guest's memory in a file: `descriptor`, which QEMU inherits.

    `shared`: what the guest writes is written to the file; else its pages are copied first.
    """

    descriptor: int
    shared: bool


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk. `descriptor`: open to read and write, which QEMU inherits.

    None: of something that stands for one, as in `no_disk`.
    """

    serial: str
    descriptor: int | None


class Sockets(msgspec.Struct, frozen=True, kw_only=True):
    """File descriptors of listening sockets that QEMU inherits."""

    qmp: int
    agent: int


def translations_mib(mem_size_mib: int) -> int:
    """Under TCG, the room for the translated code of a guest with so much memory, both in MiB."""
    return min(max(_LEAST_TRANSLATIONS_MIB, mem_size_mib // 4), _MOST_TRANSLATIONS_MIB)


def process_mib(mem_size_mib: int, *, kvm: bool) -> int:
    """What a guest's memory may come to in its QEMU: with the translations, if it is TCG's."""
    return mem_size_mib + (0 if kvm else translations_mib(mem_size_mib))


def process_name(machine_id: str) -> str:
    """What stands in the command line of this machine's process and of no other."""
    return f"hyperfleet-{machine_id}"


def command(
    launch: LaunchSpec,
    *,
    qemu: str,
    kvm: bool,
    tsc_khz: int | None,
    sockets: Sockets,
    cards: Sequence[Card],
    disk: str,
    base: int | None = None,
    data: Sequence[Data] = (),
    memory: Memory | None = None,
    incoming: bool = False,
) -> list[str]:
    """The argument list.

    `tsc_khz` is used under TCG only: KVM's guests ask the hypervisor. `disk`: of `own_disk` or
    `no_disk`; `base`: its base, a descriptor, if it can't be opened. `memory`: a file's, or QEMU's.
    `incoming`: waits to be told whose state it takes over.
    """
    translations = translations_mib(launch.mem_size_mib)
    accelerator = "kvm" if kvm else f"tcg,thread=multi,tb-size={translations}"
    # A kernel that knows the counter's rate has no use for this timer, which from reset on wakes an
    # emulating QEMU 36 times a second. One that has to calibrate needs it.
    timer = "off" if tsc_khz is not None and not kvm else "on"
    machine = f"microvm,acpi=on,isa-serial=on,rtc=on,pit={timer}"
    # -cpu max: the default model lacks what x86-64-v2 programs need.
    return [
        qemu,
        *("-name", process_name(launch.id)),
        *_memory(machine, launch.mem_size_mib, memory),
        *("-accel", accelerator),
        *("-cpu", "host" if kvm else "max"),
        *("-m", f"{launch.mem_size_mib}M"),
        *("-smp", str(launch.vcpu_count)),
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        "-no-reboot",
        *("-sandbox", _SANDBOX),
        *("-chardev", f"file,id=console,path={CONSOLE},append=on"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={sockets.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-kernel", str(launch.kernel)),
        *("-initrd", str(launch.initramfs)),
        *("-append", _kernel_args(launch.kernel_args, None if kvm else tsc_khz)),
        *(() if base is None else ("-add-fd", f"fd={base},set={_BASE_SET}")),
        *("-blockdev", disk),
        *("-device", "virtio-blk-device,drive=root"),
        *(word for number, one in enumerate(data) for word in _data(number, one)),
        *(word for card in cards for word in _card(card)),
        # Else the guest's first keys wait for entropy that nothing gives.
        *("-object", "rng-builtin,id=random"),
        *("-device", "virtio-rng-device,rng=random"),
        *("-device", "virtio-serial-device"),
        *("-chardev", f"socket,id=agent,fd={sockets.agent},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT},id={AGENT_PORT}"),
        *(("-incoming", "defer") if incoming else ()),
    ]


def own_disk(*, opened: bool) -> str:
    """A machine's own, for `command`. `opened`: its base is a descriptor."""
    image: dict[str, object] = {
        "driver": "qcow2",
        "node-name": "root",
        "discard": "unmap",
        "file": {"driver": "file", "filename": DISK, "discard": "unmap"},
    }
    if opened:
        name = f"/dev/fdset/{_BASE_SET}"
        file = {"driver": "file", "filename": name, "read-only": True}
        image["backing"] = {"driver": "raw", "read-only": True, "file": file}
    return msgspec.json.encode(image).decode()


def no_disk(node: str = "root") -> str:
    """What stands for one, for `command`, where a guest never looks at it."""
    size = 1 << 20
    return msgspec.json.encode({"driver": "null-co", "node-name": node, "size": size}).decode()


def _data(number: int, data: Data) -> list[str]:
    node, set_ = f"data{number}", _DATA_SET + number
    device = ["-device", f"virtio-blk-device,drive={node},serial={data.serial}"]
    if data.descriptor is None:
        return ["-blockdev", no_disk(node), *device]
    file = {"driver": "file", "filename": f"/dev/fdset/{set_}", "discard": "unmap"}
    image = {"driver": "raw", "node-name": node, "discard": "unmap", "file": file}
    added = ["-add-fd", f"fd={data.descriptor},set={set_}"]
    return [*added, "-blockdev", msgspec.json.encode(image).decode(), *device]


def _memory(machine: str, mib: int, memory: Memory | None) -> list[str]:
    """A state that is saved with one kind of memory is taken over with the other: by its name."""
    backend = f"memory-backend-ram,id=ram,size={mib}M"
    if memory is not None:
        shared = "on" if memory.shared else "off"
        path = f"/proc/self/fd/{memory.descriptor}"
        backend = f"memory-backend-file,id=ram,size={mib}M,mem-path={path},share={shared}"
    return ["-object", backend, "-M", f"{machine},memory-backend=ram"]


def _card(card: Card) -> list[str]:
    device = f"virtio-net-device,netdev={card.id}"
    if card.mac is not None:
        device += f",mac={card.mac}"
    if card.mtu is not None:
        device += f",host_mtu={card.mtu}"
    return ["-netdev", card.backend, "-device", device]


def _kernel_args(asked: str | None, tsc_khz: int | None) -> str:
    words = KERNEL_ARGS if asked is None else asked
    if tsc_khz is not None and "tsc_early_khz=" not in words:
        words = f"{words} tsc_early_khz={tsc_khz}"
    return words
