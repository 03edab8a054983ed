"""The endpoints of data disks, and the disks of machines in bodies and answers."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api, error

BODY = {"name": "web", "vcpu_count": 1, "mem_size_mib": 128}


async def test_a_disk_is_made_shown_grown_and_deleted(api: Api) -> None:
    answer = await api.client.post("/disks", json={"name": "db", "size_mib": 64})
    assert answer.status_code == 201
    disk = answer.json()
    assert disk == {
        "name": "db",
        "size_mib": 64,
        "host_bytes": 0,
        "machine": None,
        "vmm": "fake",
        "created_at": disk["created_at"],
    }
    assert (await api.client.get("/disks/db")).json() == disk
    assert (await api.client.get("/disks")).json() == {"disks": [disk]}
    grown = await api.client.patch("/disks/db", json={"size_mib": 128})
    assert grown.json() == {**disk, "size_mib": 128}
    less = await api.client.patch("/disks/db", json={"size_mib": 64})
    assert error(less)[:2] == (400, "VALIDATION_ERROR")
    twice = await api.client.post("/disks", json={"name": "db", "size_mib": 64})
    assert error(twice)[:2] == (409, "CONFLICT")
    assert (await api.client.delete("/disks/db")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await api.client.request(method, "/disks/db")
        assert error(gone) == (404, "NOT_FOUND", "Disk not found: db")


async def test_a_machine_has_disks(api: Api) -> None:
    await api.client.post("/disks", json={"name": "db", "size_mib": 64})
    asked = [{"disk": "db", "path": "/var//lib/db/"}]
    made = await api.client.post("/machines", json={**BODY, "disk_size_mib": 4096, "disks": asked})
    assert made.status_code == 201, made.text
    machine = made.json()
    assert machine["disk_size_mib"] == 4096
    assert machine["disks"] == [{"disk": "db", "path": "/var/lib/db"}]
    holder = (await api.client.get("/disks/db")).json()["machine"]
    assert holder == {"id": machine["id"], "name": "web"}
    held = await api.client.delete("/disks/db")
    assert error(held)[:2] == (409, "CONFLICT")
    await api.client.post("/machines/web/start")
    usage = (await api.client.get("/machines/web/disks")).json()["disks"]
    assert usage == [
        {"disk": None, "path": "/", "size_bytes": 5, "used_bytes": 3, "host_bytes": 2},
        {
            "disk": "db",
            "path": "/var/lib/db",
            "size_bytes": 64 << 20,
            "used_bytes": 1,
            "host_bytes": 1,
        },
    ]
    changed = await api.client.patch("/machines/web", json={"disks": []})
    assert changed.json()["disks"] == []


@pytest.mark.parametrize(
    "disks",
    [
        None,
        {},
        ["db"],
        [{"disk": "db"}],
        [{"path": "/data"}],
        [{"disk": "DB", "path": "/data"}],
        [{"disk": "db", "path": "data"}],
        [{"disk": "db", "path": "/"}],
        [{"disk": "db", "path": "//"}],
        [{"disk": "db", "path": "/a/../etc"}],
        [{"disk": "db", "path": "/proc/a"}],
        [{"disk": "db", "path": "/dev"}],
        [{"disk": "db", "path": "/a\x00b"}],
        [{"disk": "db", "path": "/data", "mode": "ro"}],
        [{"disk": "db", "path": "/a"}, {"disk": "db", "path": "/b"}],
        [{"disk": "db", "path": "/a"}, {"disk": "other", "path": "/a/"}],
        [{"disk": f"d{number}", "path": f"/{number}"} for number in range(9)],
    ],
)
async def test_what_is_no_list_of_disks_is_refused(api: Api, disks: Any) -> None:
    refused = await api.client.post("/machines", json={**BODY, "disks": disks})
    status, code, message = error(refused)
    assert (status, code) == (400, "VALIDATION_ERROR")
    assert message.startswith("disks must be a list of at most 8 objects")


@pytest.mark.parametrize("size", [None, 0, 15, 8_388_609, "64", 64.5, True])
async def test_what_is_no_size_is_refused(api: Api, size: Any) -> None:
    for path, body, field in (
        ("/disks", {"name": "db", "size_mib": size}, "size_mib"),
        ("/machines", {**BODY, "disk_size_mib": size}, "disk_size_mib"),
    ):
        if size is None and field == "disk_size_mib":
            continue
        status, code, message = error(await api.client.post(path, json=body))
        assert (status, code) == (400, "VALIDATION_ERROR")
        assert message.startswith(f"{field} must be a whole number of MiB from 16 to 8388608")
