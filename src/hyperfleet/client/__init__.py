"""The SDK: `Client` and `ProcessStream`; for asyncio `AsyncClient` and `AsyncProcessStream`."""

from hyperfleet.client.answers import ApiError, UnreachableError, to_json
from hyperfleet.client.async_exec_stream import AsyncProcessStream
from hyperfleet.client.asynchronous import AsyncClient
from hyperfleet.client.blocking import Client
from hyperfleet.client.exec_stream import ProcessStream
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
    "to_json",
]
