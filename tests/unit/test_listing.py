"""What is kept of lists that were shown."""

from __future__ import annotations

import json

import msgspec
import pytest

from hyperfleet.api import listing
from hyperfleet.api.listing import Listing
from hyperfleet.api.responses import MachineOut, MachinesOut, Urls, machine_out
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine
from support.data_plane import a_machine

URLS = Urls("localhost", 4000, "/proxy", ".local.dev")


def machine(machine_id: str) -> Machine:
    one = a_machine(machine_id)
    spec = msgspec.structs.replace(one.spec, labels={"says": 'a "word" \\ é'})
    return msgspec.structs.replace(one, spec=spec)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the machines whose JSON was made, in order."""
    ids: list[str] = []

    def make(one: Machine, urls: Urls) -> MachineOut:
        ids.append(one.id)
        return machine_out(one, urls)

    monkeypatch.setattr(listing, "machine_out", make)
    return ids


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_page_is_what_its_schema_says(count: int) -> None:
    machines = [machine(str(number)) for number in range(count)]
    page = Listing().page(machines, 7, URLS)
    whole = MachinesOut(machines=[machine_out(one, URLS) for one in machines], total=7)
    assert json.loads(page) == json.loads(whole.model_dump_json())


def test_only_what_has_changed_is_made_anew(made: list[str]) -> None:
    shown = Listing()
    one, two = machine("one"), machine("two")
    before = shown.page([one, two], 2, URLS)
    assert shown.page([one, two], 2, URLS) == before
    stopped = msgspec.structs.replace(two, status=Status.STOPPED)
    [_, second] = json.loads(shown.page([one, stopped], 2, URLS))["machines"]
    assert second["status"] == "stopped"
    # As it was before, it is another one still.
    shown.page([msgspec.structs.replace(two)], 2, URLS)
    assert made == ["one", "two", "two", "two"]


def test_those_that_were_not_shown_for_longest_are_let_go_of(made: list[str]) -> None:
    one, two, three = machine("one"), machine("two"), machine("three")
    size = len(machine_out(one, URLS).model_dump_json())
    shown = Listing(most_bytes=2 * size + 10)
    for asked in (one, two, one, three, one, two):
        shown.page([asked], 3, URLS)
    assert made == ["one", "two", "three", "two"]


def test_what_is_larger_than_all_that_may_be_kept_is_shown_and_not_kept(made: list[str]) -> None:
    one = machine("one")
    shown = Listing(most_bytes=10)
    assert shown.page([one], 1, URLS) == shown.page([one], 1, URLS)
    assert made == ["one", "one"]


def test_nothing_is_kept_of_what_is_gone() -> None:
    shown = Listing()
    machines = [machine(str(number)) for number in range(3)]
    shown.page(machines, 3, URLS)
    changed = msgspec.structs.replace(machines[0], pid=7)
    shown.page([changed], 1, URLS)
    del machines
    kept = shown._kept  # noqa: SLF001
    assert list(kept) == ["0"]
    assert shown._bytes == len(kept["0"][1])  # noqa: SLF001
    del changed
    assert kept == {}
    assert shown._bytes == 0  # noqa: SLF001
