"""The page, a part of it for each command. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import report
from benchmarks.figures import Figure

_HEAD = """\
# Machines: results

Written by `make bench-start`, `make bench-fleet`, `make bench-ports` and `make bench-machines`,
each its own part.
"""
_TITLES = {
    "starts": "Starts, beside boots",
    "fleet": "Thousands of machines",
    "ports": "Servers in a machine, and one that is idle",
    "real": "One machine, beside QEMU alone",
}
COMMANDS = tuple(_TITLES)
_METHODS = {
    "starts": """\
QEMU machines of 128 MiB on Debian's disk, by two servers that run beside each other: one keeps no
templates, the other had one when it began. From the request (`POST /start`, then `nginx` by exec)
to the first byte of nginx's page through the proxy: a boot, a clone, and a machine that had fallen
asleep while it served, in turn, and a new machine of a snapshot of one that served, its making in
it; then twenty boots and clones at once (four at the same time). CPU is of QEMU's processes, from
their birth to the last page; Pss shares what several map (proc_pid_smaps(5)).
""",
    "fleet": """\
Machines of the fake driver behind a real `hyperfleet serve` with its data plane: every request by
HTTP on kept connections, every answer checked, every change a durable commit of SQLite's. Each
number of machines has a home of its own. The guests of the fake are in the control plane's process,
so its CPU time and memory hold theirs.

- **CPU** is the control plane's, by the kernel's account. Growth is of it: linear is 1.0, what is
  more grows with the number. All numbers of machines are there at once and take turns, so that what
  the host does meanwhile hits all of them; told is the median of all rounds' ratios. Changes are
  made to 32 machines more.
- **Lists** are of machines that have not changed since they were listed before, whose JSON is kept;
  what their first list costs is told by itself.
- **Adoption**: kill -9, then from the start of the next process until `/ready` says so, divided by
  the number of machines. A second of it is the start itself.
- **While all are discovered**: every machine is asked what listens, ten
  thousand in 10 s. Beside it, in turns, the same is asked of the next smaller number of machines,
  at which nobody looks.
""",
    "ports": """\
QEMU machines of 128 MiB on the minimal disk, of two servers that run beside each other: one with
the settings that come by themselves, the other one asks its machine every 250 ms what listens.
**CPU** is of the machine's QEMU, and of the control plane less what it takes without a machine,
while nothing goes on, both servers in the same half minute. **Servers** are begun and ended by a
CGI script, on request through the proxy, in a guest that was quiet before; the event is what a
follower of `GET /events` reads. The script's own start, by TCG, is in it.
""",
    "real": """\
QEMU machines of 128 MiB. **Start** is from the request (`POST /start`, then `httpd` by exec) to the
first byte of its page through the proxy; beside it the same command line, taken from the running
process, spawned with nothing of ours but a client of the agent: hello, address, `httpd`, first byte
through QEMU's own forward. In turn, the same run. **Exec** is of `true`; beside it a ping over the
same agent's channel, in turn. What the guest's kernel takes to make such a process and to end it,
its own shell shows: where the guest's code is emulated, that alone is over three round trips.
""",
}


@dataclass(frozen=True)
class Run:
    """One command's run."""

    facts: dict[str, str]
    figures: list[Figure]


def markdown(name: str, run: Run, before: str = "") -> str:
    """The page with a run of one command; the others' parts stay as they stand on `before`."""
    parts = [_HEAD]
    stood = {part.partition("\n")[0]: part for part in before.split("\n## ")[1:]}
    for command, title in _TITLES.items():
        if command == name:
            facts = [f"| {key} | {value} |" for key, value in run.facts.items()]
            parts += [
                f"## {title}\n",
                table(run.figures),
                "\n".join(["| measured on | |", "|---|---|", *facts]) + "\n",
                _METHODS[name],
            ]
        elif title in stood:
            parts.append(f"## {stood[title].rstrip()}\n")
    return "\n".join(parts)


def table(figures: Sequence[Figure]) -> str:
    """A line for each figure, met or not."""
    rows = ["| what | value | how | target | |", "|---|---|---|---|---|"]
    rows += [
        f"| {one.title} | {report.figure(one.value)} {one.unit} | {one.beside} "
        f"| {'' if one.target is None else f'{one.target:g}'} | {one.verdict} |"
        for one in figures
    ]
    return "\n".join(rows) + "\n"
