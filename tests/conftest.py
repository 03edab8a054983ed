"""What every test shares: the order of the folders, and what a test needs of the host."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.need import Need
from support.wheel import built

# Fast ones first; a folder that is not here comes last.
STAGES = ("unit", "contract", "integration", "e2e")
_TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def need() -> Need:
    return Need()


@pytest.fixture(scope="session")
def wheel(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout, as `make wheel` makes it."""
    return built(need, tmp_path_factory.mktemp("wheel"))


def pytest_configure() -> None:
    """What tests start is hung up as a shell's commands are, also under nohup(1)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_stage)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> object:
    """Stops between two folders when one has failed: what builds on it would only fail too."""
    result = yield
    session = item.session
    if nextitem is not None and session.testsfailed and _stage(item) != _stage(nextitem):
        session.shouldstop = f"tests/{STAGES[_stage(item)]} failed: the slower ones were not run"
    return result


def _stage(item: pytest.Item) -> int:
    folder = item.path.relative_to(_TESTS).parts[0]
    return STAGES.index(folder) if folder in STAGES else len(STAGES)
