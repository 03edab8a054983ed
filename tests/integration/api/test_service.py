"""The server itself: ids, errors nobody planned, readiness, and its own documents."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import structlog

from hyperfleet.api.endpoints import ENDPOINTS, errors_of
from hyperfleet.api.errors import STATUS

from .conftest import Api, error


@pytest.mark.parametrize("given", ["a", "A-1.b_2:3", "x" * 128])
async def test_a_sane_request_id_is_kept(api: Api, given: str) -> None:
    for path in ("/health", "/machines", "/nowhere"):
        answer = await api.client.get(path, headers={"X-Request-ID": given})
        assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, "<script>", "a\x7f"])
async def test_any_other_request_id_is_replaced(api: Api, given: str) -> None:
    answer = await api.client.get("/health", headers={"X-Request-ID": given})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
async def test_what_nobody_planned_tells_the_client_nothing(
    api: Api, kind: type[BaseException]
) -> None:
    await api.machine()
    api.fleet.fail_next = kind("the secret is 1234")
    with structlog.testing.capture_logs() as logs:
        answer = await api.client.post("/machines/web/start", headers={"X-Request-ID": "abc"})
    status, code, message = error(answer)
    assert (status, code) == (500, "INTERNAL_ERROR")
    assert "abc" in message
    assert "1234" not in answer.text
    failed = next(entry for entry in logs if entry["event"] == "request failed")
    assert failed["log_level"] == "error"


@pytest.mark.parametrize("path", ["/health", "/machines", "/machines/web", "/openapi.json"])
async def test_head_is_get_without_its_body(api: Api, path: str) -> None:
    await api.machine()
    whole = await api.client.get(path)
    head = await api.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.content))
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]


async def test_head_where_there_is_no_get_is_refused(api: Api) -> None:
    await api.machine()
    answer = await api.client.head("/machines/web/start")
    assert (answer.status_code, answer.content) == (405, b"")


async def test_requests_are_logged(api: Api) -> None:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as logs:
        await api.client.get("/machines", headers={"X-Request-ID": "abc"})
    entry = next(entry for entry in logs if entry["event"] == "request")
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/machines", 200)
    assert entry["request_id"] == "abc"
    assert api.keys["*"] not in str(logs)


@pytest.mark.parametrize("path", ["/", "/machine", "/machines/", "/machines/a/b", "/docs/x"])
async def test_nothing_there(api: Api, path: str) -> None:
    assert error(await api.client.get(path)) == (404, "NOT_FOUND", f"There is nothing at {path}")


async def test_a_long_path_gets_a_short_answer(api: Api) -> None:
    status, _, message = error(await api.client.get("/a" * 20_000))
    assert (status, len(message)) == (404, len("There is nothing at ") + 201)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/machines", "GET, POST"),
        ("PUT", "/machines/web", "DELETE, GET, PATCH"),
        ("GET", "/machines/web/start", "POST"),
        ("POST", "/health", "GET"),
        ("DELETE", "/keys", "GET, POST"),
    ],
)
async def test_another_method(api: Api, method: str, path: str, allowed: str) -> None:
    answer = await api.client.request(method, path)
    assert error(answer)[:2] == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == allowed


async def test_while_machines_are_adopted(api: Api) -> None:
    api.gate.clear()
    assert (await api.client.get("/health")).json() == {"status": "ok"}
    assert (await api.client.get("/docs")).status_code == 200
    for path in ("/ready", "/machines", "/keys"):
        assert error(await api.client.get(path)) == (503, "CAPACITY", "machines are adopted")
    api.gate.set()
    assert (await api.client.get("/ready")).json() == {"status": "ready"}


async def test_the_document_says_what_is_true(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    operations = {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert set(operations) == set(ENDPOINTS) - {"docs", "openapi", "stream_exec"}
    for name, operation in operations.items():
        endpoint = ENDPOINTS[name]
        assert operation["security"] == ([] if endpoint.scope is None else [{"key": []}])
        statuses = {status for status in operation["responses"] if not status.startswith("2")}
        assert statuses == {str(STATUS[code]) for code in errors_of(name)}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    create = document["components"]["schemas"]["CreateMachine"]
    assert create["additionalProperties"] is False
    assert create["required"] == ["name", "vcpu_count", "mem_size_mib"]
    change = document["components"]["schemas"]["ChangeMachine"]
    assert change["additionalProperties"] is False
    for field in change["properties"].values():
        # Left out, it stays as it is.
        assert "default" not in field
    _resolved(document, document)


def _resolved(document: dict[str, Any], part: Any) -> None:
    """Every reference leads somewhere."""
    if isinstance(part, dict):
        if "$ref" in part:
            assert part["$ref"].rpartition("/")[2] in document["components"]["schemas"]
        for value in part.values():
            _resolved(document, value)
    elif isinstance(part, list):
        for value in part:
            _resolved(document, value)


async def test_the_page_loads_nothing(api: Api) -> None:
    answer = await api.client.get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script|<link|<img|<iframe|src=|url\(|@import", answer.text)
    for path in api.app.openapi()["paths"]:
        assert path in answer.text
    assert "a DNS label" in answer.text
