"""`python -m benchmarks`: measures and prints; a whole run writes RESULTS.md and its picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import host, peers, picture, report, rounds, workloads
from benchmarks.load import Ends
from benchmarks.record import Record

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
KEPT = ROOT / "target" / "bench" / "results.json"


def main() -> int:
    arguments = _parser().parse_args()
    known = peers.known(ROOT, arguments.before)
    titles = {peer.key: peer.title for peer in known}
    if arguments.render:
        _write(Record.read(KEPT), titles)
        return 0
    try:
        asked = workloads.chosen(arguments.only)
        chosen = peers.chosen(known, arguments.peers)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if missing := [peer.title for peer in chosen if not peer.program.exists()]:
        print(f"not here: {', '.join(missing)}; `make bench` installs them", file=sys.stderr)
        return 2
    proxy_cpu, ends_cpu = host.cpus()
    plan = rounds.Plan(arguments.rounds, arguments.seconds, proxy_cpu, ends_cpu)
    ends = Ends(ROOT / "target" / "release" / "bench-load", ends_cpu)
    measured = rounds.measure(list(asked), chosen, plan, ends)
    record = Record(
        host.facts(chosen, plan), plan.seconds, _pinning(plan), measured.samples, measured.failures
    )
    for table in record.tables():
        print(f"\n{table.workload.title}\n{report.detail(table, titles)}")
    print(report.overview(record.tables(), titles))
    if not arguments.only and not arguments.peers:
        record.write(KEPT)
        _write(record, titles)
    return 1 if measured.failures else 0


def _write(record: Record, titles: dict[str, str]) -> None:
    (HERE / "RESULTS.md").write_text(report.markdown(record, titles))
    picture.draw(record, titles, HERE / "results.svg")
    print(f"written: {HERE.name}/RESULTS.md, {HERE.name}/results.svg", file=sys.stderr)


def _pinning(plan: rounds.Plan) -> str:
    if plan.proxy_cpu is None:
        return "There is one CPU, which the proxy shares with the load and the upstream."
    return "The proxy has one CPU to itself, the load and the upstream share another."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each workload [7]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each sample [1]")
    parser.add_argument("--only", help="workloads, between commas; nothing is written then")
    parser.add_argument("--peers", help="peers beside ours, between commas; likewise")
    parser.add_argument("--before", type=Path, help="another build of hyperfleet-proxy to compare")
    parser.add_argument("--render", action="store_true", help="write the last whole run's report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
