"""The SDK: `Client` and `ProcessStream`; for asyncio `AsyncClient` and `AsyncProcessStream`."""

import importlib
from typing import TYPE_CHECKING, Any

from hyperfleet.client.answers import ApiError, UnreachableError, UntrustedError, to_json
from hyperfleet.client.blocking import Client
from hyperfleet.client.follow import Missed
from hyperfleet.client.process import Attachment, Output, ProcessExit
from hyperfleet.client.values import (
    Activity,
    CommandState,
    Disk,
    DiskUsage,
    Egress,
    EgressRule,
    Event,
    ExecResult,
    FileInfo,
    Folder,
    Key,
    KeyPage,
    Machine,
    MachineDisk,
    MachinePage,
    NewKey,
    Port,
    PortOptions,
    Ports,
    Process,
    Snapshot,
    Start,
    Template,
)

if TYPE_CHECKING:
    from hyperfleet.client.async_exec_stream import AsyncProcessStream
    from hyperfleet.client.asynchronous import AsyncClient
    from hyperfleet.client.exec_stream import ProcessStream

# What brings WebSockets or asyncio along, which take longer to load than most calls to be
# answered, is loaded when it is first asked for (PEP 562).
_LATER = {
    "AsyncClient": "hyperfleet.client.asynchronous",
    "AsyncProcessStream": "hyperfleet.client.async_exec_stream",
    "ProcessStream": "hyperfleet.client.exec_stream",
}

__all__ = [
    "Activity",
    "ApiError",
    "AsyncClient",
    "AsyncProcessStream",
    "Attachment",
    "Client",
    "CommandState",
    "Disk",
    "DiskUsage",
    "Egress",
    "EgressRule",
    "Event",
    "ExecResult",
    "FileInfo",
    "Folder",
    "Key",
    "KeyPage",
    "Machine",
    "MachineDisk",
    "MachinePage",
    "Missed",
    "NewKey",
    "Output",
    "Port",
    "PortOptions",
    "Ports",
    "Process",
    "ProcessExit",
    "ProcessStream",
    "Snapshot",
    "Start",
    "Template",
    "UnreachableError",
    "UntrustedError",
    "to_json",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
