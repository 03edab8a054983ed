"""Network namespaces that a test makes: a host of its own, and an internet behind it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# sched.h.
_CLONE_NEWNET = 0x40000000
_HERE = Path("/proc/thread-self/ns/net")

_libc = ctypes.CDLL(None, use_errno=True)


def _may_make_networks() -> bool:
    """Root of a container may lack the right, or the device that taps are made by."""
    if os.geteuid() != 0 or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return False
    return (
        subprocess.run(("unshare", "-n", "true"), capture_output=True, check=False).returncode == 0
    )


# Marks what makes networks. No set-up makes an ordinary user root.
taps = pytest.mark.skipif(
    not _may_make_networks(), reason="only root, with /dev/net/tun, may make networks"
)


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """This thread, and what it starts, is on a network of its own that has loopback only.

    The network goes with the last process on it.
    """
    before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        try:
            run("ip", "link", "set", "lo", "up")
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


class Far:
    """A network at the other end of a cable, with servers: `support.far` runs on it."""

    def __init__(self, *addresses: str, near: str) -> None:
        """Its `addresses` and the `near` end's (with prefix lengths); the near end routes to it."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("far.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert self._answer() == "ready"
            far = ("nsenter", "-n", "-t", str(self._process.pid), "ip")
            # fmt: off
            run("ip", "link", "add", "out0", "type", "veth",
                "peer", "name", "in0", "netns", str(self._process.pid))
            # fmt: on
            run("ip", "address", "add", near, "dev", "out0")
            run("ip", "link", "set", "out0", "up")
            for address in addresses:
                run(*far, "address", "add", address, "dev", "in0")
            for name in ("lo", "in0"):
                run(*far, "link", "set", name, "up")
            run("ip", "route", "add", "default", "via", addresses[0].partition("/")[0])
            # As if somebody out there had guessed where machines are.
            run(*far, "route", "add", "default", "via", near.partition("/")[0])
            assert self.ask("serve") == "serving"
        except BaseException:
            self.close()
            raise

    def ask(self, line: str) -> str:
        """What its servers say; see `support.far`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends it, and with it its network and the cable."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def run(*command: str) -> str:
    """A command that must succeed; what it writes."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
