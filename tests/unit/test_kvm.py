from __future__ import annotations

import sys
import time

from hyperfleet.vmm import kvm


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_probe_that_ends_well_is_a_usable_kvm() -> None:
    assert kvm.ask(python("pass"), 30).usable


def test_a_probe_that_says_why_not_gives_the_reason() -> None:
    verdict = kvm.ask(python("import sys; print('noise', flush=True); sys.exit('it crawls')"), 30)
    assert (verdict.usable, verdict.reason) == (False, "it crawls")


def test_a_probe_that_dies_counts_as_none() -> None:
    verdict = kvm.ask(python("import os; os.kill(os.getpid(), 9)"), 30)
    assert (verdict.usable, verdict.reason) == (False, "the probe died (exit -9)")


def test_a_probe_that_hangs_is_ended_in_time() -> None:
    began = time.monotonic()
    verdict = kvm.ask(python("import signal; signal.pause()"), 0.2)
    assert (verdict.usable, verdict.reason) == (False, "a virtual CPU did not end within 0.2 s")
    assert time.monotonic() - began < 10


def test_the_probe_comes_to_a_verdict_once() -> None:
    verdict = kvm.probe()
    assert verdict.usable or verdict.reason
    assert kvm.probe() is verdict
