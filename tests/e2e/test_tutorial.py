"""The tutorials work as they are written, from their second terminal on."""

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
    """All blocks in one shell, as one terminal would have them: KEY is set in the first.

    Those before it set up and start the server, which has been done.
    """
    setup, serve, *steps = PAGE.blocks()
    assert (setup, serve) == ("make setup\n", ".venv/bin/hyperfleet serve\n")
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


def test_an_app_with_data(server: Server) -> None:
    """All blocks in one shell too, beside the app's file."""
    tutorial = Page("docs/tutorial/an-app-with-data.md")
    steps = tutorial.blocks()
    (server.folder / "guestbook.py").write_text(tutorial.block_with("import sqlite3", "python"))
    said = types(server, "\n".join(f"{step}\n" for step in steps))
    lines = [line for part in said for line in part.splitlines()]
    for promise in [line for step in steps for line in promised(step)]:
        assert promise in lines
        # In this order.
        lines = lines[lines.index(promise) + 1 :]
    assert server.api.get("/machines").json()["machines"] == []
    assert server.api.get("/disks").json() == {"disks": []}
