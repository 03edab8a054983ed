"""The agent and its client, over a Unix socket: processes that have a name."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from hyperfleet.errors import ConflictError, GuestError, NotFoundError, ValidationError
from hyperfleet.guest import kept
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.stream import WINDOW, Stream
from hyperfleet.guest.values import KeptProcess, ProcessRequest
from hyperfleet.wire import guest as wire

LIMIT = 20
MIB = 1024 * 1024


def shell(script: str, **more: object) -> ProcessRequest:
    return ProcessRequest(argv=("sh", "-c", script), **{"stdin": False, **more})  # type: ignore[arg-type]


async def found(stream: Stream) -> tuple[int, int]:
    """How much of its output came before, and is lost."""
    async with asyncio.timeout(LIMIT):
        attachment = await stream.attached()
    assert attachment is not None
    return attachment.offset, attachment.dropped


async def until(stream: Stream, words: bytes) -> bytes:
    """Its standard output up to where it has said `words`; none of it is taken."""
    said = b""
    async with asyncio.timeout(LIMIT):
        while words not in said:
            piece = await stream.read()
            assert piece is not None, said
            said += piece.data
    return said


async def rest(stream: Stream) -> bytes:
    """What is left of its output, all of it taken."""
    said = b""
    async with asyncio.timeout(LIMIT):
        while (piece := await stream.read()) is not None:
            stream.taken(len(piece.data))
            said += piece.data
    return said


async def process(agent: Agent, name: str) -> KeptProcess:
    [one] = [one for one in await kept.kept(agent) if one.name == name]
    return one


async def ended(agent: Agent, name: str) -> KeptProcess:
    """It, when it has ended."""
    async with asyncio.timeout(LIMIT):
        while True:
            one = await process(agent, name)
            if one.exit_code is not None:
                return one


async def test_what_was_not_taken_comes_again_after_the_host_was_lost(agents, agent, fifo):
    stream = kept.keep(agent, "build", shell(f"echo one; echo two; read x < {fifo.path}; echo end"))
    assert await found(stream) == (0, 0)
    await until(stream, b"two\n")
    stream.taken(len(b"one\n"))
    await agent.ping(LIMIT)
    await agent.close()
    with pytest.raises(GuestError, match="closed"):
        await stream.read()
    await stream.abandon()
    again = await agents.connect()
    listed = await process(again, "build")
    assert (listed.attached, listed.exit_code, listed.untaken) == (False, None, 4)
    assert listed.argv[:2] == ("sh", "-c")
    assert abs(listed.since - datetime.now(UTC)) < timedelta(minutes=1)
    stream = kept.attach(again, "build")
    assert await found(stream) == (4, 0)
    await until(stream, b"two\n")
    assert (await process(again, "build")).attached
    await fifo.write(b"go\n")
    await until(stream, b"end\n")
    assert (await stream.ended()).exit_code == 0


async def test_an_end_that_nobody_heard_is_kept_until_it_is(agents, agent):
    await agent.ping(LIMIT)
    stream = kept.keep(agent, "build", shell("echo out; echo err >&2; exit 7"))
    await found(stream)
    await stream.abandon()
    one = await ended(agent, "build")
    assert (one.exit_code, one.signal, one.untaken, one.attached) == (7, None, 8, False)
    for _ in range(2):
        stream = kept.attach(agent, "build")
        assert (await stream.ended()).exit_code == 7
        pieces = [await stream.read(), await stream.read()]
        assert {(piece.data, piece.is_error) for piece in pieces if piece is not None} == {
            (b"out\n", False),
            (b"err\n", True),
        }
        await stream.abandon()
    await agent.close()
    agent = await agents.connect()
    stream = kept.attach(agent, "build")
    assert len(await rest(stream)) == 8
    assert (await stream.ended()).exit_code == 7
    # Its output is gone, its end is not yet.
    await stream.abandon()
    stream = kept.attach(agent, "build")
    assert await found(stream) == (8, 0)
    assert await rest(stream) == b""
    stream.end_taken()
    await stream.abandon()
    assert await kept.kept(agent) == []
    with pytest.raises(NotFoundError, match="no process build"):
        await kept.attach(agent, "build").attached()


async def test_whoever_attaches_takes_the_place_of_who_is(agent):
    first = kept.keep(agent, "cat", ProcessRequest(argv=("cat",)))
    await first.write(b"hello\n")
    await until(first, b"hello\n")
    second = kept.attach(agent, "cat")
    assert await until(second, b"hello\n") == b"hello\n"
    with pytest.raises(ConflictError, match="another client has attached to cat"):
        await first.read()
    # What the first does now is nobody's.
    await first.write(b"not this", eof=True)
    first.taken(1)
    first.signal(9)
    await first.abandon()
    second.taken(6)
    await second.write(b"more\n", eof=True)
    assert await rest(second) == b"more\n"
    assert (await second.ended()).exit_code == 0


async def test_input_that_is_under_way_is_counted_for_the_next(agents, agent, fifo):
    """A process that does not read: no host after the other can fill the agent's memory."""
    stream = kept.keep(
        agent, "slow", shell(f"read x < {fifo.path}; cat | wc -c; exit 3", stdin=True)
    )
    await found(stream)
    writing = asyncio.create_task(stream.write(b"x" * MIB))
    await agent.ping(LIMIT)
    await agent.close()
    writing.cancel()
    again = await agents.connect()
    stream = kept.attach(again, "slow")
    await found(stream)
    more = b"y" * wire.STDIN_WINDOW
    writing = asyncio.create_task(stream.write(more, eof=True))
    await again.ping(LIMIT)
    assert not writing.done()
    await fifo.write(b"go\n")
    await writing
    count = int(await rest(stream))
    assert len(more) < count <= len(more) + 2 * wire.STDIN_WINDOW
    assert (await stream.ended()).exit_code == 3


