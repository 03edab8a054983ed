"""Who may do what: keys, scopes, and what is open to all."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import httpx
import msgspec
import pytest

from hyperfleet.api.app import create_app
from hyperfleet.api.endpoints import ENDPOINTS
from hyperfleet.auth.keys import Scope

from .conftest import Api, error

READ, WRITE, EXEC, ALL = (scope.value for scope in Scope)

# Endpoint, request, scope; held to the table of endpoints below.
REQUESTS = {
    "create_machine": ("POST", "/machines", WRITE),
    "list_machines": ("GET", "/machines", READ),
    "get_machine": ("GET", "/machines/web", READ),
    "change_machine": ("PATCH", "/machines/web", WRITE),
    "delete_machine": ("DELETE", "/machines/web", WRITE),
    "start_machine": ("POST", "/machines/web/start", WRITE),
    "stop_machine": ("POST", "/machines/web/stop", WRITE),
    "restart_machine": ("POST", "/machines/web/restart", WRITE),
    "pause_machine": ("POST", "/machines/web/pause", WRITE),
    "sleep_machine": ("POST", "/machines/web/sleep", WRITE),
    "resume_machine": ("POST", "/machines/web/resume", WRITE),
    "wait_for_machine": ("GET", "/machines/web/wait", READ),
    "exec_in_machine": ("POST", "/machines/web/exec", EXEC),
    "list_processes": ("GET", "/machines/none/processes", EXEC),
    "kill_process": ("DELETE", "/machines/none/processes/build", EXEC),
    "read_file": ("GET", "/machines/none/files?path=/x", EXEC),
    "write_file": ("PUT", "/machines/none/files?path=/x", EXEC),
    "delete_file": ("DELETE", "/machines/none/files?path=/x", EXEC),
    "machine_ports": ("GET", "/machines/web/ports", READ),
    "machine_activity": ("GET", "/machines/web/activity", READ),
    "machine_logs": ("GET", "/machines/web/logs", READ),
    # Refused, so that the answer has an end.
    "events": ("GET", "/events?after=never", READ),
    "snapshot_machine": ("POST", "/machines/none/snapshots", WRITE),
    "restore_machine": ("POST", "/machines/none/restore", WRITE),
    "list_snapshots": ("GET", "/snapshots", READ),
    "get_snapshot": ("GET", "/snapshots/none", READ),
    "clone_snapshot": ("POST", "/snapshots/none/clone", WRITE),
    "delete_snapshot": ("DELETE", "/snapshots/none", WRITE),
    "create_disk": ("POST", "/disks", WRITE),
    "list_disks": ("GET", "/disks", READ),
    "get_disk": ("GET", "/disks/none", READ),
    "grow_disk": ("PATCH", "/disks/none", WRITE),
    "delete_disk": ("DELETE", "/disks/none", WRITE),
    "machine_disks": ("GET", "/machines/none/disks", READ),
    "list_templates": ("GET", "/templates", READ),
    "remove_template": ("DELETE", "/templates/none", WRITE),
    "create_key": ("POST", "/keys", ALL),
    "list_keys": ("GET", "/keys", ALL),
    "revoke_key": ("DELETE", "/keys/none", ALL),
    "health": ("GET", "/health", None),
    "ready": ("GET", "/ready", None),
    "metrics": ("GET", "/metrics", None),
    "docs": ("GET", "/docs", None),
    "openapi": ("GET", "/openapi.json", None),
}


async def _ask(api: Api, name: str, key: str | None) -> httpx.Response:
    method, path, _ = REQUESTS[name]
    request = api.client.build_request(method, path)
    del request.headers["Authorization"]
    if key is not None:
        request.headers["Authorization"] = f"Bearer {key}"
    return await api.client.send(request)


def test_every_endpoint_is_here() -> None:
    # A WebSocket is not asked by a request: tests/integration/test_exec_stream.py.
    assert set(REQUESTS) == set(ENDPOINTS) - {"stream_exec"}


@pytest.mark.parametrize("name", REQUESTS)
async def test_scopes(api: Api, name: str) -> None:
    needed = REQUESTS[name][2]
    without = await _ask(api, name, None)
    if needed is None:
        assert without.status_code == 200
        return
    assert error(without)[:2] == (401, "UNAUTHORIZED")
    assert without.headers["WWW-Authenticate"].startswith("Bearer")
    for scope, key in api.keys.items():
        answer = await _ask(api, name, key)
        if scope in (needed, ALL):
            assert answer.status_code not in (401, 403), scope
        else:
            assert error(answer) == (403, "FORBIDDEN", f"This key lacks the scope {needed}")


@pytest.mark.parametrize("name", REQUESTS)
async def test_no_request_takes_a_turn_of_a_thread(
    api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI calls what is no coroutine in one, also a dependency that gives what is there."""
    turns: list[object] = []
    run_sync = anyio.to_thread.run_sync

    async def run(call: Any, *arguments: Any, **options: Any) -> Any:
        turns.append(call)
        return await run_sync(call, *arguments, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", run)
    answer = await _ask(api, name, api.keys[ALL])
    assert answer.status_code not in (401, 403)
    assert turns == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer hf_",
        "Bearer hf_" + "a" * 32,
        "Bearer hf_" + "a" * 31 + "é",
        "Basic aGY6aGY=",
        "Token {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer {short}",
        "Bearer {KEY}",
        "Bearer {key} {key}",
    ],
)
async def test_wrong_keys(api: Api, header: str) -> None:
    key = api.keys[ALL]
    sent = header.format(key=key, short=key[:-1], KEY=key.upper())
    answer = await api.client.get("/machines", headers={b"Authorization": sent.encode()})
    assert error(answer)[:2] == (401, "UNAUTHORIZED")


