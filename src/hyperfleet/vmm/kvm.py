"""Whether KVM on this host really runs a guest: a virtual CPU taken to a known end, in time.

That /dev/kvm opens tells little: where virtualisation is itself emulated, a guest may crawl or die.
Run as a program, this file is the probe: it prints nothing and exits 0, or prints the reason.
Numbers and layouts: linux/Documentation/virt/kvm/api.rst and linux/include/uapi/linux/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

# The whole probe, seconds, from spawn on; a host that is busy starts Python slowly.
LIMIT = 5.0
# An exit to the host and back, seconds: 2 us where KVM is sound, some 30 us where the host is
# itself a machine; over this, TCG is the faster one.
_EXIT_LIMIT = 100e-6

_DEVICE = "/dev/kvm"
_API_VERSION = 12
_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_SET_USER_MEMORY_REGION = 0x4020AE46
_SET_TSS_ADDRESS = 0xAE47
_RUN = 0xAE80
_SET_REGISTERS = 0x4090AE82
_GET_SPECIAL_REGISTERS = 0x8138AE83
_SET_SPECIAL_REGISTERS = 0x4138AE84
_SPECIAL_REGISTERS_BYTES = 0x138
# struct kvm_run: u8 request_interrupt_window, u8 immediate_exit, 6 bytes, u32 exit_reason.
_EXIT_REASON_AT = 8
_EXIT_IO = 2
_EXIT_HALT = 5
_EXIT_NAMES = {8: "shutdown", 9: "failed entry", 17: "an instruction it can't emulate"}

# Exits are timed in batches and the fastest counts: a busy host must not look like a bad one.
_BATCH = 100
_BATCHES = 10
_PORT_WRITES = _BATCH * _BATCHES
# 16-bit real mode: floating point, which instruction emulators lack; a loop that the processor runs
# alone; then one that exits at each turn.
_CODE = (
    b"\xdb\xe3"  # fninit
    b"\xd9\xeb"  # fldpi
    b"\xdd\xd8"  # fstp st(0)
    b"\x66\xb9\x40\x42\x0f\x00"  # mov ecx, 1000000
    b"\x66\x49"  # dec ecx
    b"\x75\xfc"  # jnz to the dec
    b"\xb9"
    + struct.pack("<H", _PORT_WRITES)  # mov cx, PORT_WRITES
    + b"\xe6\x10"  # out 0x10, al
    b"\xe2\xfc"  # loop to the out
    b"\xf4"  # hlt
)
_CODE_ADDRESS = 0x1000
_MEMORY_BYTES = 0x1000
# Three pages that Intel's processors need in real mode, out of the way of memory.
_TSS_ADDRESS = 0x10000


class KvmVerdict(msgspec.Struct, frozen=True):
    """Whether machines can run under KVM here; if not, why."""

    usable: bool
    reason: str


@functools.cache
def probe() -> KvmVerdict:
    """Runs the probe once in this process's life; blocks for LIMIT seconds at most.

    In a process of its own, because a virtual CPU that hangs takes its thread with it.
    """
    return ask([sys.executable, "-m", "hyperfleet.vmm.kvm"], LIMIT)


def ask(command: Sequence[str], limit: float) -> KvmVerdict:
    """The verdict of a probe that is run as `command`, killed after `limit` seconds."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        try:
            output, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            child.kill()
            return KvmVerdict(usable=False, reason=f"a virtual CPU did not end within {limit:g} s")
    if child.returncode == 0:
        return KvmVerdict(usable=True, reason="a virtual CPU runs")
    words = output.decode(errors="replace").strip().splitlines()
    reason = words[-1] if words else f"the probe died (exit {child.returncode})"
    return KvmVerdict(usable=False, reason=reason)


def _run_guest() -> str | None:
    """Runs the code above in a virtual CPU; None when it ended as it must, else what happened."""
    try:
        kvm = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"there is no {_DEVICE}"
    except PermissionError:
        return f"{_DEVICE} may not be opened by this user"
    if (version := fcntl.ioctl(kvm, _GET_API_VERSION)) != _API_VERSION:
        return f"KVM speaks version {version} of its interface, not {_API_VERSION}"
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    fcntl.ioctl(machine, _SET_TSS_ADDRESS, _TSS_ADDRESS)
    memory = mmap.mmap(-1, _MEMORY_BYTES)
    memory[: len(_CODE)] = _CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    region = struct.pack("<IIQQQ", 0, 0, _CODE_ADDRESS, _MEMORY_BYTES, address)
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, region)
    cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    shared = mmap.mmap(cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))
    special = bytearray(_SPECIAL_REGISTERS_BYTES)
    fcntl.ioctl(cpu, _GET_SPECIAL_REGISTERS, special)
    # The code segment comes first (struct kvm_segment): base and selector 0.
    struct.pack_into("<Q", special, 0, 0)
    struct.pack_into("<H", special, 12, 0)
    fcntl.ioctl(cpu, _SET_SPECIAL_REGISTERS, bytes(special))
    # Sixteen general registers, the instruction pointer, the flags (bit 1 is always set).
    fcntl.ioctl(cpu, _SET_REGISTERS, struct.pack("<18Q", *[0] * 16, _CODE_ADDRESS, 2))
    return _take_to_the_end(cpu, shared)


def _take_to_the_end(cpu: int, shared: mmap.mmap) -> str | None:
    fastest = float("inf")
    for batch in range(_BATCHES):
        began = time.monotonic()
        for write in range(_BATCH):
            if (reason := _run(cpu, shared)) != _EXIT_IO:
                return _stopped(reason, batch * _BATCH + write)
        fastest = min(fastest, (time.monotonic() - began) / _BATCH)
    if (reason := _run(cpu, shared)) != _EXIT_HALT:
        return _stopped(reason, _PORT_WRITES)
    if fastest > _EXIT_LIMIT:
        return f"a virtual CPU crawls: {fastest * 1e6:.0f} us an exit"
    return None


def _stopped(reason: int, exits: int) -> str:
    name = _EXIT_NAMES.get(reason, "the wrong exit")
    return f"a virtual CPU stops after {exits} exits: {name} (KVM_EXIT {reason})"


def _run(cpu: int, shared: mmap.mmap) -> int:
    """Lets the virtual CPU run to its next exit; the reason (KVM_EXIT_*)."""
    fcntl.ioctl(cpu, _RUN, 0)
    (reason,) = struct.unpack_from("<I", shared, _EXIT_REASON_AT)
    return int(reason)


def main() -> None:
    """The probe itself."""
    try:
        problem = _run_guest()
    except OSError as error:
        problem = f"KVM refuses: {error.strerror}"
    if problem is not None:
        sys.exit(problem)


if __name__ == "__main__":
    main()
