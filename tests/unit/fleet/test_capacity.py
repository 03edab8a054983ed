"""What fits on a host, and what is said of what does not."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.fleet.capacity import Need, Promises, Room, room_of, shortage

SIZES = st.integers(1, 512)
NEEDS = st.lists(st.builds(Need, SIZES, st.integers(1, 8)))


def promises(*needs: Need) -> Promises:
    made = Promises()
    for number, need in enumerate(needs):
        made.keep(str(number), need)
    return made


def test_what_is_short_is_said_in_numbers() -> None:
    room = Room(mem_mib=1000, vcpus=4)
    assert shortage(room, promises(), Need(1000, 4)) is None
    assert shortage(room, promises(Need(900, 1)), Need(101, 1)) == (
        "memory: 101 MiB are asked for, 100 of 1000 MiB are left; "
        "1 machines run or start: stop one, or try again later"
    )
    both = shortage(room, promises(Need(900, 3), Need(200, 1)), Need(1, 1)) or ""
    assert "0 of 1000 MiB are left" in both
    assert "CPUs: 1 virtual ones are asked for, 0 of 4 are left" in both


def test_a_hosts_room() -> None:
    room = room_of(host_mib=4096, host_cpus=2, reserve_mib=96, mem_percent=150, cpu_percent=800)
    assert room == Room(mem_mib=6000, vcpus=16)
    small = room_of(host_mib=256, host_cpus=1, reserve_mib=512, mem_percent=100, cpu_percent=100)
    assert small.mem_mib == 0


@given(asked=NEEDS, mem=st.integers(0, 4096), vcpus=st.integers(0, 32))
def test_no_more_is_promised_than_there_is(asked: list[Need], mem: int, vcpus: int) -> None:
    room, promised = Room(mem_mib=mem, vcpus=vcpus), list[Need]()
    for need in asked:
        said = shortage(room, promises(*promised), need)
        with_it = [*promised, need]
        fits = sum(n.mem_mib for n in with_it) <= mem and sum(n.vcpus for n in with_it) <= vcpus
        assert (said is None) == fits
        if said is None:
            promised = with_it
        else:
            assert re.search(r"\d+ of \d+", said)


CHANGES = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.builds(Need, SIZES, SIZES)))


@given(changes=CHANGES)
def test_the_sums_are_those_of_what_is_promised_now(changes: list[tuple[str, Need | None]]) -> None:
    kept, expected = Promises(), dict[str, Need]()
    for machine, need in changes:
        if need is None:
            kept.free(machine)
            expected.pop(machine, None)
        else:
            kept.keep(machine, need)
            expected[machine] = need
        assert kept.mem_mib == sum(one.mem_mib for one in expected.values())
        assert kept.vcpus == sum(one.vcpus for one in expected.values())
        assert len(kept) == len(expected)
        assert (machine in kept) == (need is not None)