async def test_the_scheme_in_any_case(api: Api) -> None:
    answer = await api.client.get(
        "/machines", headers={"Authorization": f"bearer {api.keys[READ]}"}
    )
    assert answer.status_code == 200


async def test_two_authorization_headers(api: Api) -> None:
    key = api.keys[ALL]
    pair = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    request = httpx.Request("GET", "http://api/machines", headers=pair)
    assert error(await api.client.send(request))[0] == 401


async def test_expired_and_revoked_keys(api: Api) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = await api.keyring.create(name="old", scopes=(Scope.ALL,), expires_at=past)
    assert error(await _ask(api, "list_machines", expired.secret))[0] == 401

    made = await api.client.post("/keys", json={"name": "ci", "scopes": [READ]})
    assert made.status_code == 201
    secret, key_id = made.json()["key"], made.json()["id"]
    assert (await _ask(api, "list_machines", secret)).status_code == 200
    assert (await api.client.delete(f"/keys/{key_id}")).status_code == 204
    assert error(await _ask(api, "list_machines", secret))[0] == 401
    again = await api.client.delete(f"/keys/{key_id}")
    assert error(again) == (404, "NOT_FOUND", f"Key not found: {key_id}")


async def test_a_key_is_shown_once_and_never_again(api: Api) -> None:
    expires = "2130-01-31T12:00:00Z"
    made = await api.client.post(
        "/keys", json={"name": "ci", "scopes": [READ, WRITE], "expires_at": expires}
    )
    assert set(made.json()) == {"id", "key", "name", "prefix", "scopes", "expires_at"}
    assert made.json()["expires_at"] == expires
    assert made.json()["prefix"] == made.json()["key"][:11]
    listed = await api.client.get("/keys")
    assert made.json()["key"] not in listed.text
    assert made.json()["id"] in [key["id"] for key in listed.json()["keys"]]


async def test_nothing_is_parsed_for_strangers(api: Api) -> None:
    answer = await api.client.post(
        "/machines", content=b"{", headers={"Authorization": "Bearer hf_no"}
    )
    assert answer.status_code == 401


@pytest.fixture
def open_api(api: Api) -> httpx.AsyncClient:
    """The same server with DISABLE_AUTH."""
    parts = api.app.state.parts
    settings = msgspec.structs.replace(parts.settings, disable_auth=True)
    app = create_app(msgspec.structs.replace(parts, settings=settings), not_ready=lambda: None)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://localhost:3000"
    )


async def test_without_auth_nobody_is_let_in_whose_process_is_not_known(
    api: Api, open_api: httpx.AsyncClient
) -> None:
    """With machines about, a connection that no process holds may have been a guest's."""
    ref = await api.machine()
    await api.client.post(f"/machines/{ref}/start")
    api.fleet.set_pid(ref, os.getpid())
    async with open_api as client:
        status, code, message = error(await client.get("http://127.0.0.1:3000/machines"))
        assert (status, code) == (403, "FORBIDDEN")
        assert "inside machines" in message
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1", "127.0.0.1:3000", "[::1]:3000"])
async def test_without_auth_the_users_own_tools_are_let_in(
    open_api: httpx.AsyncClient, host: str
) -> None:
    async with open_api as client:
        for origin in ({}, {"Origin": f"http://{host}"}):
            answer = await client.get("/machines", headers={"Host": host} | origin)
            assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.evil.example"},
        {"Host": "localhost.evil.example:3000"},
        {"Host": "["},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
    ],
)
async def test_without_auth_web_pages_are_kept_out(
    open_api: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    async with open_api as client:
        answer = await client.post("/machines/web/stop", headers=headers)
        assert error(answer)[:2] == (403, "FORBIDDEN")


async def test_many_bad_keys_make_a_client_wait(api: Api) -> None:
    """All but those whose key was good before: the others behind one address lose nothing."""
    known, new = api.keys[READ], api.keys[ALL]

    async def ask(key: str) -> httpx.Response:
        return await api.client.get("/machines", headers={"Authorization": f"Bearer {key}"})

    assert (await ask(known)).status_code == 200
    limit = api.app.state.parts.settings.hyperfleet_failed_keys_per_minute
    for number in range(limit):
        assert (await ask(f"hf_{number:032d}")).status_code == 401
    for key in (f"hf_{limit:032d}", "short", new):
        late = await ask(key)
        assert error(late)[:2] == (429, "RATE_LIMITED")
        assert 1 <= int(late.headers["Retry-After"]) <= 60
    assert (await ask(known)).status_code == 200
    # Who shows none is told what is needed, as ever.
    assert (await _ask(api, "list_machines", None)).status_code == 401
