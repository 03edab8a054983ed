"""When Python looks for cyclic garbage, which stops everything else in the process.

Looking through what ten thousand machines hold takes a second or more, and finds nothing; through
what a program's imports make, about a sixth of their time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects made and not gone since, until the young are looked through (Python's own number is 700,
# gc.set_threshold). An answer with a page of machines is some thousands of them at once, which were
# taken for old then, until enough old ones had come together to have all of them looked through.
_YOUNG = 10_000


def rarely() -> None:
    """Has it done more rarely, for a process that serves."""
    gc.set_threshold(_YOUNG)


@contextmanager
def lasting(*, tidy: bool = True) -> Iterator[None]:
    """What is made in the block is not looked at in it, nor ever again once it has ended well.

    For what lives as long as the process, mostly: of machines that were adopted in the block and
    are deleted later, what is in cycles is kept until the process ends. That is bounded by what
    there was at the end of the block.

    Args:
        tidy: what is garbage already at the end goes, which takes a look at everything. Not worth
            it after imports.
    """
    gc.disable()
    try:
        yield
        if tidy:
            gc.collect()
        gc.freeze()
    finally:
        gc.enable()
