"""The rate of this host's time stamp counter.

A guest under TCG reads the host's counter and calibrates it against a timer that a loaded host
serves late; then Linux calls the counter unstable and the boot hangs. Told the rate
(`tsc_early_khz=`), it does not calibrate.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import logging
import mmap
import platform
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

_SYSFS = Path("/sys/devices/system/cpu/cpu0/tsc_freq_khz")
# rdtsc; shl rdx, 32; or rax, rdx; ret (Intel SDM volume 2, RDTSC)
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_INTERVAL_S = 0.25
# Rounds that differ by more than this were disturbed (a host that was itself stopped within one, a
# counter of another socket).
_TOLERANCE = 0.0005
_ROUNDS_AGREE = 3
_MOST_ROUNDS = 12
_SAMPLES = 32


@functools.cache
def tsc_khz() -> int | None:
    """kHz, or None where there is no way to read the counter. Blocks for a second the first time.

    Rounds that agree are waited for; if none do, the middle one is given nevertheless: a guest that
    calibrates does not come up at all on a loaded host.
    """
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
    return round(settled(lambda: _rate(read)))


def settled(measure: Callable[[], float]) -> float:
    """What `measure` says again and again: the middle of as many neighbours as have to agree.

    After so many calls that no more can be hoped for, the middle of all.
    """
    rates: list[float] = []
    while len(rates) < _MOST_ROUNDS:
        bisect.insort(rates, measure())
        for low, high in zip(rates, rates[_ROUNDS_AGREE - 1 :], strict=False):
            if high - low <= low * _TOLERANCE:
                return rates[rates.index(low) + _ROUNDS_AGREE // 2]
    _log.warning(
        "the rate of this host's time stamp counter is not steady (%.0f to %.0f kHz): the clocks"
        " of machines may be off",
        rates[0],
        rates[-1],
    )
    return rates[len(rates) // 2]


def _rate(read: Callable[[], int]) -> float:
    began, first = _together(read)
    time.sleep(_INTERVAL_S)
    ended, last = _together(read)
    by_clock, by_hardware = (
        (last - first) * 1e6 / (end - begin) for begin, end in zip(began, ended, strict=True)
    )
    # The clock is the better one, unless it is being set right (NTP slews by up to a tenth).
    steady = abs(by_clock - by_hardware) <= by_hardware * _TOLERANCE
    return by_clock if steady else by_hardware


def _together(read: Callable[[], int]) -> tuple[tuple[int, int], int]:
    """Both clocks (ns, the second one not steered by NTP) and the counter at one moment.

    Of several samples the one that was least disturbed.
    """
    best: tuple[int, tuple[int, int], int] | None = None
    for _ in range(_SAMPLES):
        before = time.monotonic_ns()
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counter = read()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, ((before + after) // 2, raw), counter)
    assert best is not None  # noqa: S101 - _SAMPLES is not 0
    return best[1], best[2]
