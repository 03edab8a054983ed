"""What a control plane holds of things that outlive it: once it is killed, its hands are off them.

A task that is cancelled runs its `finally`; a process that is killed does not. Here whatever a dead
control plane's clean-up would still do to driver, machines, record or routes ends it again.
"""

from __future__ import annotations

import inspect
from typing import Any

from hyperfleet.vmm.fake_process import FakeProcess


class Crash(BaseException):
    """The control plane is killed here: nothing of it runs on."""


class Life:
    """One control plane's."""

    def __init__(self) -> None:
        self._ended = False

    def end(self) -> None:
        """It was killed."""
        self._ended = True

    def check(self) -> None:
        if self._ended:
            raise Crash


class Mortal:
    """`target` in the hands of one control plane; so is every process that it gets from it."""

    def __init__(self, target: Any, life: Life) -> None:
        self._target = target
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._life.check()
            return found(*arguments, **named)

        async def awaited(*arguments: Any, **named: Any) -> Any:
            got = await call(*arguments, **named)
            return Mortal(got, self._life) if isinstance(got, FakeProcess) else got

        return awaited if inspect.iscoroutinefunction(found) else call
