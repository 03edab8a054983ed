"""The environment, over `.env`, over defaults: read once at start, every wrong setting reported."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from dotenv import dotenv_values

from hyperfleet.errors import SettingsError
from hyperfleet.settings import values as value
from hyperfleet.settings.setting import Setting
from hyperfleet.settings.table import CLIENT_NAMES, SETTINGS, TEST_NAMES, Settings

# Of the folder that a command is given in.
ENV_FILE = Path(".env")
_LONGEST_SHOWN = 100


class Loaded(msgspec.Struct, frozen=True):
    """The settings, where each came from (`default`, `.env` or `environment`), and warnings."""

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...]


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
            wrong.append(
                f"{setting.name}={_quote(raw or '')} ({origin}): must be {setting.may_be}{reason}"
            )
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
    return ipaddress.ip_address(address).is_loopback


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


def _quote(raw: str) -> str:
    """A value on one line, of a length that can be read."""
    line = raw if raw.isprintable() else raw.encode("unicode_escape").decode()
    return line if len(line) <= _LONGEST_SHOWN else line[:_LONGEST_SHOWN] + "…"


def _strangers(environment: Mapping[str, str], written: Mapping[str, str]) -> list[str]:
    """Names that look like ours and are none: most likely misspelt."""
    known = {setting.name for setting in SETTINGS} | {*CLIENT_NAMES, *TEST_NAMES}
    return [
        f"{name} ({origin}) is no setting{_meant(name, family, known)}"
        for source, origin in ((environment, "environment"), (written, ".env"))
        for name in sorted(set(source) - known)
        for family in ("HYPERFLEET_", "PROXY_")
        if name.startswith(family)
    ]


def _meant(name: str, family: str, known: Iterable[str]) -> str:
    """The nearest name there is; what all of a family begin with makes none of them near."""
    rests = [other.removeprefix(family) for other in known if other.startswith(family)]
    near = difflib.get_close_matches(name.removeprefix(family), sorted(rests), n=1)
    return f"; did you mean {family}{near[0]}?" if near else ""
