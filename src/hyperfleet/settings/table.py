"""The settings: `SETTINGS` is the table of all there are, `Settings` what becomes of it.

The reference page is made from the table; a test holds the two, and the page, to each other.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hyperfleet.settings import values as value
from hyperfleet.settings.of_machines import MACHINES
from hyperfleet.settings.of_proxy import PROXY
from hyperfleet.settings.setting import LIMIT_MS, Setting

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
    hyperfleet_disk_reserve_mib: int
    hyperfleet_cgroups: str
    hyperfleet_cgroup_memory_mib: int
    hyperfleet_cgroup_cpu_percent: int
    hyperfleet_cgroup_io_max: str | None
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


SETTINGS: tuple[Setting, ...] = (
    Setting("PORT", "3000", *value.port, "The API's port."),
    Setting("HOST", "127.0.0.1", *value.address, "The address that the API binds."),
    *PROXY,
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
    *MACHINES,
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
        *LIMIT_MS,
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
