"""The console's tail, and the reason that it gives for a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperfleet.fleet import console


async def tail(log: Path, lines: int | None) -> bytes:
    return b"".join([piece async for piece in console.tail(log, lines)])


def test_the_telling_line_comes_first_and_the_last_lines_follow() -> None:
    trace = "".join(f"[    1.{n}] trace {n}\n" for n in range(30))
    words = console.last_words(
        f"[    0.1] boot\n[    1.0] Kernel panic - not syncing: no init\n{trace}".encode()
    )
    lines = words.split("\n")
    assert lines[0] == "[    1.0] Kernel panic - not syncing: no init"
    assert lines[1:] == [f"[    1.{n}] trace {n}" for n in range(22, 30)]


def test_a_telling_line_among_the_last_is_not_said_twice() -> None:
    words = console.last_words(b"one\r\nhyperfleet-agent: cannot mount /dev/vda: why\r\n")
    assert words == "one\nhyperfleet-agent: cannot mount /dev/vda: why"


@pytest.mark.parametrize(
    "noise",
    [b"\x1b[1;31mred\x1b[0m", b"\x1b]0;title\x07red", b"r\x00e\x07d\x9b", b"\x1bcred\x7f\r\n\r\n"],
)
def test_no_control_reaches_the_reader(noise: bytes) -> None:
    words = console.last_words(noise)
    assert "red" in words
    assert all(character == "\n" or character.isprintable() for character in words)


def test_a_flood_is_bounded() -> None:
    assert len(console.last_words(("ä" * 9000 + "end").encode()).encode()) <= 2048
    flood = b"hyperfleet-agent: cannot mount it\n" + b"x" * 90000
    words = console.last_words(flood)
    assert words.startswith("hyperfleet-agent: cannot mount it")
    assert len(words) <= 2048


async def test_tail_and_reason_read_the_file(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert await tail(log, 5) == b""
    assert console.size(log) == 0
    log.write_bytes(b"first boot: cannot\none\ntwo\nthree")
    assert await tail(log, None) == b"first boot: cannot\none\ntwo\nthree"
    assert await tail(log, 2) == b"two\nthree"
    assert await tail(log, 0) == b""
    assert console.reason(log, since=19) == "one\ntwo\nthree"
    # The log was cut down since: what is left is of this boot.
    assert console.reason(log, since=1000).endswith("three")


async def test_a_guest_can_not_fill_the_hosts_disk(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with log.open("ab", buffering=0) as qemu:
        qemu.write(b"x" * 1000)
        console.bound(log)
        assert console.size(log) == 1000
        qemu.write(b"y" * (16 * 1024 * 1024) + b"\nlast line\n")
        console.bound(log)
        assert console.size(log) == 1024 * 1024
        qemu.write(b"next line\n")
    assert await tail(log, 2) == b"last line\nnext line\n"


async def test_a_tail_of_any_length_is_found_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PIECE_BYTES", 7)
    monkeypatch.setattr(console, "_MOST_BYTES", 60)
    log = tmp_path / "console.log"
    for written in (
        b"one\n\nthree, which is long\r\n\n",
        b"one\ntwo",
        b"\n",
        b"x" * 100 + b"\ny\n",
    ):
        log.write_bytes(written)
        lines = written[-60:].splitlines(keepends=True)
        for count in range(6):
            assert await tail(log, count) == b"".join(lines[max(0, len(lines) - count) :])
        pieces = [piece async for piece in console.tail(log, None)]
        assert b"".join(pieces) == written[-60:]
        assert max(map(len, pieces)) <= 7
