"""Tables that tests fill in, a row each, and that are printed when all tests are done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.shared import SHARED


@contextmanager
def printed(request: pytest.FixtureRequest, heading: str) -> Iterator[list[str]]:
    """The rows under `heading`, to append to."""
    rows = [heading]
    yield rows
    request.config.stash[SHARED].tell("\n".join(rows))
