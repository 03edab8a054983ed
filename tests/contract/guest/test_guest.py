"""What a program finds in a machine that has come up: name, clock, network, PID 1, its disk."""

from __future__ import annotations

import asyncio
import time

import pytest

from hyperfleet.errors import GuestError, OperationTimeoutError
from hyperfleet.guest.values import ExecRequest
from hyperfleet.network import user
from support.bench import Guest

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

# A process that leaves its session, tells its number, and holds a named pipe open until it ends.
ORPHAN = """
mkfifo {pipe}
setsid sh -c 'exec 3>{pipe}; echo $$ >&3; {then}' </dev/null >/dev/null 2>&1 &
"""


async def test_the_name_is_the_machines_everywhere(minimal: Guest, debian: Guest) -> None:
    for guest in (minimal, debian):
        assert await guest.sh("hostname; cat /etc/hostname") == "web\nweb\n"
        hosts = (await guest.sh("cat /etc/hosts")).splitlines()
        assert "127.0.1.1\tweb" in hosts
        assert any(line.split()[:2] == ["127.0.0.1", "localhost"] for line in hosts)
    assert (await debian.sh("getent hosts web")).split() == ["127.0.1.1", "web"]


async def test_another_name_takes_the_place_of_the_first(minimal: Guest) -> None:
    await minimal.configure("other")
    assert await minimal.sh("hostname; cat /etc/hostname") == "other\nother\n"
    assert "web" not in await minimal.sh("cat /etc/hosts")
    await minimal.configure("web")
    assert await minimal.sh("hostname; grep -c other /etc/hosts || :") == "web\n0\n"


async def test_the_card_has_its_address_and_route(minimal: Guest) -> None:
    address = await minimal.sh("ip -4 -o address show dev eth0")
    assert f"inet {user.GUEST_ADDRESS} brd 10.0.2.255 " in address
    routes = (await minimal.sh("ip -4 route")).splitlines()
    assert [line.split()[:5] for line in routes if line.startswith("default")] == [
        ["default", "via", user.GATEWAY, "dev", "eth0"]
    ]
    assert "127.0.0.1/8" in await minimal.sh("ip -4 -o address show dev lo")
    assert "::1/128" in await minimal.sh("ip -6 -o address show dev lo")


async def test_the_resolver_is_told_and_the_users_file_is_kept(minimal: Guest) -> None:
    told = f"nameserver {user.DNS[0]}\n"
    assert await minimal.sh("cat /etc/resolv.conf") == told
    await minimal.sh("echo 'nameserver 192.0.2.1' > /etc/resolv.conf")
    await minimal.configure("web")
    assert await minimal.sh("cat /etc/resolv.conf") == "nameserver 192.0.2.1\n"
    await minimal.sh(f"printf '{told}' > /etc/resolv.conf")


async def test_the_clock_is_set(minimal: Guest) -> None:
    await minimal.sh("date -u -s @1000000000")
    before = time.time()
    await minimal.configure("web")
    assert before - 1 <= int(await minimal.sh("date -u +%s")) <= time.time() + 1


async def test_a_configuration_that_cannot_be_changes_nothing(minimal: Guest) -> None:
    with pytest.raises(GuestError, match="is not a DNS label"):
        await minimal.configure("not a name")
    assert await minimal.sh("hostname") == "web\n"


async def test_kernel_file_systems_and_devices_are_there(minimal: Guest, debian: Guest) -> None:
    for guest in (minimal, debian):
        mounts = dict(
            line.split()[1:3] for line in (await guest.sh("cat /proc/mounts")).splitlines()
        )
        kinds = {
            "/": "ext4",
            "/proc": "proc",
            "/sys": "sysfs",
            "/dev": "devtmpfs",
            "/dev/pts": "devpts",
            "/dev/shm": "tmpfs",  # noqa: S108 - the guest's
            "/sys/fs/cgroup": "cgroup2",
        }
        assert {path: mounts.get(path) for path in kinds} == kinds
        assert await guest.sh("echo x | cat /dev/fd/0; readlink /dev/stderr") == (
            "x\n/proc/self/fd/2\n"
        )
        assert int(await guest.sh("ulimit -n")) >= 65536


