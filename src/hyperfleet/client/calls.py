"""Each endpoint as a value: what to send and what comes back. No I/O; both clients use these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from hyperfleet.client import values

T = TypeVar("T")

# Seconds on top of what a call may take by its own terms: the way there and back.
MARGIN = 10.0
# A start waits its turn among others, then for the boot: the server's deadlines decide, not ours.
_LONG = 900.0


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request; `decode` makes of the answer's body what was asked for.

    `patience` is how long the answer may take, in seconds.
    """

    method: str
    path: str
    decode: Callable[[bytes], T]
    query: tuple[tuple[str, str], ...] = ()
    body: dict[str, Any] | None = None
    patience: float = 30.0


def create_machine(
    *,
    name: str,
    vcpu_count: int,
    mem_size_mib: int,
    kernel_image_path: str | None,
    kernel_args: str | None,
    rootfs_path: str | None,
    exposed_ports: Sequence[int],
    env: Mapping[str, str],
    labels: Mapping[str, str],
    restart: str,
    autostart: bool,
    egress: values.Egress,
    sleep_after_s: int,
    cmd: Sequence[str],
    cwd: str | None,
    disk_size_mib: int | None,
    disks: Sequence[values.MachineDisk],
    port_options: Mapping[int, values.PortOptions],
) -> Call[values.Machine]:
    """POST /machines."""
    body: dict[str, Any] = {
        "name": name,
        "vcpu_count": vcpu_count,
        "mem_size_mib": mem_size_mib,
        "kernel_image_path": kernel_image_path,
        "kernel_args": kernel_args,
        "rootfs_path": rootfs_path,
        "exposed_ports": list(exposed_ports),
        "env": dict(env),
        "labels": dict(labels),
    }
    # An older server knows none of these; their defaults go without saying.
    later: dict[str, tuple[Any, Any]] = {
        "restart": (restart, "never"),
        "autostart": (autostart, False),
        "egress": (egress, "all"),
        "sleep_after_s": (sleep_after_s, 0),
        "cmd": (list(cmd), []),
        "cwd": (cwd, None),
        "disk_size_mib": (disk_size_mib, None),
        "disks": (list(disks), []),
        "port_options": (dict(port_options), {}),
    }
    for field, (value, default) in later.items():
        if value != default:
            body[field] = msgspec.to_builtins(value, str_keys=True)
    return Call(method="POST", path="/machines", decode=_json(values.Machine), body=body)


def list_machines(
    *, status: str | None, labels: Sequence[str], limit: int, offset: int
) -> Call[values.MachinePage]:
    """GET /machines."""
    query = [("limit", str(limit)), ("offset", str(offset))]
    query += [("label", label) for label in labels]
    if status is not None:
        query.append(("status", status))
    return Call(
        method="GET", path="/machines", decode=_json(values.MachinePage), query=tuple(query)
    )


def get_machine(ref: str) -> Call[values.Machine]:
    """GET /machines/{id}."""
    return Call(method="GET", path=_machine(ref), decode=_json(values.Machine))


def change_machine(
    ref: str,
    *,
    exposed_ports: Sequence[int] | None,
    labels: Mapping[str, str] | None,
    restart: str | None,
    autostart: bool | None,
    egress: values.Egress | None,
    sleep_after_s: int | None,
    disks: Sequence[values.MachineDisk] | None,
    port_options: Mapping[int, values.PortOptions] | None,
) -> Call[values.Machine]:
    """PATCH /machines/{id}."""
    return Call(
        method="PATCH",
        path=_machine(ref),
        decode=_json(values.Machine),
        body=_changes(
            exposed_ports=exposed_ports,
            labels=labels,
            restart=restart,
            autostart=autostart,
            egress=egress,
            sleep_after_s=sleep_after_s,
            disks=disks,
            port_options=port_options,
        ),
        patience=_LONG,
    )


def delete_machine(ref: str, *, force: bool) -> Call[None]:
    """DELETE /machines/{id}."""
    query = (("force", "true"),) if force else ()
    return Call(method="DELETE", path=_machine(ref), decode=_nothing, query=query, patience=_LONG)


def start_machine(ref: str) -> Call[values.Machine]:
    """POST /machines/{id}/start."""
    return Call(
        method="POST", path=_machine(ref, "start"), decode=_json(values.Machine), patience=_LONG
    )


def stop_machine(ref: str) -> Call[values.Machine]:
    """POST /machines/{id}/stop."""
    return Call(
        method="POST", path=_machine(ref, "stop"), decode=_json(values.Machine), patience=_LONG
    )


def pause_machine(ref: str) -> Call[values.Machine]:
    """POST /machines/{id}/pause."""
    return Call(method="POST", path=_machine(ref, "pause"), decode=_json(values.Machine))


