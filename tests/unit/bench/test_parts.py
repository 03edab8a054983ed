"""What the parts of a benchmark read, send and are chosen by."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks.control import frames, machine, machine_id
from benchmarks.instructions import counted
from benchmarks.large_table import FEW, table
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
    with pytest.raises(ValueError, match=r"no workload tables; .*; and parts: calls, table"):
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


def test_frames_are_those_of_the_control_socket():
    data = frames(routes.snapshot([machine(1)], 7))
    sizes = []
    while data:
        size = int.from_bytes(data[:4], "big")
        assert 0 < size <= length.MAX_PAYLOAD
        sizes.append(size)
        data = data[4 + size :]
    assert len(sizes) == 3
