"""The machine's own command: started once, started again by its rule, its end told as news."""

from __future__ import annotations

import asyncio

import pytest

from hyperfleet.fleet import console
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import ExecRequest
from hyperfleet.machine import CommandPhase, CommandState, Restart

from .conftest import LIMIT, Agents, Fifo


async def supervise(agent: Agent, script: str, rule: Restart = Restart.NEVER) -> None:
    await agent.supervise(("sh", "-c", script), {"WORD": "a word"}, "/usr", rule)


async def until(agent: Agent, phase: CommandPhase, restarts: int = 0) -> CommandState:
    """The first state that is so."""
    seen = 0
    async with asyncio.timeout(LIMIT):
        while True:
            news = await agent.watch(seen)
            seen = news.number
            state = news.command
            if state is not None and state.state is phase and state.restarts >= restarts:
                return state


async def written(agents: Agents, words: bytes) -> None:
    """Returns when that has been written to the console."""
    so_far = b""
    async with asyncio.timeout(LIMIT):
        async for piece in console.follow(agents.console, None, gone=lambda: False):
            so_far += piece
            if words in so_far:
                return


async def test_it_runs_with_its_variables_in_its_folder_and_writes_to_the_console(agents, agent):
    await supervise(agent, 'echo "$WORD" in "$PWD"; echo an error >&2; exit 3')
    assert await until(agent, CommandPhase.EXITED) == CommandState(
        state=CommandPhase.EXITED, exit_code=3
    )
    await written(agents, b"a word in /usr\n")
    await written(agents, b"an error\n")


async def test_a_signal_is_told_as_one(agent):
    await supervise(agent, "kill -KILL $$")
    state = await until(agent, CommandPhase.EXITED)
    assert (state.exit_code, state.signal) == (137, "KILL")


async def test_it_is_started_again_after_a_failure_and_not_after_success(agent, folder):
    # It fails the first time.
    await supervise(agent, f"rmdir {folder}/there || {{ mkdir {folder}/there; exit 1; }}",
                    Restart.ON_FAILURE)  # fmt: skip
    waits = await until(agent, CommandPhase.WAITING)
    assert (waits.exit_code, waits.restarts) == (1, 0)
    ended = await until(agent, CommandPhase.EXITED)
    assert (ended.exit_code, ended.restarts) == (0, 1)


@pytest.mark.parametrize(
    ("argv", "cwd", "code"),
    [(("nowhere",), None, 127), (("/etc/passwd",), None, 126), (("true",), "/nowhere", 126)],
)
async def test_what_can_not_be_started_ends_as_a_shell_has_it(agents, agent, argv, cwd, code):
    await agent.supervise(argv, {}, cwd, Restart.NEVER)
    assert (await until(agent, CommandPhase.EXITED)).exit_code == code
    await written(agents, b"cannot run the machine's command: ")


async def test_a_second_one_changes_nothing(agent, fifo: Fifo):
    await supervise(agent, f"exec cat {fifo.path}")
    await supervise(agent, "exit 5")
    again = (await agent.exec(ExecRequest(argv=("true",)))).exit_code
    assert again == 0
    assert (await until(agent, CommandPhase.RUNNING)).restarts == 0
    await fifo.write(b"")
    assert (await until(agent, CommandPhase.EXITED)).exit_code == 0


async def test_its_end_is_told_to_a_host_that_was_not_there(agents: Agents, fifo: Fifo):
    first = await agents.connect()
    await supervise(first, f"cat {fifo.path}; exit 4")
    await until(first, CommandPhase.RUNNING)
    await first.close()
    await fifo.write(b"")
    assert (await until(await agents.connect(), CommandPhase.EXITED)).exit_code == 4


async def test_it_ends_with_the_machine_and_is_not_started_again(agents, agent, fifo: Fifo):
    await supervise(agent, f"exec sleep 1000 > {fifo.path}", Restart.ALWAYS)
    end = await fifo.opened()
    await agent.shutdown(LIMIT)
    assert await agents.exit_code() == 0
    assert await end == b""
