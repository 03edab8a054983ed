"""What is asked of each proxy, and what is wanted of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

KIB = 1024
MIB = 1024 * KIB


class Measure(Enum):
    """What a workload compares; less is better."""

    CPU = "CPU µs"
    """CPU time of the proxy, for one unit of work."""
    P99 = "p99 µs"
    """Latency at a fixed rate, from when the request was due."""
    MEMORY = "bytes"
    """Memory of the whole proxy, divided by the idle connections that it holds: what it allocates
    ahead of them counts."""


class Rivals(Enum):
    """Against whose best ours is held."""

    SMALL = ("nginx", "haproxy")
    BUFFERS = ("nginx", "haproxy", "nginx-64k", "haproxy-64k")
    ALL = ("nginx", "haproxy", "nginx-64k", "haproxy-64k", "envoy", "traefik", "caddy")
    HAPROXY = ("haproxy",)


@dataclass(frozen=True)
class Workload:
    """One line of the results."""

    key: str
    title: str
    unit: str
    job: str
    """bench-load's: get, connect, upload, echo."""
    size: int
    """Bytes of a body or a message."""
    connections: int
    rivals: Rivals
    target: float
    """Ours is to be at most so many times the best rival."""
    measure: Measure = Measure.CPU
    bytes_per_unit: int | None = None
    """A unit is so many bytes of bodies; without it, one answer."""

    def units(self, answers: int, size: int) -> float:
        """How many units `answers` of `size` bytes in all are."""
        return answers if self.bytes_per_unit is None else size / self.bytes_per_unit


def _bodies(key: str, title: str, job: str, size: int, connections: int) -> Workload:
    return Workload(key, title, "MiB", job, size, connections, Rivals.ALL, 1.0, bytes_per_unit=MIB)


WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "small-get", "GET 100 B, 32 connections", "request", "get", 100, 32, Rivals.SMALL, 0.85
    ),
    Workload(
        "small-get-256",
        "GET 100 B, 256 connections",
        "request",
        "get",
        100,
        256,
        Rivals.SMALL,
        0.85,
    ),
    Workload(
        "connect",
        "GET 100 B, a new connection each",
        "request",
        "connect",
        100,
        32,
        Rivals.SMALL,
        0.9,
    ),
    Workload("get-16k", "GET 16 KiB", "request", "get", 16 * KIB, 32, Rivals.BUFFERS, 0.9),
    Workload("get-64k", "GET 64 KiB", "request", "get", 64 * KIB, 32, Rivals.BUFFERS, 0.9),
    _bodies("get-1m", "GET 1 MiB", "get", MIB, 8),
    _bodies("post-1m", "POST 1 MiB", "upload", MIB, 8),
    _bodies("get-100m", "GET 100 MiB", "get", 100 * MIB, 4),
    _bodies("post-100m", "POST 100 MiB", "upload", 100 * MIB, 4),
    Workload(
        "echo",
        "WebSocket echo of 64 B, 1,000 connections",
        "message",
        "echo",
        64,
        1000,
        Rivals.SMALL,
        0.9,
    ),
    Workload(
        "rate",
        "GET 100 B at half of nginx's most, 32 connections",
        "request",
        "get",
        100,
        32,
        Rivals.SMALL,
        1.0,
        measure=Measure.P99,
    ),
    Workload(
        "idle-keepalive",
        "idle keep-alive connections",
        "connection",
        "get",
        100,
        10_000,
        Rivals.HAPROXY,
        1.0,
        measure=Measure.MEMORY,
    ),
    Workload(
        "idle-websocket",
        "idle WebSockets",
        "connection",
        "echo",
        64,
        10_000,
        Rivals.HAPROXY,
        0.5,
        measure=Measure.MEMORY,
    ),
)


def chosen(only: str | None) -> tuple[Workload, ...]:
    """The workloads whose keys `only` names, between commas; all of them without it.

    Raises:
        ValueError: a key that there is not.
    """
    if not only:
        return WORKLOADS
    keys = only.split(",")
    known = {workload.key for workload in WORKLOADS}
    if unknown := [key for key in keys if key not in known]:
        msg = f"no workload {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
        raise ValueError(msg)
    return tuple(workload for workload in WORKLOADS if workload.key in keys)
