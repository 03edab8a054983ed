"""Whether a guest that boots hangs, told from the work of its process.

An emulated guest with two processors hangs now and then before its agent speaks: one of them spins
in its kernel for ever (seen once in some hundred boots on a busy host). Nothing of the user's has
run by then, so it may be started anew.
"""

from __future__ import annotations

import asyncio

import msgspec

from hyperfleet.vmm.driver import CpuTime, Process

# Of the time between two looks; a guest that waits for something to come still serves its clock.
_IDLE_SHARE = 0.02


class PulseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a boot that comes to nothing; `used` and what each virtual CPU adds, of CPU."""

    every: float = 1.0
    # Longer than the agent itself waits for a device (10 s), after which it says what is missing.
    idle: float = 12.0
    # Some five times what a boot takes by emulation; the hang spins one processor, not all.
    used: float = 15.0
    used_each: float = 5.0


class Pulse:
    """Looks at one boot, `limits.every` seconds apart."""

    def __init__(self, limits: PulseLimits, vcpu_count: int) -> None:
        self._limits = limits
        self._most = limits.used + limits.used_each * vcpu_count
        self._before = CpuTime(0.0, 0.0)
        self._idle_looks = 0

    def stuck(self, now: CpuTime) -> str | None:
        """Why the guest will not come up; None: it may.

        A process that waits for a processor is not idle, the host is busy. Looks are counted, not
        time: a host that was itself stopped has not seen the guest idle meanwhile.
        """
        done = now.wanted - self._before.wanted
        self._before = now
        idle = done < self._limits.every * _IDLE_SHARE
        self._idle_looks = self._idle_looks + 1 if idle else 0
        if self._idle_looks * self._limits.every >= self._limits.idle:
            return f"it did nothing for {self._limits.idle:g} s"
        if now.used >= self._most:
            return f"it has used {now.used:.0f} s of CPU"
        return None


async def until_stuck(process: Process, limits: PulseLimits, vcpu_count: int) -> str:
    """Returns, with the reason, when the guest of `process` hangs; never where none can tell."""
    pulse = Pulse(limits, vcpu_count)
    while True:
        await asyncio.sleep(limits.every)
        time = process.cpu_time()
        if time is not None and (why := pulse.stuck(time)) is not None:
            return why
