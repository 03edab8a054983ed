"""The SDK against the API: what goes in comes out, and errors come as they were meant."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from hyperfleet.client import (
    ApiError,
    AsyncClient,
    Client,
    EgressRule,
    PortOptions,
    UnreachableError,
)
from hyperfleet.errors import GuestError

from .conftest import Api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AsyncClient]:
    transport = httpx.ASGITransport(app=api.app)
    async with AsyncClient("http://api", api.keys["*"], transport=transport) as opened:
        yield opened


def test_both_clients_can_do_the_same() -> None:
    def public(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(member)).replace("AsyncIter", "Iter")
            for name, member in vars(kind).items()
            if callable(member) and not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)


async def test_a_machines_life(client: AsyncClient) -> None:
    made = await client.create_machine(
        name="web",
        vcpu_count=1,
        mem_size_mib=128,
        exposed_ports=[80],
        env={"A": "b"},
        labels={"tier": "front"},
    )
    assert (made.name, made.status, made.exposed_ports) == ("web", "pending", (80,))
    assert made.created_at.tzinfo is not None
    assert await client.get_machine(made.id) == made
    assert (await client.start_machine("web")).status == "running"
    assert (await client.wait_for_machine("web", "running", timeout=1)).id == made.id
    changed = await client.change_machine("web", exposed_ports=(80, 81))
    assert (changed.exposed_ports, changed.labels) == ((80, 81), {"tier": "front"})
    changed = await client.change_machine("web", labels={"tier": "front", "n": ""})
    assert (changed.exposed_ports, changed.labels["n"]) == ((80, 81), "")
    changed = await client.change_machine("web", restart="on-failure", autostart=True)
    assert (changed.restart, changed.autostart, changed.restarts) == ("on-failure", True, 0)
    assert (await client.restart_machine("web")).status == "running"
    page = await client.list_machines(status="running", labels=["tier=front", "tier"])
    assert ([machine.name for machine in page.machines], page.total) == (["web"], 1)
    result = await client.exec_in_machine("web", ["echo", "é"], env={"A": "b"}, stdin="in")
    assert (result.exit_code, result.stdout) == (0, "echo é\ufffd")
    ports = await client.machine_ports("web")
    assert ports.ports[0].urls.path.endswith(f"/proxy/{made.id}/80/")
    assert ports.unexposed[0].port == 22
    activity = await client.machine_activity("web")
    assert (activity.requests_in_flight, activity.last_activity_at) == (0, None)
    assert await client.machine_logs("web", tail=1) == "three\n"
    assert (await client.stop_machine("web")).status == "stopped"
    await client.delete_machine("web")
    assert (await client.list_machines()).total == 0


async def test_whom_a_machine_may_speak_to(client: AsyncClient) -> None:
    rules = (
        EgressRule(network="192.0.2.0/24", protocol="tcp", ports=(80, 443)),
        EgressRule(network="198.51.100.7/32"),
    )
    made = await client.create_machine(name="web", vcpu_count=1, mem_size_mib=128, egress=rules)
    assert made.egress == rules
    assert (await client.change_machine("web", egress="none")).egress == "none"
    assert (await client.change_machine("web", labels={})).egress == "none"
    assert (await client.change_machine("web", egress=rules[1:])).egress == rules[1:]
    assert (await client.create_machine(name="db", vcpu_count=1, mem_size_mib=128)).egress == "all"


async def test_how_requests_go_to_a_port(client: AsyncClient) -> None:
    options = {5173: PortOptions(host="localhost:5173"), 80: PortOptions(strip_prefix=False)}
    made = await client.create_machine(
        name="web", vcpu_count=1, mem_size_mib=128, exposed_ports=[80, 5173], port_options=options
    )
    assert made.port_options == options
    assert (await client.change_machine("web", labels={})).port_options == options
    changed = await client.change_machine("web", port_options={80: options[80]})
    assert changed.port_options == {80: PortOptions(host=None, strip_prefix=False)}
    assert (await client.change_machine("web", port_options={})).port_options == {}


async def test_keys(client: AsyncClient) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    made = await client.create_key("ci", scopes=["machines:read"], expires_at=at)
    assert made.expires_at == at
    assert made.id in [key.id for key in await client.list_keys()]
    await client.revoke_key(made.id)
    assert made.id not in [key.id for key in await client.list_keys()]


async def test_health(client: AsyncClient) -> None:
    assert (await client.health()).status == "ok"
    assert (await client.ready()).status == "ready"


async def test_refusals(client: AsyncClient, api: Api) -> None:
    with pytest.raises(ApiError, match="Machine not found: a b") as refusal:
        await client.get_machine("a b")
    assert (refusal.value.code, refusal.value.status) == ("NOT_FOUND", 404)
    await api.machine()
    api.fleet.fail_next = GuestError("Kernel panic")
    with pytest.raises(ApiError, match="Kernel panic") as refusal:
        await client.start_machine("web")
    assert refusal.value.code == "GUEST_ERROR"
    api.fleet.fail_next = RuntimeError("secret")
    with pytest.raises(ApiError) as refusal:
        await client.start_machine("web")
    assert str(refusal.value.request_id) in refusal.value.message


@pytest.mark.parametrize(
    ("status", "content"), [(502, b"<html>bad gateway</html>"), (200, b"[]"), (200, b"\xff")]
)
def test_what_is_no_answer_of_ours(status: int, content: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    with Client("http://api", transport=transport) as client:
        with pytest.raises(ApiError) as refusal:
            client.list_machines()
        assert (refusal.value.code, refusal.value.status) == ("INTERNAL_ERROR", status)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (httpx.ConnectError("refused"), "No Hyperfleet server answers at http://api"),
        (httpx.ReadTimeout("late"), "http://api did not answer in time"),
    ],
)
def test_no_answer(failure: httpx.HTTPError, said: str) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise failure

    with (
        Client("http://api", transport=httpx.MockTransport(fail)) as client,
        pytest.raises(UnreachableError, match=said),
    ):
        client.health()


def test_the_key_is_sent() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200, json={"status": "ok"})

    for key in ("hf_x", None):
        with Client("http://api", key, transport=httpx.MockTransport(answer)) as client:
            client.health()
    assert seen == ["Bearer hf_x", None]
