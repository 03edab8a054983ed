"""A world for each test, and a fleet that is opened on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hyperfleet.fleet import Fleet

from .world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "home")
    yield world
    await world.close()


@pytest.fixture
async def fleet(world: World) -> Fleet:
    return await world.fleet()
