"""Servers with real machines; artefacts are those that `make setup` made in the checkout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.images import CHECKOUT
from support.server import Server

TEST_SERVER = CHECKOUT / "target/x86_64-unknown-linux-gnu/agent/hyperfleet-test-server"


@pytest.fixture(scope="module")
def server(images: Path, templates: Path) -> Iterator[Server]:
    """One server a test module, with host routing under .local.dev."""
    with Server(images=images, templates=templates, PROXY_HOST_SUFFIX=".local.dev") as running:
        yield running


@pytest.fixture(scope="module")
def install_test_server(server: Server, need: Any) -> Callable[[str], None]:
    """Puts the test server into a running machine as /bin/test-server."""
    need.that(TEST_SERVER.exists(), f"{TEST_SERVER} is missing: run make setup")

    def install(ref: str) -> None:
        import base64  # noqa: PLC0415

        encoded = base64.b64encode(TEST_SERVER.read_bytes()).decode()
        server.sh(ref, "base64 -d > /bin/test-server && chmod +x /bin/test-server", stdin=encoded)

    return install
