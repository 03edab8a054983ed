"""How many workers a data plane has that was told no number: one for each CPU that it may use."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import proxy

_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


def workers(need, *under: str) -> int:
    """Worker threads of a data plane that the command `under` starts."""
    command: list[str | Path] = [*under, proxy.binary(need), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            # It says so when all of its workers were started.
            assert process.stdout.readline().startswith(b"hyperfleet-proxy listens on")
            threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
        finally:
            process.terminate()
    # The first one is not a worker; it takes routes and signals.
    return threads - 1


def test_all_cpus_that_this_process_may_use(need):
    assert workers(need) == len(os.sched_getaffinity(0))


def test_the_affinity_counts(need):
    need("taskset")
    one = str(min(os.sched_getaffinity(0)))
    assert workers(need, "taskset", "-c", one) == 1


@pytest.fixture
def one_cpu_of_time() -> Iterator[Path]:
    """`cgroup.procs` of a cgroup that may use one CPU's time, however many CPUs there are.

    No set-up gives anybody the right to make one, so it is skipped in CI too.
    """
    second, first = _CGROUPS / "cgroup.controllers", _CGROUPS / "cpu"
    name = f"hyperfleet-test-{uuid.uuid4().hex}"
    if second.exists():
        group, settings = _CGROUPS / name, {"cpu.max": f"{_PERIOD_US} {_PERIOD_US}"}
    else:
        quota = {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(_PERIOD_US)}
        group, settings = first / name, quota
    try:
        group.mkdir()
    except OSError:
        pytest.skip("this user can make no cgroup here")
    try:
        for file, value in settings.items():
            if not (group / file).exists():
                pytest.skip("cgroups of this host limit no CPU time")
            (group / file).write_text(value)
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def test_the_quota_counts(need, one_cpu_of_time):
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("with one CPU a quota of one changes nothing")
    join = 'echo $$ > "$0" && exec "$@"'
    assert workers(need, "sh", "-c", join, str(one_cpu_of_time)) == 1
