"""Templates that tests share, so that their machines need not boot.

For tests in which how a machine starts is not the point: a boot is most of what they would take.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    """All at once: whoever waits for one leaves the processors idle."""
    server = Server(images=images, within=shared)
    of_bench = shared / "bench"
    with ThreadPoolExecutor(1 + len(SHAPES)) as pool:
        # Not on this thread: an event loop may run on it.
        taught = pool.submit(asyncio.run, _teach(of_bench))
        try:
            server.start()
            list(pool.map(partial(_have_made, server), SHAPES))
            assert server.stop() == 0
            taught.result()
        finally:
            kill_all_in(server.folder)
    place = server.home / "templates"
    for template in (of_bench / "templates").iterdir():
        template.rename(place / template.name)
    return place


def _have_made(server: Server, memory: int) -> None:
    server.create(f"m{memory}", mem_size_mib=memory)
    server.start_machine(f"m{memory}")
    assert server.api.delete(f"/machines/m{memory}", params={"force": "true"}).is_success
    deadline = time.monotonic() + _MADE
    while memory not in _kept(server):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)


async def _teach(home: Path) -> None:
    async with opened(qemu_driver(templates_in(home)), home) as bench:
        await bench.teach()


def _kept(server: Server) -> set[int]:
    """Memory of the machines that can be cloned, MiB."""
    kept = server.api.get("/templates").json()["templates"]
    return {one["mem_size_mib"] for one in kept}
