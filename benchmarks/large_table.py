"""A table of many machines, two ports each: what it costs a request, memory, a change, a load.

The proxy is fed over its control socket, as in life. Its worker and the thread that takes the
routes share one CPU where the load has the other: the hardest case for requests during a load.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from statistics import median

from benchmarks import instructions, profile
from benchmarks.control import ControlPlane, frames, in_pieces, machine
from benchmarks.figures import Figure, quantile
from benchmarks.load import Found
from benchmarks.peers import CONTROL, HOST, controlled
from benchmarks.processes import Proxy
from benchmarks.profile import Function
from benchmarks.rounds import right
from benchmarks.setting import Setting
from benchmarks.sureness import interval
from benchmarks.workloads import chosen
from hyperfleet.proxy import routes
from hyperfleet.wire import control

PORTS = 2
# In the small table; in the large one, those that are asked.
FEW = instructions.ASKED
# Requests a second while the table is loaded and changed: far from the proxy's most.
_RATE = 5000.0
_CHANGES = 1000
# The machine that changes; the load asks for another.
_CHANGED = 5

_INSTRUCTIONS = 1.03
_BYTES = 250.0
_CHANGE_MS = 5.0
_LOAD_S = 0.5
# No request is to be slower: of the slowest ones, in periods of as many requests each.
_SLOWEST = 1.0
# Pairs of snapshots with nothing else to do: timed, and profiled.
_ALONE = 4
_PROFILED = 4
# Periods of the same load, by turns: with nothing else; while as many bytes as of snapshots go to
# somebody else, which is what sending costs where the sender has no CPU of its own; and while
# snapshots are sent and put in force.
KINDS = ("calm", "elsewhere", "during")


def measure(setting: Setting) -> list[Figure]:
    """Every figure of the large table.

    Raises:
        RuntimeError: it could not be measured, or a change was not in force when it was said to be.
    """
    with setting.ends.upstream() as upstream:
        few = instructions.of_a_request(setting, upstream, table(FEW, upstream))
        many = instructions.of_a_request(setting, upstream, table(setting.machines, upstream))
        with _session(setting, upstream) as session:
            return [
                _figure(
                    f"{setting.machines:,} machines: instructions a request, beside {FEW}'s",
                    (many / few, "times", _INSTRUCTIONS),
                    f"{many:,.0f} and {few:,.0f}",
                ),
                *session.figures(),
            ]


def profiled(setting: Setting) -> list[Function]:
    """Where the time goes while snapshots are put in force one after the other, nothing asked.

    Raises:
        ProfileError: it can't be seen here.
    """
    with setting.ends.upstream() as upstream, _session(setting, upstream) as session:
        first, other = session.snapshot(1), session.snapshot(2)
        session.load(first, 1)
        with profile.watched(session.proxy) as data:
            for _ in range(_PROFILED):
                session.load(other, 2)
                session.load(first, 1)
        return profile.functions(data)


def table(count: int, upstream: int, *, turned: bool = False) -> list[control.Machine]:
    """Machines of which every other one runs; `turned`: those that do not, and the reverse.

    The first `FEW` always run, and lead to the upstream.
    """
    return [
        machine(n, upstream_port=upstream) if n < FEW else machine(n, running=bool(n % 2) ^ turned)
        for n in range(count)
    ]


@contextmanager
def _session(setting: Setting, upstream: int) -> Iterator[_Session]:
    plan = setting.plan
    with (
        Proxy(controlled(setting.ours), upstream, plan.proxy_cpu, plan.descriptors) as proxy,
        ControlPlane(proxy.place.folder / CONTROL) as plane,
    ):
        yield _Session(setting, proxy, plane)


class _Session:
    """One proxy, from a small table to large ones."""

    def __init__(self, setting: Setting, proxy: Proxy, plane: ControlPlane) -> None:
        self._setting = setting
        self.proxy = proxy
        self._plane = plane
        (self._workload,) = chosen("small-get")

    def figures(self) -> list[Figure]:
        upstream = self.proxy.place.upstream_port
        count = self._setting.machines
        self.load(frames(routes.snapshot(table(FEW, upstream), 1)), 1)
        machines = table(count, upstream)
        began = time.perf_counter()
        first = frames(routes.snapshot(machines, 1))
        encoded = time.perf_counter() - began
        other = self.snapshot(2)
        before = self.proxy.private_memory()
        loads = [self.load(first, 1)]
        size = (self.proxy.private_memory() - before) / count / PORTS
        alone = [self.load(*one) for one in [(other, 2), (first, 1)] * _ALONE]
        changes = self._changes(2)
        periods: dict[str, list[Found]] = {kind: [] for kind in KINDS}
        for number in range(self._setting.plan.close_rounds):
            kinds = [*KINDS[number % len(KINDS) :], *KINDS[: number % len(KINDS)]]
            for kind in kinds:
                with sink() as nowhere, self._requests() as found:
                    if kind == "during":
                        loads += [self.load(other, 2), self.load(first, 1)]
                    elif kind == "elsewhere":
                        for snapshot in (other, first):
                            in_pieces(nowhere, snapshot)
                periods[kind].append(right(found()))
        return [
            _figure(
                f"{count:,} machines: private memory",
                (size, "bytes / route", _BYTES),
                f"{PORTS} ports each, one worker",
            ),
            _figure(
                f"{count:,} machines: a change is in force, p99",
                (quantile(changes, 0.99), "ms", _CHANGE_MS),
                f"p50 {median(changes):.2f}, most {max(changes):.2f} of {len(changes)};"
                f" {_RATE:,.0f} requests/s meanwhile",
            ),
            Figure(
                "table",
                f"{count:,} machines: a whole snapshot is in force",
                median(loads),
                "s",
                _LOAD_S,
                f"{min(loads):.2f} to {max(loads):.2f} of {len(loads)}; half of the machines"
                f" changed, {_RATE:,.0f} requests/s meanwhile; {min(alone):.2f} to {max(alone):.2f}"
                " without",
                *interval(loads),
            ),
            *slower(count, periods),
            _figure(
                f"{count:,} machines: the control plane computes and encodes a snapshot",
                (encoded, "s", None),
                f"{len(first) / count:.0f} bytes a machine",
            ),
        ]

    def snapshot(self, number: int) -> bytes:
        """Of all machines; from number 1 to number 2 half of them change, and back."""
        upstream, count = self.proxy.place.upstream_port, self._setting.machines
        return frames(routes.snapshot(table(count, upstream, turned=number % 2 == 0), number))

    def load(self, snapshot: bytes, number: int) -> float:
        """Seconds from its first byte until all workers decide by it."""
        began = time.perf_counter()
        self._plane.send(snapshot)
        self._plane.wait_applied(number)
        return time.perf_counter() - began

    def _changes(self, number: int) -> list[float]:
        """Milliseconds that changes took, the first with this number; each is then asked for."""
        took = []
        client = HTTPConnection(HOST, self.proxy.place.port, timeout=10)
        with self._requests() as found, closing(client):
            for step in range(number, number + _CHANGES):
                running = step % 2 == 1
                new = machine(
                    _CHANGED, running=running, upstream_port=self.proxy.place.upstream_port
                )
                change = frames([control.Change(number=step, upsert=(new,), remove=())])
                began = time.perf_counter()
                self._plane.send(change)
                self._plane.wait_applied(step)
                took.append((time.perf_counter() - began) * 1e3)
                client.request("GET", f"/proxy/{new.id}/80/bytes/10")
                answer = client.getresponse()
                answer.read()
                if (answer.status == HTTPStatus.OK) is not running:
                    msg = f"change {step} was applied, and the next request had {answer.status}"
                    raise RuntimeError(msg)
        right(found())
        return took

    @contextmanager
    def _requests(self) -> Iterator[Callable[[], Found]]:
        """Requests at a fixed rate while the context lasts, and at least for a sample's length."""
        place, seconds = self.proxy.place, self._setting.plan.seconds
        run = self._setting.ends.begin(self.proxy.peer, place.port, self._workload, seconds, _RATE)
        with ThreadPoolExecutor(1) as aside:
            yield aside.submit(run.go).result


