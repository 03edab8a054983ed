"""When Python looks for cyclic garbage, which stops everything else in the process.

Looking through what ten thousand machines hold takes a second or more, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """What is made in the block is not looked at in it, nor ever again once it has ended well.

    For what lives as long as the process, mostly: of machines that were adopted in the block and
    are deleted later, what is in cycles is kept until the process ends. That is bounded by what
    there was at the end of the block.
    """
    gc.disable()
    try:
        yield
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()
