"""When the host's clock is said to have moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet.fleet import host_clock
from hyperfleet.fleet.host_clock import HostClock


class Host:
    """A host's clocks, and how often one was said to have moved."""

    def __init__(self, folder: Path) -> None:
        self.time = 1_700_000_000.0
        self.uptime = 100.0
        # How long each reading is held up from now on.
        self.delays: Iterator[float] = iter(())
        self.moves = 0
        self.moved = asyncio.Event()
        self.note = folder / "note"
        self.watch = self.another()

    def another(self, boot: str = "this") -> HostClock:
        """The watch of another control plane."""
        return HostClock(
            self._move,
            note=self.note,
            host_boot=boot,
            clock=lambda: self.time,
            gone_by=self._gone_by,
        )

    def runs(self, seconds: float) -> None:
        self.time += seconds
        self.uptime += seconds

    def _gone_by(self) -> float:
        now = self.uptime
        self.runs(next(self.delays, 0.0))
        return now

    def _move(self) -> None:
        self.moves += 1
        self.moved.set()


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.watch.begin()
    host.watch.end()
    return host


async def test_time_that_goes_by_moves_nothing(host: Host) -> None:
    for seconds in (0.001, 1, 86_400):
        host.runs(seconds)
        host.watch.look()
    assert host.moves == 0


@pytest.mark.parametrize("by", [3600.0, 0.3, -0.3, -86_400.0])
async def test_a_step_is_told_once(host: Host, by: float) -> None:
    host.time += by
    host.watch.look()
    host.runs(1)
    host.watch.look()
    assert host.moves == 1
    host.time -= by
    host.watch.look()
    assert host.moves == 2


async def test_small_steps_add_up(host: Host) -> None:
    for _ in range(4):
        host.time += 0.1
        host.watch.look()
    assert host.moves == 1


async def test_a_reading_that_was_held_up_is_none(host: Host) -> None:
    host.delays = iter([5.0])
    host.watch.look()
    assert host.moves == 0
    # Nor is one where each was.
    host.delays = iter([5.0] * 1000)
    host.time += 60
    host.watch.look()
    assert host.moves == 0
    host.delays = iter(())
    host.watch.look()
    assert host.moves == 1


async def test_a_step_that_nobody_saw_is_told_by_the_next(host: Host) -> None:
    host.time += 3600
    for _ in range(2):
        watch = host.another()
        watch.begin()
        watch.look()
        watch.end()
        assert host.moves == 1
    # One that was not told to its end is told again.
    host.time += 3600
    for moves in (2, 3):
        watch = host.another()
        watch.begin()
        watch.end()
        assert host.moves == moves


@pytest.mark.parametrize("note", ["", "this", "this x", "this 1.0 2.0", "\0\xff", "that 1.0"])
async def test_a_note_that_says_nothing_of_this_boot_is_none(host: Host, note: str) -> None:
    host.note.write_text(note, encoding="latin-1")
    watch = host.another()
    watch.begin()
    watch.end()
    assert host.moves == 0
    assert host.note.read_text(encoding="ascii").startswith("this 1699999900")


async def test_where_no_boot_is_known_or_nothing_can_be_written_it_goes_on(host: Host) -> None:
    for boot in ("", "this"):
        host.note.unlink(missing_ok=True)
        if boot:
            host.note.mkdir()
        watch = host.another(boot)
        watch.begin()
        watch.end()
        assert not host.note.is_file()
        host.time += 60
        watch.look()
    assert host.moves == 2


async def test_it_looks_by_itself_until_its_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_clock, "_EVERY_S", 0.0)
    host.watch.begin()
    host.time += 60
    await asyncio.wait_for(host.moved.wait(), 10)
    host.watch.end()
    host.time += 60
    for _ in range(10):
        await asyncio.sleep(0)
    assert host.moves == 1
