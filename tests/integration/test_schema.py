"""The API against its own OpenAPI document: schemathesis asks all of it, rightly and wrongly.

Each answer is held to the document: no 5xx but what is meant, statuses, headers and bodies as
documented, what the schema allows taken, what it forbids refused, nothing without a key. The fleet
is real, its driver the fake.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from support import plain, proxy
from support.need import Need
from support.server import Server
from support.zygote import Zygote

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# Seconds, as a guard.
PATIENCE = 600
# A key with all scopes may end itself: what ends keys comes last.
REVOKE = "revoke_key"
MACHINE = {"vcpu_count": 1, "mem_size_mib": 128}
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

# It has no end, and something happens all the while: what comes first is enough.
[[operations]]
include-operation-id = "events"
max-stream-events = 1
"""


@pytest.fixture
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    # Schemathesis shows wrong keys, too, and many.
    made = Server(
        zygote=zygote,
        HYPERFLEET_VMM="fake",
        LOG_LEVEL="warning",
        HYPERFLEET_FAILED_KEYS_PER_MINUTE="0",
    )
    yield made
    made.close()


@contextmanager
def happening(server: Server) -> Iterator[None]:
    """Something happens again and again, so that who follows events has not long to wait."""
    over = threading.Event()
    headers = {"Authorization": f"Bearer {server.key}"}

    def happen() -> None:
        with httpx.Client(
            base_url=server.api_url, headers=headers, timeout=PATIENCE, verify=plain.NOBODY
        ) as api:
            # Never a name again: schemathesis asks with what it has seen in answers, too, and a
            # machine of its own may have any name that was here before.
            for turn in itertools.count():
                made = api.post("/machines", json=MACHINE | {"name": f"comes-and-goes-{turn}"})
                assert made.status_code == HTTPStatus.CREATED, made.text
                ended = api.delete(f"/machines/{made.json()['id']}", params={"force": "true"})
                # It may have deleted it, too.
                gone = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND)
                assert ended.status_code in gone, ended.text
                # At its own pace: nobody waits for it.
                if over.wait(0.1):
                    return

    with ThreadPoolExecutor(1) as pool:
        happens = pool.submit(happen)
        try:
            yield
        finally:
            over.set()
    happens.result()


def test_the_api_is_what_its_document_says(server: Server, tmp_path: Path) -> None:
    server.start()
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    with happening(server):
        asks(server, tmp_path, f"--exclude-operation-id={REVOKE}")
    asks(server, tmp_path, f"--include-operation-id={REVOKE}")
    assert "request failed" not in server.log.read_text()


def asks(server: Server, folder: Path, chosen: str) -> None:
    """Schemathesis' run over the operations that are chosen; `folder` has its settings."""
    run = subprocess.run(
        [
            SCHEMATHESIS,
            "run",
            f"{server.api_url}/openapi.json",
            f"--header=Authorization: Bearer {server.key}",
            chosen,
            "--max-examples=5",
            # The same requests each time.
            "--generation-deterministic",
            "--no-color",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
