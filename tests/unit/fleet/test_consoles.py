"""All consoles' keeper."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hyperfleet.fleet import console
from hyperfleet.fleet.consoles import Consoles
from support.data_plane import until

_BOUND = 16 * 1024 * 1024


async def test_a_console_is_cut_while_it_is_kept(tmp_path: Path) -> None:
    floods, quiet, left = (tmp_path / name for name in ("floods", "quiet", "left"))
    quiet.write_bytes(b"ready\n")
    consoles = Consoles(every=0.01)
    for log in (floods, quiet, left):
        # Also before there is a file.
        consoles.keep(log.name, log)
    consoles.leave("left")
    consoles.leave("never kept")
    left.write_bytes(b"x" * (_BOUND + 1))
    for _ in range(2):
        floods.write_bytes(b"x" * _BOUND + b"\nlast\n")
        await until(lambda: console.size(floods) == 1024 * 1024)
        assert floods.read_bytes().endswith(b"\nlast\n")
    assert quiet.read_bytes() == b"ready\n"
    assert console.size(left) == _BOUND + 1
    await consoles.close()
    floods.write_bytes(b"x" * (_BOUND + 1))
    # Kept again after that, for a fleet that is opened again.
    consoles.keep("left", left)
    await until(lambda: console.size(left) == 1024 * 1024)
    assert console.size(floods) == _BOUND + 1
    await consoles.close()


async def test_one_that_can_not_be_cut_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    bound = console.bound

    tries = 0

    def cut(log: Path) -> None:
        nonlocal tries
        if log == bad:
            tries += 1
            raise OSError("read-only")
        bound(log)

    monkeypatch.setattr(console, "bound", cut)
    for log in (bad, good):
        log.write_bytes(b"x" * (_BOUND + 1))
    consoles = Consoles(every=0.01)
    consoles.keep("loop", loop)
    consoles.keep("bad", bad)
    consoles.keep("good", good)
    with caplog.at_level(logging.ERROR):
        await until(lambda: console.size(good) == 1024 * 1024)
        await until(lambda: tries > 2)
    # Said once: the disk that it stands on may be full of what was said.
    assert caplog.text.count("machine bad: its console could not be cut") == 1
    await consoles.close()


async def test_each_of_many_has_its_turn(tmp_path: Path) -> None:
    logs = [tmp_path / str(number) for number in range(250)]
    consoles = Consoles(every=0.01)
    for log in logs:
        consoles.keep(log.name, log)
    for number in (0, 99, 100, 249):
        logs[number].write_bytes(b"x" * (_BOUND + 1))
        await until(lambda: console.size(logs[number]) == 1024 * 1024)  # noqa: B023 - awaited here
    await consoles.close()
