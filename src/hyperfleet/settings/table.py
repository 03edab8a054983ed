"""The settings: `SETTINGS` is the table of all there are, `Settings` what becomes of it.

The reference page is made from the table; a test holds the two, and the page, to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from hyperfleet.settings import values as value

DEFAULT_HOME = Path(".hyperfleet")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, checked. Attribute names are the environment's in lower case.

    Units are in the names: `_ms` milliseconds, `_bytes` bytes. Paths are as they were given:
    relative ones start at the working directory.
    """

    port: int
    host: str
    proxy_port: int
    proxy_bind: str
    proxy_prefix: str
    proxy_host_suffix: str | None
    proxy_exposed_port_poll_interval_ms: int
    proxy_trusted_proxies: tuple[str, ...]
    proxy_workers: int
    proxy_user: str
    proxy_seccomp: bool
    proxy_access_log: Path | None
    proxy_access_log_sample: int
    proxy_server_timing: bool
    proxy_max_head_bytes: int
    proxy_max_head_fields: int
    proxy_max_target_bytes: int
    proxy_max_body_bytes: int
    proxy_max_connections: int
    proxy_max_address_connections: int
    proxy_max_held_bytes: int
    proxy_max_machine_connections: int
    proxy_max_machine_requests: int
    proxy_head_timeout_ms: int
    proxy_idle_timeout_ms: int
    proxy_connect_timeout_ms: int
    proxy_response_timeout_ms: int
    proxy_body_timeout_ms: int
    proxy_tunnel_timeout_ms: int
    proxy_drain_timeout_ms: int
    proxy_retire_timeout_ms: int
    database_url: str | None
    database_path: Path
    disable_auth: bool
    hyperfleet_home: Path
    hyperfleet_kernel_image_path: str
    hyperfleet_kernel_args: str | None
    hyperfleet_rootfs_path: str
    hyperfleet_image_dirs: tuple[Path, ...]
    hyperfleet_vmm: str
    hyperfleet_network: str
    hyperfleet_network_restrict: bool
    hyperfleet_network_host_ports: tuple[int, ...]
    hyperfleet_dns: tuple[str, ...]
    hyperfleet_subnet: str
    hyperfleet_boots_at_once: int
    hyperfleet_boot_queue: int
    hyperfleet_templates: int
    hyperfleet_memory_reserve_mib: int
    hyperfleet_memory_overcommit_percent: int
    hyperfleet_cpu_overcommit_percent: int
    hyperfleet_boot_deadline_ms: int
    hyperfleet_stop_grace_ms: int
    hyperfleet_restart_wait_ms: int
    hyperfleet_restart_longest_wait_ms: int
    hyperfleet_restart_calm_ms: int
    hyperfleet_restart_tries: int
    hyperfleet_exec_output_bytes: int
    hyperfleet_max_body_bytes: int
    hyperfleet_metrics_per_machine: bool
    hyperfleet_request_arrival_ms: int
    hyperfleet_max_api_connections: int
    hyperfleet_failed_keys_per_minute: int
    log_level: str
    log_format: str


class Setting(msgspec.Struct, frozen=True):
    """One row: its name, its default as it would be written (None: unset), and what it is for."""

    name: str
    default: str | None
    parse: Callable[[str], Any]
    may_be: str
    about: str


_LIMIT_MS = value.number(1, 86_400_000, "milliseconds")

