"""What a user of the machines' endpoints can rely on."""

from __future__ import annotations

from typing import Any

import pytest

from hyperfleet.errors import (
    CapacityError,
    GuestError,
    HyperfleetError,
    OperationTimeoutError,
)
from hyperfleet.settings import Settings

from .conftest import Api, error

FIELDS = {
    "id", "name", "status", "vcpu_count", "mem_size_mib", "kernel_image_path", "kernel_args",
    "rootfs_path", "exposed_ports", "labels", "vmm", "network", "ports", "pid", "error_message",
    "created_at", "updated_at", "started_at", "restart", "autostart", "restarts", "next_start_at",
    "egress", "guest_fault", "stalled", "last_start", "sleep_after_s", "cmd", "cwd", "command",
    "disk_size_mib", "disks", "port_options",
}  # fmt: skip


async def test_a_machine_as_it_is_shown(api: Api, settings: Settings) -> None:
    made = await api.client.post(
        "/machines",
        json={
            "name": "web",
            "vcpu_count": 2,
            "mem_size_mib": 512,
            "exposed_ports": [80, 8080],
            "env": {"TOKEN": "secret"},
            "labels": {"tier": "front"},
        },
    )
    assert made.status_code == 201
    machine = made.json()
    assert set(machine) == FIELDS
    assert "secret" not in made.text
    assert machine["status"] == "pending"
    assert machine["kernel_image_path"] == settings.hyperfleet_kernel_image_path
    assert machine["rootfs_path"] == settings.hyperfleet_rootfs_path
    assert machine["created_at"].endswith("Z")
    assert set(machine["network"]) == {"mode", "guest_ip", "guest_mac", "tap_device", "tap_ip"}
    ref = machine["id"]
    assert machine["ports"][0] == {
        "port": 80,
        "listening": False,
        "since": None,
        "address": None,
        "urls": {
            "path": f"http://localhost:4000/proxy/{ref}/80/",
            "host": f"http://{ref}-80.local.dev:4000/",
        },
    }
    for same in (ref, "web"):
        assert (await api.client.get(f"/machines/{same}")).json() == machine
    ports = await api.client.get("/machines/web/ports")
    assert ports.json() == {
        "ports": machine["ports"],
        "unexposed": [{"port": 22, "address": "0.0.0.0"}],
    }


async def test_paths_and_arguments_of_its_own(api: Api) -> None:
    own = {"kernel_image_path": "k", "rootfs_path": "r", "kernel_args": ""}
    ref = await api.machine(**own)
    machine = (await api.client.get(f"/machines/{ref}")).json()
    assert {name: machine[name] for name in own} == own


async def test_a_command_of_its_own(api: Api) -> None:
    ref = await api.machine(cmd=["server", "--port", "80"], cwd="/srv")
    machine = (await api.client.get(f"/machines/{ref}")).json()
    assert (machine["cmd"], machine["cwd"]) == (["server", "--port", "80"], "/srv")
    assert machine["command"] is None
    other = await api.machine(name="other", cmd=None)
    machine = (await api.client.get(f"/machines/{other}")).json()
    assert (machine["cmd"], machine["cwd"]) == (None, None)


async def test_life(api: Api) -> None:
    await api.machine()
    started = await api.client.post("/machines/web/start")
    assert (started.status_code, started.json()["status"]) == (200, "running")
    assert started.json()["started_at"].endswith("Z")
    assert error(await api.client.delete("/machines/web"))[:2] == (409, "INVALID_STATE")
    waited = await api.client.get("/machines/web/wait?status=running&timeout=1.5")
    assert waited.json()["status"] == "running"
    late = await api.client.get("/machines/web/wait?status=stopped&timeout=1")
    assert error(late)[:2] == (504, "TIMEOUT")
    assert (await api.client.post("/machines/web/stop")).json()["status"] == "stopped"
    gone = await api.client.delete("/machines/web")
    assert (gone.status_code, gone.content) == (204, b"")
    assert error(await api.client.get("/machines/web")) == (
        404, "NOT_FOUND", "Machine not found: web"
    )  # fmt: skip


async def test_change(api: Api) -> None:
    ref = await api.machine(exposed_ports=[80], labels={"tier": "front"})
    ports = await api.client.patch(f"/machines/{ref}", json={"exposed_ports": [8080, 80]})
    assert (ports.status_code, ports.json()["exposed_ports"]) == (200, [8080, 80])
    assert [port["port"] for port in ports.json()["ports"]] == [8080, 80]
    assert ports.json()["labels"] == {"tier": "front"}
    labels = await api.client.patch("/machines/web", json={"labels": {"a": "b"}})
    assert (labels.json()["labels"], labels.json()["exposed_ports"]) == ({"a": "b"}, [8080, 80])
    nothing = await api.client.patch("/machines/web", json={"labels": {}, "exposed_ports": []})
    assert (nothing.json()["labels"], nothing.json()["exposed_ports"]) == ({}, [])
    assert (await api.client.get("/machines/web")).json() == nothing.json()


