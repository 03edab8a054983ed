"""Whether a boot hangs, from what its process has used."""

from __future__ import annotations

import pytest

from hyperfleet.fleet.pulse import Pulse, PulseLimits
from hyperfleet.vmm.driver import CpuTime

LIMITS = PulseLimits(every=1.0, idle=3.0, used=8.0, used_each=2.0)


def looks(*each: tuple[float, float], vcpu_count: int = 1) -> list[str | None]:
    """What is said at each look; each gives what the process used and wanted since the last."""
    pulse = Pulse(LIMITS, vcpu_count)
    used = wanted = 0.0
    said = []
    for more_used, more_wanted in each:
        used, wanted = used + more_used, wanted + more_wanted
        said.append(pulse.stuck(CpuTime(used, wanted)))
    return said


WORKS, WAITS, IDLES = (0.9, 1.0), (0.0, 1.0), (0.001, 0.001)


def test_a_boot_that_works_or_waits_for_a_processor_goes_on() -> None:
    assert looks(*[WORKS] * 9) == [None] * 9
    assert looks(WORKS, *[WAITS] * 60) == [None] * 61
    # It waits for something, and goes on.
    assert looks(WORKS, IDLES, IDLES, WORKS, IDLES, IDLES, WORKS) == [None] * 7


def test_one_that_does_nothing_is_stuck() -> None:
    assert looks(WORKS, IDLES, IDLES, IDLES) == [None, None, None, "it did nothing for 3 s"]


@pytest.mark.parametrize("vcpu_count", [1, 2])
def test_one_that_spins_is_stuck(vcpu_count: int) -> None:
    seconds = 8 + 2 * vcpu_count
    said = looks(*[(1.0, 1.0)] * seconds, vcpu_count=vcpu_count)
    assert said == [None] * (seconds - 1) + [f"it has used {seconds} s of CPU"]


def test_a_thread_that_ends_takes_its_time_along() -> None:
    assert looks(WORKS, (-0.5, -0.5), WORKS, IDLES, IDLES) == [None] * 5
