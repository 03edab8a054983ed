"""The results as Markdown. Pure."""

from __future__ import annotations

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
  the rounds, and the least and most of them. Below 1 is cheaper.
- **Latency** is the load's view, with a queue of as many requests as connections. At a fixed rate
  it counts from when a request was due.
- **Memory** is the growth of the proportional set size by idle connections that had one answer
  each, so tables that grow or are touched count; the kernel's own socket memory is not in it.

Other programs ran on this host at the same time: absolute figures move between runs, ratios within
a round are what to trust, and differences of a few per cent are none.
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
    for table in tables:
        parts += [f"## {table.workload.title}\n", detail(table, titles)]
    if record.failures:
        failed = [f"- `{name}`: {why}" for name, why in record.failures.items()]
        parts += ["## Without a figure\n", "\n".join(failed) + "\n"]
    return "\n".join(parts)


def overview(record: Record, titles: dict[str, str]) -> str:
    """One line for each target, met or not; then what the costs that are too high are made of."""
    rows = ["| what | ours | best rival, or how | ratio | target | |", "|---|---|---|---|---|---|"]
    over = []
    for table in record.tables():
        ours = table.line(OURS)
        best = table.line(table.best) if table.best else None
        if ours is None or best is None:
            continue
        unit = f"{table.workload.measure.value} / {table.workload.unit}"
        rows.append(
            f"| {table.workload.title} | {figure(ours.value.median)} {unit} "
            f"| {titles[best.peer]} {figure(best.value.median)} "
            f"| **{ours.ratio.median:.2f}** ({ours.ratio.least:.2f} to {ours.ratio.most:.2f}) "
            f"| {table.workload.target:.2f} | {verdict(table.met)} |"
        )
        if not table.met:
            over.append(f"- {table.workload.title}: {_limit(table, ours, best, titles)}")
    rows += [
        f"| {one.title} | {figure(one.value)} {one.unit} | {one.beside} | "
        f"| {'' if one.target is None else f'{one.target:g}'} | {verdict(one.met)} |"
        for one in record.figures
    ]
    over += [
        f"- {one.title}: {figure(one.value)} {one.unit}; {one.beside}"
        for one in record.figures
        if one.met is False
    ]
    told = ["", "Not met, and what the cost is made of:", "", *over] if over else []
    return "\n".join([*rows, *told]) + "\n"


def verdict(met: bool | None) -> str:
    return {True: "met", False: "not met", None: "no target"}[met]


def _limit(table: Table, ours: Line, best: Line, titles: dict[str, str]) -> str:
    """Of a cost in CPU time, the kernel's part: what no code of a proxy's own can save."""
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
        head = ["| | bytes / connection | ratio |", "|---|---|---|"]
        row = _memory_row
    else:
        unit = table.workload.unit
        cost = f"{table.workload.measure.value} / {unit}"
        head = [
            f"| | {cost}: median | least to most | ratio | {unit}/s | p50 µs | p99 µs | busy | n |",
            "|---|---|---|---|---|---|---|---|---|",
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
        figure(line.per_second),
        figure(line.p50_us),
        figure(line.p99_us),
        f"{line.busy:.2f}",
        str(line.rounds),
    ]
    return f"| {' | '.join(cells)} |"


def _memory_row(line: Line, title: str) -> str:
    cells = [_bold(title, line.peer), figure(line.value.median), f"{line.ratio.median:.2f}"]
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
