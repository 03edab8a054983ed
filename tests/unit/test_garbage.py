"""What lasts is not looked through for garbage again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hyperfleet import garbage


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


def test_imports_are_not_searched_through_at_their_end() -> None:
    found: list[str] = []
    gc.callbacks.append(lambda phase, _: found.append(phase))
    try:
        with garbage.lasting(tidy=False):
            kept = [[number] for number in range(100_000)]
    finally:
        gc.callbacks.pop()
    assert found == []
    assert not any(one is kept for one in gc.get_objects())


def test_a_page_of_answers_is_not_taken_for_old() -> None:
    before = gc.get_threshold()
    try:
        garbage.rarely()
        gc.collect()
        old = gc.get_count()[1:]
        page = [{"one": [number]} for number in range(3000)]
        assert gc.get_count()[1:] == old
        assert page
    finally:
        gc.set_threshold(*before)
