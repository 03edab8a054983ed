"""Where our own native programs are: in the wheel, or built in the checkout."""

from __future__ import annotations

import os
from pathlib import Path

from hyperfleet.errors import SetupError

PROXY = "hyperfleet-proxy"
GATE = "hyperfleet-gate"
GUEST_AGENT = "hyperfleet-guest-agent"

_PACKAGE = Path(__file__).resolve().parent
# What `scripts/bootstrap binaries` makes, under the checkout.
_BUILT = {
    PROXY: "target/release/hyperfleet-proxy",
    GATE: "target/release/hyperfleet-gate",
    GUEST_AGENT: "target/x86_64-unknown-linux-gnu/agent/hyperfleet-guest-agent",
}


def proxy() -> Path:
    """The data plane's program.

    Raises:
        SetupError: it is not there; the message holds the command that builds it.
    """
    return find(PROXY)


def gate() -> Path:
    """What stands between a machine and passt.

    Raises:
        SetupError: it is not there; the message holds the command that builds it.
    """
    return find(GATE)


def guest_agent() -> Path:
    """The static program that is every machine's PID 1.

    Raises:
        SetupError: it is not there; the message holds the command that builds it.
    """
    return find(GUEST_AGENT)


def find(name: str, package: Path = _PACKAGE) -> Path:
    """`name` as `package` (the folder of `hyperfleet`) has it; see `proxy` and `guest_agent`."""
    bundled = package / "_bin" / name
    candidates = [bundled]
    # src/hyperfleet in a checkout; anything else is an installed package.
    checkout = package.parent.parent
    if (checkout / "Cargo.toml").is_file():
        candidates.append(checkout / _BUILT[name])
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    if len(candidates) > 1:
        raise SetupError(f"{name} is not built: run `scripts/bootstrap binaries` in {checkout}")
    raise SetupError(f"{name} is missing from this installation ({bundled}): install it again")
