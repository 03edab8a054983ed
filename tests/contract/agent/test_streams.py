"""The agent and its client, over a Unix socket: processes whose streams are carried, terminals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.guest.stream import WINDOW, Stream
from hyperfleet.guest.values import ProcessRequest

LIMIT = 20


def shell(script: str, **more: Any) -> ProcessRequest:
    return ProcessRequest(argv=("sh", "-c", script), **more)


async def until(stream: Stream, words: bytes) -> bytes:
    """Its standard output up to where it has said `words`."""
    said = b""
    async with asyncio.timeout(LIMIT):
        while words not in said:
            piece = await stream.read()
            assert piece is not None, said
            assert not piece.is_error, piece
            said += piece.data
    return said


async def rest(stream: Stream) -> tuple[bytes, bytes]:
    """What is left of both its outputs."""
    said = {False: b"", True: b""}
    async with asyncio.timeout(LIMIT):
        while (piece := await stream.read()) is not None:
            said[piece.is_error] += piece.data
    return said[False], said[True]


async def test_a_conversation(agent):
    stream = agent.run(shell("while read line; do echo got $line; done; echo over >&2; exit 7"))
    await stream.write(b"one\n")
    assert await until(stream, b"\n") == b"got one\n"
    await stream.write(b"two\n")
    assert await until(stream, b"\n") == b"got two\n"
    await stream.write(b"three\n", eof=True)
    assert await rest(stream) == (b"got three\n", b"over\n")
    end = await stream.ended()
    assert (end.exit_code, end.signal, end.timed_out) == (7, None, False)
    # It has ended: nothing of this is an error.
    await stream.write(b"late\n")
    stream.resize(1, 1)
    stream.signal(9)


async def test_what_nobody_reads_holds_the_process_up_and_is_not_lost(agent, folder):
    size = 16 * WINDOW
    data = os.urandom(WINDOW // 2) * 32
    source = folder / "source"
    await asyncio.to_thread(source.write_bytes, data)
    stream = agent.run(shell(f"cat {source}; echo done > {folder}/done", stdin=False))
    piece = await stream.read()
    assert piece is not None
    # The agent serves on, and the process waits.
    for _ in range(20):
        await agent.ping(LIMIT)
    assert not (folder / "done").exists()
    digest, count = hashlib.sha256(piece.data), len(piece.data)
    while (piece := await stream.read()) is not None:
        digest.update(piece.data)
        count += len(piece.data)
    assert count == size == len(data)
    assert digest.digest() == hashlib.sha256(data).digest()
    assert (await stream.ended()).exit_code == 0
    assert (folder / "done").exists()


async def test_many_at_once_and_one_that_is_not_read(agent):
    stuck = agent.run(shell("yes", stdin=False))
    others = [agent.run(shell(f"read a; echo {number} $a")) for number in range(20)]
    for stream in others:
        await stream.write(b"x\n")
    said = await asyncio.gather(*(rest(stream) for stream in others))
    assert [out for out, _ in said] == [f"{number} x\n".encode() for number in range(20)]
    stuck.signal(signal.SIGKILL)
    assert set((await rest(stuck))[0]) == set(b"y\n")
    assert (await stuck.ended()).signal == "KILL"


async def test_a_program_that_is_missing_ends_as_in_a_shell(agent):
    stream = agent.run(ProcessRequest(argv=("no-such-program",)))
    assert await rest(stream) == (b"", b"no-such-program: not found\n")
    assert (await stream.ended()).exit_code == 127


async def test_what_cannot_be_started_is_an_error(agent):
    stream = agent.run(shell("true", cwd="/no/such/folder"))
    with pytest.raises(GuestError, match="cannot work in /no/such/folder"):
        await stream.read()
    with pytest.raises(GuestError, match="cannot work in"):
        await stream.ended()


async def test_its_time_limit(agent):
    stream = agent.run(shell("sleep 60", timeout=0.2))
    assert await rest(stream) == (b"", b"")
    end = await stream.ended()
    assert (end.signal, end.timed_out) == ("KILL", True)


async def test_a_terminal(agent):
    stream = agent.run(
        ProcessRequest(
            argv=("sh", "-c", "tty; stty size; echo $TERM; test -t 0 && test -t 2; echo $?"),
            terminal=(24, 80),
        )
    )
    name, size, term, is_terminal = (await rest(stream))[0].decode().split("\r\n")[:4]
    assert name.startswith("/dev/pts/")
    assert (size, term, is_terminal) == ("24 80", "xterm-256color", "0")


async def test_a_terminal_changes_its_size_and_takes_keys(agent):
    script = "trap 'stty size' WINCH; echo ready; while :; do read line && echo got $line; done"
    stream = agent.run(shell(script, terminal=(24, 80), env={"TERM": "dumb"}))
    await until(stream, b"ready\r\n")
    stream.resize(50, 132)
    # A trap runs when what the shell waits for is over.
    await stream.write(b"a line\n")
    said = await until(stream, b"got a line\r\n") + await until_size(stream)
    assert b"50 132" in said
    await stream.write(b"\x03")
    await rest(stream)
    assert (await stream.ended()).signal == "INT"


async def until_size(stream: Stream) -> bytes:
    """What was said before it may have come already; a second line makes sure."""
    await stream.write(b"more\n")
    return await until(stream, b"got more\r\n")


async def test_the_end_of_input_at_a_terminal(agent):
    stream = agent.run(ProcessRequest(argv=("cat",), terminal=(24, 80)))
    await stream.write(b"kept\n", eof=True)
    said = (await rest(stream))[0]
    assert said.count(b"kept\r\n") == 2, "the terminal's echo, and cat's"
    assert (await stream.ended()).exit_code == 0


async def test_all_that_a_terminal_showed_is_told(agent):
    stream = agent.run(shell("seq 1 50000; exit 3", terminal=(24, 80)))
    lines = (await rest(stream))[0].decode().split("\r\n")
    assert lines == [*map(str, range(1, 50001)), ""]
    assert (await stream.ended()).exit_code == 3


async def test_a_daemon_does_not_keep_a_terminal_open(agent, folder):
    mark = folder / "mark"
    script = f"setsid sh -c 'while [ ! -e {mark} ]; do sleep 0.05; done' & echo over"
    stream = agent.run(shell(script, terminal=(24, 80)))
    assert (await rest(stream))[0] == b"over\r\n"
    assert (await stream.ended()).exit_code == 0
    mark.touch()


async def test_a_lost_host_hangs_up_its_terminals(agents, folder):
    agent = await agents.connect()
    told, pid = folder / "told", folder / "pid"
    script = f"trap 'echo hangup > {told}; exit' HUP; echo $$ > {pid}; echo up; read never"
    stream = agent.run(shell(script, terminal=(24, 80)))
    await until(stream, b"up\r\n")
    unread = agent.run(shell(f"yes | head -c {4 * WINDOW}; touch {folder}/ran-on", stdin=False))
    await unread.read()
    await agent.close()
    with pytest.raises(GuestError, match="closed"):
        await stream.ended()
    await eventually(lambda: told.exists() and (folder / "ran-on").exists())
    again = await agents.connect()
    await eventually(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    await again.ping(LIMIT)


async def test_a_host_that_leaves_without_reading_holds_nobody_up(raw, folder):
    await raw.hello(1)
    # Far more than the channel and all queues hold: it waits for the host to read.
    raw.exec(1, f"head -c 64000000 /dev/zero; touch {folder}/over")
    await raw.receive()
    raw.writer.transport.abort()
    await eventually((folder / "over").exists)


async def eventually(holds: Callable[[], bool]) -> None:
    def watch() -> None:
        deadline = time.monotonic() + LIMIT
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    await asyncio.to_thread(watch)
