"""docs/tutorial/first-machine.md works as it is written, from its second terminal on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.page import Page, promised, types
from support.server import Server

pytestmark = pytest.mark.vm

PAGE = Page("docs/tutorial/first-machine.md")


@pytest.fixture
def server(images: Path) -> Iterator[Server]:
    with Server(images=images) as running:
        (running.folder / ".venv").symlink_to(sys.prefix)
        yield running


def test_the_tutorial(server: Server) -> None:
    """All blocks in one shell, as one terminal would have them: KEY is set in the first."""
    steps = PAGE.blocks()
    said = types(server, "\n".join(f"{step}\n" for step in steps))
    made, started, ran, page, ports, console, table, end = said[1:]
    assert '"status":"pending"' in made
    assert '"status":"running"' in started
    assert '"exit_code":0' in ran
    assert page.splitlines() == promised(steps[3])
    assert '"listening":true' in ports
    assert console
    assert "QEMU" in table
    assert end.splitlines() == promised(steps[-1])
    assert server.processes() == []
