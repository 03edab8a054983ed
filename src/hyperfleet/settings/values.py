"""What a setting's text may be: each name here is a parser and the words for what it takes.

A parser raises ValueError, with a reason where the words alone would not tell.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Value = tuple[Callable[[str], Any], str]

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
# RFC 3986, 3.3: pchar without percent-encoding, so that a prefix is the same in every spelling.
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+\Z")
# The longest a host name may be is 253; `{name}-{port}` before it takes 63 + 6 and a dot.
_LONGEST_SUFFIX = 253 - 70
_MAX_KERNEL_ARGS = 2048
_IO_MAX = ("rbps", "wbps", "riops", "wiops")
# A resolver looks at no more (resolv.conf(5)).
_MOST_RESOLVERS = 3


def number(least: int, most: int, unit: str) -> Value:
    """A whole number in decimal digits."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return parse, f"a whole number of {unit} from {least} to {most}"


def choice(*words: str) -> Value:
    """One of a few words, in lower case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return parse, f"one of {', '.join(words)}"


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:  # noqa: PLR2004
        raise ValueError
    return int(text)


def _address(text: str) -> str:
    if text == "localhost":
        return "127.0.0.1"
    if "%" in text:
        raise ValueError("without a zone")
    return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))


def _switch(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _prefix(text: str) -> str:
    segments = text.split("/")
    if segments[0] != "" or len(segments) < 2:  # noqa: PLR2004
        raise ValueError("it must begin with /")
    for segment in segments[1:]:
        if segment in (".", "..") or not _SEGMENT.match(segment):
            raise ValueError("segments may not be empty, . or .., nor hold spaces, %, ? or #")
    return text


def _suffix(text: str) -> str:
    bare = text.removeprefix(".").lower()
    if len(bare) > _LONGEST_SUFFIX:
        raise ValueError(f"at most {_LONGEST_SUFFIX} characters")
    if not all(_LABEL.match(label) for label in bare.split(".")):
        raise ValueError("labels are letters, digits and inner dashes")
    if bare.rpartition(".")[2].isdigit():
        raise ValueError("an address is no host suffix")
    return f".{bare}"


def _networks(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    networks = [ipaddress.ip_network(part) for part in parts]
    return tuple(
        str(network.network_address if network.num_addresses == 1 else network)
        for network in networks
    )


def _ports(text: str) -> tuple[int, ...]:
    ports = [_port(part.strip()) for part in text.split(",") if part.strip()]
    if 0 in ports or len(set(ports)) != len(ports):
        raise ValueError
    return tuple(ports)


def _resolvers(text: str) -> tuple[str, ...]:
    found = [ipaddress.IPv4Address(part.strip()) for part in text.split(",") if part.strip()]
    if len(found) > _MOST_RESOLVERS:
        raise ValueError
    if any(one.is_loopback or one.is_unspecified for one in found):
        raise ValueError("a machine's own loopback is not this host's")
    return tuple(map(str, found))


def _subnet(text: str) -> str:
    network = ipaddress.IPv4Network(text)
    if not network.is_private or network.prefixlen > 30:  # noqa: PLR2004
        raise ValueError("a private one, /30 or larger")
    return str(network)


def _database_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("sqlite", "sqlite+aiosqlite"):
        raise ValueError(f"{url.scheme or 'this'} is not supported in this version; use SQLite")
    if url.netloc or url.query or url.fragment or not unquote(url.path).removeprefix("/"):
        raise ValueError("three slashes and a path, or four for an absolute one; no query")
    return text


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError
    return Path(text).expanduser()


def _directories(text: str) -> tuple[Path, ...]:
    return tuple(_path(part) for part in text.split(":") if part)


def _text(text: str) -> str:
    return text


def _user(text: str) -> str:
    # Names as useradd takes them, and numbers; whether there is such a user the data plane says.
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}|[1-9][0-9]{0,9}", text) or text == "root":
        raise ValueError
    return text


def _kernel_args(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", text) or len(text) > _MAX_KERNEL_ARGS:
        raise ValueError
    return text


def _io_max(text: str) -> str:
    # As the kernel takes it, after the disk (cgroup-v2.rst, "io.max"); in its own order.
    found = {}
    for word in text.split():
        key, _, number = word.partition("=")
        if key not in _IO_MAX or key in found or not re.fullmatch(r"[1-9][0-9]{0,14}", number):
            raise ValueError
        found[key] = number
    return " ".join(f"{key}={found[key]}" for key in _IO_MAX if key in found)


port: Value = _port, "a port from 1 to 65535 (0: any that is free)"
address: Value = _address, "an IPv4 or IPv6 address, or localhost"
switch: Value = _switch, "true or false"
prefix: Value = _prefix, "a path such as /proxy, without a slash at its end"
suffix: Value = _suffix, "a host name such as .local.dev, with or without its leading dot"
networks: Value = _networks, "addresses and networks (192.0.2.0/24), with commas between"
ports: Value = _ports, "ports from 1 to 65535 with commas between, none twice"
resolvers: Value = _resolvers, f"at most {_MOST_RESOLVERS} IPv4 addresses with commas between"
subnet: Value = _subnet, "an IPv4 network such as 172.16.0.0/16"
database_url: Value = _database_url, "an SQLite URL such as sqlite:///hyperfleet.db"
path: Value = _path, "a path"
path_or_dash: Value = _path, "a path, or - for the log of the process"
directories: Value = _directories, "paths with colons between"
text: Value = _text, "a path"
io_max: Value = (
    _io_max,
    f"some of {', '.join(_IO_MAX)} with a number each (rbps=104857600 wiops=500)",
)
user: Value = _user, "the name or the number of an ordinary user"
kernel_args: Value = _kernel_args, f"printable ASCII, at most {_MAX_KERNEL_ARGS} characters"
