"""Servers with real machines; artefacts are those that `make setup` made in the checkout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.server import Server

CHECKOUT = Path(__file__).parents[2]
ARTEFACTS = CHECKOUT / ".hyperfleet"
TEST_SERVER = CHECKOUT / "target/x86_64-unknown-linux-gnu/agent/hyperfleet-test-server"


@pytest.fixture(scope="session")
def images(need: Any) -> Path:
    """The folder of kernel, initramfs and root disks."""
    for name in ("vmlinux", "initramfs.cpio", "minimal-rootfs.ext4", "debian-rootfs.ext4"):
        need.that((ARTEFACTS / name).exists(), f"{ARTEFACTS / name} is missing: run make setup")
    return ARTEFACTS


@pytest.fixture(scope="module")
def server(images: Path) -> Iterator[Server]:
    """One server a test module, with host routing under .local.dev."""
    with Server(images=images, PROXY_HOST_SUFFIX=".local.dev") as running:
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
