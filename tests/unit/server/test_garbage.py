"""What lasts is not looked through for garbage again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hyperfleet.server import garbage


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_made_is_looked_at_no_more_and_what_comes_later_is() -> None:
    with garbage.lasting():
        assert not gc.isenabled()
        kept = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(kept)
    assert not any(one is kept for one in gc.get_objects())
    later: list[object] = []
    assert any(one is later for one in gc.get_objects())


def test_after_a_failure_all_is_as_before() -> None:
    frozen = gc.get_freeze_count()
    with pytest.raises(RuntimeError), garbage.lasting():
        raise RuntimeError
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
