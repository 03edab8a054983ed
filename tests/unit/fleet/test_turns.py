"""Turns: by key, and within a key by arrival, whatever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.fleet.turns import Turns

KEYS = st.sampled_from("abcd")


def test_one_keys_many_do_not_hold_up_anothers_few() -> None:
    turns: Turns[str] = Turns()
    for number in range(5):
        turns.add("a", f"a{number}")
    turns.add("b", "b0")
    turns.add("c", "c0")
    turns.add("b", "b1")
    order = [turns.take() for _ in range(len(turns))]
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
    assert turns.take() is None


@given(st.lists(st.one_of(KEYS, st.none(), st.integers(0, 20))))
def test_none_is_lost_and_nobody_is_passed_twice(steps: list[str | int | None]) -> None:
    """A key adds a ticket, None takes one, a number takes that ticket out of the queue."""
    turns: Turns[int] = Turns()
    waiting: dict[int, str] = {}
    passed: dict[str, set[str]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, str):
            turns.add(step, number)
            waiting[number] = step
            passed.setdefault(step, set())
        elif step is None:
            taken = turns.take()
            assert (taken is None) == (not waiting)
            if taken is None:
                continue
            key = waiting.pop(taken)
            # The oldest of its key; and no key that waited all along is passed by it again.
            assert all(other > taken for other, whose in waiting.items() if whose == key)
            for whose in set(waiting.values()) - {key}:
                assert key not in passed[whose]
                passed[whose].add(key)
            passed[key] = set()
        else:
            key = waiting.pop(step, "a")
            turns.remove(key, step)
            if key not in waiting.values():
                passed[key] = set()
        assert len(turns) == len(waiting)
