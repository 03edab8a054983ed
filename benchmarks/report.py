"""The results as Markdown. Pure."""

from __future__ import annotations

from math import isfinite

from benchmarks import limit
from benchmarks.figures import Figure
from benchmarks.peers import OURS
from benchmarks.record import Record
from benchmarks.summary import Line, Spread, Table
from benchmarks.workloads import Measure

# From here on a figure has three digits without a fraction.
_WHOLE = 100
# And from here on with one digit behind the point.
_TENTH = 8
_EXPLANATION = "../docs/explanation/performance.md"
_METHOD = """\
Each proxy routes by path prefix, strips it, adds `X-Forwarded-For`, `-Host`, `-Proto` and
`X-Machine-ID` (and `-Prefix`, where it can add what it likes) and keeps its connections to the
upstream; that it does so is checked before anything is measured. One worker each. All run all the
time; in each round each is measured once for {seconds:g} s, and each round begins with another.
{pinning}
The load and the upstream are ours (`crates/bench-load`) and check status, length and every byte of
every answer: a figure stands here only if all were right.

- **CPU** is the time that the kernel charged to all threads of all processes of the proxy, for one
  unit of work. It says what a proxy costs; requests per second follow from it where the proxy was
  the limit (*busy* near 1).
- **Ratio** is to the best of the rivals that the target names, in the same round; the median of
  the rounds. Below 1 is cheaper. In brackets: in the first table the interval that holds the
  median of endless rounds in 95 of 100 runs, by the order of the values alone (of memory, and of
  fewer than six rounds, which have none, the least and the most); further below the least and the
  most. *Of medians* is the ratio of both medians, whatever rounds they are of.
- **Met** is what the median meets. *By less than the noise*: the target is within the interval, so
  another run may say the other.
- **Latency** is the load's view, with a queue of as many requests as connections. At a fixed rate
  it counts from when a request was due.
- **Memory** is the proportional set size of the whole proxy while it holds so many idle
  connections, which had one answer each, divided by their number: tables that a peer allocates
  ahead and touches count. The targets are of that; *growth* leaves out what was taken before the
  first connection. The kernel's own socket memory is in neither.

Other programs ran on this host at the same time: absolute figures move between runs, ratios within
a round are what to trust, and differences of a few per cent are none.
"""
_LIMITS = """\
Of each such row, counted once, in fresh processes after all rounds: the system calls by strace(1),
which slows a proxy, so that more waits at each of its turns than in life; and a profile by perf(1),
on the timer of the kernel, each function without what it calls. What is the kernel's no code of a
proxy's own saves, except by fewer calls.
"""


def markdown(record: Record, titles: dict[str, str]) -> str:
    """The whole page. `titles` names the peers."""
    facts = [f"| {name} | {value} |" for name, value in record.facts.items()]
    tables = record.tables()
    parts = [
        "# Results\n",
        f"Written by `make bench`; what is behind it: [performance]({_EXPLANATION}).\n",
        "![ratios](results.svg)\n",
        "## In one look\n",
        overview(record, titles),
        "## Measured on\n",
        "\n".join(["| | |", "|---|---|", *facts]) + "\n",
        "## Method\n",
        _METHOD.format(seconds=record.seconds, pinning=record.pinning),
    ]
    if record.limits:
        parts += ["## Where a target is not met\n", _LIMITS]
    for one in record.limits:
        parts += [f"### {one.title}\n", limit.markdown(one)]
    for table in tables:
        parts += [f"## {table.title}\n", detail(table, titles)]
    if record.failures:
        failed = [f"- `{name}`: {why}" for name, why in record.failures.items()]
        parts += ["## Without a figure\n", "\n".join(failed) + "\n"]
    return "\n".join(parts)


