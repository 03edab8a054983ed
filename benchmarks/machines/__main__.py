"""`python -m benchmarks.machines fleet|ports|real|starts`: measures, prints, writes MACHINES.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import host
from benchmarks.machines import crowd, page, ports, real, starts
from hyperfleet import __version__

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "benchmarks" / "MACHINES.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines", description=__doc__)
    parser.add_argument("what", choices=sorted(page.COMMANDS))
    sizes = ",".join(map(str, crowd.SIZES))
    parser.add_argument("--machines", help=f"of the fleet, numbers between commas [{sizes}]")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"of starts [{real.ROUNDS}, {starts.ROUNDS}], of servers [{ports.ROUNDS}], "
        f"of turns of the fleets [{crowd.ROUNDS}]",
    )
    parser.add_argument("--crowds", type=int, help=f"of twenty starts at once [{starts.CROWDS}]")
    arguments = parser.parse_args()
    if arguments.what == "fleet":
        asked = tuple(int(size) for size in (arguments.machines or sizes).split(","))
        figures = crowd.measure(asked, arguments.rounds or crowd.ROUNDS)
        versions = f"Hyperfleet {__version__}"
    elif arguments.what == "starts":
        crowds = starts.CROWDS if arguments.crowds is None else arguments.crowds
        figures = starts.measure(_ROOT, arguments.rounds or starts.ROUNDS, crowds)
        versions = f"Hyperfleet {__version__}, {real.qemu_version()}"
    elif arguments.what == "ports":
        figures = ports.measure(_ROOT, arguments.rounds or ports.ROUNDS)
        versions = f"Hyperfleet {__version__}, {real.qemu_version()}"
    else:
        figures = real.measure(_ROOT, arguments.rounds or real.ROUNDS)
        versions = f"Hyperfleet {__version__}, {real.qemu_version()}"
    facts = {**host.itself(), "versions": versions, **host.load()}
    print(page.table(figures))
    if not arguments.machines and not arguments.rounds and arguments.crowds is None:
        before = _PAGE.read_text() if _PAGE.exists() else ""
        _PAGE.write_text(page.markdown(arguments.what, page.Run(facts, figures), before))
        print(f"written: {_PAGE.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