async def test_options_of_ports(api: Api) -> None:
    vite = {"host": "localhost:5173", "strip_prefix": False}
    asked = {"5173": vite, "80": {}, "3000": {"host": None, "strip_prefix": False}}
    ref = await api.machine(exposed_ports=[5173, 3000, 80], port_options=asked)
    shown = (await api.client.get(f"/machines/{ref}")).json()["port_options"]
    # In the order of ports; what asks for nothing is not there.
    assert list(shown) == ["3000", "5173"]
    assert shown == {"3000": {"host": None, "strip_prefix": False}, "5173": vite}

    async def changed(**body: Any) -> Any:
        answer = await api.client.patch("/machines/web", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["port_options"]

    assert await changed(labels={"a": "b"}) == shown
    assert await changed(port_options=shown) == shown
    # They go with the exposure of their port, and not with another's.
    assert await changed(exposed_ports=[5173, 8080]) == {"5173": vite}
    v6 = {"host": "[::1]:65535", "strip_prefix": True}
    assert await changed(exposed_ports=[8080], port_options={"8080": v6}) == {"8080": v6}
    refused = await api.client.patch(
        "/machines/web", json={"port_options": {"8081": {}, "81": vite}}
    )
    status, code, message = error(refused)
    assert (status, code) == (400, "VALIDATION_ERROR")
    assert message == ("port_options names port 81, which is not exposed: add 81 to exposed_ports")
    assert await changed(port_options={}) == {}


async def test_restart(api: Api) -> None:
    await api.machine()
    for _ in range(2):
        answer = await api.client.post("/machines/web/restart")
        assert (answer.status_code, answer.json()["status"]) == (200, "running")
    api.fleet.fail_next = GuestError("Kernel panic")
    failed = await api.client.post("/machines/web/restart")
    assert error(failed) == (502, "GUEST_ERROR", "Kernel panic")


async def test_force(api: Api) -> None:
    await api.machine()
    await api.client.post("/machines/web/start")
    assert (await api.client.delete("/machines/web?force=true")).status_code == 204


async def test_names_are_unique(api: Api) -> None:
    await api.machine()
    again = {"name": "web", "vcpu_count": 1, "mem_size_mib": 128}
    assert error(await api.client.post("/machines", json=again))[:2] == (409, "CONFLICT")


async def test_list(api: Api) -> None:
    for number in range(3):
        await api.machine(name=f"m{number}", labels={"n": str(number), "all": "yes"})
    await api.client.post("/machines/m1/start")

    async def names(query: str) -> tuple[list[str], int]:
        found = (await api.client.get(f"/machines{query}")).json()
        return [machine["name"] for machine in found["machines"]], found["total"]

    assert await names("") == (["m0", "m1", "m2"], 3)
    assert await names("?limit=1&offset=1") == (["m1"], 3)
    assert await names("?status=running") == (["m1"], 1)
    assert await names("?label=all") == (["m0", "m1", "m2"], 3)
    assert await names("?label=all=yes&label=n=2") == (["m2"], 1)
    assert await names("?label=n=") == ([], 0)


async def test_exec(api: Api) -> None:
    await api.machine()
    stopped = await api.client.post("/machines/web/exec", json={"cmd": ["true"]})
    assert error(stopped)[:2] == (409, "INVALID_STATE")
    await api.client.post("/machines/web/start")
    for name in ("cmd", "command"):
        answer = await api.client.post("/machines/web/exec", json={name: ["echo", "é"]})
        assert answer.json() == {
            "exit_code": 0,
            "signal": None,
            "stdout": "echo é\ufffd",
            "stderr": "",
            "truncated": False,
            "duration_ms": 1,
        }
    full = {"cmd": ["a"], "timeout": 60, "cwd": "/", "env": {"A": ""}, "stdin": "é"}
    assert (await api.client.post("/machines/web/exec", json=full)).status_code == 200
    asked = api.fleet.executed[-1]
    assert (asked.argv, asked.timeout, asked.cwd) == (("a",), 60, "/")
    assert (asked.env, asked.stdin) == ({"A": ""}, "é".encode())


@pytest.mark.parametrize("tail", ["", "?tail=2", "?tail=100"])
async def test_logs(api: Api, tail: str) -> None:
    await api.machine()
    answer = await api.client.get(f"/machines/web/logs{tail}")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    first = "" if tail == "?tail=2" else "one\n"
    assert answer.text == f"{first}two \ufffd\nthree\n"


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (GuestError("Kernel panic"), 502),
        (OperationTimeoutError("The agent did not answer within 60 s"), 504),
        (CapacityError("96 MiB are free, 128 are needed"), 503),
        (CapacityError("40 machines wait for their turn", retry_after=7), 503),
    ],
)
async def test_what_the_fleet_says_is_passed_on(
    api: Api, failure: HyperfleetError, status: int
) -> None:
    await api.machine()
    api.fleet.fail_next = failure
    answer = await api.client.post("/machines/web/start")
    retry_after = getattr(failure, "retry_after", None)
    assert answer.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert error(answer) == (status, failure.code, failure.message)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/machines/{}"),
        ("PATCH", "/machines/{}"),
        ("DELETE", "/machines/{}"),
        ("POST", "/machines/{}/start"),
        ("POST", "/machines/{}/stop"),
        ("POST", "/machines/{}/restart"),
        ("GET", "/machines/{}/wait?status=running"),
        ("GET", "/machines/{}/ports"),
        ("GET", "/machines/{}/logs"),
    ],
)
@pytest.mark.parametrize("ref", ["none", "abc123def456", "%00", "a%20b", "a" * 500])
async def test_no_such_machine(api: Api, method: str, path: str, ref: str) -> None:
    body: dict[str, object] | None = {"labels": {}} if method == "PATCH" else None
    answer = await api.client.request(method, path.format(ref), json=body)
    status, code, message = error(answer)
    assert (status, code) == (404, "NOT_FOUND")
    assert message.startswith("Machine not found: ")
