"""Who has which four addresses: never two machines one, and none comes back too early."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.network.blocks import REST, Blocks, overlapping

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SMALL = IPv4Network("172.30.0.0/28")  # four blocks


def taken(blocks: Blocks) -> list[str]:
    found = []
    while (block := blocks.take()) is not None:
        found.append(block[1])
    return found


def test_each_block_has_a_host_and_a_guest() -> None:
    blocks = Blocks(SMALL)
    assert [blocks.take() for _ in range(5)] == [
        ("172.30.0.1", "172.30.0.2"),
        ("172.30.0.5", "172.30.0.6"),
        ("172.30.0.9", "172.30.0.10"),
        ("172.30.0.13", "172.30.0.14"),
        None,
    ]
    assert blocks.counts() == (4, 0, 4)


def test_what_the_record_knows_is_not_given_again() -> None:
    blocks = Blocks(SMALL)
    blocks.load(["172.30.0.10"], [("172.30.0.2", NOW)])
    assert taken(blocks) == ["172.30.0.14", "172.30.0.6"]


def test_an_address_rests_before_it_comes_back() -> None:
    blocks = Blocks(SMALL)
    taken(blocks)
    blocks.rest("172.30.0.6", NOW)
    assert blocks.take() is None
    assert blocks.rested(NOW + REST - timedelta(seconds=1)) == []
    assert blocks.rested(NOW + REST) == ["172.30.0.6"]
    # By time alone it does not: somebody may still speak to it.
    assert blocks.take() is None
    blocks.free(["172.30.0.6"])
    assert taken(blocks) == ["172.30.0.6"]


def test_one_that_was_never_used_comes_back_at_once() -> None:
    blocks = Blocks(SMALL)
    taken(blocks)
    blocks.untake("172.30.0.2")
    blocks.untake("172.30.0.2")
    assert taken(blocks) == ["172.30.0.2"]


def test_addresses_of_another_subnet_are_nobodys_business() -> None:
    blocks = Blocks(SMALL)
    blocks.load(["10.0.0.2"], [("10.0.0.6", NOW)])
    blocks.rest("10.0.0.2", NOW)
    blocks.untake("10.0.0.2")
    blocks.free(["10.0.0.6"])
    assert blocks.rested(NOW + REST) == []
    assert len(taken(blocks)) == 4


@given(st.lists(st.sampled_from(["take", "rest", "free", "untake", "restart"]), max_size=60))
def test_no_two_have_one(acts: list[str]) -> None:
    blocks, mine, resting = Blocks(SMALL), list[str](), list[str]()
    for act in acts:
        match act:
            case "take":
                if (block := blocks.take()) is None:
                    assert len(mine) + len(resting) == 4
                else:
                    assert block[1] not in [*mine, *resting]
                    mine.append(block[1])
            case "rest" if mine:
                resting.append(mine.pop(0))
                blocks.rest(resting[-1], NOW)
            case "free" if resting:
                blocks.free([resting.pop(0)])
            case "untake" if mine:
                blocks.untake(mine.pop())
            case "restart":
                blocks = Blocks(SMALL)
                blocks.load(mine, [(one, NOW) for one in resting])


def test_a_route_of_the_hosts_that_overlaps_is_found() -> None:
    subnet = IPv4Network("172.30.0.0/16")
    routes = [("10.0.0.0/8", "eth0"), ("172.30.0.0/30", "hf-own"), ("172.17.0.0/16", "docker0")]
    assert overlapping(subnet, routes, {"hf-own"}) is None
    assert overlapping(subnet, routes, ()) == ("172.30.0.0/30", "hf-own")
    for network in ("172.16.0.0/12", "172.30.5.0/24", "172.30.0.1/32"):
        assert overlapping(subnet, [(network, "eth1")], ()) == (network, "eth1")
