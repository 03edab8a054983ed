"""A machine's owner: the one task in which its state changes, and the queue in front of it.

The task lives only while there is something to do, so that machines at rest cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from hyperfleet.errors import (
    CapacityError,
    HyperfleetError,
    InvalidStateError,
    NotFoundError,
)
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet import agenda, discovery
from hyperfleet.fleet.acts import Acts
from hyperfleet.fleet.agenda import Act, Arrival, Want
from hyperfleet.fleet.discovery import Sight
from hyperfleet.fleet.idling import Idling
from hyperfleet.fleet.pausing import Pausing
from hyperfleet.fleet.sleeping import Sleeping
from hyperfleet.fleet.snapshotting import Snapshotting
from hyperfleet.fleet.state import State, now
from hyperfleet.fleet.tools import Tools
from hyperfleet.guest.agent import Agent
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import Cause, CommandState, Machine, MachineChange, SnapshotInfo
from hyperfleet.vmm.driver import Exit, Process

# What the owner wishes itself; all else is asked for.
_CAUSES = {
    Want.COMPLETE: Cause.ADOPTION,
    Want.REVIVE: Cause.POLICY,
    Want.DIED: Cause.MACHINE,
    Want.SIGHT: Cause.DISCOVERY,
    Want.FAULT: Cause.MACHINE,
    Want.COMMAND: Cause.MACHINE,
    Want.STALLED: Cause.MACHINE,
    Want.DOZE: Cause.POLICY,
}


class _Wish:
    """A request that waits or is being done, with all who wait for its answer."""

    def __init__(self, want: Want, *, force: bool = False, key: str = "") -> None:
        self.want = want
        self.key = key
        self.force = force
        self.process: Process | None = None
        self.ended = Exit()
        self.sight: Sight | None = None
        self.fault = ""
        self.stalled: str | None = None
        self.command: CommandState | None = None
        self.change = MachineChange()
        # The snapshot that it is about.
        self.snapshot = ""
        self.saved: SnapshotInfo | None = None
        self._answer: asyncio.Future[Machine] = asyncio.get_running_loop().create_future()
        # Nobody may be left to hear it: the caller's connection is gone, or it is our own wish.
        self._answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    async def answer(self) -> Machine:
        """The machine as it stood when it was done, or what went wrong.

        Whoever waits may go: the act goes on.
        """
        return await asyncio.shield(self._answer)

    def settle(self, outcome: Machine | Exception) -> None:
        """Tells all who wait."""
        if self._answer.done():
            return
        if isinstance(outcome, Machine):
            self._answer.set_result(outcome)
        else:
            self._answer.set_exception(outcome)


class Owner:
    """Takes requests for one machine, does them one at a time."""

    def __init__(self, state: State, tools: Tools) -> None:
        self.state = state
        self._acts = Acts(state, tools, self)
        self._pausing = Pausing(state, tools)
        self._sleeping = Sleeping(state, tools, self._acts, self._pausing)
        self._snapshotting = Snapshotting(state, tools, self._acts)
        self.idling = Idling(state, tools.traffic, lambda: self._enqueue(_Wish(Want.DOZE)))
        self._agent_wait = tools.config.agent_wait
        self._queue: deque[_Wish] = deque()
        self._current: _Wish | None = None
        self._task: asyncio.Task[None] | None = None
        self._boot: asyncio.Task[None] | None = None
        self._telling_time: asyncio.Task[None] | None = None
        self._tell_time_next = False
        self._alarm: asyncio.TimerHandle | None = None
        self._given_up = False
        self._closed = False
        self._sight: Sight | None = None

    @property
    def machine(self) -> Machine:
        """As it stands."""
        return self.state.machine

    async def start(self, key: str) -> Machine:
        """Returns when it runs; InvalidStateError when it may not, or was stopped meanwhile."""
        return await self._ask(Want.START, key=key)

    async def stop(self) -> Machine:
        """Returns when it is stopped; InvalidStateError when it may not be."""
        return await self._ask(Want.STOP)

    async def restart(self, key: str) -> Machine:
        """Returns when it runs, started anew; InvalidStateError when it was stopped meanwhile."""
        return await self._ask(Want.RESTART, key=key)

    async def pause(self) -> Machine:
        """Returns when it stands still; InvalidStateError when it does not run."""
        return await self._ask(Want.PAUSE)

    async def resume(self) -> Machine:
        """Returns when it runs on; InvalidStateError when it is not paused, nor runs."""
        return await self._ask(Want.RESUME)

    async def sleep(self) -> Machine:
        """Returns when its memory is on disk; InvalidStateError when it does not run."""
        return await self._ask(Want.SLEEP)

    async def snapshot(self, name: str) -> SnapshotInfo:
        """Keeps it as it is; InvalidStateError when there is nothing to keep."""
        wish = _Wish(Want.SNAPSHOT)
        wish.snapshot = name
        await self._put(wish)
        assert wish.saved is not None  # noqa: S101 - it was done
        return wish.saved

    async def restore(self, name: str) -> Machine:
        """Returns when the machine is as it was; it is asleep then, or stopped."""
        wish = _Wish(Want.RESTORE)
        wish.snapshot = name
        return await self._put(wish)

    async def change(self, change: MachineChange) -> Machine:
        """Returns when the change is in force, as far as the guest is not needed for it."""
        wish = _Wish(Want.CHANGE)
        wish.change = change
        return await self._put(wish)

    async def delete(self, *, force: bool) -> None:
        """Returns when it is gone; InvalidStateError when it may not be deleted."""
        await self._ask(Want.DELETE, force=force)

    async def adopt(self) -> None:
        """Before all requests: finds what was left. What takes time goes on afterwards."""
        self.state.cause = Cause.ADOPTION
        if await self._acts.adopt():
            self._enqueue(_Wish(Want.COMPLETE))
        else:
            self._set_alarm()
            self.idling.watch()

    async def close(self) -> None:
        """Stops what is under way where it stands and lets the machine go."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        self.idling.close()
        tasks = [task for task in (self._task, self._telling_time) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        error = CapacityError("the control plane is being stopped")
        for wish in (self._current, *self._queue):
            if wish is not None:
                wish.settle(error)
        self._queue.clear()
        await self._acts.let_go()

    async def agent(self) -> Agent:
        """The agent of the running machine.

        Raises:
            InvalidStateError: it does not run.
            CapacityError: it stands still, for want of room on the host's disk.
            GuestError: its agent can't be reached.
        """
        running = self._acts.running
        if self.state.status is not Status.RUNNING or running is None:
            machine = self.machine
            first = "resume" if machine.status is Status.PAUSED else "start"
            raise InvalidStateError(
                f"machine {machine.spec.name!r} is {machine.status}, not running; {first} it first"
            )
        if self.machine.stalled is not None:
            name = self.machine.spec.name
            raise CapacityError(f"machine {name!r} stands still: {self.machine.stalled}")
        return await running.link.agent(self._agent_wait)

    async def look(self, timeout: float) -> Sight | None:  # noqa: ASYNC109
        """What listens now; None when the machine does not run or its agent can't be asked."""
        running = self._acts.running
        if self.state.status is not Status.RUNNING or running is None:
            return None
        with contextlib.suppress(HyperfleetError, TimeoutError):
            async with asyncio.timeout(timeout):
                return await running.looker.look()
        return None

    def nudge(self) -> None:
        """Has the ports looked at soon."""
        if self.state.status is Status.RUNNING and self._acts.running is not None:
            self._acts.running.looker.nudge()

    def tell_time(self) -> None:
        """Has its guest told the time soon, if it runs, or when it does that now comes up."""
        if self._closed or self.state.status is not Status.RUNNING:
            # It may have been told already, and before this.
            self._tell_time_next = self._current is not None
            return
        self._tell_time_next = False
        if self._telling_time is not None:
            # What it was about to be told may be wrong by now.
            self._telling_time.cancel()
        self._telling_time = asyncio.create_task(
            self._acts.tell_time(),
            name=f"clock of {self.machine.id}",
            context=contextvars.Context(),
        )

    @property
    def sight(self) -> Sight | None:
        """The last look of a machine that runs."""
        return self._sight if self.state.status is Status.RUNNING else None

    async def _ask(self, want: Want, *, force: bool = False, key: str = "") -> Machine:
        wish = _Wish(want, force=force, key=key)
        return await self._put(wish)

    async def _put(self, wish: _Wish) -> Machine:
        """The answer to a wish, or to one before it that is for the same."""
        want, force = wish.want, wish.force
        if self._closed:
            raise CapacityError("the control plane is being stopped")
        current = self._current.want if self._current is not None else None
        queued = [wish.want for wish in self._queue]
        arrival = agenda.on_arrival(self.state.status, current, queued, want, force=force)
        if arrival is Arrival.REFUSE:
            raise self._refusal(want, "wait until that is done, or delete with force=true")
        if arrival is Arrival.JOIN:
            before = [self._current, *self._queue] if self._current else [*self._queue]
            wish = next(wish for wish in reversed(before) if wish and wish.want is want)
        else:
            self._enqueue(wish)
        return await wish.answer()

    def _enqueue(self, wish: _Wish) -> None:
        if self._closed or self.state.removed:
            wish.settle(NotFoundError(f"Machine not found: {self.machine.id}"))
            return
        self._queue.append(wish)
        self._give_up_boot()
        if self._task is None:
            # What the machine's tasks log for hours is not of the request that began them.
            self._task = asyncio.create_task(
                self._work(),
                name=f"owner of {self.machine.id}",
                context=contextvars.Context(),
            )

    async def _work(self) -> None:
        while self._queue:
            self._current = self._queue.popleft()
            try:
                await self._do(self._current)
            except Exception as error:  # noqa: BLE001 - told to whoever asked
                self._current.settle(error)
            except asyncio.CancelledError:
                if self._closed:
                    raise
                # Something within was cancelled, not this task: nobody may wait for ever.
                self._current.settle(RuntimeError(f"{self._current.want} was cut off"))
            else:
                self._current.settle(self.machine)
            self._current = None
            if self._tell_time_next:
                self.tell_time()
        self._task = None
        self._set_alarm()
        if not self._closed:
            self.idling.watch()

    def _set_alarm(self) -> None:
        """A start that is written down for later is asked for when its time has come."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        at = self.machine.next_start_at
        if at is None or self._closed or self.state.removed or self.state.status not in AT_REST:
            return
        delay = max(0.0, (at - now()).total_seconds())
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(delay, lambda: self._enqueue(_Wish(Want.REVIVE)))

    async def _do(self, wish: _Wish) -> None:
        self.state.cause = _CAUSES.get(wish.want, Cause.REQUEST)
        if self.state.removed:
            raise NotFoundError(f"Machine not found: {self.machine.id}")
        if wish.process is not None and (
            self._acts.running is None or self._acts.running.process is not wish.process
        ):
            # News of a process that is not the machine's any more.
            return
        at = self.machine.next_start_at
        # An alarm that was set for another time is none.
        waiting = at is not None and (wish.want is not Want.REVIVE or at <= now())
        plan = agenda.on_turn(self.state.status, wish.want, force=wish.force, waiting=waiting)
        if isinstance(plan, str):
            raise self._refusal(wish.want, plan)
        for act in plan:
            if act is Act.PREPARE and Act.HALT_TO_START in plan:
                reach(Point.RESTART_STOPPED)
            await self._act(act, wish)

    async def _act(self, act: Act, wish: _Wish) -> None:
        running = self._acts.running
        acts: dict[Act, Callable[[], Coroutine[Any, Any, None]]] = {
            Act.CHECK: self._acts.check,
            Act.PREPARE: lambda: self._acts.prepare(wish.key),
            Act.PREPARE_AGAIN: self._acts.prepare_again,
            Act.BOOT: lambda: self._interruptible(self._acts.boot()),
            Act.COME_UP: lambda: self._interruptible(self._acts.come_up()),
            Act.HALT: self._acts.halt,
            Act.HALT_TO_START: self._acts.halt_to_start,
            Act.CUT: self._acts.cut,
            Act.STAND_DOWN: self._acts.stand_down,
            Act.REMOVE: self._acts.remove,
            Act.PAUSE: lambda: self._pausing.pause(running),
            Act.GO_ON: lambda: self._pausing.go_on(running),
            Act.SLEEP: lambda: self._fall_asleep(wish),
            Act.SAVE: lambda: self._save(wish),
            Act.FETCH: lambda: self._snapshotting.fetch(wish.snapshot),
            Act.PUT_BACK: self._snapshotting.put_back,
            Act.AMEND: lambda: self._acts.amend(wish.change),
            Act.FOLLOW: self._acts.follow,
            Act.SETTLE: lambda: self._acts.settle(wish.ended),
            Act.NOTE: lambda: self._note(wish),
            Act.BLAME: lambda: self.state.blame(wish.fault),
            Act.STALL: lambda: self._stall(wish.stalled),
            Act.TELL: lambda: self.state.fall(self.state.status, command=wish.command),
        }
        await acts[act]()

    async def _fall_asleep(self, wish: _Wish) -> None:
        may = self.idling.is_idle if wish.want is Want.DOZE else None
        await self._sleeping.fall_asleep(may)

    async def _save(self, wish: _Wish) -> None:
        wish.saved = await self._snapshotting.save(wish.snapshot)

    async def _stall(self, why: str | None) -> None:
        self.state.stall(why)
        if why is None:
            self.tell_time()

    async def _note(self, wish: _Wish) -> None:
        if wish.sight is not None:
            await self._acts.note(wish.sight)

    def _give_up_boot(self) -> None:
        """Cancels the boot under way if what waits says so."""
        current = self._current.want if self._current is not None else None
        queued = [wish.want for wish in self._queue]
        if self._boot is not None and agenda.interrupts(current, queued):
            self._given_up = True
            self._boot.cancel()

    async def _interruptible(self, boot: Coroutine[Any, Any, None]) -> None:
        """A boot, which a stop or restart that arrives meanwhile ends."""
        self._given_up = False
        self._boot = asyncio.create_task(boot, name=f"boot of {self.machine.id}")
        self._give_up_boot()
        try:
            await asyncio.wait((self._boot,))
            if self._boot.cancelled() and self._given_up:
                name = self.machine.spec.name
                raise InvalidStateError(f"machine {name!r} was stopped while it started")
            await self._boot
        finally:
            boot_task, self._boot = self._boot, None
            if not boot_task.done():
                boot_task.cancel()
                await asyncio.wait((boot_task,))

    def _refusal(self, want: Want, why: str) -> InvalidStateError:
        machine = self.machine
        return InvalidStateError(agenda.refusal(want, machine.spec.name, machine.status, why))

    def ended(self, process: Process, ended: Exit) -> None:
        """See `News`."""
        wish = _Wish(Want.DIED)
        wish.process, wish.ended = process, ended
        self._enqueue(wish)

    def stalled(self, process: Process, why: str | None) -> None:
        """See `News`."""
        wish = _Wish(Want.STALLED)
        wish.process, wish.stalled = process, why
        self._enqueue(wish)

    def wronged(self, process: Process, fault: str) -> None:
        """See `News`."""
        wish = _Wish(Want.FAULT)
        wish.process, wish.fault = process, fault
        self._enqueue(wish)

    def commanded(self, process: Process, state: CommandState) -> None:
        """See `News`."""
        # A guest that was given no command has none to tell of.
        if self.machine.spec.cmd and state != self.machine.command:
            wish = _Wish(Want.COMMAND)
            wish.process, wish.command = process, state
            self._enqueue(wish)

    def seen(self, process: Process, sight: Sight) -> None:
        """See `News`."""
        if sight != self._sight:
            # Else the old one stays: see `Looker` on what is new.
            self._sight = sight
        if discovery.merge(self.machine.ports, sight, now()) != self.machine.ports:
            wish = _Wish(Want.SIGHT)
            wish.process, wish.sight = process, sight
            self._enqueue(wish)
