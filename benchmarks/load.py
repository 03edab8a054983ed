"""bench-load: the two ends around the proxy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.peers import HOST, Peer
from benchmarks.processes import pinned, stop
from benchmarks.workloads import Workload

_LIMIT = 60.0


class LoadError(RuntimeError):
    """The load could not be run, or its answers were wrong."""


@dataclass(frozen=True)
class Found:
    """What the load found. Times are in microseconds."""

    answers: int
    seconds: float
    bytes: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    faults: dict[str, int]


class Ends:
    """Both ends, on the CPU that the proxies do not use."""

    def __init__(self, program: Path, cpu: int | None) -> None:
        self._program = program
        self._command = [*pinned(cpu), str(program)]

    def anywhere(self) -> Ends:
        """The same, on any CPU."""
        return Ends(self._program, None)

    @contextmanager
    def upstream(self) -> Iterator[int]:
        """A server behind the proxies; its port."""
        process = subprocess.Popen([*self._command, "upstream"], stdout=subprocess.PIPE)
        try:
            if process.stdout is None:
                raise LoadError("the upstream has no stdout")
            line = process.stdout.readline().decode().strip()
            if not line:
                raise LoadError("the upstream did not start")
            yield int(line.rpartition(":")[2])
        finally:
            stop(process)
            if process.stdout is not None:
                process.stdout.close()

    def begin(
        self, peer: Peer, port: int, workload: Workload, seconds: float, rate: float | None = None
    ) -> Run:
        """Opens the workload's connections through the proxy at `port`.

        Raises:
            LoadError: they can't be opened, or were answered wrong.
        """
        command = [
            *self._command,
            "run",
            f"--target={HOST}:{port}",
            f"--job={workload.job}",
            f"--prefix={peer.prefix}",
            f"--size={workload.size}",
            f"--connections={workload.connections}",
            f"--seconds={seconds}",
            *([] if rate is None else [f"--rate={rate}"]),
        ]
        return Run(command, seconds)


class Run:
    """A load whose connections are open. Use it as a context."""

    def __init__(self, command: list[str], seconds: float) -> None:
        self._limit = seconds + _LIMIT
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if self._process.stdout is None or self._process.stdout.readline() != b"ready\n":
            error = self._process.communicate()[1].decode(errors="replace").strip()
            raise LoadError(error or "bench-load ended without a word")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends what was never told to go."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def go(self) -> Found:
        """Runs it.

        Raises:
            LoadError: no answers came.
        """
        return self._end(b"go\n")

    def close(self) -> Found:
        """Looks at the connections, which were idle until now, and closes them."""
        return self._end(b"")

    def _end(self, word: bytes) -> Found:
        try:
            out, error = self._process.communicate(word, timeout=self._limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise LoadError("bench-load did not end") from None
        if self._process.returncode:
            raise LoadError(error.decode(errors="replace").strip())
        return Found(**json.loads(out))
