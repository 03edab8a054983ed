"""Who is measured when.

All proxies run all the time, each is measured once a round, and each round begins with another:
what else the host does falls on all alike, and ratios within a round hold.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks import job
from benchmarks.load import Ends, Found, LoadError
from benchmarks.peers import BEFORE, OURS, Peer
from benchmarks.processes import Proxy, running
from benchmarks.progress import Progress
from benchmarks.sample import Sample
from benchmarks.summary import Table, summarize
from benchmarks.workloads import Measure, Workload

# Rounds of peers that are not in every one.
SOME_ROUNDS = 3
# Memory does not depend on what else the host does; each is of fresh processes.
MEMORY_ROUNDS = 3
# Connections on hold are a round number, with two descriptors each in the proxy, and a tenth to
# spare: nginx closes idle ones when less than a sixteenth is left.
_ROUND = 500
_SPARE = 10
# Descriptors that hold as many idle connections as any workload wants. More would not be a favour:
# some peers allocate their tables by them.
_DESCRIPTORS = 24_000
# Guesses, in seconds: what a sample takes besides the measured time, and one of memory.
_AROUND = 0.2
_WEIGHING = 4.0


@dataclass(frozen=True)
class Plan:
    """How a run is done."""

    rounds: int
    close_rounds: int
    """Where the ratio is close to its target after `rounds`, and for what scatters most."""
    most_rounds: int
    """Where it is in doubt even then."""
    seconds: float
    """Of each sample."""
    proxy_cpu: int | None
    ends_cpu: int | None
    descriptors: int
    """That each proxy may have."""


@dataclass(frozen=True)
class Measured:
    """What a run gave."""

    samples: list[Sample]
    failures: dict[str, str]
    """`workload/peer`, and why there is no figure."""


def order(peers: list[Peer], number: int, workload: Workload) -> list[Peer]:
    """Who is measured in this round of the workload, in which order.

    After the first ones only those whom the target names, as far as they may be the best.
    """
    first = number % len(peers)
    turned = peers[first:] + peers[:first]
    named = (OURS, BEFORE, *workload.rivals.value)
    some = SOME_ROUNDS if workload.measure is not Measure.MEMORY else 1
    return [peer for peer in turned if number < some or (peer.in_every_round and peer.key in named)]


def steps(workload: Workload, plan: Plan) -> list[int]:
    """Rounds after which the figures say whether there are more."""
    # One slow moment is the p99 of a whole sample: few of them say nothing.
    few = plan.close_rounds if workload.measure is Measure.P99 else plan.rounds
    return sorted({few, plan.close_rounds, plan.most_rounds})


def guess(workload: Workload, peers: list[Peer], plan: Plan) -> float:
    """Seconds that a workload takes, about."""
    if workload.measure is Measure.MEMORY:
        return _WEIGHING * sum(len(order(peers, n, workload)) for n in range(MEMORY_ROUNDS))
    # Of three that may have more rounds about one has.
    first, *_, last = (steps(workload, plan) * 2)[:3]
    rounds = first + (last - first) // 3
    samples = sum(len(order(peers, number, workload)) for number in range(rounds))
    return samples * (plan.seconds + _AROUND)


def scaled(workload: Workload, descriptors: int) -> Workload:
    """The workload with as many connections as any proxy can hold."""
    most = (descriptors - descriptors // _SPARE) // 2
    return replace(workload, connections=min(workload.connections, most // _ROUND * _ROUND or most))


def measure(
    workloads: list[Workload], peers: list[Peer], plan: Plan, ends: Ends, progress: Progress
) -> Measured:
    """Runs all rounds of all workloads."""
    measured = Measured([], {})
    if not workloads:
        return measured
    with ends.upstream() as upstream:
        started = [Proxy(peer, upstream, plan.proxy_cpu, plan.descriptors) for peer in peers]
        with running(started) as proxies:
            for proxy in proxies:
                job.check(proxy.peer, proxy.place.port)
            for workload in workloads:
                if workload.measure is not Measure.MEMORY:
                    _time(workload, proxies, plan, ends, measured)
                    progress.done(workload.key, _told(summarize(workload, measured.samples)))
        for workload in workloads:
            if workload.measure is Measure.MEMORY:

                def weigh(peer: Peer, workload: Workload = workload) -> Sample:
                    with Proxy(peer, upstream, plan.proxy_cpu, plan.descriptors) as proxy:
                        return _weighed(proxy, scaled(workload, plan.descriptors), ends)

                rounds = range(min(plan.rounds, MEMORY_ROUNDS))
                _in_rounds(workload, peers, rounds, measured, weigh)
                progress.done(workload.key, _told(summarize(workload, measured.samples)))
    return measured


def _time(
    workload: Workload, proxies: list[Proxy], plan: Plan, ends: Ends, measured: Measured
) -> None:
    """All rounds of one workload: as many as it takes to tell on which side of its target it is."""
    by_peer = {proxy.peer.key: proxy for proxy in proxies}
    # Without nginx, of ours.
    slowest = by_peer.get("nginx") or proxies[0]
    rate = half_of_most(slowest, workload, ends) if workload.measure is Measure.P99 else None

    def sample(peer: Peer) -> Sample:
        return timed(by_peer[peer.key], workload, ends, plan.seconds, rate)

    peers = [proxy.peer for proxy in proxies]
    for done, until in pairwise([0, *steps(workload, plan)]):
        table = summarize(workload, measured.samples)
        if done and not (table.close if done < plan.close_rounds else table.doubtful):
            break
        if done:
            far = table.far
            peers = [peer for peer in peers if peer.key not in far]
        _in_rounds(workload, peers, range(done, until), measured, sample)


def _told(table: Table) -> str:
    ours = table.line(OURS)
    return f"rounds: {ours.rounds}, {table.verdict}" if ours else "no figure"


def _in_rounds(
    workload: Workload,
    peers: list[Peer],
    rounds: range,
    measured: Measured,
    sample: Callable[[Peer], Sample],
) -> None:
    for number in rounds:
        for peer in order(peers, number, workload):
            name = f"{workload.key}/{peer.key}"
            if name in measured.failures:
                continue
            try:
                measured.samples.append(replace(sample(peer), round=number))
            except RuntimeError as error:
                measured.failures[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr)


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
    held = workload.connections
    return Sample(
        workload=workload.key,
        peer=proxy.peer.key,
        round=0,
        value=after / held,
        per_second=0.0,
        p50_us=0.0,
        p99_us=0.0,
        busy=0.0,
        connections=held,
        grown=(after - before) / held,
    )


def right(found: Found) -> Found:
    """The same, if all its answers were right.

    Raises:
        LoadError: they were not.
    """
    if found.faults or not found.answers:
        msg = f"{found.answers} right answers, and wrong ones: {found.faults}"
        raise LoadError(msg)
    return found


def half_of_most(proxy: Proxy, workload: Workload, ends: Ends) -> float:
    """Half of the units a second that a proxy can do at most."""
    most = sorted(timed(proxy, workload, ends, 1.0).per_second for _ in range(3))[1]
    return most / 2


def raise_descriptors(wanted: int = _DESCRIPTORS) -> int:
    """Gives this process and its children the descriptors that they want, if they may; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (wanted, min(hard, wanted) if hard != resource.RLIM_INFINITY else wanted):
        try:
            # More than the hard limit is for root, and not for all of root's containers.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except ValueError:
            continue
        return most
    return hard
