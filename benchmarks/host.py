"""What it was measured on."""

from __future__ import annotations

import datetime as dt
import os
import platform
from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.rounds import Plan


def facts(peers: list[Peer], plan: Plan) -> dict[str, str]:
    """Name and value of everything that a reader needs to judge the figures."""
    versions: dict[str, str] = {}
    for peer in peers:
        name = peer.title.partition(",")[0]
        versions.setdefault(name, peer.version_text())
    return {
        **itself(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "rounds": f"{plan.rounds}, {plan.close_rounds} where it is close,"
        f" {plan.most_rounds} where it is in doubt",
        "descriptors of a process": f"{plan.descriptors:,}",
        **load(),
    }


def itself() -> dict[str, str]:
    """The day, and the host."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "processor": f"{_cpu()}, {os.cpu_count()} CPUs",
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"{_distribution()}, Linux {platform.release()}",
    }


def load() -> dict[str, str]:
    """How busy the host was, when it is asked at the end."""
    return {"load average at the end": ", ".join(f"{value:.1f}" for value in os.getloadavg())}


def cpus() -> tuple[int | None, int | None]:
    """The CPU for the proxies and the one for the load; `None`, `None` where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown distribution"
