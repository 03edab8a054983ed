"""The kernel's routes, interfaces and tracked connections, by pyroute2. All calls block.

It is loaded when it is first needed: that is a tenth of a server's start, and most have no taps.
What the kernel refuses is an OSError, as of any other system call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def routing() -> Iterator[Any]:
    """A `pyroute2.IPRoute` (rtnetlink(7)).

    Raises:
        OSError: what was asked for in the block was refused.
    """
    from pyroute2 import IPRoute  # noqa: PLC0415

    with refusals(), IPRoute() as route:
        yield route


@contextmanager
def tracking() -> Iterator[Any]:
    """A `pyroute2.NFCTSocket` (ctnetlink). Raises as `routing` does."""
    from pyroute2 import NFCTSocket  # noqa: PLC0415

    with refusals(), NFCTSocket() as table:
        yield table


@contextmanager
def refusals() -> Iterator[None]:
    """What the kernel refuses in the block is an OSError with the kernel's number."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
