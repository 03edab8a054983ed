"""A host of the test's own with two machines on taps, and an internet behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.need import Need
from support.reach import INTERNET, Matrix, World, hosted

SUBNET = "172.30.0.0/16"


@pytest.fixture(scope="package")
def world(images: Path, need: Need) -> Iterator[World]:
    for program in ("qemu-system-x86_64", "nft", "ip", "nsenter", "perl"):
        need(program)
    with hosted(
        images,
        HOST="0.0.0.0",
        PROXY_BIND="0.0.0.0",
        HYPERFLEET_NETWORK="tap",
        HYPERFLEET_SUBNET=SUBNET,
        HYPERFLEET_DNS=INTERNET,
    ) as made:
        made.add("one")
        made.add("two")
        yield made


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    made = Matrix()
    yield made
    made.show("tap", request)
