"""What every test shares: the order of the folders, and what a test needs of the host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Fast ones first; a folder that is not here comes last.
STAGES = ("unit", "contract", "integration", "e2e")
_TESTS = Path(__file__).parent


class Need:
    """Says what a test needs: without it the test is skipped on a laptop and fails in CI."""

    def __call__(self, program: str) -> str:
        """The path of a program that must be on the PATH (or where only root's PATH looks)."""
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if path is None:
            self.that(False, f"{program} is not installed: run scripts/bootstrap system")
        assert path is not None
        return path

    def that(self, condition: bool, reason: str) -> None:
        """Goes on only where `condition` holds; `reason` says what is missing and what makes it."""
        if condition:
            return
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def need() -> Need:
    return Need()


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
