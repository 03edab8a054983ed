"""Pages about the command line: every command on them is run as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import page, proxy
from support.need import Need
from support.server import Server, hyperfleet
from support.zygote import Zygote

PAGE = page.Page("docs/how-to/command-line.md")


@pytest.fixture(scope="module")
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    """Where `hyperfleet` is a command, as it is for a reader."""
    proxy.binary(need)
    made = Server(zygote=zygote, HYPERFLEET_VMM="fake")
    made.environment["PATH"] += f":{Path(hyperfleet()[0]).parent}"
    with made:
        yield made


@pytest.mark.parametrize("block", [block for block in PAGE.blocks() if " run " not in block])
def test_a_block(server: Server, block: str) -> None:
    page.types(server, block)
    assert server.api.get("/machines").json()["total"] == 0


def test_the_one_command(server: Server) -> None:
    """As it stands, but that its server ends by itself; Ctrl-C: tests/e2e/test_run.py."""
    command = PAGE.block_with("hyperfleet run").replace("exec httpd -f", "httpd")
    assert shlex.split(command)[-1].endswith("; httpd -p 80 -h /")
    page.types(server, command)
    assert server.api.get("/machines").json()["total"] == 0


@pytest.mark.parametrize(
    "path",
    [
        "explanation/starts.md",
        "how-to/disks.md",
        "how-to/files.md",
        "how-to/keep-running.md",
        "how-to/sleep.md",
        "how-to/snapshots.md",
        "how-to/terminals.md",
    ],
)
def test_a_page(server: Server, path: str) -> None:
    blocks = page.Page(f"docs/{path}").blocks()
    assert blocks
    said = "".join(page.types(server, "\n".join(blocks))).splitlines()
    for line in [line for block in blocks for line in page.promised(block)]:
        assert line in said
        # In this order.
        said = said[said.index(line) + 1 :]
    for kind in ("machines", "snapshots", "disks"):
        assert server.api.get(f"/{kind}").json()[kind] == []
