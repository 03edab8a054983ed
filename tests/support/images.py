"""What real machines boot from: what `make setup` made."""

from __future__ import annotations

import os
from pathlib import Path

from support.need import Need

CHECKOUT = Path(__file__).parents[2]
# The home that holds it, the checkout's own unless told.
FILES = Path(os.environ.get("HYPERFLEET_TEST_HOME", CHECKOUT / ".hyperfleet"))


def images(need: Need) -> Path:
    """The folder of kernel, initramfs and root disks."""
    for name in ("vmlinux", "initramfs.cpio", "minimal-rootfs.ext4", "debian-rootfs.ext4"):
        need.that((FILES / name).is_file(), f"{FILES / name} is missing: run make setup")
    return FILES
