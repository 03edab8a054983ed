"""Makes a template: boots a machine to where its agent waits for its host, and keeps its memory.

Source: QEMU's qapi/char.json, VSERPORT_CHANGE (the guest has opened its port).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from qemu.qmp import EventListener, QMPClient, QMPError

from hyperfleet import unix_sockets
from hyperfleet.errors import GuestError
from hyperfleet.failpoints import Point, reach
from hyperfleet.vmm import confinement, memory_file, migration, qemu_command, qemu_spawn, tsc
from hyperfleet.vmm.cgroup import Cgroups
from hyperfleet.vmm.driver import Exit
from hyperfleet.vmm.host_process import HostProcess
from hyperfleet.vmm.qemu_command import Memory, Sockets
from hyperfleet.vmm.shape import Shape

# Others' machines first: among processes, and of cgroups, where a machine's has 100 a processor.
_NICENESS = 10
_WEIGHT = 10
# From its open port to where nothing is left to do: it waits for nothing but its host.
_SETTLE_S = 0.25
# Of the state that is not memory; far more than there ever is.
_MOST_STATE = 64 << 20
_CONSOLE_SPARE = 16 << 20


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A template that was just made. `memory`: a sealed descriptor, the caller's to close."""

    memory: int
    state: bytes


async def make(
    shape: Shape,
    template_id: str,
    directory: Path,
    *,
    confine: Callable[[], Path],
    cgroups: Cgroups,
    limit: float,
) -> Made:
    """Makes one in `directory`, which is gone afterwards. `limit`: seconds for all of it.

    Raises:
        GuestError: the guest did not come as far; the message says how far.
        CapacityError: the host has no room for it.
    """
    await remove(template_id, directory, cgroups)
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
    try:
        largest = (shape.mem_size_mib << 20) + _CONSOLE_SPARE
        group = await asyncio.to_thread(
            cgroups.make,
            template_id,
            vcpus=shape.vcpu_count,
            mem_mib=qemu_command.process_mib(shape.mem_size_mib, kvm=shape.kvm),
            weight=_WEIGHT,
        )
        user = confinement.user_of(template_id, kvm=shape.kvm)
        place = qemu_spawn.Place(
            id=template_id,
            directory=directory,
            before=confinement.prefix(confine, user, largest, group),
            user=user,
            files=(qemu_command.CONSOLE,),
        )
        memory = memory_file.create(f"template {template_id}", shape.mem_size_mib << 20)
        try:
            async with (
                asyncio.timeout(limit),
                _running(shape, place, memory) as host,
            ):
                state = await _state_of(host, directory)
            memory_file.seal(memory)
        except BaseException:
            os.close(memory)
            raise
    except TimeoutError as error:
        raise GuestError(f"it was not ready within {limit:g} s") from error
    finally:
        await remove(template_id, directory, cgroups)
    return Made(memory=memory, state=state)


async def remove(template_id: str, directory: Path, cgroups: Cgroups) -> None:
    """Ends what a making that was cut off has left, and removes its directory."""
    if (host := await qemu_spawn.find(template_id, directory)) is not None:
        await host.kill()
    await asyncio.to_thread(cgroups.remove, template_id)
    with contextlib.suppress(FileNotFoundError):
        await asyncio.to_thread(shutil.rmtree, directory)


@contextlib.asynccontextmanager
async def _running(
    shape: Shape, place: qemu_spawn.Place, memory: int
) -> AsyncIterator[HostProcess]:
    khz = None if shape.kvm else await asyncio.to_thread(tsc.tsc_khz)
    with contextlib.ExitStack() as stack:
        kernel = confinement.readable(shape.kernel)
        stack.callback(os.close, kernel)
        initramfs = confinement.readable(shape.initramfs)
        stack.callback(os.close, initramfs)
        launch = msgspec.structs.replace(
            shape.launch(place.id, place.directory),
            kernel=Path(f"/proc/self/fd/{kernel}"),
            initramfs=Path(f"/proc/self/fd/{initramfs}"),
        )

        def command(sockets: Sockets) -> list[str]:
            return qemu_command.command(
                launch,
                qemu=shape.qemu,
                kvm=shape.kvm,
                tsc_khz=khz,
                sockets=sockets,
                cards=shape.cards(),
                disk=qemu_command.no_disk(),
                data=shape.data(),
                memory=Memory(memory, shared=True),
            )

        inherited = (kernel, initramfs, memory)
        host = await qemu_spawn.spawned(lambda: qemu_spawn.spawn(place, command, inherited))
    reach(Point.TEMPLATE_SPAWNED)
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, host.pid, _NICENESS)
        yield host
    finally:
        await host.kill()


async def _state_of(host: HostProcess, directory: Path) -> bytes:
    """What `_saved` gives, unless the process ends before."""
    try:
        state = await host.before_end(_saved(directory))
    except (QMPError, OSError, EOFError) as error:
        raise GuestError(f"QEMU's monitor failed: {error}") from error
    if isinstance(state, Exit):
        words = await asyncio.to_thread(qemu_spawn.last_words, directory)
        raise GuestError(f"QEMU ended: {words or 'without a word'}")
    return state


async def _saved(directory: Path) -> bytes:
    """The guest's state but its memory, once its agent waits. The guest stands still then."""
    client = QMPClient()
    opened = EventListener("VSERPORT_CHANGE")
    client.register_listener(opened)
    await client.connect(await unix_sockets.connect(directory / qemu_spawn.QMP_SOCKET))
    try:
        async for event in opened:
            data = event.get("data")
            if isinstance(data, dict) and data.get("open"):
                break
        await asyncio.sleep(_SETTLE_S)
        return await migration.save(client, _all_of, without_memory=True)
    finally:
        # It raises whatever ended the connection.
        with contextlib.suppress(Exception):
            await client.disconnect()


async def _all_of(stream: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while piece := await loop.sock_recv(stream, 1 << 20):
        data += piece
        if len(data) > _MOST_STATE:
            raise GuestError(f"its state is over {_MOST_STATE >> 20} MiB beside its memory")
    return bytes(data)
