"""`scripts/bootstrap`, its order and what becomes of a step that fails; stubs do the work."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.data_plane import alive

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Makes an environment whose Python, hyperfleet and pip are told what to do by files.
PYTHON = f"""#!/bin/sh
case "$*" in
  *venv*)
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    printf '#!/bin/sh\\necho guest >>done\\n' >.venv/bin/hyperfleet
    chmod +x .venv/bin/hyperfleet ;;
  *pip*) echo pip >>done; . ./pip ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
CARGO = """#!/bin/sh
case "$*" in
  --version) echo "cargo 1.95.0 (stub)" ;;
  *) . ./cargo && echo cargo >>done ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A checkout that has nothing but scripts; `pip` and `cargo` are what the stubs do."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    for name in ("pip", "cargo", "requirements.txt", "pyproject.toml", "done"):
        (tmp_path / name).write_text("")
    (tmp_path / "bin").mkdir()
    for name, text in (("python3", PYTHON), ("cargo", CARGO)):
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    yield tmp_path
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 9)


def bootstrap(project: Path) -> tuple[int, list[str]]:
    """Its exit status, and what was done anew."""
    (project / "done").write_text("")
    run = subprocess.run(
        [project / "scripts/bootstrap"],
        env={**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return run.returncode, (project / "done").read_text().split()


def test_all_is_made_and_pip_not_asked_again(project: Path) -> None:
    status, done = bootstrap(project)
    assert (status, sorted(done), done[-1]) == (
        0,
        ["cargo", "cargo", "guest", "pip", "pip"],
        "guest",
    )
    assert bootstrap(project) == (0, ["cargo", "cargo", "guest"])


def test_packages_that_pip_could_not_install_are_not_taken_for_installed(project: Path) -> None:
    (project / "pip").write_text("exit 1")
    status, done = bootstrap(project)
    assert (status, done.count("pip"), "guest" in done) == (1, 1, False)
    (project / "pip").write_text("")
    status, done = bootstrap(project)
    assert (status, done.count("pip"), done[-1]) == (0, 2, "guest")


def test_pip_is_ended_where_a_binary_can_not_be_built(project: Path) -> None:
    os.mkfifo(project / "begun")
    (project / "pip").write_text("echo $$ >pid; echo >begun; exec sleep 600")
    (project / "cargo").write_text("read -r _ <begun; exit 101")
    assert bootstrap(project) == (101, ["pip"])
    pid = int((project / "pid").read_text())
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline
