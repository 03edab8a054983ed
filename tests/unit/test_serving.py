"""What a server loads: each module more is time in which no machine can be reached by the API."""

from __future__ import annotations

import subprocess
import sys

# As `hyperfleet serve` does it, but that it serves.
LOADED = """
import sys
from hyperfleet.cli import serving
import hyperfleet.server.backend, hyperfleet.server.serve
hyperfleet.server.serve.serve = lambda loaded, build: 7
assert serving.serve() == 7
print(*sys.modules)
"""
# The client of the command line, what a new database takes, and what taps need.
NOT_NEEDED = {"hyperfleet.client", "httpx", "typer", "alembic", "pyroute2"}


def test_a_server_loads_nothing_that_it_may_never_need() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert {"fastapi", "sqlalchemy"} <= loaded
    assert loaded & NOT_NEEDED == set()
