"""What this host has and lacks for running machines, and the line that mends each lack."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hyperfleet import binaries
from hyperfleet.errors import SetupError, ValidationError
from hyperfleet.images.locate import Images
from hyperfleet.network import device, tap_host
from hyperfleet.network.resolvers import resolvers
from hyperfleet.vmm import cgroup_base, cgroup_tree, kvm

_MIB = 1 << 20
_GIB = 1 << 30
# Bytes. Under TCG a machine of 128 MiB costs the host about twice that; its copy-on-write
# disk grows with what it writes.
_MEMORY_WANTED = 1 * _GIB
_DISK_WANTED = 2 * _GIB
_DISK_NEEDED = 256 * _MIB
# What the microvm machine with ACPI needs (QEMU 5.2).
_QEMU_OLDEST = (5, 2)
_ANSWER_TIMEOUT = 2.0
_MEND_KVM = "a host with hardware virtualisation turned on; for access: sudo usermod -aG kvm $USER"


class Verdict(StrEnum):
    """`bad`: machines can't run so. `warn`: they can, worse or not all of them."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; `mend` is what to type or do, where something is wrong."""

    name: str
    verdict: Verdict
    what: str
    mend: str | None = None


class Wanted(Protocol):
    """What the settings say that is looked at here."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def proxy_bind(self) -> str: ...
    @property
    def proxy_port(self) -> int: ...
    @property
    def hyperfleet_home(self) -> Path: ...
    @property
    def hyperfleet_kernel_image_path(self) -> str: ...
    @property
    def hyperfleet_rootfs_path(self) -> str: ...
    @property
    def hyperfleet_image_dirs(self) -> Sequence[Path]: ...
    @property
    def hyperfleet_network(self) -> str: ...
    @property
    def hyperfleet_network_restrict(self) -> bool: ...
    @property
    def hyperfleet_cgroups(self) -> str: ...
    @property
    def hyperfleet_cgroup_io_max(self) -> str | None: ...
    @property
    def hyperfleet_dns(self) -> Sequence[str]: ...


def run(settings: Wanted) -> list[Check]:
    """Looks at everything; a few seconds at most. Changes nothing."""
    return [
        *_programs(),
        *_own_programs(),
        *_images(settings),
        *_room(settings),
        *_limits(settings),
        *_net(settings),
    ]


def report(checks: Sequence[Check], console: Console) -> int:
    """Prints the checks, what mends one under it; 1 if one of them is bad, else 0."""
    colours = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.BAD: "bold red"}
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for check in checks:
        colour = colours[check.verdict]
        table.add_row(f"[{colour}]{check.verdict}[/]", escape(check.name), escape(check.what))
        if check.mend is not None:
            table.add_row("", "", f"to mend it: [bold]{escape(check.mend)}[/]")
    console.print(table)
    return int(any(check.verdict is Verdict.BAD for check in checks))


def _programs() -> Iterator[Check]:
    verdict = kvm.probe()
    yield Check(
        name="KVM",
        verdict=Verdict.OK if verdict.usable else Verdict.WARN,
        what=verdict.reason if verdict.usable else f"{verdict.reason}; machines run under TCG",
        mend=None if verdict.usable else _MEND_KVM,
    )
    yield _qemu()
    yield _program("qemu-img", "qemu-utils")
    yield _program("mke2fs", "e2fsprogs", needed=False)
    yield _program("mmdebstrap", "mmdebstrap", needed=False)


def _qemu() -> Check:
    name, mend = "QEMU", "sudo apt-get install qemu-system-x86"
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        return Check(name=name, verdict=Verdict.BAD, what="no qemu-system-x86_64", mend=mend)
    version = re.search(r"version (\d+)\.(\d+)\S*", _output(program, "--version"))
    if version is None:
        return Check(name=name, verdict=Verdict.BAD, what=f"{program} does not run", mend=mend)
    if (int(version[1]), int(version[2])) < _QEMU_OLDEST:
        oldest = ".".join(map(str, _QEMU_OLDEST))
        what = f"{version[0]} is older than {oldest}"
        return Check(name=name, verdict=Verdict.BAD, what=what, mend=mend)
    if not re.search(r"^microvm\s", _output(program, "-M", "help"), re.MULTILINE):
        what = f"{version[0]} has no machine type microvm"
        return Check(name=name, verdict=Verdict.BAD, what=what, mend=mend)
    return Check(name=name, verdict=Verdict.OK, what=f"{version[0]}, with microvm")


def _program(name: str, package: str, *, needed: bool = True) -> Check:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is not None:
        return Check(name=name, verdict=Verdict.OK, what=found)
    return Check(
        name=name,
        verdict=Verdict.BAD if needed else Verdict.WARN,
        what="missing" if needed else "missing; only `hyperfleet setup` uses it",
        mend=f"sudo apt-get install {package}",
    )


def _own_programs() -> Iterator[Check]:
    for name in (binaries.PROXY, binaries.GATE, binaries.CONFINE, binaries.GUEST_AGENT):
        try:
            yield Check(name=name, verdict=Verdict.OK, what=str(binaries.find(name)))
        except SetupError as error:
            what, _, mend = error.message.partition(": ")
            yield Check(name=name, verdict=Verdict.BAD, what=what, mend=mend)


def _images(settings: Wanted) -> Iterator[Check]:
    images = Images(settings.hyperfleet_home, settings.hyperfleet_image_dirs)
    looks: tuple[tuple[str, Callable[[], Path]], ...] = (
        ("kernel", lambda: images.kernel(settings.hyperfleet_kernel_image_path)),
        ("initramfs", images.initramfs),
        ("root disk", lambda: images.root_disk(settings.hyperfleet_rootfs_path)),
    )
    for name, look in looks:
        try:
            yield Check(name=name, verdict=Verdict.OK, what=str(look()))
        except ValidationError as error:
            what = error.message.partition(": ")[2].partition("; ")[0]
            yield Check(name=name, verdict=Verdict.BAD, what=what, mend="hyperfleet setup")


def _room(settings: Wanted) -> Iterator[Check]:
    home = settings.hyperfleet_home.absolute()
    free = shutil.disk_usage(_existing(home)).free
    verdict = Verdict.OK if free >= _DISK_WANTED else Verdict.WARN
    yield Check(
        name="disk space",
        verdict=verdict if free >= _DISK_NEEDED else Verdict.BAD,
        what=f"{free / _GIB:.1f} GiB free for {home}",
        mend=None if verdict is Verdict.OK else "make room, or set HYPERFLEET_HOME elsewhere",
    )
    match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available = int(match[1]) * 1024 if match else 0
    enough = available >= _MEMORY_WANTED
    yield Check(
        name="memory",
        verdict=Verdict.OK if enough else Verdict.WARN,
        what=f"{available / _GIB:.1f} GiB available",
        mend=None if enough else "end what uses it; machines will be few",
    )


def _limits(settings: Wanted) -> Iterator[Check]:
    """What machines' processes can be held to by cgroups; without, they run all the same."""
    name = "cgroups"
    if settings.hyperfleet_cgroups == "off":
        yield Check(
            name=name, verdict=Verdict.OK, what="machines have no limits, as you have asked"
        )
        return
    sight = cgroup_base.look()
    if sight.base is None:
        what = f"machines have no limits: {sight.why}"
        yield Check(name=name, verdict=Verdict.WARN, what=what, mend=sight.mend)
        return
    missing = f"; missing: {', '.join(sight.missing)}" if sight.missing else ""
    yield Check(
        name=name,
        verdict=Verdict.WARN if sight.missing else Verdict.OK,
        what=f"limits of {', '.join(sight.controllers)} under {sight.base.path}{missing}",
        mend=f"Delegate={' '.join(cgroup_base.CONTROLLERS)} for the unit, and for user@.service "
        "where it is a user's"
        if sight.missing
        else None,
    )
    home = _existing(settings.hyperfleet_home)
    if settings.hyperfleet_cgroup_io_max and cgroup_tree.disk_of(home) is None:
        what = f"HYPERFLEET_CGROUP_IO_MAX: {home} lies on no disk that could be limited"
        mend = "set HYPERFLEET_HOME elsewhere, or unset it"
        yield Check(name=name, verdict=Verdict.WARN, what=what, mend=mend)