async def test_programs_run_in_debian(debian: Guest) -> None:
    assert await debian.sh(". /etc/os-release; echo $ID; id -un; pwd") == "debian\nroot\n/\n"
    # Dynamic, with a database of its own on the disk.
    assert "ii" in await debian.sh("dpkg-query -W -f '${db:Status-Abbrev}' nginx-light")
    assert await debian.sh("perl -e 'print 6 * 7'") == "42"
    assert await debian.sh("nginx -t 2>&1 | tail -1") == (
        "nginx: configuration file /etc/nginx/nginx.conf test is successful\n"
    )
    assert await debian.sh("sort", stdin=b"b\na\n") == "a\nb\n"


async def test_an_orphan_is_reaped(minimal: Guest) -> None:
    pid = (await minimal.sh(ORPHAN.format(pipe="/orphan", then="exit 3") + "cat /orphan")).strip()
    assert pid.isdigit()
    # It has closed the pipe, so it is ending; a zombie would stay in /proc for ever.
    await minimal.sh(f"while [ -e /proc/{pid} ]; do :; done", timeout=5)
    states = await minimal.sh("cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | cut -c1")
    assert "Z" not in states


async def test_many_orphans_cost_no_call_its_status(minimal: Guest) -> None:
    orphans = "for i in 1 2 3 4 5; do setsid sh -c 'exit 9' & done; exit {code}"
    requests = [ExecRequest(argv=("sh", "-c", orphans.format(code=code))) for code in range(20)]
    results = await asyncio.gather(*map(minimal.agent.exec, requests))
    assert [result.exit_code for result in results] == list(range(20))
    await minimal.sh("while grep -l '^State:.Z' /proc/[0-9]*/status; do :; done", timeout=10)


async def test_a_daemon_outlives_its_call_and_the_time_limit_does_not_reach_it(
    minimal: Guest,
) -> None:
    script = ORPHAN.format(pipe="/daemon", then="exec sleep 1000")
    pid = (await minimal.sh(script + "head -n 1 /daemon", timeout=1)).strip()
    with pytest.raises(OperationTimeoutError):
        await minimal.sh("sleep 1000", timeout=1.5)
    assert await minimal.sh(f"cat /proc/{pid}/comm") == "sleep\n"
    await minimal.sh(f"kill {pid}; while [ -e /proc/{pid} ]; do :; done", timeout=5)


async def test_the_time_limit_reaches_what_left_the_session(minimal: Guest) -> None:
    script = ORPHAN.format(pipe="/escaped", then="exec sleep 1000") + "sleep 1000"
    running = asyncio.create_task(minimal.sh(script, timeout=1))
    # Whoever reads the pipe is let in by the orphan, and let go by its end.
    pid = (await minimal.sh("until [ -p /escaped ]; do :; done; cat /escaped")).strip()
    with pytest.raises(OperationTimeoutError):
        await running
    await minimal.sh(f"while [ -e /proc/{pid} ]; do :; done", timeout=5)


async def test_cancelling_reaches_what_left_the_session(minimal: Guest) -> None:
    script = ORPHAN.format(pipe="/cancelled", then="exec sleep 1000") + "sleep 1000"
    running = asyncio.create_task(minimal.sh(script, timeout=100))
    told = "until [ -p /cancelled ]; do :; done; head -n 1 /cancelled"
    pid = (await minimal.sh(told)).strip()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await minimal.sh(f"while [ -e /proc/{pid} ]; do :; done", timeout=5)


async def test_calls_leave_no_cgroup_behind(minimal: Guest) -> None:
    script = ORPHAN.format(pipe="/kept", then="exec sleep 1000") + "head -n 1 /kept"
    pid = (await minimal.sh(script)).strip()
    # The daemon belongs to no call any more.
    assert await minimal.sh(f"cat /proc/{pid}/cgroup") == "0::/\n"
    # The call that asks has its own alone, once those that were cancelled have ended.
    async with asyncio.timeout(10):
        while await minimal.sh("ls -d /sys/fs/cgroup/hyperfleet/*/ | wc -l") != "1\n":
            pass
    await minimal.sh(f"kill {pid}")
