"""The endpoints and who may use them: the one table that guards, documents and is tested.

A route whose name is not in here can't be made, so nothing is open by having been forgotten.
"""

from __future__ import annotations

import msgspec

from hyperfleet.auth.keys import Scope


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint: the scope it needs (None: no key), and the errors besides those of all.

    `errors` are codes of `hyperfleet.errors`.
    """

    scope: Scope | None
    errors: tuple[str, ...] = ()


_FOUND = ("NOT_FOUND",)

ENDPOINTS: dict[str, Endpoint] = {
    "create_machine": Endpoint(Scope.WRITE, ("CONFLICT",)),
    "list_machines": Endpoint(Scope.READ),
    "get_machine": Endpoint(Scope.READ, _FOUND),
    "change_machine": Endpoint(Scope.WRITE, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")),
    "delete_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE")),
    "start_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR", "TIMEOUT")),
    "stop_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR")),
    "pause_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR")),
    "resume_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR")),
    "sleep_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR")),
    "restart_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR", "TIMEOUT")),
    "wait_for_machine": Endpoint(Scope.READ, (*_FOUND, "TIMEOUT")),
    "exec_in_machine": Endpoint(Scope.EXEC, (*_FOUND, "INVALID_STATE", "GUEST_ERROR", "TIMEOUT")),
    "stream_exec": Endpoint(Scope.EXEC, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")),
    "list_processes": Endpoint(Scope.EXEC, (*_FOUND, "INVALID_STATE", "GUEST_ERROR", "TIMEOUT")),
    "kill_process": Endpoint(Scope.EXEC, (*_FOUND, "INVALID_STATE", "GUEST_ERROR", "TIMEOUT")),
    "read_file": Endpoint(Scope.EXEC, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")),
    "write_file": Endpoint(Scope.EXEC, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")),
    "delete_file": Endpoint(Scope.EXEC, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")),
    "machine_ports": Endpoint(Scope.READ, _FOUND),
    "machine_activity": Endpoint(Scope.READ, _FOUND),
    "machine_logs": Endpoint(Scope.READ, _FOUND),
    "events": Endpoint(Scope.READ, _FOUND),
    "snapshot_machine": Endpoint(
        Scope.WRITE, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")
    ),
    "restore_machine": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE", "GUEST_ERROR")),
    "list_snapshots": Endpoint(Scope.READ, _FOUND),
    "get_snapshot": Endpoint(Scope.READ, _FOUND),
    "clone_snapshot": Endpoint(Scope.WRITE, (*_FOUND, "CONFLICT", "INVALID_STATE", "GUEST_ERROR")),
    "delete_snapshot": Endpoint(Scope.WRITE, (*_FOUND, "CONFLICT")),
    "create_disk": Endpoint(Scope.WRITE, ("CONFLICT", "GUEST_ERROR")),
    "list_disks": Endpoint(Scope.READ),
    "get_disk": Endpoint(Scope.READ, _FOUND),
    "grow_disk": Endpoint(Scope.WRITE, (*_FOUND, "INVALID_STATE")),
    "delete_disk": Endpoint(Scope.WRITE, (*_FOUND, "CONFLICT")),
    "machine_disks": Endpoint(Scope.READ, _FOUND),
    "list_templates": Endpoint(Scope.READ),
    "remove_template": Endpoint(Scope.WRITE, _FOUND),
    "create_key": Endpoint(Scope.ALL),
    "list_keys": Endpoint(Scope.ALL),
    "revoke_key": Endpoint(Scope.ALL, _FOUND),
    "health": Endpoint(None),
    "ready": Endpoint(None),
    "metrics": Endpoint(None),
    "docs": Endpoint(None),
    "openapi": Endpoint(None),
}

# What any endpoint that asks for a key may answer; CAPACITY: the server is still starting.
OPEN_ERRORS = (
    "VALIDATION_ERROR",
    "TOO_LARGE",
    "HEAD_TOO_LARGE",
    "REQUEST_TIMEOUT",
    "INTERNAL_ERROR",
)
GUARDED_ERRORS = (*OPEN_ERRORS, "UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED", "CAPACITY")


def errors_of(name: str) -> tuple[str, ...]:
    """Every code that this endpoint may answer with."""
    endpoint = ENDPOINTS[name]
    if name == "ready":
        return (*OPEN_ERRORS, "CAPACITY")
    return (*(OPEN_ERRORS if endpoint.scope is None else GUARDED_ERRORS), *endpoint.errors)
