"""What the parts of a benchmark read, send and are chosen by."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks.control import frames, machine, machine_id
from benchmarks.instructions import counted
from benchmarks.large_table import FEW, KINDS, slower, table
from benchmarks.load import Found
from benchmarks.parts import PARTS
from benchmarks.peers import MACHINE
from benchmarks.system_calls import parsed
from benchmarks.workloads import WORKLOADS
from hyperfleet.proxy import routes
from hyperfleet.wire import length


def test_only_names_workloads_and_parts_alike():
    assert command.asked(None) == (WORKLOADS, PARTS)
    (workload,), (part,) = command.asked("table,echo")
    assert (workload.key, part.key) == ("echo", "table")
    assert command.asked("calls")[0] == ()
    with pytest.raises(ValueError, match=r"no workload tables; .*; and parts: calls, log, table"):
        command.asked("tables")


def test_calls_are_read_from_the_table_of_strace():
    text = "    calls syscall\n--------- ----------------\n      200 sendto\n        7 epoll_wait\n"
    assert parsed(text + "--------- ----------------\n      207 total\n") == {
        "sendto": 200,
        "epoll_wait": 7,
    }


def test_instructions_are_read_from_the_dump_of_callgrind():
    assert counted("events: Ir\nfn=(1)\n3 44\nsummary: 81234\n\ntotals: 81234\n") == 81234
    with pytest.raises(RuntimeError, match="no total"):
        counted("events: Ir\n")


def test_machines_are_many_and_each_is_another():
    machines = table(5000, 4001)
    assert len({machine.id for machine in machines}) == 5000
    assert machines[0].id == MACHINE == machine_id(0)
    assert {len(machine.id) for machine in machines} == {12}
    assert len({machine.ports[1].upstream for machine in machines}) == 5000
    assert all(machine.status == "running" for machine in machines[:FEW])
    turned = table(5000, 4001, turned=True)
    assert machines[:FEW] == turned[:FEW]
    assert not set(machines[FEW:]) & set(turned[FEW:])


def test_slow_requests_are_told_from_the_slowest_to_the_median():
    def found(p50: float, p99: float, p999: float, most: float) -> Found:
        return Found(5000, 1.0, 0, p50, 0.0, p99, p999, most, {})

    periods = {kind: [found(50, 100, 200, 1000)] * 7 for kind in KINDS}
    periods["during"] = [found(50, 150, 260, 900)] * 6 + [found(50, 150, 260, 9000)]
    slowest, *others = slower(7, periods)
    assert slowest.value == pytest.approx(0.9)
    assert slowest.target == 1.0
    # One slow period of seven is chance: it may be so in others, too.
    assert slowest.bounds is not None
    assert slowest.bounds[1] == pytest.approx(9.0)
    assert slowest.verdict == "met, by less than the noise"
    assert "900 and 1,000 µs; 1,000 while the same bytes go elsewhere" in slowest.beside
    assert [figure.value for figure in others] == [
        pytest.approx(value) for value in (1.3, 1.5, 1.0)
    ]
    assert {figure.verdict for figure in others} == {"no target"}


def test_frames_are_those_of_the_control_socket():
    data = frames(routes.snapshot([machine(1)], 7))
    sizes = []
    while data:
        size = int.from_bytes(data[:4], "big")
        assert 0 < size <= length.MAX_PAYLOAD
        sizes.append(size)
        data = data[4 + size :]
    assert len(sizes) == 3
