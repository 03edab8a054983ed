"""A machine's process is found again, whatever the kernel does with it just then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperfleet.vmm import qemu_command, qemu_spawn

# Becomes itself again and again, so that it is as often as not in the middle of execve(2).
CHANGES = 'exec sh -c "$0" "$0" "$@"'
WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@contextmanager
def running(words: list[str], machine_id: str, directory: Path) -> Iterator[int]:
    name = qemu_command.process_name(machine_id)
    child = subprocess.Popen([*words, "-name", name], cwd=directory, stdin=subprocess.PIPE)
    # As the driver does: reaped by its pidfd.
    child.returncode = 0
    try:
        yield child.pid
    finally:
        child.returncode = None
        child.kill()
        child.communicate()


async def test_a_process_that_becomes_another_program_is_found(tmp_path: Path) -> None:
    with running(["sh", "-c", CHANGES, CHANGES], "one", tmp_path) as pid:
        for written in (False, True):
            if written:
                (tmp_path / qemu_spawn.PID_FILE).write_text(f"{pid}\n")
            for _ in range(100):
                host = await qemu_spawn.find("one", tmp_path)
                assert host is not None
                assert host.pid == pid
                host.release()


async def test_another_machines_and_another_homes_process_is_not(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
    with running(WAITS, "one", here) as pid:
        for machine_id, directory in (("other", here), ("one", there)):
            (directory / qemu_spawn.PID_FILE).write_text(f"{pid}\n")
            assert await qemu_spawn.find(machine_id, directory) is None
        host = await qemu_spawn.find("one", here)
        assert host is not None
        await host.kill()
        assert await qemu_spawn.find("one", here) is None
