"""The channel to a real guest's agent: hosts that leave in the middle, and much at once."""

from __future__ import annotations

import asyncio
import os

import pytest

from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import ExecRequest
from hyperfleet.wire import guest as wire
from hyperfleet.wire import slip
from support.bench import BOOT_S, Guest

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

FLOOD_BYTES = 8 * 1024 * 1024


async def test_a_host_that_leaves_in_the_middle_of_output_finds_order(minimal: Guest) -> None:
    await minimal.sh("mkfifo /flooded")
    boot_id = minimal.agent.boot_id
    await minimal.agent.close()
    for _ in range(3):
        reader, writer = await minimal.process.channel()
        _send(writer, wire.Hello(nonce=int.from_bytes(os.urandom(8)), min=1, max=1))
        script = f"head -c {FLOOD_BYTES} /dev/zero; echo flooded > /flooded"
        call = wire.ExecCall(
            argv=("sh", "-c", script),
            env=(),
            cwd=None,
            timeout_ms=60_000,
            stdin=False,
            output_limit=FLOOD_BYTES,
        )
        _send(writer, wire.Exec(id=1, exec=call))
        # Well into the output: the welcome is a hundred bytes. Then half a frame of this host's.
        async with asyncio.timeout(BOOT_S):
            await reader.readexactly(300_000)
        writer.write(slip.frame(wire.encode(wire.Ping(id=2)))[:-3])
        await writer.drain()
        writer.transport.abort()

        agent = await Agent.connect(*await minimal.process.channel(), timeout=BOOT_S)
        assert agent.boot_id == boot_id
        # Its output is dropped, so it comes to its end; nobody's answer is mistaken for another's.
        results = await asyncio.gather(
            *(
                agent.exec(ExecRequest(argv=argv))
                for argv in (("cat", "/flooded"), ("echo", "mine"), ("cat", "/etc/hostname"))
            )
        )
        assert [result.stdout for result in results] == [b"flooded\n", b"mine\n", b"web\n"]
        await agent.close()
    minimal.agent = await Agent.connect(*await minimal.process.channel(), timeout=BOOT_S)


async def test_bytes_pass_unchanged_both_ways_at_once(minimal: Guest) -> None:
    # Every value, those that the framing escapes among them, in pieces of every size.
    data = [os.urandom(1_000_000), b"\xc0" * 500_000, b"\xdb\xdc\xdd" * 100_000]
    results = await asyncio.gather(
        *(minimal.agent.exec(ExecRequest(argv=("cat",), stdin=each)) for each in data),
        *(minimal.agent.ping(30) for _ in range(50)),
    )
    for sent, result in zip(data, results, strict=False):
        assert result is not None
        assert result.stdout == sent


async def test_a_call_is_answered_while_another_floods(minimal: Guest) -> None:
    flood = minimal.agent.exec(
        ExecRequest(argv=("cat", "/dev/zero"), timeout=600, output_limit=1 << 40)
    )
    flooding = asyncio.create_task(flood)
    for _ in range(20):
        await minimal.agent.ping(10)
        assert (await minimal.run("echo", "through")).stdout == b"through\n"
    assert not flooding.done()
    flooding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flooding
    await minimal.sh("while pidof cat; do :; done", timeout=10)


def _send(writer: asyncio.StreamWriter, message: wire.ToGuest) -> None:
    writer.write(slip.frame(wire.encode(message)))