def sleep_machine(ref: str) -> Call[values.Machine]:
    """POST /machines/{id}/sleep."""
    path = _machine(ref, "sleep")
    return Call(method="POST", path=path, decode=_json(values.Machine), patience=_LONG)


def resume_machine(ref: str) -> Call[values.Machine]:
    """POST /machines/{id}/resume."""
    return Call(method="POST", path=_machine(ref, "resume"), decode=_json(values.Machine))


def restart_machine(ref: str) -> Call[values.Machine]:
    """POST /machines/{id}/restart."""
    return Call(
        method="POST", path=_machine(ref, "restart"), decode=_json(values.Machine), patience=_LONG
    )


def wait_for_machine(ref: str, status: str, *, timeout: float) -> Call[values.Machine]:
    """GET /machines/{id}/wait; `timeout` in seconds."""
    return Call(
        method="GET",
        path=_machine(ref, "wait"),
        decode=_json(values.Machine),
        query=(("status", status), ("timeout", f"{timeout:g}")),
        patience=timeout + MARGIN,
    )


def exec_in_machine(
    ref: str,
    cmd: Sequence[str],
    *,
    timeout: float,
    cwd: str | None,
    env: Mapping[str, str],
    stdin: str,
) -> Call[values.ExecResult]:
    """POST /machines/{id}/exec; `timeout` in seconds."""
    body = {"cmd": list(cmd), "timeout": timeout, "cwd": cwd, "env": dict(env), "stdin": stdin}
    return Call(
        method="POST",
        path=_machine(ref, "exec"),
        decode=_json(values.ExecResult),
        body=body,
        patience=timeout + MARGIN,
    )


def list_processes(ref: str) -> Call[values.ProcessPage]:
    """GET /machines/{id}/processes."""
    path = _machine(ref, "processes")
    return Call(method="GET", path=path, decode=_json(values.ProcessPage))


def kill_process(ref: str, name: str) -> Call[None]:
    """DELETE /machines/{id}/processes/{name}."""
    path = f"{_machine(ref, 'processes')}/{quote(name, safe='')}"
    return Call(method="DELETE", path=path, decode=_nothing)


def read_file(ref: str, path: str, *, archive: bool) -> Call[bytes]:
    """GET /machines/{id}/files, of a file or of a folder as a tar."""
    return Call(
        method="GET",
        path=_machine(ref, "files"),
        decode=bytes,
        query=(("path", path), *((("archive", "true"),) if archive else ())),
    )


def list_folder(ref: str, path: str) -> Call[values.Folder]:
    """GET /machines/{id}/files, of a folder."""
    return Call(
        method="GET",
        path=_machine(ref, "files"),
        decode=_json(values.Folder),
        query=(("path", path),),
    )


def write_file(
    ref: str,
    path: str,
    *,
    archive: bool = False,
    mode: int | None = None,
    owner: str | None = None,
    parents: bool = False,
) -> Call[values.FileInfo]:
    """PUT /machines/{id}/files; the body is the caller's."""
    query = [("path", path)]
    if archive:
        query.append(("archive", "true"))
    if mode is not None:
        query.append(("mode", f"{mode:04o}"))
    if owner is not None:
        query.append(("owner", owner))
    if parents:
        query.append(("parents", "true"))
    return Call(
        method="PUT",
        path=_machine(ref, "files"),
        decode=_json(values.FileInfo),
        query=tuple(query),
        patience=_LONG,
    )


def delete_file(ref: str, path: str, *, recursive: bool) -> Call[None]:
    """DELETE /machines/{id}/files."""
    query = [("path", path), *([("recursive", "true")] if recursive else [])]
    return Call(method="DELETE", path=_machine(ref, "files"), decode=_nothing, query=tuple(query))


def machine_ports(ref: str) -> Call[values.Ports]:
    """GET /machines/{id}/ports."""
    return Call(method="GET", path=_machine(ref, "ports"), decode=_json(values.Ports))


def machine_activity(ref: str) -> Call[values.Activity]:
    """GET /machines/{id}/activity."""
    return Call(method="GET", path=_machine(ref, "activity"), decode=_json(values.Activity))


def machine_logs(ref: str, *, tail: int | None) -> Call[str]:
    """GET /machines/{id}/logs."""
    query = () if tail is None else (("tail", str(tail)),)
    return Call(method="GET", path=_machine(ref, "logs"), decode=_text, query=query)


def create_key(
    *, name: str, scopes: Sequence[str], expires_at: datetime | None
) -> Call[values.NewKey]:
    """POST /keys."""
    body = {
        "name": name,
        "scopes": list(scopes),
        "expires_at": None if expires_at is None else expires_at.isoformat(),
    }
    return Call(method="POST", path="/keys", decode=_json(values.NewKey), body=body)


