"""Libraries that people use, through a real data plane: all of them see the same.

The servers run on this host's loopback in place of a machine: what is tested is what the client and
the server make of the bytes that the proxy passes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from integration.clients.libraries import HTTP_CLIENTS, WEBSOCKET_CLIENTS, Client
from integration.clients.limits import BLIND, CANNOT, SPARE_CONNECTS
from integration.clients.scenarios import SCENARIOS, Scenario, Seen, sha256
from integration.clients.table import Table
from integration.clients.websocket_scenarios import WEBSOCKET_SCENARIOS, WebSocketScenario

Results = Callable[[Client, tuple[Any, ...]], dict[str, Any]]


def _pairs(clients: tuple[Client, ...], scenarios: tuple[Any, ...]) -> list[Any]:
    return [
        pytest.param(client, scenario, id=f"{client.name}-{scenario.name}")
        for client in clients
        for scenario in scenarios
        if (client.name, scenario.name) not in CANNOT
    ]


@pytest.mark.parametrize(("client", "scenario"), _pairs(HTTP_CLIENTS, SCENARIOS))
def test_http(client: Client, scenario: Scenario, results: Results, table: Table) -> None:
    table.failed("HTTP", client.name, scenario.name)
    result = results(client, SCENARIOS).get(scenario.name, {"error": "the program had ended"})
    if scenario.seen == (None,):
        assert "error" in result, result
        assert "had ended" not in result["error"]
        table.passed("HTTP", client.name, scenario.name)
        return
    assert "error" not in result, result
    blind: list[str] = []
    for answer, seen in zip(result["answers"], scenario.seen, strict=True):
        assert seen is not None
        _compare(answer, seen)
        for field in ("trailers", "interim"):
            if getattr(seen, field) is not None:
                blind += _shown(client, field, answer[field], getattr(seen, field))
        if seen.raw is not None:
            field = "gzip" if "content-encoding" in seen.headers else "raw"
            blind += _shown(client, field, answer["sha256"], sha256(seen.raw))
    if scenario.most_connects is not None:
        spare = SPARE_CONNECTS.get(client.name, 0)
        assert result["connects"] <= scenario.most_connects + spare
    table.passed("HTTP", client.name, scenario.name, blind)


def _compare(answer: dict[str, Any], seen: Seen) -> None:
    """What every client shows."""
    assert answer["status"] == seen.status
    assert {name: answer["headers"].get(name) for name in seen.headers} == seen.headers
    if seen.text is not None:
        assert answer["text"] == seen.text
    if seen.record:
        record = json.loads(answer["text"])
        assert {name: record[name] for name in seen.record} == seen.record


def _shown(client: Client, field: str, got: object, expected: object) -> list[str]:
    """Compares what a client may not show; the field if it does not."""
    if (client.name, field) not in BLIND:
        assert got == expected
        return []
    # It can by now? Then its line in limits.py has to go.
    assert got != expected
    return [field]


@pytest.mark.parametrize(("client", "scenario"), _pairs(WEBSOCKET_CLIENTS, WEBSOCKET_SCENARIOS))
def test_websocket(
    client: Client, scenario: WebSocketScenario, results: Results, table: Table
) -> None:
    table.failed("WebSocket", client.name, scenario.name)
    told = results(client, WEBSOCKET_SCENARIOS)
    result = told.get(scenario.name, {"error": "the program had ended"})
    assert "error" not in result, result
    assert result["received"] == list(scenario.seen)
    assert result["subprotocol"] == scenario.subprotocol
    assert ("permessage-deflate" in str(result["extensions"])) == scenario.compress
    blind: list[str] = []
    if scenario.closed is not None:
        (code, reason), (expected_code, expected) = result["closed"], scenario.closed
        assert code == expected_code
        if scenario.steps[-2].close is not None:
            blind = _shown(client, "close reason", reason, expected)
        else:
            assert reason == expected
    table.passed("WebSocket", client.name, scenario.name, blind)
