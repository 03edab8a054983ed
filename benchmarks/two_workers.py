"""Two workers beside one: what sharing nothing is worth."""

from __future__ import annotations

import os
from dataclasses import replace

from benchmarks.figures import Figure
from benchmarks.processes import Proxy, running
from benchmarks.rounds import timed
from benchmarks.setting import Setting
from benchmarks.workloads import chosen

# Most that a request may cost with two workers, of what it costs with one.
_COST = 1.05
_WORKERS = 2


def measure(setting: Setting) -> list[Figure]:
    """Both serve small requests by turns; neither they nor the ends are bound to a CPU.

    Raises:
        RuntimeError: there is one CPU only.
    """
    cpus = len(os.sched_getaffinity(0))
    if cpus < _WORKERS:
        msg = "two workers want two CPUs"
        raise RuntimeError(msg)
    (workload,) = chosen("small-get-256")
    ends = setting.ends.anywhere()
    two = replace(setting.ours, workers=_WORKERS)
    costs, speeds = [], []
    with ends.upstream() as upstream:
        proxies = [
            Proxy(peer, upstream, None, setting.plan.descriptors) for peer in (setting.ours, two)
        ]
        with running(proxies):
            for number in range(setting.plan.close_rounds):
                turn = proxies if number % 2 == 0 else proxies[::-1]
                samples = {
                    proxy.peer.workers: timed(proxy, workload, ends, setting.plan.seconds)
                    for proxy in turn
                }
                one, both = samples[1], samples[_WORKERS]
                costs.append(both.value / one.value)
                speeds.append(both.per_second / one.per_second)
    shared = f"of {cpus} CPUs, which load and upstream share"
    return [
        Figure.of_ratios(
            "workers", "two workers: CPU per request, beside one worker's", costs, _COST
        ),
        Figure.of_ratios(
            "workers",
            "two workers: requests per second, beside one worker's",
            speeds,
            None,
            shared,
        ),
    ]
