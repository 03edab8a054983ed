"""The endpoints of snapshots."""

from __future__ import annotations

import pytest

from hyperfleet.errors import CapacityError

from .conftest import Api, error

BODY = {"name": "web", "vcpu_count": 1, "mem_size_mib": 128, "exposed_ports": [80]}


async def made(api: Api) -> str:
    machine_id: str = (await api.client.post("/machines", json=BODY)).json()["id"]
    await api.client.post("/machines/web/start")
    return machine_id


async def test_a_snapshot_is_made_shown_listed_and_deleted(api: Api) -> None:
    machine_id = await made(api)
    answer = await api.client.post("/machines/web/snapshots", json={"name": "one"})
    assert answer.status_code == 201
    one = answer.json()
    assert one == {
        "name": "one",
        "machine": {"id": machine_id, "name": "web"},
        "memory": True,
        "vcpu_count": 1,
        "mem_size_mib": 128,
        "rootfs_path": api.fleet.get("web").spec.rootfs_path,
        "vmm": "fake",
        "size_bytes": 3,
        "created_at": one["created_at"],
    }
    assert (await api.client.get("/snapshots/one")).json() == one
    for query in ("", "?machine=web", f"?machine={machine_id}"):
        assert (await api.client.get(f"/snapshots{query}")).json() == {"snapshots": [one]}
    assert error(await api.client.get("/snapshots?machine=none"))[:2] == (404, "NOT_FOUND")
    assert (await api.client.delete("/snapshots/one")).status_code == 204
    assert error(await api.client.get("/snapshots/one"))[:2] == (404, "NOT_FOUND")
    assert error(await api.client.delete("/snapshots/one"))[:2] == (404, "NOT_FOUND")


async def test_a_machine_is_what_it_was(api: Api) -> None:
    await made(api)
    await api.client.post("/machines/web/snapshots", json={"name": "one"})
    answer = await api.client.post("/machines/web/restore", json={"snapshot": "one"})
    assert (answer.status_code, answer.json()["status"]) == (200, "sleeping")
    none = await api.client.post("/machines/web/restore", json={"snapshot": "none"})
    assert error(none) == (404, "NOT_FOUND", "Snapshot not found: none")


async def test_a_clone_is_a_machine_of_its_own(api: Api) -> None:
    await made(api)
    await api.client.post("/machines/web/stop")
    await api.client.post("/machines/web/snapshots", json={"name": "one"})
    answer = await api.client.post(
        "/snapshots/one/clone", json={"name": "copy", "labels": {"of": "one"}, "egress": "none"}
    )
    assert answer.status_code == 201
    clone = answer.json()
    assert (clone["name"], clone["status"], clone["labels"], clone["egress"]) == (
        "copy",
        "stopped",
        {"of": "one"},
        "none",
    )
    assert clone["exposed_ports"] == [80]
    taken = await api.client.post("/snapshots/one/clone", json={"name": "copy"})
    assert error(taken)[:2] == (409, "CONFLICT")


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/machines/web/snapshots", {}, "name is required"),
        ("/machines/web/snapshots", {"name": "A b"}, "name must be a DNS label"),
        ("/machines/web/snapshots", {"name": "a", "memory": True}, "memory"),
        ("/machines/web/restore", {"name": "one"}, "snapshot is required"),
        ("/snapshots/one/clone", {"labels": {}}, "name is required"),
        ("/snapshots/one/clone", {"name": "copy", "vcpu_count": 2}, "vcpu_count"),
        ("/snapshots/one/clone", {"name": "copy", "exposed_ports": [0]}, "exposed_ports"),
    ],
)
async def test_what_is_wrong_is_named(api: Api, path: str, body: object, says: str) -> None:
    await made(api)
    await api.client.post("/machines/web/snapshots", json={"name": "one"})
    status, code, message = error(await api.client.post(path, json=body))
    assert (status, code) == (400, "VALIDATION_ERROR")
    assert says in message


async def test_what_can_not_be_is_said(api: Api) -> None:
    await api.client.post("/machines", json=BODY)
    never = await api.client.post("/machines/web/snapshots", json={"name": "one"})
    assert error(never)[:2] == (409, "INVALID_STATE")
    await api.client.post("/machines/web/start")
    api.fleet.fail_next = CapacityError("no room")
    full = await api.client.post("/machines/web/snapshots", json={"name": "one"})
    assert error(full) == (503, "CAPACITY", "no room")
    await api.client.post("/machines/web/snapshots", json={"name": "one"})
    twice = await api.client.post("/machines/web/snapshots", json={"name": "one"})
    assert error(twice)[:2] == (409, "CONFLICT")
    await api.client.post("/machines", json={**BODY, "name": "other"})
    others = await api.client.post("/machines/other/restore", json={"snapshot": "one"})
    assert error(others)[:2] == (409, "INVALID_STATE")
