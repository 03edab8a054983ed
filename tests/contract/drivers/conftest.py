"""Benches: one for each driver, and QEMU's alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hyperfleet.vmm.driver import Driver
from hyperfleet.vmm.fake import FakeDriver
from support.bench import DRIVERS, Bench, opened, qemu_driver, warm_driver
from support.small_disk import small_disk


@pytest.fixture(params=DRIVERS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        driver: Driver = FakeDriver()
    elif request.param == "qemu":
        templates = request.getfixturevalue("templates")
        driver = warm_driver(templates, tmp_path / "home")
    else:
        driver = qemu_driver()
    async with opened(driver, tmp_path) as bench:
        yield bench


@pytest.fixture
async def qemu(tmp_path: Path, templates: Path) -> AsyncIterator[Bench]:
    async with opened(warm_driver(templates, tmp_path / "home"), tmp_path) as bench:
        yield bench


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with small_disk(tmp_path / "small", 8) as folder:
        yield folder
