"""Tables that tests fill in, a row each, and that are printed when the last of them is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def printed(request: pytest.FixtureRequest, heading: str) -> Iterator[list[str]]:
    """The rows under `heading`, to append to; all are printed at the end, whatever is captured."""
    rows = [heading]
    yield rows
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print("", *rows, sep="\n")  # noqa: T201
