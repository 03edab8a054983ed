"""What the figures of machines mean, from samples made by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from benchmarks.figures import Figure
from benchmarks.machines import __main__ as command
from benchmarks.machines import crowd, growth, page, ports, real, starts
from benchmarks.machines.api import Timing
from benchmarks.machines.growth import Work


def work(machines: int, cpu_s: float, what: str = "get") -> Work:
    return Work(what, machines, requests=100, seconds=2.0, p99_ms=5.0, cpu_s=cpu_s)


def test_the_most_machines_are_told_and_growth_is_compared_within_rounds():
    (told,) = growth.figures([work(1000, 0.3), work(100, 0.2), work(10_000, 0.4)])
    assert (told.value, told.target) == (50, None)
    assert told.title == "10,000 machines: get"
    assert "4.00 ms of CPU" in told.beside
    # The host was slow in the second round: for all alike.
    turns = {"get": {10_000: [1.0, 3.0, 0.9], 100: [1.0, 3.0, 1.0], 1000: [2.0, 6.0, 1.8]}}
    first, second = growth.of_turns(turns)
    assert first.title == "get: CPU of one among 1,000, beside among 100"
    assert first.value == pytest.approx(2.0)
    assert first.met is False
    assert second.value == pytest.approx(0.5)
    assert second.beside.startswith("1.00 and 2.00 ms; 0.50 to 0.50, rounds: 3")
    assert second.met


def test_what_each_machine_takes_is_told_for_the_most_and_compared():
    told, step = growth.of_sizes("memory", "KiB", [(1000, 30.0), (100, 60.0)])
    assert told.value == 30
    assert "60 with 100" in told.beside
    assert step.value == pytest.approx(0.5)


def test_what_took_nothing_tells_nothing_of_growth() -> None:
    sizes = [(100, -0.5), (1000, 6.0), (10_000, 2.0)]
    told, step = growth.of_sizes("memory", "KiB", sizes)
    assert told.beside == "-0.5 with 100, 6 with 1,000"
    assert step.title == "memory: with 10,000, beside 1,000"


def test_disturbance_is_a_ratio_of_p99s():
    figure = growth.disturbance("list", 10, 25, 900, 1000)
    assert figure.value == pytest.approx(2.5)
    assert not figure.met


def test_a_timing_has_a_rate_and_a_p99():
    timing = Timing(2.0, [0.001] * 98 + [0.5] * 2)
    assert timing.rate == 50
    assert timing.p99_ms == 500


def test_starts_are_compared_within_rounds_and_execs_by_their_medians():
    samples = real.Samples([3.3, 11, 4.4], [3, 10, 2], [0.001] * 3, [0.002] * 3, [0.004] * 3, 0.001)
    start, by_agent, by_api = real.figures(samples)
    # The host was slow in the second round: for both alike.
    assert start.value == pytest.approx(1.1)
    assert start.met
    assert by_agent.value == pytest.approx(2)
    assert by_api.value == pytest.approx(4)
    assert (by_agent.met, by_api.met) == (True, False)


def test_clones_are_compared_with_boots_within_rounds():
    one, crowd = starts.One, starts.Crowd
    samples = starts.Samples(
        cold=[one(2, 2.5), one(20, 25)],
        warm=[one(0.2, 0.5), one(4, 10)],
        woken=[one(0.1, 0.25), one(2, 5)],
        cloned=[one(0.2, 0.5), one(3, 5)],
        still=[0.1, 0.3],
        cold_crowds=[crowd(20, 40, 200, 190)],
        warm_crowds=[crowd(8, 14, 80, 60)],
    )
    page_, up, wake, clone, still, cpu, all_, memory = starts.figures(samples)
    assert page_.value == pytest.approx(0.3)
    assert not page_.met
    assert up.value == pytest.approx(0.15)
    assert wake.value == pytest.approx(0.15)
    assert clone.value == pytest.approx(0.2)
    assert still.value == pytest.approx(200)
    assert "at most 300 ms" in still.beside
    assert cpu.value == pytest.approx(0.35)
    assert cpu.met
    assert all_.value == pytest.approx(0.4)
    assert memory.value == pytest.approx(0.4)
    assert "80 and 200 MiB, of which 60 and 190" in memory.beside
    without = replace(samples, cold_crowds=[], warm_crowds=[])
    assert len(starts.figures(without)) == 5


def test_the_slowest_server_counts_and_an_idle_machine_is_told_with_what_is_done_for_it():
    samples = ports.Samples(
        done=[0.02, 0.04],
        begun=[0.05, 0.25, 0.06],
        ended=[0.03, 0.02, 0.4],
        by_event=ports.Idle(30, qemu=0.09, control_plane=0.03, without=0.06),
        by_poll=ports.Idle(30, qemu=0.5, control_plane=0.1, without=0.06),
    )
    begun, ended, idle, polled = ports.figures(samples)
    assert begun.value == pytest.approx(250)
    assert begun.met
    assert "median 60 of 3" in begun.beside
    assert ended.value == pytest.approx(400)
    assert not ended.met
    assert idle.value == pytest.approx(0.4)
    assert idle.met
    assert polled.value == pytest.approx(2)
    assert "5 times as much" in polled.beside


def test_the_bare_line_is_the_machines_with_its_own_descriptors_and_port():
    line = [
        "qemu",
        "-netdev",
        "user,id=n0,hostfwd=tcp:127.9.8.7:0-:80",
        "socket,id=qmp,fd=11,server=on",
        "socket,id=agent,fd=12,server=on",
    ]
    words, address = real.bare_command(line, 4321, {"qmp": 5, "agent": 6})
    assert address == "127.9.8.7"
    assert words == [
        "qemu",
        "-netdev",
        "user,id=n0,hostfwd=tcp:127.9.8.7:4321-:80",
        "socket,id=qmp,fd=5,server=on",
        "socket,id=agent,fd=6,server=on",
    ]
    with pytest.raises(ValueError, match="no forward"):
        real.bare_command(["qemu"], 1, {})


@pytest.mark.parametrize("order", [*permutations(page.COMMANDS, 2)])
def test_a_run_keeps_the_parts_of_all_other_commands(order: tuple[str, str]):
    text = ""
    for number, name in enumerate(page.COMMANDS):
        figure = Figure("a", f"value of {name}", number + 2, "s", None)
        text = page.markdown(name, page.Run({"date": f"of {name}"}, [figure]), text)
    for number, name in enumerate(page.COMMANDS):
        assert f"| value of {name} | {number + 2}.00 s |" in text
        assert f"| date | of {name} |" in text
    # Run again, one after the other: new figures, all else as it stood.
    again = text
    for name in order:
        run = page.Run({"date": "later"}, [Figure("a", f"value of {name}", 7, "s", None)])
        again = page.markdown(name, run, again)
    assert again.count("| date | later |") == again.count("| 7.00 s |") == 2
    for name in set(page.COMMANDS) - set(order):
        assert f"| date | of {name} |" in again
    assert again.count("\n## ") == len(page.COMMANDS)
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [line for line in again.splitlines() if line.startswith("## ")]


def test_the_page_in_the_repository_stays_whole_when_a_part_is_run():
    before = (Path(__file__).parents[3] / "benchmarks" / "MACHINES.md").read_text()
    after = page.markdown("real", page.Run({}, []), before)
    for part in before.split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        if title != "One machine, beside QEMU alone":
            assert f"## {title}\n{rest.rstrip()}" in after


def test_a_command_writes_its_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = tmp_path / "MACHINES.md"
    monkeypatch.setattr(command, "_PAGE", written)
    monkeypatch.setattr(real, "qemu_version", lambda: "QEMU")
    for name, module in (("fleet", crowd), ("starts", starts), ("real", real)):
        figure = Figure("a", f"value of {name}", 2, "s", None)
        monkeypatch.setattr(module, "measure", lambda *_, figure=figure: [figure])
        monkeypatch.setattr(sys, "argv", ["machines", name])
        assert command.main() == 0
    text = written.read_text()
    for name in ("fleet", "starts", "real"):
        assert f"| value of {name} | 2.00 s |" in text
    # A run of other sizes than the page's is not for the page.
    monkeypatch.setattr(sys, "argv", ["machines", "fleet", "--machines", "2"])
    assert command.main() == 0
    assert written.read_text() == text


def test_what_was_inherited_is_named_by_its_path():
    line = ["qemu", "-kernel", "/proc/self/fd/7", "-add-fd", "fd=9,set=1", "-blockdev"]
    disk = '{"filename":"/dev/fdset/1"}'
    assert real.by_path([*line, disk], lambda number: f"/file-{number}") == [
        *("qemu", "-kernel", "/file-7", "-blockdev"),
        '{"filename":"base.raw"}',
    ]
    assert real.by_path(["qemu", "-kernel", "/k"], str) == ["qemu", "-kernel", "/k"]
