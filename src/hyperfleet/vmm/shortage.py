"""What the host is short of, told from a failure of the system's or of a program's words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from hyperfleet.errors import CapacityError

_SHORT = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
# strerror(3) of ENOSPC and EDQUOT, as programs print it where the language is none.
_NO_ROOM = ("No space left on device", "Disk quota exceeded")


@contextlib.contextmanager
def told(place: Path) -> Iterator[None]:
    """Turns a failure for want of room, descriptors, processes or memory into a CapacityError.

    Raises:
        CapacityError: the block failed so; names `place`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _SHORT:
            raise
        raise CapacityError(f"{place}: {error.strerror}") from error


def is_no_room(words: str) -> bool:
    """Whether a program says that a disk is full."""
    return any(sign in words for sign in _NO_ROOM)
