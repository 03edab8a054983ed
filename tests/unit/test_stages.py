"""The order of the tests themselves: what `make test` promises of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert False\n"
TELLS = """
from support.table import printed

def test_tells(request):
    with printed(request, "met") as rows:
        rows.append("4 of 4")
"""
NEEDS = "def test_needs(need):\n    need('no-such-program')\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A project with a test in each folder, and the conftest.py of this one."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --import-mode=importlib\npythonpath = tests\n"
    )
    for stage in ("unit", "contract", "integration", "e2e"):
        (tmp_path / "tests" / stage).mkdir(parents=True)
        (tmp_path / "tests" / stage / "test_it.py").write_text(PASSES)
    (tmp_path / "tests/support").mkdir()
    for name in (
        "conftest.py",
        "support/images.py",
        "support/need.py",
        "support/shared.py",
        "support/scheduling.py",
        "support/table.py",
    ):
        shutil.copy(Path(__file__).parent.parent / name, tmp_path / "tests" / name)
    return tmp_path


def test_fast_folders_come_first(suite: Path) -> None:
    names = ("unit", "contract", "integration", "e2e")
    output = run(suite, "-v")
    assert output.count("PASSED") == len(names)
    assert sorted(names, key=lambda name: output.index(f"tests/{name}/")) == list(names)


def test_what_takes_long_comes_first_in_its_folder(suite: Path) -> None:
    (suite / "tests/e2e/test_killed.py").write_text(PASSES)
    (suite / "tests/e2e/user").mkdir()
    (suite / "tests/e2e/user/test_user.py").write_text(PASSES)
    output = run(suite, "-v")
    names = ("integration/test_it", "e2e/test_killed", "e2e/user/test_user", "e2e/test_it")
    assert sorted(names, key=lambda name: output.index(f"tests/{name}.py")) == list(names)


def test_what_comes_after_a_folder_that_failed_is_not_run(suite: Path) -> None:
    (suite / "tests/contract/test_it.py").write_text(FAILS + PASSES)
    output = run(suite, "-rs")
    assert "1 failed, 2 passed, 2 skipped" in output
    assert "tests/contract failed: the slower ones are not run" in output


WORKERS = ("-p", "xdist.plugin", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


@pytest.mark.parametrize("options", [(), WORKERS], ids=["one process", "workers"])
def test_what_tests_tell_is_printed_at_the_end(suite: Path, options: tuple[str, ...]) -> None:
    (suite / "tests/unit/test_it.py").write_text(TELLS)
    output = run(suite, *options)
    assert output.index("4 of 4") < output.index("4 passed")


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 failed")])
def test_what_is_missing_is_skipped_on_a_laptop_and_fails_in_ci(
    suite: Path, ci: str, outcome: str
) -> None:
    (suite / "tests/e2e/test_it.py").write_text(NEEDS)
    output = run(suite, "-rsf", ci=ci)
    assert outcome in output
    assert "no-such-program is not installed: run scripts/bootstrap system" in output


def test_what_a_folder_shares_ends_with_it() -> None:
    """Where a folder is no package, pytest keeps what has the scope of one until all tests end."""
    tests = Path(__file__).parent.parent
    shared = [file for file in tests.rglob("conftest.py") if 'scope="package"' in file.read_text()]
    assert shared
    assert [file for file in shared if not file.with_name("__init__.py").exists()] == []


def run(suite: Path, *options: str, ci: str = "") -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    # Other plugins have no part in it, and take most of the time.
    environment = {**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout
