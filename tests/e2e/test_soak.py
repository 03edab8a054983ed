"""A short soak: each kind of kill once, real machines under load. `make soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.need import Need
from support.soak import kills
from support.soak.run import soak

pytestmark = pytest.mark.vm


def test_nothing_is_lost_wrong_or_left(images: Path, need: Need) -> None:
    need("qemu-system-x86_64")
    tally = soak(images, seconds=0, machines=2, seed=4, least_rounds=len(kills.KINDS))
    assert tally.passed, tally.text()
    assert tally.killed[kills.CONTROL_PLANE] == 1
    assert tally.killed[kills.DATA_PLANE] == 1
