"""The client for asyncio; its methods are those of `Client`, and raise the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from hyperfleet.client import calls, values
from hyperfleet.client.answers import read
from hyperfleet.client.calls import Call
from hyperfleet.client.follow import EventReader, Missed
from hyperfleet.client.http import (
    download,
    follow_request,
    headers_for,
    options,
    refused,
    stat_of,
    trusted,
    unreachable,
)

T = TypeVar("T")


class AsyncClient:
    """The API for asyncio. Close it, or use it in `async with`.

    Every method raises ApiError when the server refuses, UnreachableError when none answers.
    """

    def __init__(
        self, url: str, key: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`url` is the server's, `http://127.0.0.1:3000`; `key` begins with `hf_`."""
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers_for(key),
            verify=trusted(url),
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def create_machine(
        self,
        *,
        name: str,
        vcpu_count: int,
        mem_size_mib: int,
        kernel_image_path: str | None = None,
        kernel_args: str | None = None,
        rootfs_path: str | None = None,
        exposed_ports: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        restart: str = "never",
        autostart: bool = False,
        egress: values.Egress = "all",
        sleep_after_s: int = 0,
        cmd: Sequence[str] = (),
        cwd: str | None = None,
        disk_size_mib: int | None = None,
        disks: Sequence[values.MachineDisk] = (),
        port_options: Mapping[int, values.PortOptions] | None = None,
    ) -> values.Machine:
        """Makes a machine, `pending`; its guest runs `cmd` in `cwd` from each start on."""
        return await self._do(
            calls.create_machine(
                name=name,
                vcpu_count=vcpu_count,
                mem_size_mib=mem_size_mib,
                kernel_image_path=kernel_image_path,
                kernel_args=kernel_args,
                rootfs_path=rootfs_path,
                exposed_ports=exposed_ports,
                env=env or {},
                labels=labels or {},
                restart=restart,
                autostart=autostart,
                egress=egress,
                sleep_after_s=sleep_after_s,
                cmd=cmd,
                cwd=cwd,
                disk_size_mib=disk_size_mib,
                disks=disks,
                port_options=port_options or {},
            )
        )

    async def list_machines(
        self,
        *,
        status: str | None = None,
        labels: Sequence[str] = (),
        limit: int = 50,
        offset: int = 0,
    ) -> values.MachinePage:
        """Machines in the order they were made; a label is `key` or `key=value`."""
        return await self._do(
            calls.list_machines(status=status, labels=labels, limit=limit, offset=offset)
        )

    async def get_machine(self, ref: str) -> values.Machine:
        """A machine by id or name."""
        return await self._do(calls.get_machine(ref))

    async def change_machine(
        self,
        ref: str,
        *,
        exposed_ports: Sequence[int] | None = None,
        labels: Mapping[str, str] | None = None,
        restart: str | None = None,
        autostart: bool | None = None,
        egress: values.Egress | None = None,
        sleep_after_s: int | None = None,
        disks: Sequence[values.MachineDisk] | None = None,
        port_options: Mapping[int, values.PortOptions] | None = None,
    ) -> values.Machine:
        """Exposes these ports, gives these labels, each in place of all before; None: as it is."""
        return await self._do(
            calls.change_machine(
                ref,
                exposed_ports=exposed_ports,
                labels=labels,
                restart=restart,
                autostart=autostart,
                egress=egress,
                sleep_after_s=sleep_after_s,
                disks=disks,
                port_options=port_options,
            )
        )

    async def delete_machine(self, ref: str, *, force: bool = False) -> None:
        """Removes a machine and its disk; `force` stops it first."""
        await self._do(calls.delete_machine(ref, force=force))

    async def start_machine(self, ref: str) -> values.Machine:
        """Returns when the machine runs."""
        return await self._do(calls.start_machine(ref))

    async def stop_machine(self, ref: str) -> values.Machine:
        """Returns when the machine is stopped."""
        return await self._do(calls.stop_machine(ref))

    async def pause_machine(self, ref: str) -> values.Machine:
        """Has it stand still, its memory kept; its connections are closed."""
        return await self._do(calls.pause_machine(ref))

    async def resume_machine(self, ref: str) -> values.Machine:
        """Has a paused machine run on, with its clock set."""
        return await self._do(calls.resume_machine(ref))

    async def sleep_machine(self, ref: str) -> values.Machine:
        """Puts its memory on disk and ends its process; `start_machine` has it go on from there."""
        return await self._do(calls.sleep_machine(ref))

    async def restart_machine(self, ref: str) -> values.Machine:
        """Stops the machine if it runs; returns when it runs anew."""
        return await self._do(calls.restart_machine(ref))

    async def wait_for_machine(
        self,
        ref: str,
        status: str,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109
    ) -> values.Machine:
        """Returns when the machine has the status; `timeout` from 1 to 300 seconds."""
        return await self._do(calls.wait_for_machine(ref, status, timeout=timeout))

    async def exec_in_machine(
        self,
        ref: str,
        cmd: Sequence[str],
        *,
        timeout: float = 30.0,  # noqa: ASYNC109
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> values.ExecResult:
        """Runs a program and returns when it has ended; `timeout` from 0.1 to 3600 seconds."""
        return await self._do(
            calls.exec_in_machine(ref, cmd, timeout=timeout, cwd=cwd, env=env or {}, stdin=stdin)
        )

    async def list_processes(self, ref: str) -> tuple[values.Process, ...]:
        """Processes that have a name, the oldest first."""
        return (await self._do(calls.list_processes(ref))).processes

    async def kill_process(self, ref: str, name: str) -> None:
        """Kills a process that has a name, and forgets it."""
        await self._do(calls.kill_process(ref, name))

    def read_file(self, ref: str, path: str) -> AsyncIterator[bytes]:
        """A file's bytes, as they come."""
        return self._bytes(calls.read_file(ref, path, archive=False))

    def pack_folder(self, ref: str, path: str) -> AsyncIterator[bytes]:
        """A folder as a tar, as it comes."""
        return self._bytes(calls.read_file(ref, path, archive=True))

    async def list_folder(self, ref: str, path: str) -> values.Folder:
        """What is in a folder."""
        return await self._do(calls.list_folder(ref, path))

    async def stat_file(self, ref: str, path: str) -> values.FileInfo:
        """What is at a path, symbolic links followed."""
        call = calls.read_file(ref, path, archive=False)
        try:
            answer = await self._http.request(**{**options(call), "method": "HEAD"})
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error
        if answer.is_error:
            # HEAD has no words; GET of what is refused has no more than those.
            await self._do(call)
        return stat_of(path, answer.headers)

    async def write_file(
        self,
        ref: str,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        owner: str | None = None,
        parents: bool = False,
    ) -> values.FileInfo:
        """Makes a file of these bytes, whole or not at all; mode and owner stay, or are as told.

        `mode`: permission bits; `owner`: `UID:GID`; `parents` makes the folders that lead to it.
        """
        call = calls.write_file(ref, path, mode=mode, owner=owner, parents=parents)
        return await self._send(call, content)

    async def unpack_folder(
        self, ref: str, path: str, tar: bytes | AsyncIterable[bytes]
    ) -> values.FileInfo:
        """Makes what a tar holds in a folder, which is made if need be."""
        return await self._send(calls.write_file(ref, path, archive=True), tar)

    async def delete_file(self, ref: str, path: str, *, recursive: bool = False) -> None:
        """Removes a file, an empty folder, or with `recursive` a whole one."""
        await self._do(calls.delete_file(ref, path, recursive=recursive))

    async def machine_ports(self, ref: str) -> values.Ports:
        """The exposed ports with their URLs, and what else listens."""
        return await self._do(calls.machine_ports(ref))

    async def machine_activity(self, ref: str) -> values.Activity:
        """What goes on between clients and the machine."""
        return await self._do(calls.machine_activity(ref))

    async def machine_logs(self, ref: str, *, tail: int | None = None) -> str:
        """The console, or its last lines."""
        return await self._do(calls.machine_logs(ref, tail=tail))

    async def create_key(
        self, name: str, *, scopes: Sequence[str], expires_at: datetime | None = None
    ) -> values.NewKey:
        """Makes a key; the answer is the only place where it is shown."""
        return await self._do(calls.create_key(name=name, scopes=scopes, expires_at=expires_at))

    async def list_keys(self) -> tuple[values.Key, ...]:
        """The keys that are not revoked."""
        return (await self._do(calls.list_keys())).keys

    async def revoke_key(self, key_id: str) -> None:
        """Ends a key."""
        await self._do(calls.revoke_key(key_id))

    async def snapshot_machine(self, ref: str, name: str) -> values.Snapshot:
        """Keeps the machine as it is now, with its memory if it runs or sleeps; it goes on."""
        return await self._do(calls.snapshot_machine(ref, name))

    async def restore_machine(self, ref: str, snapshot: str) -> values.Machine:
        """Makes the machine what it was then; it is `sleeping`, or `stopped` without a memory."""
        return await self._do(calls.restore_machine(ref, snapshot))

    async def list_snapshots(self, *, machine: str | None = None) -> tuple[values.Snapshot, ...]:
        """All snapshots, or those of one machine, the oldest first."""
        return (await self._do(calls.list_snapshots(machine))).snapshots

    async def get_snapshot(self, name: str) -> values.Snapshot:
        """A snapshot by its name."""
        return await self._do(calls.get_snapshot(name))

    async def clone_snapshot(
        self,
        snapshot: str,
        *,
        name: str,
        exposed_ports: Sequence[int] | None = None,
        labels: Mapping[str, str] | None = None,
        restart: str | None = None,
        autostart: bool | None = None,
        egress: values.Egress | None = None,
        sleep_after_s: int | None = None,
        port_options: Mapping[int, values.PortOptions] | None = None,
    ) -> values.Machine:
        """Makes a machine of a snapshot, `sleeping` or `stopped`; None: as it was then."""
        return await self._do(
            calls.clone_snapshot(
                snapshot,
                name=name,
                exposed_ports=exposed_ports,
                labels=labels,
                restart=restart,
                autostart=autostart,
                egress=egress,
                sleep_after_s=sleep_after_s,
                port_options=port_options,
            )
        )

    async def delete_snapshot(self, name: str) -> None:
        """Removes a snapshot; machines that were made of it stay as they are."""
        await self._do(calls.delete_snapshot(name))

    async def create_disk(self, name: str, *, size_mib: int) -> values.Disk:
        """Makes an empty data disk, which a machine is given with `disks`."""
        return await self._do(calls.create_disk(name, size_mib))

    async def list_disks(self) -> tuple[values.Disk, ...]:
        """All data disks, the oldest first."""
        return (await self._do(calls.list_disks())).disks

    async def get_disk(self, name: str) -> values.Disk:
        """A data disk by its name."""
        return await self._do(calls.get_disk(name))

    async def grow_disk(self, name: str, *, size_mib: int) -> values.Disk:
        """Makes a data disk larger; its machine must not be running."""
        return await self._do(calls.grow_disk(name, size_mib))

    async def delete_disk(self, name: str) -> None:
        """Removes a data disk with all that is on it; no machine may have it."""
        await self._do(calls.delete_disk(name))

    async def machine_disks(self, ref: str) -> tuple[values.DiskUsage, ...]:
        """How full the disks of a machine are, its own first."""
        return (await self._do(calls.machine_disks(ref))).disks

    async def list_templates(self) -> tuple[values.Template, ...]:
        """What machines are started from without booting, the last used first."""
        return (await self._do(calls.list_templates())).templates

    async def remove_template(self, template_id: str) -> None:
        """Removes a template; machines that were started from it run on."""
        await self._do(calls.remove_template(template_id))

    async def health(self) -> values.Health:
        """Whether the server is there."""
        return await self._do(calls.health())

    async def ready(self) -> values.Health:
        """Whether it takes requests; ApiError CAPACITY when it does not yet."""
        return await self._do(calls.ready())

    async def follow_logs(self, ref: str, *, tail: int | None = None) -> AsyncIterator[str]:
        """The console's last lines (None: all), then what comes, until the machine is deleted."""
        request = follow_request(calls.machine_logs(ref, tail=tail), follow="true")
        async with self._answer(request) as answer:
            async for text in answer.aiter_text():
                yield text

    async def follow_events(
        self, *, machine: str | None = None, after: str | None = None
    ) -> AsyncIterator[values.Event | Missed]:
        """What happens to machines, or to one until it is deleted, as it happens.

        From now on, or from after the event of the id `after`. It goes on by itself when the
        connection breaks and when the server starts again; what is lost then is told by Missed.
        """
        reader = EventReader(machine, after)
        while not reader.over:
            try:
                async with self._http.stream(**reader.request()) as answer:
                    if answer.is_error:
                        await answer.aread()
                        reader.refused(refused(answer))
                    async for data in answer.aiter_bytes():
                        for told in reader.feed(data):
                            yield told
            except httpx.HTTPError as error:
                if not reader.may_try_again():
                    raise unreachable(self._url, error) from error
            reader.ended()
            if not reader.over:
                await asyncio.sleep(reader.pause)

    async def _bytes(self, call: Call[bytes]) -> AsyncIterator[bytes]:
        async with self._answer(download(call)) as answer:
            async for piece in answer.aiter_bytes():
                yield piece

    @asynccontextmanager
    async def _answer(self, request: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """An answer that is read as it comes."""
        try:
            async with self._http.stream(**request) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise refused(answer)
                yield answer
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error

    async def _send(self, call: Call[T], content: bytes | AsyncIterable[bytes]) -> T:
        return await self._do(call, content=content)

    async def _do(self, call: Call[T], **more: Any) -> T:
        try:
            answer = await self._http.request(**options(call), **more)
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error
        return read(call, answer.status_code, answer.content, answer.headers.get("X-Request-ID"))
