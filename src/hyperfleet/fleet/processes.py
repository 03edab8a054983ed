"""Processes that are run in a machine, counted, and its ports looked at when they are over."""

from __future__ import annotations

import contextlib
from typing import TypeVar

import msgspec

from hyperfleet.errors import HyperfleetError, OperationTimeoutError
from hyperfleet.fleet.observer import Observer, outcome
from hyperfleet.fleet.owner import Owner
from hyperfleet.guest.files import Files
from hyperfleet.guest.stream import Stream
from hyperfleet.guest.values import ExecRequest, ExecResult, ProcessEnd, ProcessRequest

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


async def stream(owner: Owner, request: ProcessRequest, observer: Observer) -> Stream:
    """Runs a program whose streams are carried; see `Fleet.run`."""
    carried = await _run(owner, _in_machine(owner, request))

    def over(end: ProcessEnd | None) -> None:
        observer.executed(outcome(end))
        owner.nudge()

    carried.when_over(over)
    return carried


def files(owner: Owner) -> Files:
    """What is on the machine's disk; the agent's own program sees to it."""
    return Files(lambda request: _run(owner, request))


async def _run(owner: Owner, request: ProcessRequest) -> Stream:
    """A process that is a use of the machine as long as it runs."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(owner.idling.using())
        carried = (await owner.agent()).run(request)
        use = stack.pop_all()
    carried.when_over(lambda _: use.close())
    return carried


def _in_machine(owner: Owner, request: R) -> R:
    """The request's variables over the machine's."""
    environment = {**owner.machine.spec.env, **request.env}
    return msgspec.structs.replace(request, env=environment)
