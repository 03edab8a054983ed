"""The control plane is killed while machines are attached by tap; nothing of one is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet.failpoints import Point
from support import crash
from support.need import Need
from support.netns import own_network, run, taps
from support.server import Server

pytestmark = [pytest.mark.vm, taps]


@pytest.fixture
def server(images: Path, need: Need) -> Iterator[Server]:
    for program in ("qemu-system-x86_64", "nft", "ip"):
        need(program)
    with own_network():
        made = Server(images=images, HYPERFLEET_NETWORK="tap", HYPERFLEET_SUBNET="172.30.0.0/16")
        yield made
        made.close()


@pytest.mark.parametrize(
    ("point", "found"),
    [
        (Point.SPAWN_READY, "failed"),
        (Point.DELETE_DECIDED, "none"),
    ],
)
def test_killed_at(server: Server, point: Point, found: str) -> None:
    crash.killed_at(server, point)
    # No process has it, so the kernel hasn't either.
    assert "hf-" not in run("ip", "-brief", "link")
    assert crash.mended(server)[0] == found
    assert "hf-" not in run("ip", "-brief", "link")
    assert "hf-" not in run("nft", "list", "ruleset")
    assert server.stop() == 0
    assert run("nft", "list", "ruleset") == ""
