"""Limits as a kernel with all of cgroup2 has them in force: one machine's guest for all of it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hyperfleet import binaries
from hyperfleet.guest.values import ExecRequest
from hyperfleet.vmm import cgroup, cgroup_base, cgroup_tree
from support.bench import Bench, qemu_driver
from support.images import FILES

pytestmark = pytest.mark.vm

INSIDE = Path(__file__).with_name("inside.py")
INSIDE_S = 120
CONTROLLERS = ["cpu", "memory", "io", "pids"]


def packed() -> bytes:
    """The modules, the program that tries them, and ours that starts others, as an archive."""
    files = {
        f"hyperfleet/vmm/{Path(module.__file__ or '').name}": Path(module.__file__ or "")
        for module in (cgroup, cgroup_base, cgroup_tree)
    }
    files |= {"inside.py": INSIDE, "hyperfleet-confine": binaries.confine()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, file in files.items():
            tar.add(file, name)
    return archive.getvalue()


async def _run(home: Path) -> dict[str, Any]:
    bench = Bench(qemu_driver(), home, FILES)
    launch = bench.launch(mem_size_mib=256, base_disk=FILES / "debian-rootfs.ext4", ports=())
    try:
        guest = await bench.start(launch)
        unpack = ("tar", "-xzf", "-", "-C", "/opt")
        done = await guest.agent.exec(ExecRequest(argv=unpack, stdin=packed()))
        assert done.exit_code == 0, done.stderr.decode()
        argv = ("python3", "/opt/inside.py")
        done = await guest.agent.exec(
            ExecRequest(argv=argv, env={"PYTHONPATH": "/opt"}, timeout=INSIDE_S)
        )
        assert done.exit_code == 0, done.stderr.decode()
        await guest.let_go()
    finally:
        await bench.close()
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return told


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asyncio.run(_run(tmp_path_factory.mktemp("home")))


def test_root_has_a_tree_of_its_own_with_all_controllers(seen: dict[str, Any]) -> None:
    assert seen["found"] == ["/sys/fs/cgroup/hyperfleet", CONTROLLERS]
    assert seen["opened"] == CONTROLLERS


def test_a_program_begins_under_its_limits(seen: dict[str, Any]) -> None:
    assert seen["limits"] == {
        "memory.max": str((128 + 24) << 20),
        "memory.oom.group": "1",
        "cpu.max": "300000 100000",
        "cpu.weight": "200",
        "pids.max": "258",
    }
    assert re.fullmatch(r"0::/hyperfleet/machines-[0-9a-f]{12}/born", seen["born"])
    assert seen["removed"]


def test_whoever_takes_too_much_memory_is_killed_whole_and_it_is_told(seen: dict[str, Any]) -> None:
    assert seen["memory"] == [-9, -9, "own"]
    assert seen["later"] == ["own", False]
    assert seen["forgotten"] is None
    assert seen["killed"] is None


def test_no_more_processes_than_allowed_and_none_is_left(seen: dict[str, Any]) -> None:
    # Itself is one of the twenty.
    assert seen["processes"] == 19
    assert seen["processes are gone"]


def test_time_and_disk_are_held_back(seen: dict[str, Any]) -> None:
    assert seen["throttled"]
    assert seen["disk"]
    assert seen["io.max"] == ["rbps=max", "wbps=1048576", "riops=max", "wiops=max"]


def test_an_ordinary_user_has_what_was_given_to_it(seen: dict[str, Any]) -> None:
    assert seen["user"] == ["/sys/fs/cgroup/given", CONTROLLERS]
    # A cgroup that hands controllers down has no processes of its own.
    assert seen["user's own"] == "0::/given/control"
    assert seen["user's memory"] == [-9, "own"]
    assert seen["user's is gone"]
    assert seen["user's end"] == 0
    assert [name.partition("-")[0] for name in seen["user's tree"]] == ["control", "machines"]
