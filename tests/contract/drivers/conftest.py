"""Benches: one for each driver, and QEMU's alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hyperfleet.vmm.fake import FakeDriver
from support.bench import FILES, Bench, qemu_driver


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.vm)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    driver = qemu_driver() if request.param == "qemu" else FakeDriver()
    bench = Bench(driver, tmp_path, FILES)
    yield bench
    await bench.close()


@pytest.fixture
async def qemu(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(qemu_driver(), tmp_path, FILES)
    yield bench
    await bench.close()
