"""Processes that have a name, in the fake's guests and in QEMU's: the same tests for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hyperfleet.errors import ConflictError, GuestError, NotFoundError
from hyperfleet.guest import kept
from hyperfleet.guest.stream import Stream
from hyperfleet.guest.values import Attachment, KeptProcess, ProcessRequest
from hyperfleet.wire import guest as wire
from support.bench import BOOT_S, Bench, Guest

CAT = ProcessRequest(argv=("cat",))
SLEEP = ProcessRequest(argv=("sleep", "1000"), stdin=False)
MIB = 1024 * 1024


@pytest.fixture
async def guest(bench: Bench) -> AsyncIterator[Guest]:
    guest = await bench.start(bench.launch())
    await guest.configure("web")
    yield guest
    await guest.let_go()


async def again(guest: Guest) -> Guest:
    """The same, by a host that came after the one before was lost, whose words were heard."""
    await guest.agent.ping(BOOT_S)
    await guest.agent.close()
    return await Guest.of(guest.process)


async def found(stream: Stream) -> Attachment:
    async with asyncio.timeout(BOOT_S):
        attachment = await stream.attached()
    assert attachment is not None
    return attachment


async def rest(stream: Stream, *, take: bool = True) -> bytes:
    said = b""
    async with asyncio.timeout(BOOT_S):
        while (piece := await stream.read()) is not None:
            said += piece.data
            if take:
                stream.taken(len(piece.data))
    return said


async def ended(guest: Guest) -> KeptProcess:
    """The only one, when it has ended."""
    async with asyncio.timeout(BOOT_S):
        while True:
            [one] = await kept.kept(guest.agent)
            if one.exit_code is not None:
                return one


async def test_one_outlives_its_host_and_what_nobody_took_comes_again(guest: Guest) -> None:
    stream = kept.keep(guest.agent, "talk", CAT)
    assert await found(stream) == Attachment(offset=0, dropped=0, stdin=True, terminal=False)
    await stream.write(b"one ")
    guest = await again(guest)
    [one] = await kept.kept(guest.agent)
    assert (one.name, one.argv, one.attached, one.exit_code) == ("talk", ("cat",), False, None)
    stream = kept.attach(guest.agent, "talk")
    assert (await found(stream)).offset == 0
    await stream.write(b"two", eof=True)
    assert await rest(stream, take=False) == b"one two"
    assert (await stream.ended()).exit_code == 0
    guest = await again(guest)
    [one] = await kept.kept(guest.agent)
    assert (one.exit_code, one.untaken, one.dropped) == (0, 7, 0)
    stream = kept.attach(guest.agent, "talk")
    assert await rest(stream) == b"one two"
    assert (await stream.ended()).exit_code == 0
    stream.end_taken()
    await stream.abandon()
    assert await kept.kept(guest.agent) == []
    with pytest.raises(NotFoundError, match="no process talk is there"):
        await kept.attach(guest.agent, "talk").attached()
    await guest.let_go()


async def test_who_attaches_takes_the_place_of_who_is(guest: Guest) -> None:
    first = kept.keep(guest.agent, "talk", CAT)
    await found(first)
    second = kept.attach(guest.agent, "talk")
    await found(second)
    with pytest.raises(ConflictError, match="another client has attached to talk"):
        await first.read()
    await first.abandon()
    await second.write(b"mine", eof=True)
    assert await rest(second) == b"mine"


async def test_an_end_while_nobody_was_there(guest: Guest) -> None:
    script = "echo out; exit 3"
    request = ProcessRequest(argv=("sh", "-c", script), stdin=False)
    stream = kept.keep(guest.agent, "job", request)
    await found(stream)
    await stream.abandon()
    one = await ended(guest)
    assert (one.exit_code, one.signal, one.untaken) == (3, None, 4)
    stream = kept.attach(guest.agent, "job")
    assert await found(stream) == Attachment(offset=0, dropped=0, stdin=False, terminal=False)
    assert await rest(stream) == b"out\n"
    assert (await stream.ended()).exit_code == 3


async def test_what_is_too_much_is_lost_from_its_beginning(guest: Guest) -> None:
    await guest.sh("cat > /big", stdin=bytes(range(256)) * (MIB // 256) + b"end")
    request = ProcessRequest(argv=("cat", "/big"), stdin=False)
    stream = kept.keep(guest.agent, "big", request)
    await found(stream)
    await stream.abandon()
    one = await ended(guest)
    assert one.untaken + one.dropped == MIB + 3
    assert 3 <= one.dropped < 100
    stream = kept.attach(guest.agent, "big")
    attachment = await found(stream)
    assert (attachment.offset, attachment.dropped) == (one.dropped, one.dropped)
    assert (await rest(stream)).endswith(b"\xfe\xffend")


async def test_names_are_bounded_and_one_that_ended_makes_room(guest: Guest) -> None:
    for number in range(wire.MAX_KEPT):
        await found(kept.keep(guest.agent, f"p{number}", SLEEP))
    with pytest.raises(ConflictError, match="a process p3 is there already"):
        await kept.keep(guest.agent, "p3", SLEEP).attached()
    with pytest.raises(GuestError, match="32 processes are kept already"):
        await kept.keep(guest.agent, "more", SLEEP).attached()
    stream = kept.attach(guest.agent, "p5")
    await found(stream)
    stream.signal(15)
    assert await rest(stream) == b""
    assert (await stream.ended()).signal == "TERM"
    await stream.abandon()
    await found(kept.keep(guest.agent, "more", SLEEP))
    names = [one.name for one in await kept.kept(guest.agent)]
    assert names == [f"p{number}" for number in range(wire.MAX_KEPT) if number != 5] + ["more"]
    await kept.forget(guest.agent, "p7")
    assert "p7" not in [one.name for one in await kept.kept(guest.agent)]
    with pytest.raises(NotFoundError):
        await kept.forget(guest.agent, "p7")


async def test_a_program_that_is_missing_has_no_name(guest: Guest) -> None:
    stream = kept.keep(guest.agent, "job", ProcessRequest(argv=("no-such-program",)))
    assert await stream.attached() is None
    assert await rest(stream) == b"no-such-program: not found\n"
    assert (await stream.ended()).exit_code == 127
    assert await kept.kept(guest.agent) == []
