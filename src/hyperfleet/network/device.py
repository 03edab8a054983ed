"""A machine's tap on the host: made, set up, handed over as a descriptor. All calls block.

It lives as long as somebody has it open, which is the machine's process: it is never made
persistent, so nothing of it can be left behind (tuntap.rst of the kernel's documentation). Nobody
but root could attach to it, and while it is in use, nobody at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Any

from hyperfleet.errors import GuestError
from hyperfleet.machine import MachineNetwork
from hyperfleet.network import netlink

TUN = Path("/dev/net/tun")
# The rest is the machine's id; a name has 15 characters (linux/if.h, IFNAMSIZ).
PREFIX = "hf-"
# Of a tap's block: network, the host's end, the guest, broadcast.
PREFIX_LENGTH = 30

# linux/if_tun.h.
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFREQ = struct.Struct("16sH22x")
# linux/neighbour.h, NUD_PERMANENT.
_PERMANENT = 0x80

_SYSCTL = Path("/proc/sys/net")
# Redirects and source routes would let a guest choose ways; arp_ignore: the host answers for the
# address on this tap only. IPv6 is off before the tap is up, so that it says nothing.
_TAP_SETTINGS = (
    ("ipv6/conf/{tap}/disable_ipv6", "1"),
    ("ipv4/conf/{tap}/rp_filter", "1"),
    ("ipv4/conf/{tap}/accept_redirects", "0"),
    ("ipv4/conf/{tap}/send_redirects", "0"),
    ("ipv4/conf/{tap}/accept_source_route", "0"),
    ("ipv4/conf/{tap}/proxy_arp", "0"),
    ("ipv4/conf/{tap}/arp_ignore", "1"),
)
_FORWARDING = _SYSCTL / "ipv4/ip_forward"


def tap_name(machine_id: str) -> str:
    """What the machine's tap is called."""
    return f"{PREFIX}{machine_id}"


def make(network: MachineNetwork) -> int:
    """A tap that is up, with the host's address and the guest's fixed neighbour entry.

    Returns its open descriptor, which is not inherited unless it is passed on.

    Raises:
        GuestError: the host would not.
    """
    tap = network.tap_device
    assert tap is not None  # noqa: S101 - a record of this kind has all of it
    try:
        descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise GuestError(f"{TUN}: {error.strerror}") from error
    made = False
    try:
        request = _IFREQ.pack(tap.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        made = True
        for path, value in _TAP_SETTINGS:
            # A host without IPv6 has no such file, and needs none.
            with contextlib.suppress(FileNotFoundError):
                (_SYSCTL / path.format(tap=tap)).write_text(value)
        with netlink.routing() as route:
            _must_be_free(route, network)
            index = socket.if_nametoindex(tap)
            route.addr("add", index=index, address=network.tap_ip, prefixlen=PREFIX_LENGTH)
            route.neigh(
                "add",
                ifindex=index,
                dst=network.guest_ip,
                lladdr=network.guest_mac,
                state=_PERMANENT,
            )
            route.link("set", index=index, state="up")
    except BaseException as error:
        os.close(descriptor)
        if made:
            # A program that is just being started elsewhere may have a copy for a moment.
            with contextlib.suppress(GuestError):
                remove(tap)
        if isinstance(error, OSError):
            # One that is gone meanwhile has no number: Python's words for it are all there is.
            why = error.strerror or error
            raise GuestError(f"the tap {tap} could not be made: {why}") from error
        raise
    return descriptor


def remove(tap: str) -> None:
    """Removes whatever has that name; no error when nothing does.

    Raises:
        GuestError: the host would not.
    """
    try:
        index = socket.if_nametoindex(tap)
    except OSError:
        return
    try:
        with netlink.routing() as route:
            route.link("del", index=index)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise GuestError(f"the tap {tap} could not be removed: {error.strerror}") from error


def turn_forwarding_on() -> bool:
    """Has the host forward IPv4; whether it did not before.

    Raises:
        GuestError: it may not be turned on.
    """
    if forwards():
        return False
    try:
        _FORWARDING.write_text("1")
    except OSError as error:
        raise GuestError(f"{_FORWARDING} can't be set to 1: {error.strerror}") from error
    return True


def forwards() -> bool:
    """Whether the host forwards IPv4."""
    return _FORWARDING.read_text().strip() == "1"


def routes() -> list[tuple[str, str]]:
    """Where the host's IPv4 routes lead, but for the default ones: network, and interface.

    Raises:
        GuestError: the kernel would not say.
    """
    found = []
    try:
        with netlink.routing() as route:
            names = {link["index"]: link.get("ifname") for link in route.get_links()}
            for one in route.get_routes(family=socket.AF_INET):
                attributes = dict(one["attrs"])
                to = attributes.get("RTA_DST")
                if to is not None:
                    name = names.get(attributes.get("RTA_OIF"), "?")
                    found.append((f"{to}/{one['dst_len']}", str(name)))
    except OSError as error:
        raise GuestError(f"the host's routes can't be read: {error.strerror}") from error
    return found


def _must_be_free(route: Any, network: MachineNetwork) -> None:
    """Two homes may have been given one subnet, which neither saw when it was opened."""
    try:
        with netlink.refusals():
            ways = route.route("get", dst=network.guest_ip)
    except OSError as error:
        if error.errno != errno.ENETUNREACH:
            raise
        return
    for one in ways:
        index = int(dict(one["attrs"]).get("RTA_OIF", 0))
        with contextlib.suppress(OSError):
            name = socket.if_indextoname(index)
            if name.startswith(PREFIX) and name != network.tap_device:
                raise GuestError(
                    f"{network.guest_ip} is in use by another home's machine (its tap is {name}):"
                    " give each home a HYPERFLEET_SUBNET of its own"
                )