def _net(settings: Wanted) -> Iterator[Check]:
    ours = _is_hyperfleet(settings.host, settings.port)
    yield _port("PORT", settings.host, settings.port, ours=ours)
    yield _port("PROXY_PORT", settings.proxy_bind, settings.proxy_port, ours=ours)
    yield from _user(settings)
    yield from _tap(settings)


def _user(settings: Wanted) -> Iterator[Check]:
    """Whether machines that are attached by user networking get to the internet."""
    name = "user network"
    if settings.hyperfleet_network_restrict:
        yield Check(name=name, verdict=Verdict.OK, what="machines only answer, as you have asked")
        return
    passt = shutil.which("passt")
    yield Check(
        name=name,
        verdict=Verdict.WARN if passt is None else Verdict.OK,
        what="without passt machines have no way out" if passt is None else f"possible by {passt}",
        mend="sudo apt-get install passt" if passt is None else None,
    )


def _tap(settings: Wanted) -> Iterator[Check]:
    """Whether machines can be attached by tap, and what they would then lack."""
    asked, name = settings.hyperfleet_network == "tap", "tap network"
    lacks = tap_host.lacks()
    for lack in lacks:
        what = f"not possible: {lack.what}" if asked else f"{lack.what}; not asked for"
        verdict = Verdict.BAD if asked else Verdict.OK
        yield Check(name=name, verdict=verdict, what=what, mend=lack.mend)
    if lacks:
        return
    forwarding = "" if device.forwards() else "; net.ipv4.ip_forward is turned on by the first one"
    yield Check(name=name, verdict=Verdict.OK, what=f"possible{forwarding}")
    verdict = Verdict.WARN if asked else Verdict.OK
    for hindrance in tap_host.hindrances():
        yield Check(name=name, verdict=verdict, what=hindrance.what, mend=hindrance.mend)
    if not (settings.hyperfleet_dns or resolvers()):
        yield Check(
            name="names by tap",
            verdict=verdict,
            what="no resolver of this host's can be reached from a machine",
            mend="set HYPERFLEET_DNS",
        )


def _existing(folder: Path) -> Path:
    """It, or what of its path is there."""
    whole = folder.absolute()
    return next(part for part in (whole, *whole.parents) if part.exists())


def _port(name: str, host: str, port: int, *, ours: bool) -> Check:
    address = f"{host}:{port}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
    except OSError as error:
        if ours:
            return Check(name=name, verdict=Verdict.OK, what=f"{address} is held by Hyperfleet")
        return Check(
            name=name,
            verdict=Verdict.BAD,
            what=f"{address} can't be bound: {error.strerror}",
            mend=f"end what holds it (ss -ltnp 'sport = :{port}'), or set {name}",
        )
    return Check(name=name, verdict=Verdict.OK, what=f"{address} is free")


def _is_hyperfleet(host: str, port: int) -> bool:
    """Whether our own server answers there."""
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_TIMEOUT)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK and b"status" in answer.read(4096)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
