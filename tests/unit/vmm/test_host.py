"""What the QEMU driver stands on: pidfds, sockets in deep folders, the clock's rate."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hyperfleet import unix_sockets
from hyperfleet.vmm import tsc
from hyperfleet.vmm.driver import Exit
from hyperfleet.vmm.host_process import HostProcess

# Lives until its standard input closes, then ends with 3.
WAITS = [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(3)"]


def spawn() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(WAITS, stdin=subprocess.PIPE)
    # As the driver does: reaped by its pidfd.
    child.returncode = 0
    return child


async def test_an_end_is_seen_with_its_status() -> None:
    child = spawn()
    process = HostProcess(child.pid)
    waiting = [asyncio.create_task(process.wait()) for _ in range(3)]
    assert child.stdin is not None
    child.stdin.close()
    assert await asyncio.gather(*waiting) == [Exit(code=3)] * 3
    assert process.ended
    assert await process.kill() == Exit(code=3)


async def test_a_kill_returns_when_it_is_gone() -> None:
    child = spawn()
    process = HostProcess(child.pid)
    assert await process.kill() == Exit(signal=signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        HostProcess(child.pid)
    assert child.stdin is not None
    child.stdin.close()


async def test_a_released_process_lives_on() -> None:
    child = spawn()
    process = HostProcess(child.pid)
    process.release()
    process.signal(signal.SIGKILL)
    with pytest.raises(asyncio.CancelledError):
        await process.wait()
    again = HostProcess(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    assert await again.wait() == Exit(code=3)
    with pytest.raises(ProcessLookupError):
        HostProcess(child.pid)


async def test_a_process_of_others_ends_without_a_status() -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *WAITS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    process = HostProcess(int(await parent.stdout.readline()))
    await process.kill()
    assert await process.wait() == Exit()
    assert parent.stdin is not None
    parent.stdin.close()
    await parent.wait()


async def test_sockets_lie_as_deep_as_a_home_may(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    path = folder / "qmp.sock"
    for _ in range(2):  # the second replaces the first
        with unix_sockets.listen(path) as listener:
            listener.setblocking(False)
            near = await unix_sockets.connect(path)
            far, _ = await asyncio.get_running_loop().sock_accept(listener)
            near.send(b"ping")
            assert far.recv(4) == b"ping"
            near.close()
            far.close()
    with pytest.raises(ConnectionRefusedError):
        await unix_sockets.connect(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        await unix_sockets.connect(path)


def test_the_clocks_rate_is_measured_steadily() -> None:
    khz = tsc.tsc_khz()
    if khz is None:
        pytest.skip("this host does not let the rate be told")
    assert 100_000 < khz < 10_000_000
    tsc.tsc_khz.cache_clear()
    again = tsc.tsc_khz()
    assert again is not None
    assert abs(again - khz) < khz / 1000


@pytest.mark.parametrize(
    ("rates", "settled", "asked"),
    [
        ([1000.0, 1000.2, 1000.1], 1000.1, 3),
        # Two rounds were disturbed; three agree.
        ([1000.0, 700.0, 1000.2, 1400.0, 1000.1], 1000.1, 5),
        # None agree: still a rate.
        ([1000.0 + 10 * number for number in range(12)], 1060.0, 12),
    ],
)
def test_disturbed_rounds_are_repeated(rates: list[float], settled: float, asked: int) -> None:
    rounds = iter(rates)
    assert tsc.settled(lambda: next(rounds)) == settled
    assert len(list(rounds)) == len(rates) - asked


async def test_its_cpu_time_is_told() -> None:
    works = (
        "import sys, time\n"
        "while time.process_time() < 0.3: pass\n"
        "print('worked', flush=True)\n"
        "sys.stdin.read()"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", works, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    process = HostProcess(child.pid)
    assert child.stdin is not None
    assert child.stdout is not None
    await child.stdout.readline()
    time = process.cpu_time()
    if time is None:
        process.release()
        child.stdin.close()
        await child.wait()
        pytest.skip("this host does not count it")
    assert 0.3 <= time.used <= time.wanted
    process.release()
    assert process.cpu_time() is None
    child.stdin.close()
    await child.wait()