SETTINGS: tuple[Setting, ...] = (
    Setting("PORT", "3000", *value.port, "The API's port."),
    Setting("HOST", "127.0.0.1", *value.address, "The address that the API binds."),
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
    Setting("PROXY_HEAD_TIMEOUT_MS", "10000", *_LIMIT_MS, "How long a request's head may take."),
    Setting(
        "PROXY_IDLE_TIMEOUT_MS",
        "75000",
        *_LIMIT_MS,
        "How long a connection may idle between requests.",
    ),
    Setting(
        "PROXY_CONNECT_TIMEOUT_MS", "5000", *_LIMIT_MS, "How long connecting to a machine may take."
    ),
    Setting(
        "PROXY_RESPONSE_TIMEOUT_MS",
        "300000",
        *_LIMIT_MS,
        "How long a machine may take until its response begins.",
    ),
    Setting("PROXY_BODY_TIMEOUT_MS", "300000", *_LIMIT_MS, "How long a body may pause."),
    Setting(
        "PROXY_TUNNEL_TIMEOUT_MS", "3600000", *_LIMIT_MS, "How long a WebSocket may be silent."
    ),
    Setting(
        "PROXY_DRAIN_TIMEOUT_MS",
        "10000",
        *_LIMIT_MS,
        "How long requests in flight may take when the data plane ends.",
    ),
    Setting(
        "PROXY_RETIRE_TIMEOUT_MS",
        "3600000",
        *_LIMIT_MS,
        "How long they may take once another data plane has taken over (upgrade, other settings).",
    ),
    Setting(
        "DATABASE_URL",
        None,
        *value.database_url,
        "The database; set, it wins over DATABASE_PATH.",
    ),
    Setting("DATABASE_PATH", "./hyperfleet.db", *value.path, "The SQLite file."),
    Setting(
        "DISABLE_AUTH",
        "false",
        *value.switch,
        "No keys are asked for; refused unless HOST is loopback.",
    ),
    Setting(
        "HYPERFLEET_HOME",
        str(DEFAULT_HOME),
        *value.path,
        "Kernel, images, disks, sockets, logs and the first key.",
    ),
    Setting(
        "HYPERFLEET_KERNEL_IMAGE_PATH",
        ".hyperfleet/vmlinux",
        *value.text,
        "A machine's kernel where its request names none; follows HYPERFLEET_HOME.",
    ),
    Setting(
        "HYPERFLEET_KERNEL_ARGS",
        None,
        *value.kernel_args,
        "A machine's kernel arguments where its request names none; unset: the driver's.",
    ),
    Setting(
        "HYPERFLEET_ROOTFS_PATH",
        ".hyperfleet/rootfs.ext4",
        *value.text,
        "A machine's root disk where its request names none; follows HYPERFLEET_HOME.",
    ),
    Setting(
        "HYPERFLEET_IMAGE_DIRS",
        "",
        *value.directories,
        "Folders besides HYPERFLEET_HOME in which kernels and root disks may lie.",
    ),
    Setting("HYPERFLEET_VMM", "auto", *value.choice("auto", "qemu", "fake"), "The driver."),
    Setting(
        "HYPERFLEET_NETWORK",
        "auto",
        *value.choice("auto", "user", "tap"),
        "How new machines are attached; `user` needs no root, `tap` does; `auto` is `user`.",
    ),
    Setting(
        "HYPERFLEET_NETWORK_RESTRICT",
        "false",
        *value.switch,
        "Machines only answer: they reach no internet and nothing on this host's loopback.",
    ),
    Setting(
        "HYPERFLEET_NETWORK_HOST_PORTS",
        "",
        *value.ports,
        "TCP ports of this host that machines may connect to.",
    ),
    Setting(
        "HYPERFLEET_DNS",
        "",
        *value.resolvers,
        "Whom machines that are attached by tap ask for names; empty: whom this host asks.",
    ),
    Setting(
        "HYPERFLEET_SUBNET",
        "172.16.0.0/16",
        *value.subnet,
        "Where machines that are attached by tap get their addresses.",
    ),
    Setting(
        "HYPERFLEET_BOOTS_AT_ONCE",
        "4",
        *value.number(1, 1000, "machines"),
        "How many machines may boot at the same time; the others queue.",
    ),
    Setting(
        "HYPERFLEET_BOOT_QUEUE",
        "1000",
        *value.number(0, 1_000_000, "machines"),
        "How many starts may wait for their turn, the keys in turn; over it clients get 503.",
    ),
    Setting(
        "HYPERFLEET_TEMPLATES",
        "4",
        *value.number(0, 1000, "templates"),
        "How many shapes of machine are kept ready to be cloned, so that a start need not boot; "
        "each takes 70 to 100 MiB of disk, and of memory once it is used. 0: every start boots.",
    ),
    Setting(
        "HYPERFLEET_MEMORY_RESERVE_MIB",
        "512",
        *value.number(0, 1_000_000_000, "MiB"),
        "How much of the host's memory no machine is promised.",
    ),
    Setting(
        "HYPERFLEET_MEMORY_OVERCOMMIT_PERCENT",
        "100",
        *value.number(1, 10_000, "percent"),
        "How much of the rest machines are promised; over 100, that they don't use all of theirs.",
    ),
    Setting(
        "HYPERFLEET_CPU_OVERCOMMIT_PERCENT",
        "1600",
        *value.number(1, 1_000_000, "percent"),
        "How many virtual CPUs machines are promised, of the host's.",
    ),
    Setting(
        "HYPERFLEET_BOOT_DEADLINE_MS",
        "60000",
        *value.number(1_000, 3_600_000, "milliseconds"),
        "A machine whose agent has not answered by then has failed.",
    ),
    Setting(
        "HYPERFLEET_STOP_GRACE_MS",
        "5000",
        *value.number(0, 600_000, "milliseconds"),
        "How long a guest may take to power itself off before it is killed.",
    ),
    Setting(
        "HYPERFLEET_RESTART_WAIT_MS",
        "1000",
        *value.number(1, 86_400_000, "milliseconds"),
        "How long a machine that is started again by itself waits the first time; then twice that.",
    ),
    Setting(
        "HYPERFLEET_RESTART_LONGEST_WAIT_MS",
        "60000",
        *value.number(1, 86_400_000, "milliseconds"),
        "The longest of these waits.",
    ),
    Setting(
        "HYPERFLEET_RESTART_CALM_MS",
        "600000",
        *value.number(1, 86_400_000, "milliseconds"),
        "A machine that has run so long is sound: its waits and tries begin anew.",
    ),
    Setting(
        "HYPERFLEET_RESTART_TRIES",
        "10",
        *value.number(0, 1_000_000, "starts"),
        "How often in a row a machine is started again by itself; 0: without end.",
    ),
    Setting(
        "HYPERFLEET_EXEC_OUTPUT_BYTES",
        "8388608",
        *value.number(1024, 64 * 1024 * 1024, "bytes"),
        "How much of each output stream of an exec is kept, from its beginning.",
    ),
    Setting(
        "HYPERFLEET_MAX_BODY_BYTES",
        "8388608",
        *value.number(1024, 1024 * 1024 * 1024, "bytes"),
        "The longest request body that the API reads; longer ones are refused with 413.",
    ),
    Setting(
        "HYPERFLEET_METRICS_PER_MACHINE",
        "true",
        *value.switch,
        "Whether /metrics, which asks for no key, shows each machine and port by name.",
    ),
    Setting(
        "HYPERFLEET_REQUEST_ARRIVAL_MS",
        "30000",
        *_LIMIT_MS,
        "How long the head of a request to the API may take to come, and then its body; then 408.",
    ),
    Setting(
        "HYPERFLEET_MAX_API_CONNECTIONS",
        "1000",
        *value.number(1, 100_000, "connections"),
        "The most connections to the API; one more is answered with 503 and closed.",
    ),
    Setting(
        "HYPERFLEET_FAILED_KEYS_PER_MINUTE",
        "30",
        *value.number(0, 100_000, "keys"),
        "How many keys that are not valid a client may show before it waits (429); 0: no limit. "
        "Keys in use are let in all the same.",
    ),
    Setting(
        "LOG_LEVEL",
        "info",
        *value.choice("debug", "info", "warning", "error"),
        "What is logged: this and all that is worse.",
    ),
    Setting(
        "LOG_FORMAT",
        "auto",
        *value.choice("auto", "text", "json"),
        "How; auto is text on a terminal, else json.",
    ),
)

# Read by the command line (not by the server), so known, but no part of `Settings`.
CLIENT_NAMES = ("HYPERFLEET_URL", "HYPERFLEET_API_KEY")
# What tests have `failpoints` read; the server says so itself when it is set.
TEST_NAMES = ("HYPERFLEET_TEST_FAILPOINT",)
