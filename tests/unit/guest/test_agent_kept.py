"""The agent's client and processes that have a name, against guests that lie, or are old."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperfleet.api.exec_stream import MOST_INPUT
from hyperfleet.errors import GuestError, NotFoundError
from hyperfleet.guest import kept
from hyperfleet.guest.stream import WINDOW
from hyperfleet.guest.values import Attachment, Piece, ProcessRequest
from hyperfleet.wire import guest as wire

LIMIT = 10
REQUEST = ProcessRequest(argv=("x",))
EXITED: dict[str, Any] = {"code": 0, "signal": None, "timed_out": False, "truncated": False}


def attached(call_id: int, **more: Any) -> wire.Attached:
    fields = {"offset": 0, "dropped": 0, "input": 0, "stdin": True, "terminal": False, **more}
    return wire.Attached(id=call_id, **fields)


def listed(**more: Any) -> wire.KeptProcessMessage:
    fields: dict[str, Any] = {
        "name": "build",
        "argv": ("make",),
        "since_ns": 0,
        "attached": False,
        "terminal": False,
        "code": None,
        "signal": None,
        "untaken": 0,
        "dropped": 0,
    }
    return wire.KeptProcessMessage(**fields | more)


async def test_only_what_was_taken_is_granted_at_once_and_to_the_byte(pair):
    guest, agent = pair
    stream = kept.keep(agent, "build", REQUEST)
    call = await guest.receive()
    assert (call.name, call.output_window, call.exec.output_window) == ("build", WINDOW, None)
    chunk = b"x" * wire.MAX_CHUNK
    chunks = [wire.Stdout(id=call.id, data=chunk)] * (WINDOW // len(chunk))
    guest.say(attached(call.id, offset=9, dropped=2), *chunks)
    found = Attachment(offset=9, dropped=2, stdin=True, terminal=False)
    assert await stream.attached() == found
    for _ in chunks:
        assert await stream.read() == Piece(data=chunk, is_error=False)
    stream.taken(1)
    assert await guest.receive() == wire.OutputTaken(id=call.id, bytes=1)
    guest.say(wire.Stdout(id=call.id, data=b"y"), wire.Exited(id=call.id, **EXITED))
    assert await stream.read() == Piece(data=b"y", is_error=False)
    assert await stream.read() is None
    stream.taken(WINDOW)
    assert await guest.receive() == wire.OutputTaken(id=call.id, bytes=WINDOW)
    await stream.abandon()
    assert await guest.receive() == wire.Detach(id=call.id)
    stream.end_taken()
    await stream.abandon()
    assert await guest.receive() == wire.EndTaken(id=call.id)


async def test_an_agent_that_never_says_that_nobody_is_attached_is_not_waited_for(
    pair, monkeypatch
):
    guest, agent = pair
    monkeypatch.setattr("hyperfleet.guest.kept._DETACH_TAKES_S", 0.01)
    stream = kept.attach(agent, "build")
    call = await guest.receive()
    guest.say(attached(call.id))
    await stream.attached()
    await asyncio.wait_for(stream.abandon(), LIMIT)
    assert await guest.receive() == wire.Detach(id=call.id)
    # Told late, it is still understood.
    guest.say(wire.Stdout(id=call.id, data=b"x"), wire.Done(id=call.id))
    asking = asyncio.create_task(agent.ping(LIMIT))
    guest.say(wire.Done(id=(await guest.receive()).id))
    await asking


async def test_input_waits_until_it_is_known_how_much_is_under_way(pair):
    guest, agent = pair
    stream = kept.attach(agent, "build")
    call = await guest.receive()
    writing = asyncio.create_task(stream.write(b"x" * 10))
    asking = asyncio.create_task(agent.ping(LIMIT))
    guest.say(wire.Done(id=(await guest.receive()).id))
    await asking
    guest.say(attached(call.id, input=wire.STDIN_WINDOW - 4))
    assert (await guest.receive()).data == b"x" * 4
    guest.say(wire.StdinTaken(id=call.id, bytes=wire.STDIN_WINDOW - 4))
    assert (await guest.receive()).data == b"x" * 6
    await writing


@pytest.mark.parametrize("before", [True, False], ids=["released first", "attached first"])
async def test_input_that_is_released_goes_as_far_as_the_agent_has_room(pair, before):
    guest, agent = pair
    stream = kept.attach(agent, "build")
    call = await guest.receive()
    writing = asyncio.create_task(stream.write(b"x" * wire.STDIN_WINDOW, eof=True))
    released = before and stream.release()
    room = wire.STDIN_WINDOW + 1000
    guest.say(attached(call.id, input=wire.STDIN_WINDOW, stdin_limit=room))
    await stream.attached()
    assert released or stream.release()
    assert (await guest.receive()).data == b"x" * 1000
    assert not writing.done()
    guest.say(wire.StdinTaken(id=call.id, bytes=room))
    count = 1000
    while not (piece := await guest.receive()).eof:
        count += len(piece.data)
    assert count + len(piece.data) == wire.STDIN_WINDOW
    await writing


async def test_an_older_agent_has_no_more_room_than_ever(pair):
    guest, agent = pair
    stream = kept.attach(agent, "build")
    call = await guest.receive()
    writing = asyncio.create_task(stream.write(b"x" * 2 * wire.STDIN_WINDOW))
    stream.release()
    guest.say(attached(call.id))
    for _ in range(wire.STDIN_WINDOW // wire.MAX_CHUNK):
        assert len((await guest.receive()).data) == wire.MAX_CHUNK
    asking = asyncio.create_task(agent.ping(LIMIT))
    guest.say(wire.Done(id=(await guest.receive()).id))
    await asking
    assert not writing.done()
    writing.cancel()


def test_all_that_a_client_may_have_sent_has_room_beside_what_is_under_way():
    assert wire.KEPT_STDIN - wire.STDIN_WINDOW >= MOST_INPUT


@pytest.mark.parametrize(
    "lie",
    [
        [wire.Stdout(id=1, data=b"x")],
        [wire.Exited(id=1, **EXITED)],
        [wire.Done(id=1)],
        [attached(1), attached(1)],
        [attached(1, dropped=1)],
        [attached(1, input=wire.STDIN_WINDOW + 1)],
        [attached(1, stdin_limit=9, input=10)],
        [attached(1, stdin_limit=wire.KEPT_STDIN + 1)],
        [attached(1), wire.KeptProcesses(id=1, processes=())],
    ],
    ids=str,
)
async def test_a_lie_ends_the_channel(pair, lie):
    guest, agent = pair
    stream = kept.attach(agent, "build")
    assert (await guest.receive()).id == 1
    guest.say(*lie)
    await asyncio.wait_for(agent.closed(), LIMIT)
    assert agent.fault is not None
    with pytest.raises(GuestError, match="broke the agent's protocol"):
        await stream.ended()
    await stream.abandon()


@pytest.mark.parametrize(
    "process",
    [
        listed(name="no name"),
        listed(name=""),
        listed(code=1, signal=9),
        listed(code=256),
        listed(signal=65),
        listed(name="x" * 64),
    ],
    ids=str,
)
async def test_a_list_is_checked(pair, process):
    guest, agent = pair
    asking = asyncio.create_task(kept.kept(agent))
    call = await guest.receive()
    guest.say(wire.KeptProcesses(id=call.id, processes=(listed(), process)))
    with pytest.raises(GuestError, match="broke the agent's protocol"):
        await asking


async def test_a_list_of_more_than_can_be(pair):
    guest, agent = pair
    asking = asyncio.create_task(kept.kept(agent))
    call = await guest.receive()
    guest.say(wire.KeptProcesses(id=call.id, processes=(listed(),) * (wire.MAX_KEPT + 1)))
    with pytest.raises(GuestError, match="broke the agent's protocol"):
        await asking


async def test_an_older_agent_is_named_as_such(pair):
    guest, agent = pair

    async def refused(code: str) -> None:
        call = await guest.receive()
        guest.say(wire.Refused(id=call.id, code=code, message="unknown variant"))

    for ask in (
        lambda: kept.kept(agent),
        lambda: kept.forget(agent, "build"),
        lambda: kept.keep(agent, "build", REQUEST).attached(),
        lambda: kept.attach(agent, "build").attached(),
    ):
        asking = asyncio.create_task(ask())
        await refused("unknown_message")
        with pytest.raises(GuestError, match="too old to keep processes"):
            await asking
    forgetting = asyncio.create_task(kept.forget(agent, "build"))
    await refused("no_process")
    with pytest.raises(NotFoundError):
        await forgetting
