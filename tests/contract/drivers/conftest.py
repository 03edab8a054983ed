"""Benches: one for each driver, and QEMU's alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hyperfleet.vmm.driver import Driver
from hyperfleet.vmm.fake import FakeDriver
from support.bench import DRIVERS, Bench, qemu_driver, warm_driver
from support.images import FILES


@pytest.fixture(params=DRIVERS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        driver: Driver = FakeDriver()
    elif request.param == "qemu":
        templates = request.getfixturevalue("templates")
        driver = await warm_driver(templates, tmp_path / "home")
    else:
        driver = qemu_driver()
    bench = Bench(driver, tmp_path, FILES)
    yield bench
    await bench.close()
    await driver.close()


@pytest.fixture
async def qemu(tmp_path: Path, templates: Path) -> AsyncIterator[Bench]:
    driver = await warm_driver(templates, tmp_path / "home")
    bench = Bench(driver, tmp_path, FILES)
    yield bench
    await bench.close()
    await driver.close()
