"""The rate of this host's time stamp counter.

A guest under TCG reads the host's counter and calibrates it against a timer that a loaded host
serves late; then Linux calls the counter unstable and the boot hangs. Told the rate
(`tsc_early_khz=`), it does not calibrate.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import time
from collections.abc import Callable
from pathlib import Path

_SYSFS = Path("/sys/devices/system/cpu/cpu0/tsc_freq_khz")
# rdtsc; shl rdx, 32; or rax, rdx; ret (Intel SDM volume 2, RDTSC)
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_INTERVAL_S = 0.25
_ROUNDS = 3
# Rounds that differ by more than this (preempted within a sample, moved between sockets whose
# counters disagree) say that the counter is not to be trusted.
_TOLERANCE = 0.0005
_SAMPLES = 32


@functools.cache
def tsc_khz() -> int | None:
    """kHz, or None where it can't be told. Blocks for a second the first time."""
    try:
        return int(_SYSFS.read_text())
    except (OSError, ValueError):
        pass
    if platform.machine() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        # A hardened host (SELinux execmem) forbids it.
        return None
    page.write(_RDTSC)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    rates = sorted(_rate(read) for _ in range(_ROUNDS))
    middle = rates[_ROUNDS // 2]
    if rates[-1] - rates[0] > middle * _TOLERANCE:
        return None
    return round(middle)


def _rate(read: Callable[[], int]) -> float:
    began, first = _together(read)
    time.sleep(_INTERVAL_S)
    ended, last = _together(read)
    return (last - first) * 1e6 / (ended - began)


def _together(read: Callable[[], int]) -> tuple[int, int]:
    """Clock (ns) and counter at one moment: the sample that was least disturbed."""
    best: tuple[int, int, int] | None = None
    for _ in range(_SAMPLES):
        before = time.monotonic_ns()
        counter = read()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, counter)
    assert best is not None  # noqa: S101 - _SAMPLES is not 0
    return best[1], best[2]
