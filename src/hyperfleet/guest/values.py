"""What is asked of a guest and what it says: plain values, shared by every agent client."""

from __future__ import annotations

import msgspec


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run; `timeout` in seconds; `stdin` whole, empty by default."""

    argv: tuple[str, ...]
    timeout: float = 30.0
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin: bytes = b""
    output_limit: int = 8 * 1024 * 1024


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. `exit_code` is 127 for a program that is missing, 128 + n for signal n."""

    exit_code: int
    signal: str | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    duration_ms: int


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A listening TCP socket in the guest; `direct`: reached on the guest's own address."""

    port: int
    address: str
    direct: bool


class GuestNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A card of the guest's: `address` with prefix length, `10.0.2.15/24`.

    `mac`: which card; None: there is one. `outward`: what another card is to have, if the guest
    has it: default route and resolvers are then that one's alone.
    """

    address: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    mac: str | None = None
    outward: GuestNetwork | None = None
