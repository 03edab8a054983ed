"""Runs in a guest, whose kernel has all of cgroup2: what `hyperfleet.vmm.cgroup` makes is in force.

Standard output: a line of JSON for each thing that was seen, by its name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hyperfleet.vmm.cgroup import Cgroups, Shares
from hyperfleet.vmm.cgroup_base import look
from hyperfleet.vmm.cgroup_tree import disk_of

CONFINE = "/opt/hyperfleet-confine"
HOME = Path("/home")
USER = 1000
# Beside a program's own 10 MiB or so.
SHARES = Shares(memory_mib=24, cpu_percent=100)
GREEDY = "held = bytearray(200 << 20)"
FORKS = """
import os, signal
count = 0
while True:
    try:
        pid = os.fork()
    except BlockingIOError:
        break
    if pid == 0:
        signal.pause()
    count += 1
print(count, flush=True)
"""
SPINS = "import time\nwhile time.process_time() < 0.3: pass"


def tell(name: str, what: Any) -> None:
    sys.stdout.write(f"{json.dumps({name: what})}\n")
    sys.stdout.flush()


def start(group: Path | None, *command: str) -> subprocess.Popen[bytes]:
    assert group is not None
    return subprocess.Popen(
        [CONFINE, "--cgroup", str(group), "--", *command], stdout=subprocess.PIPE
    )


def python(group: Path | None, program: str) -> subprocess.Popen[bytes]:
    # Without what a site brings it begins twice as fast.
    return start(group, sys.executable, "-ISc", program)


def limits_are_set(cgroups: Cgroups) -> None:
    group = cgroups.make("born", vcpus=2, mem_mib=128)
    assert group is not None
    names = ("memory.max", "memory.oom.group", "cpu.max", "cpu.weight", "pids.max")
    tell("limits", {name: (group / name).read_text().strip() for name in names})
    born = start(group, "cat", "/proc/self/cgroup")
    tell("born", born.communicate()[0].decode().strip())
    cgroups.remove("born")
    tell("removed", not group.exists())


def too_much_memory(cgroups: Cgroups) -> None:
    group = cgroups.make("memory", vcpus=1, mem_mib=8)
    beside = start(group, "sleep", "1000")
    greedy = python(group, GREEDY)
    tell("memory", [greedy.wait(), beside.wait(), cgroups.out_of_memory("memory")])
    # A server that comes after it was killed knows it too, and has removed what was left.
    later = Cgroups(HOME, shares=SHARES)
    later.open()
    tell("later", [later.out_of_memory("memory"), bool(group and group.exists())])
    later.remove("memory")
    tell("forgotten", later.out_of_memory("memory"))


def killed_by_somebody(cgroups: Cgroups) -> None:
    process = start(cgroups.make("killed", vcpus=1, mem_mib=8), "sleep", "1000")
    process.kill()
    process.wait()
    tell("killed", cgroups.out_of_memory("killed"))
    cgroups.remove("killed")


def too_many_processes(cgroups: Cgroups) -> None:
    group = cgroups.make_with("pids", (("pids.max", "20"),))
    forking = python(group, FORKS)
    assert forking.stdout is not None
    tell("processes", int(forking.stdout.readline()))
    # All that it has left is ended with the cgroup.
    cgroups.remove("pids")
    tell("processes are gone", not (group and group.exists()))


def too_much_time(cgroups: Cgroups) -> None:
    group = cgroups.make_with("cpu", (("cpu.max", "20000 100000"),))
    assert group is not None
    python(group, SPINS).wait()
    counts = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    tell("throttled", int(counts["nr_throttled"]) > 0)
    cgroups.remove("cpu")


def too_much_writing() -> None:
    disk = disk_of(Path("/"))
    tell("disk", disk == Path("/sys/block/vda/dev").read_text().strip())
    cgroups = Cgroups(HOME, shares=Shares(io="wbps=1048576", disk=disk))
    cgroups.open()
    group = cgroups.make("io", vcpus=1, mem_mib=8)
    assert group is not None
    tell("io.max", (group / "io.max").read_text().split()[1:])
    cgroups.remove("io")


def of_an_ordinary_user() -> None:
    """What an administrator gives: a cgroup that is the user's, with the user's server in it."""
    given = Path("/sys/fs/cgroup/given")
    given.mkdir()
    for path in (given, given / "cgroup.procs", given / "cgroup.subtree_control"):
        os.chown(path, USER, USER)
    server = start(given, sys.executable, __file__, "user")
    sys.stdout.write(server.communicate()[0].decode())
    tell("user's end", server.returncode)
    tell("user's tree", sorted(path.name for path in given.iterdir() if path.is_dir()))


def as_user() -> None:
    os.setgid(USER)
    os.setuid(USER)
    cgroups = Cgroups(HOME, shares=SHARES)
    sight = cgroups.open()
    tell("user", [str(sight.base and sight.base.path), list(sight.controllers)])
    tell("user's own", Path("/proc/self/cgroup").read_text().strip())
    group = cgroups.make("one", vcpus=1, mem_mib=8)
    tell("user's memory", [python(group, GREEDY).wait(), cgroups.out_of_memory("one")])
    cgroups.remove("one")
    tell("user's is gone", not (group and group.exists()))


def main() -> None:
    sight = look()
    tell("found", [str(sight.base and sight.base.path), list(sight.controllers)])
    cgroups = Cgroups(HOME, shares=SHARES)
    tell("opened", list(cgroups.open().controllers))
    limits_are_set(cgroups)
    too_much_memory(cgroups)
    killed_by_somebody(cgroups)
    too_many_processes(cgroups)
    too_much_time(cgroups)
    too_much_writing()
    of_an_ordinary_user()


if sys.argv[1:] == ["user"]:
    as_user()
else:
    main()
