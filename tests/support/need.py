"""What a test needs of the host."""

from __future__ import annotations

import os
import shutil
import socket

import pytest


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


# Marks what a host without IPv6 can't run. No set-up brings IPv6, so it is skipped in CI too.
ipv6 = pytest.mark.skipif(not _has_ipv6_loopback(), reason="this host has no ::1")

# Marks what mounts a file system of its own. No set-up makes an ordinary user root.
mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


class Need:
    """Says what a test needs: without it the test is skipped on a laptop and fails in CI."""

    def __call__(self, program: str) -> str:
        """The path of a program that must be on the PATH (or where only root's PATH looks)."""
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if path is None:
            self.that(False, f"{program} is not installed: run scripts/bootstrap system clients")
        assert path is not None
        return path

    def that(self, condition: bool, reason: str) -> None:
        """Goes on only where `condition` holds; `reason` says what is missing and what makes it."""
        if condition:
            return
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
