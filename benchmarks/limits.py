"""Finds out what the rows that are not met are made of: once, in fresh processes, at the end."""

from __future__ import annotations

from benchmarks import access_log, large_table, profile
from benchmarks.figures import Figure
from benchmarks.limit import Limit
from benchmarks.load import Ends
from benchmarks.peers import Peer
from benchmarks.processes import Proxy, running
from benchmarks.profile import Function, ProfileError
from benchmarks.rounds import half_of_most, right
from benchmarks.setting import Setting
from benchmarks.summary import Table
from benchmarks.system_calls import counted
from benchmarks.workloads import Measure, Workload, chosen

# Seconds of a row, about: two counts, a profile, and starting.
GUESS = 8.0
# What an ordinary user gets to see (perf_event_paranoid, kernel.org's admin-guide).
_WITHOUT_KERNEL = "the kernel's functions, which perf shows to root: the parts are without them"
# A profile wants more samples than a second has.
_LONGER = 3


def measure(
    tables: list[Table], figures: list[Figure], peers: list[Peer], setting: Setting
) -> list[Limit]:
    """Of each workload that is not met ours and the rival that it is held against.

    Of the access log, if that is not met, ours with it and without; of snapshots, where their time
    goes. Memory is not made of calls: its row tells both of its parts.
    """
    by_key = {peer.key: peer for peer in peers}
    found = [
        of_workload(table.title, table.workload, [setting.ours, by_key[table.best]], setting)
        for table in tables
        if table.met is False and table.best and table.workload.measure is not Measure.MEMORY
    ]
    if any(figure.part == "log" and figure.met is False for figure in figures):
        (workload,) = chosen(access_log.WORKLOAD)
        found.append(
            of_workload("access log", workload, access_log.compared(setting.ours), setting)
        )
    if any(
        figure.part == "table" and figure.met is False and "snapshot" in figure.title
        for figure in figures
    ):
        found.append(_of_snapshots(setting))
    return found


def _of_snapshots(setting: Setting) -> Limit:
    title = f"{setting.machines:,} machines: whole snapshots, one after the other, nothing else"
    limit = Limit(title, "snapshot", {}, [], [])
    try:
        limit.functions.extend(large_table.profiled(setting))
    except ProfileError as error:
        limit.missing.append(f"a profile: {error}")
    return _told(limit)


def of_workload(title: str, workload: Workload, peers: list[Peer], setting: Setting) -> Limit:
    """Counts the calls of each peer, and looks where the first one's time goes."""
    limit = Limit(title, workload.unit, {}, [], [])
    plan, ends = setting.plan, setting.ends
    with ends.upstream() as upstream:
        proxies = [Proxy(peer, upstream, plan.proxy_cpu, plan.descriptors) for peer in peers]
        with running(proxies):
            fixed = workload.measure is Measure.P99
            rate = half_of_most(proxies[-1], workload, ends) if fixed else None
            for proxy in proxies:
                try:
                    calls = counted(proxy, workload, ends, plan.seconds, rate)
                    limit.calls[proxy.peer.title] = calls
                except RuntimeError as error:
                    limit.missing.append(f"system calls of {proxy.peer.title}: {error}")
            try:
                limit.functions.extend(
                    _functions(proxies[0], workload, ends, plan.seconds * _LONGER, rate)
                )
            except ProfileError as error:
                limit.missing.append(f"a profile: {error}")
    return _told(limit)


def _told(limit: Limit) -> Limit:
    """With a word on what perf has left out."""
    if limit.functions and all(function.where != "kernel" for function in limit.functions):
        limit.missing.append(_WITHOUT_KERNEL)
    return limit


def _functions(
    proxy: Proxy, workload: Workload, ends: Ends, seconds: float, rate: float | None
) -> list[Function]:
    with (
        ends.begin(proxy.peer, proxy.place.port, workload, seconds, rate) as run,
        profile.watched(proxy) as data,
    ):
        right(run.go())
    return profile.functions(data)
