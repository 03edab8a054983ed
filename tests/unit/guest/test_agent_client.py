"""The agent's client against guests that lie, flood, stay silent or go."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hyperfleet.errors import GuestError, OperationTimeoutError
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.calls import BrokenProtocolError
from hyperfleet.guest.stream import WINDOW
from hyperfleet.guest.values import ExecRequest, ExecResult, News, Piece, ProcessRequest
from hyperfleet.wire import guest as wire
from hyperfleet.wire import slip

LIMIT = 10


def start(agent: Agent, **more: Any) -> asyncio.Task[ExecResult]:
    return asyncio.create_task(agent.exec(ExecRequest(argv=("x",), **more)))


def exited(call_id: int, **more: Any) -> wire.Exited:
    fields: dict[str, Any] = {"code": 0, "signal": None, "timed_out": False, "truncated": False}
    return wire.Exited(id=call_id, **(fields | more))


async def test_what_comes_before_the_welcome_is_the_host_befores(ends):
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    hello = await guest.receive()
    guest.writer.write(b"half a frame" + slip.frame(b"no message") + slip.frame(b"x")[:-3])
    guest.say(
        wire.Stdout(id=1, data=b"old"),
        wire.Refused(id=0, code="version", message="of an older host"),
        wire.Welcome(nonce=hello.nonce ^ 1, protocol=1, agent="old", boot_id="old"),
        wire.Welcome(nonce=hello.nonce, protocol=1, agent="new", boot_id="new"),
    )
    agent = await connecting
    assert (agent.agent_version, agent.boot_id) == ("new", "new")
    await agent.close()


async def test_noise_without_end_before_the_welcome(ends, monkeypatch):
    monkeypatch.setattr("hyperfleet.guest.handshake._MAX_BEFORE", 100_000)
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    await guest.receive()
    guest.writer.write(b"x" * 100_001)
    with pytest.raises(GuestError, match="and no welcome"):
        await connecting


async def test_one_welcome_for_each_hello(ends, monkeypatch):
    monkeypatch.setattr("hyperfleet.guest.handshake._FIRST", 0.01)
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    hellos = [await guest.receive() for _ in range(2)]
    assert hellos[0] == hellos[1]
    welcome = wire.Welcome(nonce=hellos[0].nonce, protocol=1, agent="test", boot_id="b")
    guest.say(welcome, welcome)
    agent = await connecting
    asking = asyncio.create_task(agent.ping(LIMIT))
    guest.say(wire.Done(id=(await guest.receive()).id))
    await asking
    assert agent.fault is None
    guest.say(*[welcome] * 100)
    await asyncio.wait_for(agent.closed(), LIMIT)
    assert agent.fault == "the guest broke the agent's protocol: a welcome that nobody asked for"


async def test_another_version_is_said_in_words(ends):
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    await guest.receive()
    guest.say(wire.Refused(id=0, code="version", message="the host speaks 1, this agent 2"))
    with pytest.raises(GuestError, match="another version of the protocol: the host speaks 1"):
        await connecting


async def test_a_version_that_was_not_offered_is_a_breach(ends):
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    hello = await guest.receive()
    guest.say(wire.Welcome(nonce=hello.nonce, protocol=hello.max + 1, agent="", boot_id=""))
    with pytest.raises(BrokenProtocolError, match="version 2, which it was not offered"):
        await connecting


async def test_a_breach_is_told_in_few_words_that_can_be_printed(pair):
    guest, agent = pair
    kind = "\x1b[2J\u202e" * 10_000
    guest.writer.write(slip.frame(msgspec.msgpack.encode({"type": kind})))
    await asyncio.wait_for(agent.closed(), LIMIT)
    assert agent.fault is not None
    assert agent.fault.isprintable()
    assert len(agent.fault) < 1100


async def test_a_channel_lost_before_the_welcome(ends):
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    await guest.receive()
    guest.writer.close()
    with pytest.raises(GuestError, match="lost"):
        await connecting


@pytest.mark.parametrize(
    "lie",
    [
        wire.Done(id=77),
        wire.Stdout(id=77, data=b"x"),
        wire.Welcome(nonce=5, protocol=1, agent="", boot_id=""),
        wire.Refused(id=0, code="invalid", message="what?"),
        wire.Done(id=1),
        wire.Relay(id=1, port=80),
        wire.Stdout(id=1, data=b"x" * 101),
        wire.Stdout(id=1, data=b""),
        wire.StdinTaken(id=1, bytes=1),
        exited(1, code=None),
        exited(1, signal=9),
        exited(1, code=256),
        exited(1, code=-1),
        exited(1, code=None, signal=65),
        exited(1, code=None, signal=0),
    ],
    ids=repr,
)
async def test_a_lie_ends_the_channel_and_every_call(pair, lie):
    guest, agent = pair
    running = start(agent, output_limit=100)
    assert (await guest.receive()).id == 1
    guest.say(lie)
    with pytest.raises(GuestError):
        await running
    await asyncio.wait_for(agent.closed(), LIMIT)
    with pytest.raises(GuestError):
        await agent.ping(1)


@pytest.mark.parametrize(
    "data",
    [
        slip.frame(b"x")[:-3] + b"\xc0",
        slip.frame(b"no message"),
        slip.frame(b"\x82\xa4type\xa4done\xa2id" + b"\x91" * 10000),
        b"\xc0" + b"x" * 600_000 + b"\xc0",
        b"\xc0" + b"x" * 600_000,
    ],
    ids=["checksum", "no message", "nested without end", "too large", "without end"],
)
async def test_noise_after_the_welcome_ends_the_channel(pair, data):
    guest, agent = pair
    running = start(agent)
    await guest.receive()
    guest.writer.write(data)
    with pytest.raises(GuestError, match="broke the agent's protocol"):
        await running


@pytest.mark.parametrize(
    "listener",
    [
        wire.ListenerMessage(port=0, address="::", direct=True),
        wire.ListenerMessage(port=80, address="not an address", direct=True),
        wire.ListenerMessage(port=80, address="fe80::1%eth0", direct=True),
    ],
    ids=repr,
)
async def test_listeners_are_checked(pair, listener):
    guest, agent = pair
    asking = asyncio.create_task(agent.listeners())
    call = await guest.receive()
    guest.say(wire.Listeners(id=call.id, listeners=(listener,), truncated=False))
    with pytest.raises(GuestError, match="broke"):
        await asking


async def test_the_guests_words_are_made_fit_to_print(pair):
    guest, agent = pair
    running = start(agent)
    call = await guest.receive()
    guest.say(wire.Refused(id=call.id, code="failed", message="a\x1b[2Jb\n" + "x" * 5000))
    with pytest.raises(GuestError) as raised:
        await running
    assert raised.value.message.startswith("a\N{REPLACEMENT CHARACTER}[2Jb")
    assert raised.value.message.isprintable()
    assert len(raised.value.message) == 1000


async def test_silence_is_a_timeout_and_a_late_answer_is_known(pair):
    guest, agent = pair
    with pytest.raises(OperationTimeoutError, match=r"within 0\.05 s"):
        await agent.ping(0.05)
    late = await guest.receive()
    asking = asyncio.create_task(agent.ping(LIMIT))
    guest.say(wire.Done(id=late.id), wire.Done(id=(await guest.receive()).id))
    await asking


async def test_a_guest_that_answers_nothing_is_asked_no_more(pair, monkeypatch):
    _, agent = pair
    monkeypatch.setattr("hyperfleet.guest.agent._MAX_CALLS", 3)
    for _ in range(3):
        with pytest.raises(OperationTimeoutError):
            await agent.ping(0.01)
    with pytest.raises(GuestError, match="3 calls unanswered"):
        await agent.ping(0.01)


async def test_a_guest_that_reads_nothing_is_told_no_more(pair, monkeypatch):
    _, agent = pair
    monkeypatch.setattr("hyperfleet.guest.agent._MAX_UNSENT", 100_000)
    big = ("x" * 100_000,)
    waiting = [asyncio.create_task(agent.exec(ExecRequest(argv=big))) for _ in range(20)]
    done, _ = await asyncio.wait(waiting, timeout=LIMIT, return_when=asyncio.FIRST_EXCEPTION)
    assert "does not read" in str(done.pop().exception())
    await agent.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_input_waits_for_its_credit(pair):
    guest, agent = pair
    data = b"x" * (wire.STDIN_WINDOW + 10)
    running = start(agent, stdin=data)
    call_id = (await guest.receive()).id
    pieces = [await guest.receive() for _ in range(4)]
    assert sum(len(piece.data) for piece in pieces) == wire.STDIN_WINDOW
    asking = asyncio.create_task(agent.ping(LIMIT))
    ping = await guest.receive()
    assert isinstance(ping, wire.Ping)
    guest.say(wire.Done(id=ping.id), wire.StdinTaken(id=call_id, bytes=5))
    await asking
    rest = [await guest.receive()]
    assert (len(rest[0].data), rest[0].eof) == (5, False)
    guest.say(wire.StdinTaken(id=call_id, bytes=5))
    assert (await guest.receive()).eof
    guest.say(exited(call_id))
    assert (await running).exit_code == 0


async def test_an_agent_that_never_kills_is_not_waited_for(pair, monkeypatch):
    guest, agent = pair
    monkeypatch.setattr("hyperfleet.guest.agent._KILL_TAKES", 0.01)
    running = start(agent, timeout=0.01)
    call = await guest.receive()
    assert call.exec.timeout_ms == 10
    with pytest.raises(OperationTimeoutError):
        await running
    assert await guest.receive() == wire.Kill(id=call.id, signal=9)


async def test_realtime_signals_have_names(pair):
    guest, agent = pair
    running = start(agent)
    call = await guest.receive()
    guest.say(exited(call.id, code=None, signal=40))
    result = await running
    assert (result.exit_code, result.signal) == (168, "RTMIN+6")


async def test_output_is_granted_in_portions_as_it_is_read(pair):
    guest, agent = pair
    stream = agent.run(ProcessRequest(argv=("x",)))
    call = await guest.receive()
    assert (call.exec.output_window, call.exec.timeout_ms) == (WINDOW, 0)
    portion = WINDOW // 4
    guest.say(*(wire.Stdout(id=call.id, data=b"x" * portion) for _ in range(4)))
    for _ in range(4):
        assert len((await stream.read()).data) == portion
        assert await guest.receive() == wire.OutputTaken(id=call.id, bytes=portion)
    guest.say(wire.Stderr(id=call.id, data=b"small"), exited(call.id, code=3))
    assert await stream.read() == Piece(data=b"small", is_error=True)
    assert await stream.read() is None
    assert (await stream.ended()).exit_code == 3


async def test_a_guest_that_tells_more_than_was_granted_loses_its_channel(pair):
    guest, agent = pair
    stream = agent.run(ProcessRequest(argv=("x",)))
    call = await guest.receive()
    piece = wire.Stdout(id=call.id, data=b"x" * (WINDOW // 4))
    guest.say(*([piece] * 5))
    await asyncio.wait_for(agent.closed(), LIMIT)
    with pytest.raises(GuestError, match="more output than was asked for"):
        await stream.ended()


async def test_output_that_comes_byte_by_byte_is_held_in_few_pieces(pair):
    guest, agent = pair
    stream = agent.run(ProcessRequest(argv=("x",)))
    call = await guest.receive()
    crumb, other = wire.Stdout(id=call.id, data=b"x"), wire.Stderr(id=call.id, data=b"y")
    guest.say(*([crumb] * 10_000), other, crumb, exited(call.id))
    await stream.ended()
    pieces = []
    while (piece := await stream.read()) is not None:
        pieces.append(piece)
    assert b"".join(piece.data for piece in pieces) == b"x" * 10_000 + b"yx"
    assert [piece.is_error for piece in pieces[-2:]] == [True, False]
    assert len(pieces) < 10


async def test_a_process_that_nobody_wants_is_hung_up_then_killed_then_left(pair, monkeypatch):
    guest, agent = pair
    monkeypatch.setattr("hyperfleet.guest.stream._HANGUP_S", 0.01)
    monkeypatch.setattr("hyperfleet.guest.stream._KILL_TAKES_S", 0.01)
    stream = agent.run(ProcessRequest(argv=("x",), terminal=(24, 80)))
    call = await guest.receive()
    assert call.exec.terminal == wire.Size(rows=24, columns=80)
    await asyncio.wait_for(stream.abandon(), LIMIT)
    assert await guest.receive() == wire.Kill(id=call.id, signal=1)
    assert await guest.receive() == wire.Kill(id=call.id, signal=9)
    # An agent that tells it late is still understood.
    guest.say(exited(call.id, code=None, signal=9))
    assert (await asyncio.wait_for(stream.ended(), LIMIT)).signal == "KILL"
    await stream.abandon()


async def test_news_come_when_the_guest_has_some_and_an_old_agent_has_none(pair):
    guest, agent = pair
    watching = asyncio.create_task(agent.watch(3))
    asked = await guest.receive()
    assert (type(asked), asked.seen) == (wire.Watch, 3)
    guest.say(wire.News(id=asked.id, number=5))
    assert await watching == News(number=5)
    watching = asyncio.create_task(agent.watch(5))
    asked = await guest.receive()
    guest.say(wire.Refused(id=asked.id, code="unknown_message", message="what?"))
    with pytest.raises(GuestError, match="what"):
        await watching
    assert not agent.lost
    watching = asyncio.create_task(agent.watch(5))
    await guest.receive()
    guest.writer.close()
    with pytest.raises(GuestError, match="lost"):
        await watching
    assert agent.lost


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"state": "running", "code": None, "signal": None}, (None, None)),
        ({"state": "running", "code": 1, "signal": None}, (1, None)),
        ({"state": "waiting", "code": None, "signal": 9}, (137, "KILL")),
        ({"state": "exited", "code": 0, "signal": None}, (0, None)),
    ],
)
async def test_news_tell_of_the_machines_command(pair, told, known):
    guest, agent = pair
    watching = asyncio.create_task(agent.watch(0))
    command = wire.CommandMessage(**told, restarts=2)
    guest.say(wire.News(id=(await guest.receive()).id, number=1, command=command))
    state = (await watching).command
    assert (state.state, state.restarts) == (told["state"], 2)
    assert (state.exit_code, state.signal) == known


@pytest.mark.parametrize(
    "told",
    [
        {"state": "exited", "code": None, "signal": None},
        {"state": "exited", "code": 1, "signal": 1},
        {"state": "running", "code": 256, "signal": None},
        {"state": "waiting", "code": None, "signal": 65},
    ],
)
async def test_a_command_that_can_not_be_so_is_a_breach(pair, told):
    guest, agent = pair
    watching = asyncio.create_task(agent.watch(0))
    command = wire.CommandMessage(**told, restarts=0)
    guest.say(wire.News(id=(await guest.receive()).id, number=1, command=command))
    with pytest.raises(GuestError, match="broke the agent's protocol"):
        await watching
