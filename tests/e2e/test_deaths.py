"""A real machine that dies by itself, in each of the ways that there are.

It is seen at once, says why, and comes up again by its `restart` policy, until its tries are over.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet.client import Client, Event
from hyperfleet.client.answers import UnreachableError
from support.server import Server
from support.table import printed
from support.zygote import Zygote

pytestmark = pytest.mark.vm

# Seconds. Seen within one is what is wanted, and what is printed; a busy host is slow.
SEEN = 10.0
PATIENCE = 60.0
# How often it is started again.
TRIES = 3

# PID 1 hears no signal that comes from inside, not even KILL; so its code is taken from under it.
KILL_AGENT = """
kill -KILL 1
range=$(grep -m 1 r-xp /proc/1/maps)
start=$((0x${range%%-*} / 4096)); range=${range#*-}; end=$((0x${range%% *} / 4096))
exec dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$start count=$((end - start)) conv=notrunc
"""
# More than all of its memory, written to; no process is ended in the kernel's place.
EAT = """
cd /proc/sys/vm; echo 1 > panic_on_oom; echo 1 > overcommit_memory
exec dd if=/dev/zero of=/dev/null bs=500M count=1
"""
# What is done inside, what the machine is then, and what is told of it. In this order: each but the
# first is a failure, so the last one is one too many.
DEATHS = {
    "power-off": ("poweroff -f", "stopped", ""),
    "panic": ("echo c > /proc/sysrq-trigger", "failed", "Kernel panic - not syncing: sysrq"),
    "agent killed": (KILL_AGENT, "failed", "Kernel panic - not syncing: Attempted to kill init!"),
    "process killed": (None, "failed", "killed by signal 9"),
    "out of memory": (EAT, "failed", "Kernel panic - not syncing: Out of memory"),
}


class Deaths:
    """The events of one server, with the time at which each was heard."""

    def __init__(self, server: Server) -> None:
        self._heard: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()
        self._begin = server.last_event()
        self._client = Client(server.api_url, server.key)
        threading.Thread(target=self._follow, daemon=True).start()

    def until(self, status: str) -> tuple[float, Event]:
        """The next time that a machine becomes `status`: when it was heard, and the event."""
        while True:
            at, event = self._heard.get(timeout=PATIENCE)
            if event.type == "status" and event.status == status:
                return at, event

    def _follow(self) -> None:
        # Until the server ends for good.
        with contextlib.suppress(UnreachableError):
            for event in self._client.follow_events(machine="web", after=self._begin):
                assert isinstance(event, Event)
                self._heard.put((time.monotonic(), event))


@pytest.fixture
def server(images: Path, templates: Path, zygote: Zygote) -> Iterator[Server]:
    with Server(
        zygote=zygote,
        images=images,
        templates=templates,
        HYPERFLEET_RESTART_WAIT_MS="100",
        HYPERFLEET_RESTART_TRIES=str(TRIES),
    ) as made:
        yield made


def test_a_machine_that_dies(server: Server, request: pytest.FixtureRequest) -> None:
    server.create("web", mem_size_mib=112, restart="on-failure")
    deaths = Deaths(server)
    machine = server.start_machine("web")
    restarts = 0
    with printed(request, f"{'death':15} {'seen after':>10}  is then  told as") as rows:
        for death, (script, status, words) in DEATHS.items():
            died = _die(server, machine["pid"], script)
            seen, event = deaths.until(status)
            seconds = max(0.0, seen - died)
            told = (event.message or "").replace("\n", " | ")
            rows.append(f"{death:15} {seconds:8.2f} s  {status:7}  {told[:150]}")
            assert words in told
            assert (event.cause, event.before) == ("machine", "running")
            assert seconds < SEEN
            if status == "stopped":
                # In order: it stays so until somebody wants it.
                machine = server.api.get("/machines/web").json()
                assert (machine["next_start_at"], machine["error_message"]) == (None, None)
                machine = server.start_machine("web")
                deaths.until("running")
            elif restarts < TRIES:
                restarts += 1
                deaths.until("running")
                machine = server.api.get("/machines/web").json()
                assert (machine["status"], machine["restarts"]) == ("running", restarts)
    machine = server.api.get("/machines/web").json()
    assert (machine["status"], machine["next_start_at"]) == ("failed", None)
    assert machine["error_message"].startswith(f"given up after {TRIES} restarts in a row")
    # Whoever wants it has it again.
    assert server.start_machine("web")["restarts"] == 0


def _die(server: Server, pid: int, script: str | None) -> float:
    """Has the machine die; when its process ended, on the monotonic clock."""
    process = os.pidfd_open(pid)
    try:
        if script is None:
            os.kill(pid, signal.SIGKILL)
        else:
            # Nobody is left to tell how this ends.
            asked = server.api.post("/machines/web/exec", json={"cmd": ["sh", "-c", script]})
            assert asked.is_error or asked.json()["exit_code"] is not None
        ended, _, _ = select.select([process], [], [], PATIENCE)
        assert ended, f"it lives on: {asked.text}"
        return time.monotonic()
    finally:
        os.close(process)
