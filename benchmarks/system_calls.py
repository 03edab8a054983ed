"""System calls for a small request on kept connections, as strace(1) counts them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.processes import Proxy
from benchmarks.rounds import right
from benchmarks.setting import Setting
from benchmarks.workloads import chosen

# A read and a write on each side, and a part of one that waits.
_MOST = 4.5
_ATTACH_LIMIT = 20.0
# Calls of which there is one in so many requests at most are not worth telling.
_RARE = 0.01


def measure(setting: Setting) -> list[Figure]:
    """Counts under a load that keeps the proxy busy.

    Raises:
        RuntimeError: strace may not watch our own process here.
    """
    (workload,) = chosen("small-get")
    with (
        setting.ends.upstream() as upstream,
        Proxy(setting.ours, upstream, setting.plan.proxy_cpu, setting.descriptors) as proxy,
    ):
        run = setting.ends.begin(proxy.peer, proxy.place.port, workload, setting.plan.seconds)
        kept = proxy.place.folder / "calls"
        with _watched(proxy.pids[0], kept):
            found = right(run.go())
        counts = {name: count / found.answers for name, count in parsed(kept.read_text()).items()}
    told = sorted(counts.items(), key=lambda item: -item[1])
    return [
        Figure(
            "calls",
            "system calls of a small request, 32 connections",
            sum(counts.values()),
            "calls",
            _MOST,
            ", ".join(f"{name} {count:.2f}" for name, count in told if count > _RARE),
        )
    ]


def parsed(text: str) -> dict[str, int]:
    """The table that `strace -c -U calls,name` writes: how often each call was made."""
    counts = {}
    for line in text.splitlines():
        count, _, name = line.strip().partition(" ")
        if count.isdigit() and name.strip() != "total":
            counts[name.strip()] = int(count)
    return counts


class _watched:  # noqa: N801 - reads as the context that it is
    """strace on every thread of a process, from when it is attached to the end of the context."""

    def __init__(self, pid: int, kept: Path) -> None:
        self._pid = pid
        self._kept = kept

    def __enter__(self) -> None:
        kept, pid = str(self._kept), str(self._pid)
        command = ["strace", "-f", "-c", "-U", "calls,name", "-o", kept, "-p", pid]
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
        threads = Path(f"/proc/{self._pid}/task").iterdir()
        status = [(thread / "status").read_text() for thread in threads]
        return not any("TracerPid:\t0\n" in text for text in status)
