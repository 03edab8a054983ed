"""Templates that tests share, so that their machines need not boot.

For tests in which how a machine starts is not the point: a boot is most of what they would take.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.bench import opened, qemu_driver, templates_in
from support.server import Server, kill_all_in

# Memory of the shapes that most tests have of a server, MiB. A bench's is another one: its network
# is simpler.
SHAPES = (112, 128)
# Seconds; a few are what all of them take.
_MADE = 120.0


def made(shared: Path, images: Path) -> Path:
    """The folder of the templates, which the first who asks makes; others wait for it.

    `shared`: a folder of this run of tests, which outlives them: what is in the templates names
    files of it. `images`: the artefacts that they are made of.
    """
    done = shared / "templates"
    with (shared / "templates.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            done.symlink_to(_make(shared, images))
    return done


def of_benches(templates: Path) -> Path:
    """The template for machines of a bench, whose card has no MTU of its own."""
    (found,) = (
        about.parent
        for about in templates.glob("*/about.json")
        if json.loads(about.read_bytes())["shape"]["mtus"] == [None]
    )
    return found


def _make(shared: Path, images: Path) -> Path:
    server = Server(images=images, within=shared)
    try:
        server.start()
        for memory in SHAPES:
            server.create(f"m{memory}", mem_size_mib=memory)
            server.start_machine(f"m{memory}")
            server.api.delete(f"/machines/m{memory}", params={"force": "true"})
        deadline = time.monotonic() + _MADE
        while {one["mem_size_mib"] for one in _kept(server)} != set(SHAPES):
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.1)
        assert server.stop() == 0
        # Not on this thread: an event loop may run on it.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _teach(server.home)).result()
    finally:
        kill_all_in(server.folder)
    return server.home / "templates"


async def _teach(home: Path) -> None:
    async with opened(qemu_driver(templates_in(home)), home) as bench:
        await bench.teach()


def _kept(server: Server) -> list[dict[str, int]]:
    kept: list[dict[str, int]] = server.api.get("/templates").json()["templates"]
    return kept
