"""`python -m benchmarks`: measures and prints; a whole run writes RESULTS.md and what shows it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import (
    host,
    limit,
    limits,
    parts,
    peers,
    picture,
    readme,
    report,
    rounds,
    workloads,
)
from benchmarks.load import Ends
from benchmarks.parts import Part
from benchmarks.progress import Progress
from benchmarks.record import Record
from benchmarks.setting import Setting
from benchmarks.workloads import Workload

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
KEPT = ROOT / "target" / "bench" / "results.json"
# Where nothing is said.
_ROUNDS, _CLOSE_ROUNDS, _MOST_ROUNDS = 7, 15, 21
# Steps of a run that are no workload's and no part's.
_LIMITS = "what is not met"


def main() -> int:
    arguments = _parser().parse_args()
    known = peers.known(ROOT, arguments.before)
    titles = {peer.key: peer.title for peer in known}
    if arguments.render:
        _write(Record.read(KEPT), titles)
        return 0
    try:
        wanted, alone = asked(arguments.only)
        chosen = peers.chosen(known, arguments.peers) if wanted else known[:1]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if missing := [peer.title for peer in chosen if not peer.program.exists()]:
        print(f"not here: {', '.join(missing)}; `make bench` installs them", file=sys.stderr)
        return 2
    proxy_cpu, ends_cpu = host.cpus()
    usual = (_ROUNDS, _CLOSE_ROUNDS, _MOST_ROUNDS)
    few, close, most = (arguments.rounds,) * 3 if arguments.rounds else usual
    descriptors = rounds.raise_descriptors()
    plan = rounds.Plan(few, close, most, arguments.seconds, proxy_cpu, ends_cpu, descriptors)
    ends = Ends(ROOT / "target" / "release" / "bench-load", ends_cpu)
    progress = Progress(
        {
            **{workload.key: rounds.guess(workload, chosen, plan) for workload in wanted},
            **{part.key: part.guess * close / _CLOSE_ROUNDS for part in alone},
            _LIMITS: limits.GUESS * len(wanted) / 3,
        }
    )
    measured = rounds.measure(list(wanted), chosen, plan, ends, progress)
    setting = Setting(chosen[0], ends, plan, arguments.machines)
    figures, failures = parts.measure(alone, setting, progress)
    failures = {**measured.failures, **failures}
    facts = host.facts(chosen, plan)
    record = Record(facts, plan.seconds, _pinning(plan), measured.samples, figures, failures, [])
    record = replace(record, limits=limits.measure(record.tables(), figures, chosen, setting))
    progress.done(_LIMITS)
    for table in record.tables():
        print(f"\n{table.title}\n{report.detail(table, titles)}")
    for one in record.limits:
        print(f"\nNot met: {one.title}\n{limit.markdown(one)}")
    print(report.overview(record, titles))
    if not arguments.only and not arguments.peers:
        record.write(KEPT)
        _write(record, titles)
    return 1 if failures else 0


def asked(only: str | None) -> tuple[tuple[Workload, ...], tuple[Part, ...]]:
    """The workloads and the parts whose keys `only` names, between commas; all without it.

    Raises:
        ValueError: a key that there is not.
    """
    if not only:
        return workloads.WORKLOADS, parts.PARTS
    alone = tuple(part for part in parts.PARTS if part.key in only.split(","))
    keys = {part.key for part in parts.PARTS}
    rest = [key for key in only.split(",") if key not in keys]
    try:
        return workloads.chosen(",".join(rest)) if rest else (), alone
    except ValueError as error:
        msg = f"{error}; and parts: {', '.join(sorted(keys))}"
        raise ValueError(msg) from None


def _write(record: Record, titles: dict[str, str]) -> None:
    readme.RESULTS.write_text(report.markdown(record, titles))
    readme.write()
    picture.draw(record, titles, HERE / "results.svg")
    written = f"{HERE.name}/RESULTS.md, {HERE.name}/results.svg, {readme.README.name}"
    print(f"written: {written}", file=sys.stderr)


def _pinning(plan: rounds.Plan) -> str:
    if plan.proxy_cpu is None:
        return "There is one CPU, which the proxy shares with the load and the upstream."
    return "The proxy has one CPU to itself, the load and the upstream share another."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    text = (
        f"rounds of each workload [{_ROUNDS}; {_CLOSE_ROUNDS} where a ratio is close,"
        f" {_MOST_ROUNDS} where its target is within the noise]"
    )
    parser.add_argument("--rounds", type=int, help=text)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each sample [1]")
    parser.add_argument("--machines", type=int, default=100_000, help="in a large table [100000]")
    parser.add_argument("--only", help="workloads and parts, between commas; prints only")
    parser.add_argument("--peers", help="peers beside ours, between commas; likewise")
    parser.add_argument("--before", type=Path, help="another build of hyperfleet-proxy to compare")
    parser.add_argument("--render", action="store_true", help="write the last whole run's report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
