"""The agent and its client, over a Unix socket: processes."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from hyperfleet.errors import GuestError, OperationTimeoutError
from hyperfleet.guest.values import ExecRequest
from hyperfleet.wire import guest as wire


def shell(script: str, **more: Any) -> ExecRequest:
    return ExecRequest(argv=("sh", "-c", script), **more)


async def test_streams_are_apart_and_the_code_is_told(agent):
    result = await agent.exec(shell("echo out; echo err >&2; exit 3"))
    assert (result.exit_code, result.signal) == (3, None)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert not result.truncated


@pytest.mark.parametrize(("number", "name"), [(9, "KILL"), (15, "TERM"), (6, "ABRT")])
async def test_a_signal_is_told_as_shells_do(agent, number, name):
    result = await agent.exec(shell(f"kill -{number} $$"))
    assert (result.exit_code, result.signal) == (128 + number, name)


async def test_a_program_that_is_missing_or_cannot_run(agent, folder):
    missing = await agent.exec(ExecRequest(argv=("no-such-program",)))
    assert (missing.exit_code, missing.stderr) == (127, b"no-such-program: not found\n")
    unfit = await agent.exec(ExecRequest(argv=("/etc/passwd",)))
    assert (unfit.exit_code, unfit.stderr) == (126, b"/etc/passwd: permission denied\n")
    script = folder / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    lost = await agent.exec(ExecRequest(argv=(str(script),)))
    assert lost.exit_code == 127
    assert b"interpreter" in lost.stderr


async def test_the_environment_is_the_default_and_the_calls_own(agent):
    result = await agent.exec(ExecRequest(argv=("env",), env={"LANG": "C", "MINE": "a=b c"}))
    assert dict(line.split("=", 1) for line in result.stdout.decode().splitlines()) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        "LANG": "C",
        "MINE": "a=b c",
    }
    bad = await agent.exec(ExecRequest(argv=("true",), env={"PATH": "/nowhere"}))
    assert bad.exit_code == 127
    with pytest.raises(GuestError, match="no process can have"):
        await agent.exec(ExecRequest(argv=("true",), env={"A=B": "c"}))


async def test_the_working_directory(agent):
    assert (await agent.exec(ExecRequest(argv=("pwd",)))).stdout == b"/\n"
    assert (await agent.exec(ExecRequest(argv=("pwd",), cwd="/etc"))).stdout == b"/etc\n"
    for cwd in ("/no/such/place", "/etc/passwd"):
        with pytest.raises(GuestError, match=f"cannot work in {cwd}"):
            await agent.exec(ExecRequest(argv=("pwd",), cwd=cwd))


async def test_a_process_begins_with_a_clean_slate(agent):
    result = await agent.exec(
        shell("cat /proc/self/status; echo; cat /proc/$$/stat; ls /proc/$$/fd")
    )
    text = result.stdout.decode()
    status = dict(line.split(":\t", 1) for line in text.split("\n\n")[0].splitlines())
    for mask in ("SigBlk", "SigIgn"):
        assert int(status[mask], 16) == 0, mask
    stat, *descriptors = text.split("\n\n")[1].splitlines()
    _, parent, group, session, *_ = stat.rsplit(")", 1)[1].split()
    assert group == session != parent
    assert descriptors == ["0", "1", "2"]


async def test_standard_input_is_what_was_given(agent):
    assert (await agent.exec(ExecRequest(argv=("cat",)))).stdout == b""
    for size in (1, wire.MAX_CHUNK, wire.STDIN_WINDOW, 3_000_000):
        data = os.urandom(size)
        assert (await agent.exec(ExecRequest(argv=("cat",), stdin=data))).stdout == data


async def test_a_process_may_leave_its_input_unread(agent):
    closed = shell("exec 0<&-; echo closed; sleep 0.1", stdin=b"x" * 3_000_000)
    assert (await agent.exec(closed)).stdout == b"closed\n"
    ended = shell("head -c 1", stdin=b"x" * 3_000_000)
    assert (await agent.exec(ended)).stdout == b"x"


async def test_output_is_kept_up_to_its_limit(agent):
    script = "head -c 100000 /dev/zero; head -c 10 /dev/zero >&2"
    exact = await agent.exec(shell(script, output_limit=100_000))
    assert (len(exact.stdout), len(exact.stderr), exact.truncated) == (100_000, 10, False)
    cut = await agent.exec(shell(script, output_limit=99_999))
    assert (len(cut.stdout), len(cut.stderr), cut.truncated) == (99_999, 10, True)
    none = await agent.exec(shell(script, output_limit=0))
    assert (none.stdout, none.stderr, none.truncated) == (b"", b"", True)


async def test_all_that_was_written_before_the_end_arrives(agent):
    for _ in range(20):
        result = await agent.exec(shell("head -c 60000 /dev/zero; echo end >&2"))
        assert (len(result.stdout), result.stderr) == (60000, b"end\n")


async def test_the_time_limit_kills_the_whole_group(agent, fifo):
    script = f"(sleep 1000; echo) > {fifo.path} & wait"
    running = asyncio.create_task(agent.exec(shell(script, timeout=0.5)))
    end = fifo.end()
    with pytest.raises(OperationTimeoutError, match=r"time limit of 0\.5 s"):
        await running
    await end


async def test_cancelling_kills_the_whole_group(agent, fifo):
    script = f"(sleep 1000; echo) > {fifo.path} & echo $! ; wait"
    running = asyncio.create_task(agent.exec(shell(script, timeout=1000)))
    end = await fifo.opened()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await end
    # Its ending, which nobody waits for, is known and not taken for a breach.
    await agent.ping(5)


async def test_a_call_ends_with_its_process_not_with_the_daemon_it_left(agent, fifo):
    result = await agent.exec(shell(f"exec sleep 1000 > {fifo.path} & echo $!"))
    assert result.exit_code == 0
    end = await fifo.opened()
    assert not end.done()
    # It lives until it is killed.
    assert (await agent.exec(shell(f"kill {result.stdout.decode()}"))).exit_code == 0
    assert await end == b""


async def test_a_daemon_that_floods_does_not_keep_its_call_open(agent):
    result = await agent.exec(shell("yes & echo $! >&2", output_limit=1000))
    pid = result.stderr.decode().strip()
    assert (await agent.exec(shell(f"kill {pid}"))).exit_code == 0


async def test_a_daemon_may_go_on_writing_to_the_output_it_was_given(agent, fifo):
    # A server's request log: closed pipes would kill it (SIGPIPE) at the first request.
    script = f"(read go < {fifo.path}; echo log; echo log >&2; echo alive > {fifo.path}) &"
    await agent.exec(shell(script))
    await fifo.write(b"go\n")
    assert await fifo.read() == b"alive\n"


async def test_a_hundred_at_once_get_their_own(agent):
    async def one(number: int) -> None:
        script = f"cat; echo out-{number}; echo err-{number} >&2; exit {number}"
        result = await agent.exec(shell(script, stdin=str(number).encode()))
        assert result.stdout == f"{number}out-{number}\n".encode()
        assert result.stderr == f"err-{number}\n".encode()
        assert result.exit_code == number

    await asyncio.gather(*(one(number) for number in range(100)))


async def test_floods_and_sleepers_hold_up_nobody(agent):
    floods = [
        asyncio.create_task(agent.exec(ExecRequest(argv=("yes",), timeout=100, output_limit=limit)))
        for limit in (0, 1000, 1 << 30)
    ]
    sleeper = ExecRequest(argv=("sleep", "1000"), timeout=1000, stdin=b"x" * 3_000_000)
    floods.append(asyncio.create_task(agent.exec(sleeper)))
    for _ in range(5):
        result = await asyncio.wait_for(agent.exec(ExecRequest(argv=("echo", "ok"))), 5)
        assert result.stdout == b"ok\n"
        await agent.ping(5)
    for flood in floods:
        assert not flood.done()
        flood.cancel()
    await asyncio.gather(*floods, return_exceptions=True)


async def test_there_is_a_bound_on_processes(agent):
    sleeper = ExecRequest(argv=("sleep", "1000"), timeout=1000)
    running = [asyncio.create_task(agent.exec(sleeper)) for _ in range(256)]
    await agent.ping(20)
    with pytest.raises(GuestError, match="256 processes"):
        await agent.exec(ExecRequest(argv=("true",)))
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_input_beyond_the_window_kills_only_the_call_that_got_it(raw):
    await raw.hello(1)
    raw.exec(1, "sleep 1000", stdin=True)
    # The pipe takes one, the window four.
    for _ in range(8):
        raw.send(wire.Stdin(id=1, data=b"x" * wire.MAX_CHUNK, eof=False))
    said = [await raw.receive()]
    while not isinstance(said[-1], wire.Exited):
        said.append(await raw.receive())
    refused = [message for message in said if isinstance(message, wire.Refused)]
    assert {(message.id, message.code) for message in refused} == {(0, "invalid")}
    assert said[-1].signal == 9
    raw.send(wire.Ping(id=2))
    assert await raw.receive() == wire.Done(id=2)


async def test_signals_that_are_none_are_refused(raw):
    await raw.hello(1)
    raw.exec(1, "cat", stdin=True)
    for number in (0, -1, 65, 1000, -(2**31)):
        raw.send(wire.Kill(id=1, signal=number))
        assert (await raw.receive()).code == "invalid"
    raw.send(wire.Kill(id=1, signal=15))
    assert (await raw.receive()).signal == 15
