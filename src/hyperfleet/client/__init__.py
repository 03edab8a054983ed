"""The SDK: `Client`, and `AsyncClient` for asyncio."""

from hyperfleet.client.answers import ApiError, UnreachableError, to_json
from hyperfleet.client.clients import AsyncClient, Client
from hyperfleet.client.values import (
    Activity,
    Egress,
    EgressRule,
    ExecResult,
    Key,
    KeyPage,
    Machine,
    MachinePage,
    NewKey,
    Port,
    Ports,
)

__all__ = [
    "Activity",
    "ApiError",
    "AsyncClient",
    "Client",
    "Egress",
    "EgressRule",
    "ExecResult",
    "Key",
    "KeyPage",
    "Machine",
    "MachinePage",
    "NewKey",
    "Port",
    "Ports",
    "UnreachableError",
    "to_json",
]
