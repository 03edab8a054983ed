"""What commands load: each module more is time in which somebody waits for the first word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hyperfleet import client

# As `hyperfleet serve` does it, but that it serves.
SERVES = """
import sys
from hyperfleet.cli import serving
import hyperfleet.server.backend, hyperfleet.server.serve
hyperfleet.server.serve.serve = lambda loaded, build: 7
assert serving.serve() == 7
print(*sys.modules)
"""
# The client of the command line, what a new database takes, and what taps need.
NOT_OF_A_SERVER = {"hyperfleet.client", "httpx", "typer", "alembic", "pyroute2"}

# The command's entry; what it has loaded comes as the last line.
RUNS = """
import atexit, sys
atexit.register(lambda: print(*(name for name, module in sys.modules.items() if module)))
from hyperfleet.cli import main
main()
"""
# Tables and bars, processes' streams, and what httpx has for a command line of its own.
NOT_OF_A_COMMAND = {"rich", "websockets", "asyncio", "httpx._main", "click", "pygments"}


def loaded(program: str, *arguments: str, ends: int = 0) -> set[str]:
    """The modules that are loaded when it has ended with that code."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        # Where nobody listens.
        env=os.environ | {"HYPERFLEET_URL": "http://127.0.0.1:1", "HYPERFLEET_API_KEY": "hf_x"},
    )
    assert done.returncode == ends, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_a_server_loads_nothing_that_it_may_never_need() -> None:
    modules = loaded(SERVES)
    assert {"fastapi", "sqlalchemy"} <= modules
    assert modules & NOT_OF_A_SERVER == set()


@pytest.mark.parametrize(
    "arguments", ["list --json", "start one", "run -- true", "cp --owners /etc/passwd one:/tmp/"]
)
def test_a_command_loads_nothing_but_what_a_call_takes(arguments: str) -> None:
    modules = loaded(RUNS, *arguments.split(), ends=3)
    assert {"typer", "httpx", "httpcore"} <= modules
    assert modules & NOT_OF_A_COMMAND == set()


def test_a_command_with_a_stream_loads_what_that_takes_and_no_more() -> None:
    modules = loaded(RUNS, "exec", "one", "--", "true", ends=3)
    assert modules & NOT_OF_A_COMMAND == {"websockets"}


def test_names_of_the_sdk_that_are_loaded_late_are_there_like_all_others() -> None:
    assert set(client.__all__) <= set(dir(client))
    found: dict[str, object] = {}
    exec("from hyperfleet.client import *", found)  # noqa: S102
    for name in client.__all__:
        assert found[name] is getattr(client, name)
    with pytest.raises(AttributeError, match=r"'hyperfleet\.client' has no attribute 'Nobody'"):
        client.Nobody  # noqa: B018
