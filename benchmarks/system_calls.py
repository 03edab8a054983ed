"""System calls of a workload, as strace(1) counts them, and what is wanted of a small request."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.limit import named
from benchmarks.load import Ends
from benchmarks.processes import Proxy
from benchmarks.rounds import right
from benchmarks.setting import Setting
from benchmarks.workloads import Workload, chosen

# A read and a write on each side, and a part of one that waits.
_MOST = 4.5
_ATTACH_LIMIT = 20.0


def measure(setting: Setting) -> list[Figure]:
    """Counts under a load that keeps the proxy busy.

    Raises:
        RuntimeError: strace may not watch our own process here.
    """
    (workload,) = chosen("small-get")
    with (
        setting.ends.upstream() as upstream,
        Proxy(setting.ours, upstream, setting.plan.proxy_cpu, setting.plan.descriptors) as proxy,
    ):
        counts = counted(proxy, workload, setting.ends, setting.plan.seconds)
    return [
        Figure(
            "calls",
            "system calls of a small request, 32 connections",
            sum(counts.values()),
            "calls",
            _MOST,
            named(counts),
        )
    ]


def counted(
    proxy: Proxy, workload: Workload, ends: Ends, seconds: float, rate: float | None = None
) -> dict[str, float]:
    """How often each call was made for one unit of the workload, by all of the proxy's threads.

    Raises:
        RuntimeError: strace is not here or may not watch.
    """
    if shutil.which("strace") is None:
        msg = "strace is not here; `make bench` installs it"
        raise RuntimeError(msg)
    kept = proxy.place.folder / "calls"
    with (
        ends.begin(proxy.peer, proxy.place.port, workload, seconds, rate) as run,
        _watched(proxy.pids, kept),
    ):
        found = right(run.go())
    units = workload.units(found.answers, found.bytes)
    return {name: count / units for name, count in parsed(kept.read_text()).items()}


def parsed(text: str) -> dict[str, int]:
    """The table that `strace -c -U calls,name` writes: how often each call was made."""
    counts = {}
    for line in text.splitlines():
        count, _, name = line.strip().partition(" ")
        if count.isdigit() and name.strip() != "total":
            counts[name.strip()] = int(count)
    return counts


class _watched:  # noqa: N801 - reads as the context that it is
    """strace on every thread of processes, from when it is attached to the end of the context."""

    def __init__(self, pids: list[int], kept: Path) -> None:
        self._pids = pids
        self._kept = kept

    def __enter__(self) -> None:
        kept, pids = str(self._kept), [f"--attach={pid}" for pid in self._pids]
        command = ["strace", "-f", "-c", "-U", "calls,name", "-o", kept, *pids]
        self._strace = subprocess.Popen(command, stderr=subprocess.PIPE)
        limit = time.monotonic() + _ATTACH_LIMIT
        while not self._attached():
            if self._strace.poll() is not None or time.monotonic() > limit:
                self._strace.kill()
                said = self._strace.communicate()[1].decode(errors="replace").strip()
                msg = f"strace can't watch the proxy: {said}"
                raise RuntimeError(msg)
            # The kernel tells in a file only.
            time.sleep(0.01)

    def __exit__(self, *error: object) -> None:
        self._strace.send_signal(signal.SIGINT)
        self._strace.communicate()

    def _attached(self) -> bool:
        threads = [t for pid in self._pids for t in Path(f"/proc/{pid}/task").iterdir()]
        status = [(thread / "status").read_text() for thread in threads]
        return not any("TracerPid:\t0\n" in text for text in status)
