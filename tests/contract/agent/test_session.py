"""The agent and its client, over a Unix socket: sessions, configuration, shutdown.

The same binary, and the same service within, that is PID 1 of a machine.
"""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import pytest

from hyperfleet import __version__
from hyperfleet.errors import GuestError, OperationTimeoutError, TooLargeError
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import ExecRequest, GuestNetwork
from hyperfleet.wire import guest as wire
from hyperfleet.wire import slip

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def test_the_session_tells_who_answers(agent):
    assert agent.agent_version == __version__
    assert agent.boot_id == (await asyncio.to_thread(BOOT_ID.read_text)).strip()
    await agent.ping(5)


async def test_a_protocol_that_the_agent_does_not_speak_is_named(raw):
    raw.send(wire.Hello(nonce=1, min=wire.PROTOCOL + 1, max=wire.PROTOCOL + 5))
    refused = await raw.receive()
    assert isinstance(refused, wire.Refused)
    assert (refused.id, refused.code) == (0, "version")
    assert refused.message == "the host speaks protocol 2 to 6, this agent 1"


async def test_a_range_of_protocols_is_negotiated(raw):
    welcome = await raw.hello(1, low=0, high=wire.PROTOCOL + 5)
    assert welcome.protocol == wire.PROTOCOL


async def test_nothing_is_done_before_hello(raw):
    raw.send(wire.Ping(id=3))
    refused = await raw.receive()
    assert (refused.id, refused.code) == (3, "invalid")
    await raw.hello(1)
    raw.send(wire.Ping(id=3))
    assert await raw.receive() == wire.Done(id=3)


async def test_a_repeated_hello_keeps_the_session_and_its_calls(raw):
    await raw.hello(7)
    raw.exec(1, "read line; echo $line", stdin=True)
    await raw.hello(7)
    raw.send(wire.Stdin(id=1, data=b"still here\n", eof=True))
    said = [await raw.receive() for _ in range(3)]
    assert wire.Stdout(id=1, data=b"still here\n") in said
    assert said[-1] == wire.Exited(id=1, code=0, signal=None, timed_out=False, truncated=False)


async def test_a_new_hello_drops_the_answers_of_the_session_before(raw, fifo):
    await raw.hello(1)
    raw.exec(1, f"read go < {fifo.path}; echo old; echo old >&2")
    raw.exec(2, "yes old")
    assert isinstance(await raw.receive(), wire.Stdout)
    raw.send(wire.Hello(nonce=2, min=1, max=1))
    while not isinstance(message := await raw.receive(cut=True), wire.Welcome):
        # What was under way already; the first session's, before the second's welcome.
        assert message.id == 2
    assert message.nonce == 2
    await fifo.write(b"go\n")
    raw.exec(1, "echo new")
    assert await raw.receive() == wire.Stdout(id=1, data=b"new\n")
    assert isinstance(await raw.receive(), wire.Exited)
    raw.send(wire.Ping(id=9))
    assert await raw.receive() == wire.Done(id=9)


async def test_a_host_that_leaves_in_the_middle_of_a_frame_is_followed_by_the_next(agents, agent):
    under_way = asyncio.create_task(agent.exec(ExecRequest(argv=("yes",), timeout=20)))
    await agent.ping(5)
    agent._writer.write(slip.frame(b"x" * 1000)[:700])  # noqa: SLF001
    await agent.close()
    with pytest.raises(GuestError, match="closed"):
        await under_way
    with pytest.raises(GuestError, match="closed"):
        await agent.ping(5)
    again = await agents.connect()
    result = await again.exec(ExecRequest(argv=("echo", "in order")))
    assert result.stdout == b"in order\n"


async def test_the_next_host_waits_until_the_one_before_has_gone(agents, agent):
    waiting = asyncio.create_task(agents.connect())
    await agent.ping(5)
    assert not waiting.done()
    await agent.close()
    await (await waiting).ping(5)


