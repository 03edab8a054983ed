"""Who is measured when.

All proxies run all the time, each is measured once a round, and each round begins with another:
what else the host does falls on all alike, and ratios within a round hold.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks import job
from benchmarks.load import Ends, Found, LoadError
from benchmarks.peers import Peer
from benchmarks.processes import Proxy, running
from benchmarks.sample import Sample
from benchmarks.summary import summarize
from benchmarks.workloads import Measure, Workload

# Rounds of peers that are not in every one.
SOME_ROUNDS = 3
# Memory does not depend on what else the host does.
MEMORY_ROUNDS = 1
# Connections on hold are a round number, with two descriptors each in the proxy, and a tenth to
# spare: nginx closes idle ones when less than a sixteenth is left.
_ROUND = 500
_SPARE = 10


@dataclass(frozen=True)
class Plan:
    """How a run is done."""

    rounds: int
    close_rounds: int
    """Where the ratio is close to its target after `rounds`."""
    seconds: float
    """Of each sample."""
    proxy_cpu: int | None
    ends_cpu: int | None


@dataclass(frozen=True)
class Measured:
    """What a run gave."""

    samples: list[Sample]
    failures: dict[str, str]
    """`workload/peer`, and why there is no figure."""


def order(peers: list[Peer], number: int) -> list[Peer]:
    """Who is measured in this round, in which order."""
    first = number % len(peers)
    turned = peers[first:] + peers[:first]
    return [peer for peer in turned if peer.in_every_round or number < SOME_ROUNDS]


def scaled(workload: Workload, descriptors: int) -> Workload:
    """The workload with as many connections as any proxy can hold."""
    most = (descriptors - descriptors // _SPARE) // 2
    return replace(workload, connections=min(workload.connections, most // _ROUND * _ROUND or most))


def measure(
    workloads: list[Workload], peers: list[Peer], plan: Plan, ends: Ends, descriptors: int
) -> Measured:
    """Runs all rounds of all workloads, and tells on stderr how far it is.

    `descriptors`: how many each proxy may have.
    """
    measured = Measured([], {})
    if not workloads:
        return measured
    with ends.upstream() as upstream:
        started = [Proxy(peer, upstream, plan.proxy_cpu, descriptors) for peer in peers]
        with running(started) as proxies:
            by_peer = {proxy.peer.key: proxy for proxy in proxies}
            for proxy in proxies:
                job.check(proxy.peer, proxy.place.port)
            for workload in workloads:
                if workload.measure is Measure.MEMORY:
                    continue
                rate = _half(by_peer, workload, ends) if workload.measure is Measure.P99 else None

                def sample(
                    peer: Peer, workload: Workload = workload, rate: float | None = rate
                ) -> Sample:
                    return timed(by_peer[peer.key], workload, ends, plan.seconds, rate)

                _in_rounds(workload, peers, range(plan.rounds), measured, sample)
                more = range(plan.rounds, plan.close_rounds)
                if more and summarize(workload, measured.samples).close:
                    _in_rounds(workload, peers, more, measured, sample)
        for workload in workloads:
            if workload.measure is Measure.MEMORY:
                idle = scaled(workload, descriptors)

                def weigh(peer: Peer, idle: Workload = idle) -> Sample:
                    with Proxy(peer, upstream, plan.proxy_cpu, descriptors) as proxy:
                        return _weighed(proxy, idle, ends)

                every = [replace(peer, in_every_round=True) for peer in peers]
                _in_rounds(workload, every, range(MEMORY_ROUNDS), measured, weigh)
    return measured


def _in_rounds(
    workload: Workload,
    peers: list[Peer],
    rounds: range,
    measured: Measured,
    sample: Callable[[Peer], Sample],
) -> None:
    began = time.monotonic()
    for number in rounds:
        for peer in order(peers, number):
            name = f"{workload.key}/{peer.key}"
            if name in measured.failures:
                continue
            try:
                measured.samples.append(replace(sample(peer), round=number))
            except RuntimeError as error:
                measured.failures[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr)
    took = time.monotonic() - began
    print(f"{workload.key}: {took:.0f} s, rounds: {len(rounds)}", file=sys.stderr)


def timed(
    proxy: Proxy, workload: Workload, ends: Ends, seconds: float, rate: float | None = None
) -> Sample:
    """One sample, of a round that the caller numbers.

    Raises:
        LoadError: not all answers were right.
    """
    run = ends.begin(proxy.peer, proxy.place.port, workload, seconds, rate)
    before, (user, kernel) = proxy.cpu_seconds(), proxy.ticks()
    found = right(run.go())
    cpu = proxy.cpu_seconds() - before
    user, kernel = (
        after - so_far for after, so_far in zip(proxy.ticks(), (user, kernel), strict=True)
    )
    units = workload.units(found.answers, found.bytes)
    cost = found.p99_us if workload.measure is Measure.P99 else cpu * 1e6 / units
    return Sample(
        workload=workload.key,
        peer=proxy.peer.key,
        round=0,
        value=cost,
        per_second=units / found.seconds,
        p50_us=found.p50_us,
        p99_us=found.p99_us,
        busy=cpu / found.seconds,
        kernel=kernel / max(1, user + kernel),
    )


def _weighed(proxy: Proxy, workload: Workload, ends: Ends) -> Sample:
    job.check(proxy.peer, proxy.place.port)
    before = proxy.memory()
    run = ends.begin(proxy.peer, proxy.place.port, workload, seconds=0)
    after = proxy.memory()
    found = run.close()
    if found.faults:
        msg = f"idle connections ended: {found.faults}"
        raise LoadError(msg)
    each = (after - before) / workload.connections
    return Sample(workload.key, proxy.peer.key, 0, each, workload.connections, 0.0, 0.0, 0.0)


def right(found: Found) -> Found:
    """The same, if all its answers were right.

    Raises:
        LoadError: they were not.
    """
    if found.faults or not found.answers:
        msg = f"{found.answers} right answers, and wrong ones: {found.faults}"
        raise LoadError(msg)
    return found


def _half(proxies: dict[str, Proxy], workload: Workload, ends: Ends) -> float:
    """Half of what nginx can do at most; of ours, where nginx is not measured."""
    proxy = proxies.get("nginx") or next(iter(proxies.values()))
    most = sorted(timed(proxy, workload, ends, 1.0).per_second for _ in range(3))[1]
    return most / 2


def raise_descriptors() -> int:
    """Gives this process and its children all the descriptors that they may have; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
