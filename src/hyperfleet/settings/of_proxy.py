"""The settings of the data plane."""

from __future__ import annotations

from hyperfleet.settings import values as value
from hyperfleet.settings.setting import LIMIT_MS, Setting

PROXY: tuple[Setting, ...] = (
    Setting("PROXY_PORT", "4000", *value.port, "The proxy's port."),
    Setting("PROXY_BIND", "127.0.0.1", *value.address, "The address that the proxy binds."),
    Setting("PROXY_PREFIX", "/proxy", *value.prefix, "Where path routing begins."),
    Setting(
        "PROXY_HOST_SUFFIX",
        None,
        *value.suffix,
        "Turns host routing on: `{machine}-{port}` before this suffix.",
    ),
    Setting(
        "PROXY_EXPOSED_PORT_POLL_INTERVAL_MS",
        "10000",
        *value.number(100, 3_600_000, "milliseconds"),
        "How often a machine is asked which exposed ports have listeners, besides when it tells.",
    ),
    Setting(
        "PROXY_TRUSTED_PROXIES",
        "127.0.0.0/8,::1",
        *value.networks,
        "Whose X-Forwarded-* are believed; empty: nobody's.",
    ),
    Setting(
        "PROXY_WORKERS",
        "0",
        *value.number(0, 1024, "threads"),
        "Threads of the data plane; 0: one for each usable CPU.",
    ),
    Setting(
        "PROXY_USER",
        "nobody",
        *value.user,
        "Whom the data plane becomes, by name or number, when it was started by root.",
    ),
    Setting(
        "PROXY_SECCOMP",
        "true",
        *value.switch,
        "Forbids the data plane all system calls that serving does not need.",
    ),
    Setting(
        "PROXY_ACCESS_LOG",
        None,
        *value.path_or_dash,
        "Where the data plane writes a line of JSON for each request; unset: nowhere.",
    ),
    Setting(
        "PROXY_ACCESS_LOG_SAMPLE",
        "1",
        *value.number(1, 1_000_000, "requests"),
        "Of so many requests one gets a line; errors of the proxy's own always do.",
    ),
    Setting(
        "PROXY_SERVER_TIMING",
        "false",
        *value.switch,
        "Tells clients in Server-Timing how long an answer took, and the machine's part of it.",
    ),
    Setting(
        "PROXY_MAX_HEAD_BYTES",
        "32768",
        *value.number(1024, 1 << 20, "bytes"),
        "The longest head of a request.",
    ),
    Setting(
        "PROXY_MAX_HEAD_FIELDS",
        "128",
        *value.number(8, 1024, "fields"),
        "The most fields in a request's head.",
    ),
    Setting(
        "PROXY_MAX_TARGET_BYTES",
        "16384",
        *value.number(256, 1 << 20, "bytes"),
        "The longest target of a request.",
    ),
    Setting(
        "PROXY_MAX_BODY_BYTES",
        "0",
        *value.number(0, 1 << 40, "bytes"),
        "The longest body of a request; 0: no limit.",
    ),
    Setting(
        "PROXY_MAX_CONNECTIONS",
        "100000",
        *value.number(1, 10_000_000, "connections"),
        "The most connections of clients, in all.",
    ),
    Setting(
        "PROXY_MAX_ADDRESS_CONNECTIONS",
        "10000",
        *value.number(0, 10_000_000, "connections"),
        "The most connections of one client address (IPv6: of one /64); trusted proxies are exempt;"
        " 0: no limit.",
    ),
    Setting(
        "PROXY_MAX_HELD_BYTES",
        "268435456",
        *value.number(1 << 20, 1 << 40, "bytes"),
        "What the data plane holds for peers that do not read, before it reads in small steps.",
    ),
    Setting(
        "PROXY_MAX_MACHINE_CONNECTIONS",
        "4096",
        *value.number(1, 1_000_000, "connections"),
        "The most connections to one machine; over it clients get 503.",
    ),
    Setting(
        "PROXY_MAX_MACHINE_REQUESTS",
        "4096",
        *value.number(1, 1_000_000, "requests"),
        "The most requests in flight to one machine; over it clients get 503.",
    ),
    Setting("PROXY_HEAD_TIMEOUT_MS", "10000", *LIMIT_MS, "How long a request's head may take."),
    Setting(
        "PROXY_IDLE_TIMEOUT_MS",
        "75000",
        *LIMIT_MS,
        "How long a connection may idle between requests.",
    ),
    Setting(
        "PROXY_CONNECT_TIMEOUT_MS", "5000", *LIMIT_MS, "How long connecting to a machine may take."
    ),
    Setting(
        "PROXY_RESPONSE_TIMEOUT_MS",
        "300000",
        *LIMIT_MS,
        "How long a machine may take until its response begins.",
    ),
    Setting("PROXY_BODY_TIMEOUT_MS", "300000", *LIMIT_MS, "How long a body may pause."),
    Setting("PROXY_TUNNEL_TIMEOUT_MS", "3600000", *LIMIT_MS, "How long a WebSocket may be silent."),
    Setting(
        "PROXY_DRAIN_TIMEOUT_MS",
        "10000",
        *LIMIT_MS,
        "How long requests in flight may take when the data plane ends.",
    ),
    Setting(
        "PROXY_RETIRE_TIMEOUT_MS",
        "3600000",
        *LIMIT_MS,
        "How long they may take once another data plane has taken over (upgrade, other settings).",
    ),
)
