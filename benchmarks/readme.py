"""What README shows of the results: rows of RESULTS.md, between two marks.

A whole run of `make bench` writes it; `python -m benchmarks.readme` writes it from the page that is
there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from benchmarks.workloads import chosen

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
README = HERE.parent / "README.md"
BEGIN = "<!-- from benchmarks/RESULTS.md, by `make bench` -->\n"
END = "<!-- to here -->\n"
_SHOWN = "small-get,small-get-256,connect,get-64k,get-1m,post-1m,echo,idle-keepalive,idle-websocket"
_HEAD = """\
| | Hyperfleet | the best rival | ratio | target |
|---|---|---|---|---|
"""


def excerpt(results: str) -> str:
    """The table, and where it was measured; `results` is the page that `report.markdown` makes.

    A workload that it has no row for is left out.
    """
    rows = {cells[0]: cells[1:] for cells in map(_cells, results.splitlines()) if cells}
    shown = []
    for workload in chosen(_SHOWN):
        # Of idle connections with how many there were, and why there were no more.
        named = re.compile(rf"((?:[\d,]+ )?{re.escape(workload.title)})(?: \(.*\))?")
        for title, found in rows.items():
            if row := named.fullmatch(title):
                ours, rival, ratio, target, verdict = found
                shown.append(f"| {row[1]} | {ours} | {rival} | {ratio} | {target}: {verdict} |\n")
                break
    facts = (rows[name][0] for name in ("date", "processor", "versions") if name in rows)
    return f"{_HEAD}{''.join(shown)}\n{'; '.join(facts)}.\n"


def put(results: str, readme: str) -> str:
    """`readme` with what stands between its marks made anew.

    Raises:
        ValueError: it does not have both marks, once each.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        msg = "README.md has lost the marks between which the results stand"
        raise ValueError(msg)
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{excerpt(results)}{END}{after}"


def write() -> None:
    """README.md as RESULTS.md is now."""
    README.write_text(put(RESULTS.read_text(), README.read_text()))


def _cells(line: str) -> list[str]:
    """Of a row of a table; none of any other line."""
    return [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("| ") else []


if __name__ == "__main__":
    write()
    print(f"written: {README.name}", file=sys.stderr)
