"""What taps need of the host, and what other firewalls do to them. Looks only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import msgspec

from hyperfleet.network import device, nft

_TIMEOUT_S = 10.0
_OURS = "hyperfleet_"


class Lack(msgspec.Struct, frozen=True):
    """Something that is missing or in the way, and what mends it."""

    what: str
    mend: str


def lacks() -> list[Lack]:
    """What is missing for machines to be attached by tap; empty: nothing."""
    return [*_lacks()]


def hindrances() -> list[Lack]:
    """Other rules of this host by which guests would not reach what they may."""
    nft_program = nft.program()
    if nft_program is None:
        return []
    done = _run(nft_program, "-j", "list", "chains")
    return [] if done is None else hindering(done.stdout.decode(errors="replace"))


def hindering(chains: str) -> list[Lack]:
    """The same from what `nft -j list chains` says."""
    try:
        entries = json.loads(chains)["nftables"]
    except (ValueError, KeyError):
        return []
    found = []
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        if chain.get("hook") != "forward" or chain["table"].startswith(_OURS):
            continue
        place = f"{chain['family']} {chain['table']} {chain['name']}"
        if chain["table"] == "firewalld":
            found.append(
                Lack(
                    f"firewalld ({place}) refuses what guests send out",
                    "sudo firewall-cmd --permanent --zone=trusted --add-interface="
                    f"{device.PREFIX}+ && sudo firewall-cmd --reload",
                )
            )
        elif chain.get("policy") == "drop":
            rules = "DOCKER-USER" if _has(entries, chain, "DOCKER-USER") else chain["name"]
            found.append(
                Lack(
                    f"another firewall ({place}) drops what guests send out",
                    f"sudo iptables -I {rules} -i {device.PREFIX}+ -j ACCEPT; sudo iptables -I"
                    f" {rules} -o {device.PREFIX}+ -m conntrack --ctstate ESTABLISHED,RELATED"
                    " -j ACCEPT",
                )
            )
    return found


def _has(entries: list[dict[str, dict[str, str]]], beside: dict[str, str], name: str) -> bool:
    chains = (entry["chain"] for entry in entries if "chain" in entry)
    place = (beside["family"], beside["table"], name)
    return any((one["family"], one["table"], one["name"]) == place for one in chains)


def _lacks() -> Iterator[Lack]:
    root = os.geteuid() == 0
    if not root:
        yield Lack("it needs root", "run hyperfleet as root, or set HYPERFLEET_NETWORK=user")
    if not os.access(device.TUN, os.R_OK | os.W_OK):
        mend = "sudo modprobe tun" if not device.TUN.exists() else "run hyperfleet as root"
        yield Lack(f"{device.TUN} can't be opened", mend)
    program = nft.program()
    if program is None:
        yield Lack("nft is not installed", "sudo apt-get install nftables")
    elif root and ((done := _run(program, "list", "tables")) is None or done.returncode != 0):
        yield Lack(
            "nft may not ask the kernel for its rules",
            "a kernel with nftables, and in a container the capability NET_ADMIN",
        )


def _run(*command: str) -> subprocess.CompletedProcess[bytes] | None:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