def _figure(title: str, value: tuple[float, str, float | None], beside: str) -> Figure:
    figure, unit, target = value
    return Figure("table", title, figure, unit, target, beside)


def slower(count: int, periods: dict[str, list[Found]]) -> list[Figure]:
    """Requests during snapshots beside those without, from the slowest ones to the median. Pure."""
    found = []
    for name, field, target in (
        ("the slowest request", "max_us", _SLOWEST),
        ("p99.9 of requests", "p999_us", None),
        ("p99 of requests", "p99_us", None),
        ("p50 of requests", "p50_us", None),
    ):
        calm, elsewhere, during = (
            [float(getattr(one, field)) for one in periods[kind]] for kind in KINDS
        )
        found.append(
            Figure.of_ratios(
                "table",
                f"{count:,} machines: {name} during snapshots, beside without",
                [a / b for a, b in zip(during, calm, strict=True)],
                target,
                f"{median(during):,.0f} and {median(calm):,.0f} µs;"
                f" {median(elsewhere):,.0f} while the same bytes go elsewhere",
            )
        )
    return found


@contextmanager
def sink() -> Iterator[socket.socket]:
    """A socket of which a process of its own reads everything and keeps nothing."""
    ours, its = socket.socketpair()
    with ours:
        with its:
            reader = subprocess.Popen(["cat"], stdin=its.fileno(), stdout=subprocess.DEVNULL)
        try:
            yield ours
        finally:
            ours.close()
            reader.wait()