def overview(record: Record, titles: dict[str, str]) -> str:
    """One line for each target, met or not; then what the costs that are too high are made of."""
    rows = [
        "| what | ours | best rival, or how | ratio (interval) | target | |",
        "|---|---|---|---|---|---|",
    ]
    over = []
    for table in record.tables():
        ours = table.line(OURS)
        best = table.line(table.best) if table.best else None
        if ours is None or best is None:
            continue
        unit = f"{table.workload.measure.value} / {table.workload.unit}"
        rows.append(
            f"| {table.title} | {figure(ours.value.median)} {unit} "
            f"| {titles[best.peer]} {figure(best.value.median)} "
            f"| **{ours.ratio.median:.2f}** ({_interval(ours.ratio)}) "
            f"| {table.workload.target:.2f} | {table.verdict} |"
        )
        if not table.met:
            over.append(f"- {table.title}: {_limit(table, ours, best, titles)}")
    rows += [
        f"| {one.title} | {figure(one.value)} {one.unit} | {one.beside} | {_bounds(one)} "
        f"| {'' if one.target is None else f'{one.target:g}'} | {one.verdict} |"
        for one in record.figures
    ]
    over += [
        f"- {one.title}: {figure(one.value)} {one.unit}; {one.beside}"
        for one in record.figures
        if one.met is False
    ]
    told = ["", "Not met, and what the cost is made of:", "", *over] if over else []
    return "\n".join([*rows, *told]) + "\n"


def _interval(ratio: Spread) -> str:
    """Where there is none, of the rounds that there are."""
    low, high = ratio.bounds if isfinite(ratio.low) else (ratio.least, ratio.most)
    return f"{low:.2f} to {high:.2f}"


def _bounds(one: Figure) -> str:
    bounds = one.bounds
    return f"({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds and isfinite(bounds[0]) else ""


def _limit(table: Table, ours: Line, best: Line, titles: dict[str, str]) -> str:
    """Of a cost in CPU time, the kernel's part: what no code of a proxy's own can save."""
    if table.workload.measure is Measure.MEMORY:
        parts = [
            f"{titles[line.peer]} {figure(line.value.median)} bytes, {figure(line.grown)} of them"
            " growth"
            for line in (ours, best)
        ]
        return "; ".join(parts)
    if table.workload.measure is not Measure.CPU:
        return f"{figure(ours.value.median)} beside {figure(best.value.median)}"
    parts = [
        f"{titles[line.peer]} {figure(line.value.median)} µs,"
        f" {figure(line.value.median * line.kernel)} of them in the kernel"
        for line in (ours, best)
    ]
    return "; ".join(parts)


def detail(table: Table, titles: dict[str, str]) -> str:
    """Every proxy at one workload, cheapest first."""
    if table.workload.measure is Measure.MEMORY:
        head = [
            "| | bytes / connection, in all | ratio | growth | n |",
            "|---|---|---|---|---|",
        ]
        row = _memory_row
    else:
        unit = table.workload.unit
        cost = f"{table.workload.measure.value} / {unit}"
        head = [
            (
                f"| | {cost}: median | least to most | ratio | of medians "
                f"| {unit}/s | p50 µs | p99 µs | busy | n |"
            ),
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        row = _row
    lines = sorted(table.lines, key=lambda line: line.value.median)
    return "\n".join([*head, *(row(line, titles[line.peer]) for line in lines)]) + "\n"


def _row(line: Line, title: str) -> str:
    spread = f"{figure(line.value.least)} to {figure(line.value.most)}"
    cells = [
        _bold(title, line.peer),
        figure(line.value.median),
        spread,
        _ratio(line.ratio),
        f"{line.of_medians:.2f}",
        figure(line.per_second),
        figure(line.p50_us),
        figure(line.p99_us),
        f"{line.busy:.2f}",
        str(line.rounds),
    ]
    return f"| {' | '.join(cells)} |"


def _memory_row(line: Line, title: str) -> str:
    cells = [
        _bold(title, line.peer),
        figure(line.value.median),
        _ratio(line.ratio),
        figure(line.grown),
        str(line.rounds),
    ]
    return f"| {' | '.join(cells)} |"


def _bold(title: str, peer: str) -> str:
    return f"**{title}**" if peer == OURS else title


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def figure(value: float) -> str:
    """Three digits, more where the number is large."""
    if value >= _WHOLE:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= _TENTH else f"{value:.2f}"
