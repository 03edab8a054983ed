"""Processes that are run in a machine, counted, and its ports looked at when they are over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from hyperfleet.errors import HyperfleetError, OperationTimeoutError
from hyperfleet.fleet.observer import Observer, outcome
from hyperfleet.fleet.owner import Owner
from hyperfleet.guest import kept
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.files import Files
from hyperfleet.guest.stream import Stream
from hyperfleet.guest.values import (
    ExecRequest,
    ExecResult,
    KeptProcess,
    ProcessEnd,
    ProcessRequest,
)

R = TypeVar("R", ExecRequest, ProcessRequest)


async def execute(owner: Owner, request: ExecRequest, observer: Observer) -> ExecResult:
    """Runs a program to its end; see `Fleet.exec`."""
    try:
        with owner.idling.using():
            agent = await owner.agent()
            result = await agent.exec(_in_machine(owner, request))
    except OperationTimeoutError:
        observer.executed("timeout")
        raise
    except HyperfleetError:
        observer.executed("failed")
        raise
    else:
        observer.executed("ended")
        return result
    finally:
        # It may have started a server, or ended one.
        owner.nudge()


class Processes:
    """Those of a machine whose streams are carried; see `Fleet.processes`.

    All methods raise InvalidStateError when it does not run, and GuestError.
    """

    def __init__(self, owner: Owner, observer: Observer) -> None:
        self._owner = owner
        self._observer = observer

    async def run(self, request: ProcessRequest) -> Stream:
        """Runs a program, the request's environment over the machine's.

        One that has a name is kept when its stream is abandoned, or lost.
        """
        asked = _in_machine(self._owner, request)
        name = asked.name
        if name is None:
            return await self._carry(lambda agent: agent.run(asked))
        return await self._carry(lambda agent: kept.keep(agent, name, asked))

    async def attach(self, name: str) -> Stream:
        """Goes on with a process that is kept; whoever has its stream loses it."""
        return await self._carry(lambda agent: kept.attach(agent, name), attaches=True)

    async def kept(self) -> list[KeptProcess]:
        """Those that are kept, the oldest first."""
        return await kept.kept(await self._owner.agent())

    async def forget(self, name: str) -> None:
        """Kills a process that is kept; the name is free.

        Raises:
            NotFoundError: there is none of that name.
        """
        await kept.forget(await self._owner.agent(), name)
        self._owner.nudge()

    async def _carry(self, begin: Callable[[Agent], Stream], *, attaches: bool = False) -> Stream:
        carried = await _use(self._owner, begin)

        def over(end: ProcessEnd | None) -> None:
            # One that is left to run on is not over, nor is one begun by who finds none.
            if end is not None or not (attaches or carried.detached):
                self._observer.executed(outcome(end))
            self._owner.nudge()

        carried.when_over(over)
        return carried


def files(owner: Owner) -> Files:
    """What is on the machine's disk; the agent's own program sees to it."""
    return Files(lambda request: _use(owner, lambda agent: agent.run(request)))


async def _use(owner: Owner, begin: Callable[[Agent], Stream]) -> Stream:
    """A stream that is a use of the machine as long as it is carried."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(owner.idling.using())
        carried = begin(await owner.agent())
        use = stack.pop_all()
    carried.when_over(lambda _: use.close())
    return carried


def _in_machine(owner: Owner, request: R) -> R:
    """The request's variables over the machine's."""
    environment = {**owner.machine.spec.env, **request.env}
    return msgspec.structs.replace(request, env=environment)