@pytest.mark.parametrize("seed", range(5))
async def test_garbage_is_answered_in_order_or_dropped(raw, seed):
    noise = random.Random(seed)  # noqa: S311
    raw.write(noise.randbytes(100_000))
    for _ in range(200):
        raw.write(slip.frame(noise.randbytes(noise.randrange(40))))
    await raw.hello(99, ignore_before=True)
    raw.send(wire.Ping(id=5))
    assert await raw.receive() == wire.Done(id=5)


async def test_a_message_of_a_later_protocol_is_refused_for_its_call_alone(raw):
    await raw.hello(1)
    raw.exec(4, "cat", stdin=True)
    raw.write(slip.frame(b"\x82\xa4type\xa8teleport\xa2id\x07"))
    refused = await raw.receive()
    assert (refused.id, refused.code) == (7, "unknown_message")
    assert "teleport" in refused.message
    # Under way: it ends by itself, not by this.
    raw.write(slip.frame(b"\x82\xa4type\xa8teleport\xa2id\x04"))
    assert (await raw.receive()).id == 0
    raw.send(wire.Stdin(id=4, data=b"", eof=True))
    assert (await raw.receive()) == wire.Exited(
        id=4, code=0, signal=None, timed_out=False, truncated=False
    )


async def test_an_id_under_way_is_not_given_twice(raw):
    await raw.hello(1)
    raw.exec(4, "cat", stdin=True)
    for message in (wire.Ping(id=4), wire.Ping(id=0)):
        raw.send(message)
        refused = await raw.receive()
        assert (refused.id, refused.code) == (0, "invalid")


async def test_a_host_that_asks_and_does_not_read_gets_no_more(raw):
    await raw.hello(1)
    # Far more answers than all buffers between hold. Reading them afterwards finds each, once.
    count = 40_000

    async def ask() -> None:
        for number in range(1, count + 1):
            raw.send(wire.Ping(id=number))
            if number % 1000 == 0:
                await raw.writer.drain()

    asking = asyncio.create_task(ask())
    for number in range(1, count + 1):
        assert await raw.receive() == wire.Done(id=number)
    await asking


async def test_an_exec_over_the_frames_bound_is_refused_here(agent):
    with pytest.raises(TooLargeError, match="262144"):
        await agent.exec(ExecRequest(argv=("true", "x" * 300_000)))
    await agent.ping(5)


async def test_configuration_is_checked(agent):
    before = socket.gethostname()
    network = GuestNetwork(address="10.0.2.15/24", gateway="10.0.2.2", dns=("10.0.2.3",))
    await agent.configure("web-1", network)
    await agent.configure("web-1", None)
    with pytest.raises(GuestError, match="not a DNS label"):
        await agent.configure("not a label", network)
    with pytest.raises(GuestError, match="prefix length"):
        await agent.configure("web-1", GuestNetwork(address="10.0.2.15"))
    assert socket.gethostname() == before


async def test_shutdown_answers_then_ends_everything(agents, agent, fifo):
    daemon = f"trap '' TERM; (sleep 1000; echo) > {fifo.path} & echo left"
    assert (await agent.exec(ExecRequest(argv=("sh", "-c", daemon)))).stdout == b"left\n"
    end = fifo.end()
    running = asyncio.create_task(agent.exec(ExecRequest(argv=("sleep", "1000"), timeout=2000)))
    await agent.ping(5)
    await agent.shutdown(0.2)
    await asyncio.wait_for(agent.closed(), 20)
    with pytest.raises(GuestError):
        await running
    assert await agents.exit_code() == 0
    await end


async def test_a_channel_without_an_agent_times_out():
    server_end, client_end = socket.socketpair()
    with server_end:
        reader, writer = await asyncio.open_unix_connection(sock=client_end)
        with pytest.raises(OperationTimeoutError, match=r"within 0\.3 s"):
            await Agent.connect(reader, writer, timeout=0.3)
        # Repeated while no welcome came: the first may be lost before the guest opens its port.
        frames = list(slip.Reader().feed(server_end.recv(65536)))
        assert len(frames) == 2
        assert frames[0] == frames[1]
