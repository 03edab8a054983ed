"""The environment, over `.env`, over defaults: read once at start, every wrong setting reported.

`SETTINGS` is the table of all there are; the reference page is made from it, and `Settings`, the
frozen result, has one attribute for each row.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from dotenv import dotenv_values

from hyperfleet import settings_values as value
from hyperfleet.errors import SettingsError

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
    hyperfleet_subnet: str
    hyperfleet_boots_at_once: int
    hyperfleet_boot_deadline_ms: int
    hyperfleet_stop_grace_ms: int
    hyperfleet_exec_output_bytes: int
    hyperfleet_max_body_bytes: int
    log_level: str
    log_format: str


class Setting(msgspec.Struct, frozen=True):
    """One row: its name, its default as it would be written (None: unset), and what it is for."""

    name: str
    default: str | None
    parse: Callable[[str], Any]
    may_be: str
    about: str


class Loaded(msgspec.Struct, frozen=True):
    """The settings, where each came from (`default`, `.env` or `environment`), and warnings."""

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...]


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
        "How often a machine is asked which exposed ports have listeners.",
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
        *value.choice("auto", "user"),
        "How machines are attached; `user` needs no root.",
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


def load(environment: Mapping[str, str], env_file: Path | None) -> Loaded:
    """Reads and checks everything; an empty variable counts as unset.

    Raises:
        SettingsError: its message has one line for each setting that is wrong.
    """
    written = _read_env_file(env_file)
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    wrong: list[str] = []
    for setting in SETTINGS:
        raw, origin = _find(setting, environment, written)
        origins[setting.name] = origin
        try:
            found[setting.name.lower()] = None if raw is None else setting.parse(raw)
        except ValueError as error:
            reason = f" ({error})" if str(error) else ""
            wrong.append(f"{setting.name}={raw} ({origin}): must be {setting.may_be}{reason}")
    if not wrong:
        _follow_home(found, origins)
        wrong.extend(_contradictions(found))
    if wrong:
        raise SettingsError("\n".join(wrong))
    return Loaded(
        msgspec.convert(found, Settings), origins, tuple(_strangers(environment, written))
    )


def show(settings: Settings, name: str) -> str:
    """A setting's value as it would be written in the environment; empty when unset."""
    found = getattr(settings, name.lower())
    match found:
        case None:
            return ""
        case bool():
            return "true" if found else "false"
        case tuple():
            return (":" if name == "HYPERFLEET_IMAGE_DIRS" else ",").join(map(str, found))
        case _:
            return str(found)


def is_loopback(address: str) -> bool:
    """Whether only this computer can connect to what binds `address`."""
    return address == "localhost" or ipaddress.ip_address(address).is_loopback


def _find(
    setting: Setting, environment: Mapping[str, str], written: Mapping[str, str]
) -> tuple[str | None, str]:
    for source, origin in ((environment, "environment"), (written, ".env")):
        if source.get(setting.name):
            return source[setting.name], origin
        # A list may be emptied on purpose; for all else "" is how scripts say "unset".
        if setting.name in source and setting.parse is value.networks[0]:
            return source[setting.name], origin
    return setting.default, "default"


def _read_env_file(env_file: Path | None) -> dict[str, str]:
    if env_file is None or not env_file.exists():
        return {}
    try:
        lines = dotenv_values(env_file, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file} can't be read: {error}") from error
    return {name: text for name, text in lines.items() if text is not None}


def _follow_home(found: dict[str, Any], origins: Mapping[str, str]) -> None:
    """Default images lie in the home that was chosen, wherever that is."""
    home: Path = found["hyperfleet_home"]
    for name in ("HYPERFLEET_KERNEL_IMAGE_PATH", "HYPERFLEET_ROOTFS_PATH"):
        if origins[name] == "default":
            found[name.lower()] = str(home / Path(found[name.lower()]).name)


def _contradictions(found: Mapping[str, Any]) -> list[str]:
    """What each setting allows and all of them together do not."""
    wrong = []
    if found["disable_auth"] and not is_loopback(found["host"]):
        wrong.append(
            f"DISABLE_AUTH=true: refused with HOST={found['host']}, which others can reach; "
            "set HOST=127.0.0.1 or leave keys on"
        )
    if found["port"] == found["proxy_port"] and found["port"] != 0:
        wrong.append(f"PROXY_PORT={found['proxy_port']}: must differ from PORT")
    return wrong


def _strangers(environment: Mapping[str, str], written: Mapping[str, str]) -> list[str]:
    """Names that look like ours and are none: most likely misspelt."""
    known = [setting.name for setting in SETTINGS] + list(CLIENT_NAMES)
    warnings = []
    for source, origin in ((environment, "environment"), (written, ".env")):
        for name in sorted(source):
            if name in known or not name.startswith(("HYPERFLEET_", "PROXY_")):
                continue
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{name} ({origin}) is no setting{meant}")
    return warnings
