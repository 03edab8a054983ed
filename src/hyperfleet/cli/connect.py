"""Which server the command line talks to, and with which key."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from dotenv import dotenv_values

from hyperfleet.client import Client, Machine
from hyperfleet.errors import SettingsError
from hyperfleet.settings import ENV_FILE, Settings, is_loopback, load

# As many as one page of the list may hold.
_PAGE = 500


class Target(msgspec.Struct, frozen=True):
    """A server's URL and the key for it, if one was found."""

    url: str
    key: str | None


def connect() -> Client:
    """A client of the server that environment, `.env` and settings say."""
    target = find(os.environ, ENV_FILE)
    return Client(target.url, target.key)


def every_machine(
    client: Client, *, status: str | None = None, labels: Sequence[str] = ()
) -> list[Machine]:
    """All machines of that status and those labels, oldest first, page by page."""
    found: list[Machine] = []
    while True:
        page = client.list_machines(
            status=status, labels=labels, limit=_PAGE, offset=len(found)
        ).machines
        found += page
        if len(page) < _PAGE:
            return found


def find(environment: Mapping[str, str], env_file: Path) -> Target:
    """HYPERFLEET_URL and HYPERFLEET_API_KEY, else what the settings of a server here say.

    Raises:
        SettingsError: the settings are needed and wrong, or HYPERFLEET_URL is no URL.
    """
    url = _named("HYPERFLEET_URL", environment, env_file)
    key = _named("HYPERFLEET_API_KEY", environment, env_file)
    if url is not None:
        _check(url)
        # The home's key opens everything here: it goes to this host and nowhere else.
        if key is None and _leads_here(url):
            key = _key_of_home(load(environment, env_file).settings)
        return Target(url.rstrip("/"), key)
    settings = load(environment, env_file).settings
    return Target(_url_of(settings), key or _key_of_home(settings))


def _named(name: str, environment: Mapping[str, str], env_file: Path) -> str | None:
    if environment.get(name):
        return environment[name]
    written = dotenv_values(env_file, interpolate=False) if env_file.exists() else {}
    return written.get(name) or None


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"HYPERFLEET_URL={url}: must be a URL such as http://127.0.0.1:3000")


def _leads_here(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return name == "localhost" or is_loopback(name)
    except ValueError:
        return False


def _url_of(settings: Settings) -> str:
    address = ipaddress.ip_address(settings.host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")  # noqa: PLR2004
    host = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004
    return f"http://{host}:{settings.port}"


def _key_of_home(settings: Settings) -> str | None:
    try:
        return (settings.hyperfleet_home / "api-key").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