async def test_what_a_client_sent_before_it_went_is_there_though_nobody_reads(agents, agent, fifo):
    data = bytes(range(256)) * (MIB // 256)
    stream = kept.keep(agent, "slow", shell(f"read x < {fifo.path}; cat", stdin=True))
    writing = asyncio.create_task(stream.write(data, eof=True))
    await found(stream)
    await agent.ping(LIMIT)
    assert not writing.done()
    assert stream.release()
    await asyncio.wait_for(writing, LIMIT)
    await stream.abandon()
    await agent.close()
    again = await agents.connect()
    stream = kept.attach(again, "slow")
    attachment = await stream.attached()
    assert attachment is not None
    assert not attachment.stdin
    await fifo.write(b"go\n")
    assert await rest(stream) == data
    assert (await stream.ended()).exit_code == 0


async def test_what_goes_beyond_the_room_of_a_process_that_is_kept_is_held_back(agent, fifo):
    stream = kept.keep(agent, "slow", shell(f"read x < {fifo.path}; wc -c", stdin=True))
    size = wire.KEPT_STDIN + MIB
    writing = asyncio.create_task(stream.write(b"x" * size, eof=True))
    stream.release()
    await agent.ping(LIMIT)
    assert not writing.done()
    await fifo.write(b"go\n")
    assert int(await rest(stream)) == size
    await writing


async def test_an_input_that_has_ended_takes_no_more(agents, agent, fifo):
    stream = kept.keep(agent, "one", shell(f"cat; read x < {fifo.path}", stdin=True))
    await stream.write(b"all\n", eof=True)
    await until(stream, b"all\n")
    await agent.close()
    again = await agents.connect()
    stream = kept.attach(again, "one")
    attachment = await stream.attached()
    assert attachment is not None
    assert not attachment.stdin
    await stream.write(b"more\n", eof=True)
    await fifo.write(b"go\n")
    assert await rest(stream) == b"all\n"


@pytest.mark.parametrize("name", [None, "none"])
async def test_a_process_without_input_takes_none(agent, fifo, name):
    request = shell(f"read x < {fifo.path}; echo over")
    stream = agent.run(request) if name is None else kept.keep(agent, name, request)
    await stream.write(b"what for?")
    await fifo.write(b"go\n")
    assert await until(stream, b"\n") == b"over\n"
    assert (await stream.ended()).exit_code == 0


async def test_too_much_is_lost_from_its_beginning_and_told(agent, folder):
    stream = kept.keep(
        agent, "much", shell(f"read x; seq 1000000; touch {folder}/over", stdin=True)
    )
    await stream.write(b"go\n")
    await found(stream)
    # Held up, as any that is not read.
    await agent.ping(LIMIT)
    assert not (folder / "over").exists()
    await stream.abandon()
    one = await ended(agent, "much")
    assert (folder / "over").exists()
    whole = "".join(f"{number}\n" for number in range(1, 1000001)).encode()
    assert one.dropped + one.untaken == len(whole)
    assert MIB - 1000 < one.untaken <= MIB
    stream = kept.attach(agent, "much")
    assert await found(stream) == (one.dropped, one.dropped)
    assert await rest(stream) == whole[one.dropped :]


async def test_whoever_is_attached_and_does_not_read_holds_it_up(agent, folder):
    size = 8 * WINDOW
    script = f"read x; head -c {size} /dev/zero; touch {folder}/over"
    stream = kept.keep(agent, "big", shell(script, stdin=True))
    await stream.write(b"go\n")
    piece = await stream.read()
    assert piece is not None
    for _ in range(20):
        await agent.ping(LIMIT)
    assert not (folder / "over").exists()
    stream.taken(len(piece.data))
    assert len(await rest(stream)) == size - len(piece.data)
    with pytest.raises(ValidationError, match="more output is told as taken"):
        stream.taken(1)


async def test_a_terminal_is_not_hung_up(agents, agent):
    request = ProcessRequest(argv=("sh", "-c", "echo up; read a; echo $a; tty"), terminal=(24, 80))
    stream = kept.keep(agent, "shell", request)
    await until(stream, b"up\r\n")
    await agent.close()
    again = await agents.connect()
    stream = kept.attach(again, "shell")
    attachment = await stream.attached()
    assert attachment is not None
    assert (attachment.terminal, attachment.stdin) == (True, True)
    stream.resize(30, 100)
    await stream.write(b"word\n")
    said = await rest(stream)
    assert said.startswith(b"up\r\nword\r\nword\r\n/dev/pts/")


async def test_it_can_be_killed_with_all_that_it_started(agent, fifo):
    script = f"(exec sleep 1000 > {fifo.path}) & wait"
    stream = kept.keep(agent, "tree", shell(script))
    end = await fifo.opened()
    await kept.forget(agent, "tree")
    assert await kept.kept(agent) == []
    assert await asyncio.wait_for(end, LIMIT) == b""
    await rest(stream)
    assert (await stream.ended()).signal == "KILL"
    stream.end_taken()
    await stream.abandon()
    with pytest.raises(NotFoundError):
        await kept.forget(agent, "tree")


async def test_names(agent):
    sleeping = shell("exec sleep 1000")
    for name in ("", "a b", "-a", "a" * 64):
        with pytest.raises(GuestError, match="not a DNS label"):
            await kept.keep(agent, name, sleeping).attached()
    streams = [kept.keep(agent, f"p{number}", sleeping) for number in range(wire.MAX_KEPT)]
    for stream in streams:
        assert await found(stream) == (0, 0)
    with pytest.raises(ConflictError, match="a process p3 is there already"):
        await kept.keep(agent, "p3", sleeping).attached()
    with pytest.raises(GuestError, match="32 processes are kept already"):
        await kept.keep(agent, "more", sleeping).attached()
    streams[5].signal(15)
    await streams[5].ended()
    await streams[5].abandon()
    stream = kept.keep(agent, "more", sleeping)
    assert await found(stream) == (0, 0)
    names = [one.name for one in await kept.kept(agent)]
    assert names == [f"p{number}" for number in range(wire.MAX_KEPT) if number != 5] + ["more"]


async def test_a_program_that_is_missing_keeps_no_name(agent):
    for _ in range(2):
        stream = kept.keep(agent, "build", ProcessRequest(argv=("no-such-program",)))
        assert await stream.attached() is None
        assert await rest(stream) == b"no-such-program: not found\n"
        assert (await stream.ended()).exit_code == 127
        stream.end_taken()
        await stream.abandon()
    assert await kept.kept(agent) == []


async def test_its_time_limit_holds_when_nobody_is_there(agent):
    stream = kept.keep(agent, "short", shell("sleep 60", timeout=0.1))
    await found(stream)
    await stream.abandon()
    one = await ended(agent, "short")
    assert (one.exit_code, one.signal) == (137, "KILL")
    stream = kept.attach(agent, "short")
    assert await rest(stream) == b""
    assert (await stream.ended()).timed_out


async def test_many_come_and_go_at_once(agent):
    async def one(number: int) -> bytes:
        name, said = f"p{number}", b""
        stream: Stream = kept.keep(agent, name, shell("seq 20000"))
        while True:
            async with asyncio.timeout(LIMIT):
                piece = await stream.read()
            if piece is None:
                await stream.ended()
                stream.end_taken()
                await stream.abandon()
                return said
            if len(said) % 3:
                # Not taken: it has to come again.
                await stream.abandon()
                stream = kept.attach(agent, name)
                assert await found(stream) == (len(said), 0)
                piece = await stream.read()
                assert piece is not None
            said += piece.data
            stream.taken(len(piece.data))

    whole = "".join(f"{number}\n" for number in range(1, 20001)).encode()
    said = await asyncio.gather(*(one(number) for number in range(8)))
    assert all(output == whole for output in said)
    assert await kept.kept(agent) == []
    assert agent.fault is None
