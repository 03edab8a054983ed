"""The API against its own OpenAPI document: schemathesis asks all of it, rightly and wrongly.

Each answer is held to the document: no 5xx but what is meant, statuses, headers and bodies as
documented, what the schema allows taken, what it forbids refused, nothing without a key. The fleet
is real, its driver the fake.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import proxy
from support.need import Need
from support.server import Server

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# Seconds, as a guard.
PATIENCE = 600
# A key with all scopes may end itself: what ends keys comes last.
REVOKE = "revoke_key"
# What has no end of its own is in tests/integration/test_events.py.
ENDLESS = "events"
# A schema can't say that a time is to come, nor what this host has, nor that a network's address
# has no bits beside its prefix, nor which parameters exclude each other. 502 to 504 mean something
# where they are documented.
CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504]

[[operations]]
include-operation-id = [
    "create_key", "create_machine", "change_machine", "clone_snapshot", "grow_disk", "write_file"
]
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "wait_for_machine"
parameters = { timeout = 1 }

[[operations]]
include-operation-id = "machine_logs"
parameters = { follow = "false" }
"""


@pytest.fixture
def server(need: Need) -> Iterator[Server]:
    proxy.binary(need)
    # Schemathesis shows wrong keys, too, and many.
    made = Server(HYPERFLEET_VMM="fake", LOG_LEVEL="warning", HYPERFLEET_FAILED_KEYS_PER_MINUTE="0")
    yield made
    made.close()


def test_the_api_is_what_its_document_says(server: Server, tmp_path: Path) -> None:
    server.start()
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    others = [f"--exclude-operation-id={name}" for name in (REVOKE, ENDLESS)]
    for chosen in (others, [f"--include-operation-id={REVOKE}"]):
        run = subprocess.run(
            [
                SCHEMATHESIS,
                "run",
                f"{server.api_url}/openapi.json",
                f"--header=Authorization: Bearer {server.key}",
                *chosen,
                "--max-examples=8",
                # The same requests each time.
                "--generation-deterministic",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
    assert "request failed" not in server.log.read_text()
