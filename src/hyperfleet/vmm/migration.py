"""A guest's state out of one QEMU and into another, by way of this process.

Sources: QEMU's docs/devel/migration.rst; qapi/migration.json: `x-ignore-shared` (memory in a file
that is shared stays there and is not copied), `events`, MIGRATION.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from qemu.qmp import EventListener, Message, QMPClient, QMPError

from hyperfleet.errors import GuestError

T = TypeVar("T")

# Bytes a second; no bound.
_BANDWIDTH = 1 << 40
# What is left may take so long to be read, as far as QEMU can tell, when a guest is stopped for it.
_REST_MS = 300
# A guest that writes to its memory all the time is copied again and again.
_LIVE_S = 20.0
# QEMU closes the stream a moment before it says that all is written.
_LAST_WORD_S = 30.0


async def save(
    client: QMPClient,
    take: Callable[[socket.socket], Coroutine[Any, Any, T]],
    *,
    without_memory: bool = False,
    live: bool = False,
) -> T:
    """Has `take` read a guest's state to its end; what it returns. The guest stands still then.

    It is stopped first, or, if `live`, goes on until little is left to be read; if it changes its
    memory faster than that is read, it is stopped for the rest. That is for those of whom
    `sees_writes` says so.

    Raises:
        GuestError: QEMU could not write it.
    """
    if not live:
        await client.execute("stop")
    await _prepare(client, without_memory=without_memory)
    await client.execute(
        "migrate-set-parameters", {"max-bandwidth": _BANDWIDTH, "downtime-limit": _REST_MS}
    )
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            client.send_fd_scm(theirs.fileno())
            await client.execute("getfd", {"fdname": "state"})
        await client.execute("migrate", {"uri": "fd:state"})
        # Of one that was stopped already this changes nothing.
        stopping = asyncio.create_task(_stop_after(client, _LIVE_S))
        try:
            taken = await take(ours)
        finally:
            stopping.cancel()
            await asyncio.wait((stopping,))
    deadline = time.monotonic() + _LAST_WORD_S
    while True:
        answer = await client.execute("query-migrate")
        status = answer.get("status") if isinstance(answer, dict) else None
        if status == "completed":
            return taken
        if status in ("failed", "cancelled") or time.monotonic() > deadline:
            raise GuestError(f"its state could not be saved: {answer}")
        await asyncio.sleep(0.01)


async def sees_writes(client: QMPClient) -> bool:
    """Whether QEMU knows all that a guest writes to its memory while that is read.

    By emulation it does not. A page that has been read is marked as such, but the guest's processor
    may hold that it was marked as written already, and writes on without a word: pages of a moment
    before are among those of the end, and programs crash in what is made of them, or calculate
    wrongly. Seen with QEMU 7.2; 9.0 lets the processor know (system/physmem.c, "Fix migration dirty
    bitmap coherency with TCG memory access"), but not where a page waits to be read again.
    """
    answer = await client.execute("query-kvm")
    return isinstance(answer, dict) and answer.get("enabled") is True


async def _stop_after(client: QMPClient, seconds: float) -> None:
    await asyncio.sleep(seconds)
    with contextlib.suppress(QMPError, OSError, EOFError):
        await client.execute("stop")


async def load(client: QMPClient, descriptor: int, *, without_memory: bool = False) -> None:
    """Has QEMU, which was started with `-incoming defer`, read a state from its own `descriptor`.

    Returns when it has: the guest stands still if it did before it was saved, and runs if not.
    Never where QEMU ends meanwhile: the caller watches for that.
    """
    loaded = EventListener("MIGRATION", event_filter=_is_completed)
    with client.listen(loaded):
        await _prepare(client, without_memory=without_memory)
        await client.execute("migrate-incoming", {"uri": f"fd:{descriptor}"})
        await loaded.get()


async def _prepare(client: QMPClient, *, without_memory: bool) -> None:
    wanted = {"events": True, "x-ignore-shared": without_memory}
    await client.execute(
        "migrate-set-capabilities",
        {"capabilities": [{"capability": name, "state": on} for name, on in wanted.items()]},
    )


def _is_completed(event: Message) -> bool:
    data = event.get("data")
    return isinstance(data, dict) and data.get("status") == "completed"
