"""Where the CPU time of a proxy goes, function by function, as perf(1) samples it."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Proxy

# A timer of the kernel's, which virtual machines have, too; a rate that keeps step with nothing.
_EVENT, _HZ = "cpu-clock", "997"
_LIMIT = 30.0
_ROW = re.compile(r"\s*([\d.]+)%\s*\|\s*(\S+)\s*\|\s*\[(.)\] (.+)")


class ProfileError(RuntimeError):
    """There can be no profile here; says why."""


@dataclass(frozen=True)
class Function:
    """One function's own part, without what it calls."""

    part: float
    """Of all samples, 0 to 1."""
    where: str
    """The program or library; `kernel`."""
    name: str


@contextmanager
def watched(proxy: Proxy) -> Iterator[Path]:
    """Samples all threads of the proxy while the context lasts; then the file is `functions`'.

    Raises:
        ProfileError: perf is not here, or may not watch.
    """
    require()
    folder = proxy.place.folder
    data, orders, answers = (folder / f"perf.{name}" for name in ("data", "orders", "answers"))
    for fifo in (orders, answers):
        os.mkfifo(fifo)
    pids = ",".join(map(str, proxy.pids))
    # It is ready when it has taken an order to begin.
    control = [f"--control=fifo:{orders},{answers}", "-D", "-1"]
    command = ["perf", "record", "-e", _EVENT, "-F", _HZ, "-o", str(data), *control, "-p", pids]
    perf = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        # Opened both ways, a FIFO waits for nobody (fifo(7)).
        with orders.open("r+b", buffering=0) as to, answers.open("r+b", buffering=0) as back:
            to.write(b"enable\n")
            _wait(perf, back.fileno())
            yield data
    finally:
        # Else it has ended, and was heard to its end.
        if perf.stderr is not None and not perf.stderr.closed:
            perf.send_signal(signal.SIGINT)
            perf.communicate()
        orders.unlink()
        answers.unlink()


def require() -> None:
    """Without which nothing can be watched.

    Raises:
        ProfileError: it is not here.
    """
    if shutil.which("perf") is None:
        raise ProfileError("perf is not here; `make bench` installs it")


def _wait(perf: subprocess.Popen[str], answers: int) -> None:
    """Until it has taken the order."""
    limit = time.monotonic() + _LIMIT
    while not select.select([answers], [], [], 0.1)[0]:
        if perf.poll() is not None or time.monotonic() > limit:
            perf.kill()
            said = " ".join(perf.communicate()[1].split())
            raise ProfileError(f"perf can't watch the proxy: {said[:300]}")


def functions(data: Path) -> list[Function]:
    """What `watched` has found, the most first.

    Raises:
        ProfileError: it has found nothing.
    """
    command = ["perf", "report", "-i", str(data), "--stdio", "-q", "-t", "|", "--sort", "dso,sym"]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = parsed(run.stdout)
    if not found:
        raise ProfileError(f"perf has no samples: {' '.join(run.stderr.split())[:300]}")
    return found


def parsed(report: str) -> list[Function]:
    """The rows of `perf report --sort dso,sym -t '|'`, the most first."""
    rows = [_ROW.fullmatch(line.rstrip()) for line in report.splitlines()]
    found = [
        Function(float(row[1]) / 100, "kernel" if row[3] == "k" else row[2], row[4])
        for row in rows
        if row is not None
    ]
    return sorted(found, key=lambda function: -function.part)