def list_keys() -> Call[values.KeyPage]:
    """GET /keys."""
    return Call(method="GET", path="/keys", decode=_json(values.KeyPage))


def revoke_key(key_id: str) -> Call[None]:
    """DELETE /keys/{id}."""
    return Call(method="DELETE", path=f"/keys/{quote(key_id, safe='')}", decode=_nothing)


def snapshot_machine(ref: str, name: str) -> Call[values.Snapshot]:
    """POST /machines/{id}/snapshots."""
    return Call(
        method="POST",
        path=_machine(ref, "snapshots"),
        decode=_json(values.Snapshot),
        body={"name": name},
        patience=_LONG,
    )


def restore_machine(ref: str, snapshot: str) -> Call[values.Machine]:
    """POST /machines/{id}/restore."""
    return Call(
        method="POST",
        path=_machine(ref, "restore"),
        decode=_json(values.Machine),
        body={"snapshot": snapshot},
        patience=_LONG,
    )


def list_snapshots(machine: str | None) -> Call[values.SnapshotPage]:
    """GET /snapshots."""
    query = () if machine is None else (("machine", machine),)
    return Call(method="GET", path="/snapshots", decode=_json(values.SnapshotPage), query=query)


def get_snapshot(name: str) -> Call[values.Snapshot]:
    """GET /snapshots/{name}."""
    return Call(method="GET", path=_snapshot(name), decode=_json(values.Snapshot))


def clone_snapshot(snapshot: str, *, name: str, **changes: Any) -> Call[values.Machine]:
    """POST /snapshots/{name}/clone; `changes` as `change_machine` has them."""
    return Call(
        method="POST",
        path=f"{_snapshot(snapshot)}/clone",
        decode=_json(values.Machine),
        body={"name": name, **_changes(**changes)},
        patience=_LONG,
    )


def delete_snapshot(name: str) -> Call[None]:
    """DELETE /snapshots/{name}."""
    return Call(method="DELETE", path=_snapshot(name), decode=_nothing)


def create_disk(name: str, size_mib: int) -> Call[values.Disk]:
    """POST /disks."""
    body = {"name": name, "size_mib": size_mib}
    return Call(method="POST", path="/disks", decode=_json(values.Disk), body=body)


def list_disks() -> Call[values.DiskPage]:
    """GET /disks."""
    return Call(method="GET", path="/disks", decode=_json(values.DiskPage))


def get_disk(name: str) -> Call[values.Disk]:
    """GET /disks/{name}."""
    return Call(method="GET", path=_disk(name), decode=_json(values.Disk))


def grow_disk(name: str, size_mib: int) -> Call[values.Disk]:
    """PATCH /disks/{name}."""
    return Call(
        method="PATCH", path=_disk(name), decode=_json(values.Disk), body={"size_mib": size_mib}
    )


def delete_disk(name: str) -> Call[None]:
    """DELETE /disks/{name}."""
    return Call(method="DELETE", path=_disk(name), decode=_nothing)


def machine_disks(ref: str) -> Call[values.DiskUsages]:
    """GET /machines/{id}/disks."""
    return Call(method="GET", path=_machine(ref, "disks"), decode=_json(values.DiskUsages))


def list_templates() -> Call[values.TemplatePage]:
    """GET /templates."""
    return Call(method="GET", path="/templates", decode=_json(values.TemplatePage))


def remove_template(template_id: str) -> Call[None]:
    """DELETE /templates/{id}."""
    path = f"/templates/{quote(template_id, safe='')}"
    return Call(method="DELETE", path=path, decode=_nothing)


def health() -> Call[values.Health]:
    """GET /health."""
    return Call(method="GET", path="/health", decode=_json(values.Health))


def ready() -> Call[values.Health]:
    """GET /ready."""
    return Call(method="GET", path="/ready", decode=_json(values.Health))


def _changes(**given: Any) -> dict[str, Any]:
    """The body of what is to be different: what is None stays as it is."""
    return {
        name: msgspec.to_builtins(new, str_keys=True)
        for name, new in given.items()
        if new is not None
    }


def _disk(name: str) -> str:
    return f"/disks/{quote(name, safe='')}"


def _snapshot(name: str) -> str:
    return f"/snapshots/{quote(name, safe='')}"


def _machine(ref: str, action: str | None = None) -> str:
    path = f"/machines/{quote(ref, safe='')}"
    return path if action is None else f"{path}/{action}"


def _json(kind: type[T]) -> Callable[[bytes], T]:
    return msgspec.json.Decoder(kind).decode


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _nothing(_content: bytes) -> None:
    return None
