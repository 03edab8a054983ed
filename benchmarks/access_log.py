"""The access log beside none: ours, the same build, with its three settings in turn."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.peers import Peer
from benchmarks.processes import Proxy, running
from benchmarks.rounds import timed
from benchmarks.sample import Sample
from benchmarks.setting import Setting
from benchmarks.workloads import chosen

# Most that a request may cost with it, of what it costs without.
COST = 1.02
# The workload that has the least work beside its line.
WORKLOAD = "small-get"
_SAMPLED = 100
_FILE = "access.log"
# Samples are short: there are many, and each writes up to 20 MB a second.
_PART = 0.5
_WRITTEN_LIMIT = 10.0


def variants(ours: Peer) -> dict[str, Peer]:
    """Ours without the log, with it, and with one line for so many requests; by their titles."""
    log = ("--access-log", f"@folder@/{_FILE}")
    sampled = (*log, "--access-log-sample", str(_SAMPLED))
    return {
        "without": ours,
        "with a line for each request": replace(ours, options=log),
        f"with a line for one of {_SAMPLED}": replace(ours, options=sampled),
    }


def compared(ours: Peer) -> list[Peer]:
    """Ours with a line for each request, and without the log: named apart."""
    without, whole, _ = variants(ours).values()
    return [replace(whole, title=f"{ours.title} with the log"), without]


def measure(setting: Setting) -> list[Figure]:
    """CPU per request with the log, its thread's share included, beside without in the same round.

    What counts requests can't be switched off, so no row is of it.

    Raises:
        RuntimeError: lines are missing.
    """
    peers = variants(setting.ours)
    costs: dict[str, list[float]] = {title: [] for title in peers}
    with setting.ends.upstream() as upstream:
        plan = setting.plan
        proxies = {
            title: Proxy(peer, upstream, plan.proxy_cpu, plan.descriptors)
            for title, peer in peers.items()
        }
        with running([*proxies.values()]):
            for number in range(plan.close_rounds):
                turn = [*proxies] if number % 2 == 0 else [*proxies][::-1]
                for title in turn:
                    costs[title].append(_sample(proxies[title], setting).value)
    without, *others = peers
    return [
        Figure.of_ratios(
            "log",
            f"access log {title}: CPU per request, beside {without}",
            [cost / bare for cost, bare in zip(costs[title], costs[without], strict=True)],
            COST,
        )
        for title in others
    ]


def _sample(proxy: Proxy, setting: Setting) -> Sample:
    (workload,) = chosen(WORKLOAD)
    sample = timed(proxy, workload, setting.ends, setting.plan.seconds * _PART)
    if "--access-log" in proxy.peer.options:
        whole = "--access-log-sample" not in proxy.peer.options
        answers = round(sample.per_second * setting.plan.seconds * _PART)
        _wait_for_lines(proxy.place.folder / _FILE, answers if whole else answers // _SAMPLED)
    return sample


def _wait_for_lines(file: Path, least: int) -> None:
    """Until they are written; then empties the file.

    Raises:
        RuntimeError: they never were.
    """
    # The rate is of a time that was a little longer than asked for.
    least -= least // 10
    limit = time.monotonic() + _WRITTEN_LIMIT
    while (lines := file.read_bytes().count(b"\n")) < least:
        if time.monotonic() > limit:
            msg = f"{lines} lines in the access log of at least {least}"
            raise RuntimeError(msg)
        # A file tells nobody that it grows.
        time.sleep(0.02)
    os.truncate(file, 0)
