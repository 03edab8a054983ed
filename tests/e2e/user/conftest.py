"""A host of the test's own with two machines by user networking, and an internet behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.need import Need
from support.reach import World, hosted


@pytest.fixture(scope="package")
def world(images: Path, need: Need) -> Iterator[World]:
    for program in ("qemu-system-x86_64", "passt", "ip", "nsenter", "perl"):
        need(program)
    with hosted(images) as made:
        made.add("one")
        made.add("two")
        yield made
