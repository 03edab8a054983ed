"""Whom guests that are attached by tap ask for names."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

# systemd-resolved: the file that programs read names it itself, on loopback; this one those whom it
# asks (systemd-resolved.service(8), /etc/resolv.conf).
_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
# As many as a resolver looks at (resolv.conf(5)).
_MOST = 3


def resolvers(files: Sequence[Path] = _FILES) -> tuple[str, ...]:
    """The host's own, from the first file that names one which a guest can reach.

    That is an IPv4 address of another computer. None: there is no such one; nobody else's is made
    up for it.
    """
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = [address for address in parse(text) if not _is_this_host(address)]
        if found:
            return tuple(found[:_MOST])
    return ()


def parse(text: str) -> list[str]:
    """The IPv4 addresses that a resolv.conf names, in order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(str(ipaddress.IPv4Address(words[1])))
            except ValueError:
                continue
    return found


def _is_this_host(address: str) -> bool:
    """Only an address of one's own can be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return False
    return True
