"""A process of the host, held by a pidfd: its death is seen, a signal never meets a reused pid.

Works alike for our own children and for processes that a control plane before this one started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hyperfleet.vmm.driver import CpuTime, Exit

T = TypeVar("T")


class HostProcess:
    """One process; `pid` stays its own as long as this holds the pidfd (pidfd_open(2))."""

    def __init__(self, pid: int) -> None:
        """Takes hold of a living process. Needs a running event loop.

        Raises:
            ProcessLookupError: there is no such process.
        """
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._on_end)

    @property
    def ended(self) -> bool:
        """Whether it is known to have ended."""
        return self._ended.done()

    def cpu_time(self) -> CpuTime | None:
        """Of the threads that it has now; None when it has ended, or the host does not count it.

        Source: linux/Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat: nanoseconds
        that ran, and that waited to run.
        """
        if self._pidfd < 0:
            return None
        used = waited = 0
        try:
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                # A thread may end meanwhile.
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    ran, held_up, *_ = (task / "schedstat").read_bytes().split()
                    used += int(ran)
                    waited += int(held_up)
        except (OSError, ValueError):
            return None
        return CpuTime(used / 1e9, (used + waited) / 1e9) if used else None

    async def wait(self) -> Exit:
        """Returns when it has ended; its status is known for children only."""
        return await asyncio.shield(self._ended)

    async def before_end(self, act: Coroutine[Any, Any, T]) -> T | Exit:
        """What `act` returns; given up when the process ends before, and then how that ended."""
        doing = asyncio.create_task(act)
        end = asyncio.create_task(self.wait())
        try:
            await asyncio.wait((doing, end), return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else end.result()
        finally:
            for task in (doing, end):
                task.cancel()
            await asyncio.gather(doing, end, return_exceptions=True)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; no error when the process has ended or was released."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def kill(self) -> Exit:
        """Ends it at once, returns when it is gone."""
        self.signal(signal.SIGKILL)
        return await self.wait()

    def release(self) -> None:
        """Lets go without ending it; whoever waits is cancelled."""
        self._close()
        self._ended.cancel()

    def _on_end(self) -> None:
        ended = _reap(self._pidfd)
        self._close()
        if not self._ended.done():
            self._ended.set_result(ended)

    def _close(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _reap(pidfd: int) -> Exit:
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return Exit()
    if status is None:
        return Exit()
    if status.si_code == os.CLD_EXITED:
        return Exit(code=status.si_status)
    return Exit(signal=status.si_status)
