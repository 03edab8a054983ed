"""How often keys that open nothing may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.auth.attempts import Attempts

HERE = "192.0.2.1"


def test_a_burst_then_one_at_a_time() -> None:
    attempts = Attempts(6)
    for _ in range(6):
        assert attempts.wait(HERE, 100) == 0
        attempts.failed(HERE, 100)
    assert attempts.wait(HERE, 100) == pytest.approx(10)
    assert attempts.wait(HERE, 107) == pytest.approx(3)
    assert attempts.wait(HERE, 110) == 0
    attempts.failed(HERE, 110)
    assert attempts.wait(HERE, 110) == pytest.approx(10)
    assert attempts.wait("192.0.2.2", 110) == 0
    # After a minute all is forgiven, and not more than all.
    for _ in range(6):
        attempts.failed(HERE, 1000)
    assert attempts.wait(HERE, 1000) > 0


def test_no_limit() -> None:
    attempts = Attempts(0)
    for _ in range(1000):
        attempts.failed(HERE, 0)
    assert attempts.wait(HERE, 0) == 0


def test_an_ipv6_host_is_its_network() -> None:
    attempts = Attempts(1)
    attempts.failed("2001:db8::1", 0)
    assert attempts.wait("2001:db8::ffff:2", 0) > 0
    assert attempts.wait("2001:db8:0:1::1", 0) == 0
    attempts.failed("::ffff:192.0.2.1", 0)
    assert attempts.wait(HERE, 0) > 0
    assert attempts.wait("fe80::1%eth0", 0) == 0


def test_it_remembers_no_more_than_it_may() -> None:
    attempts = Attempts(1)
    for number in range(10_001):
        attempts.failed(f"10.0.{number // 256}.{number % 256}", 0)
    assert attempts.wait("10.0.0.0", 0) == 0
    assert attempts.wait("10.0.0.1", 0) > 0


@given(st.integers(1, 100), st.lists(st.floats(0, 5), max_size=200))
def test_no_more_than_the_burst_and_the_rate(per_minute: int, gaps: list[float]) -> None:
    """Whoever keeps to `wait` fails no more often than allowed; the wait told is enough."""
    attempts, now, failures = Attempts(per_minute), 0.0, 0
    for gap in gaps:
        now += gap
        if attempts.wait(HERE, now) == 0:
            attempts.failed(HERE, now)
            failures += 1
        assert failures <= per_minute + now * per_minute / 60 + 1e-6
    assert attempts.wait(HERE, now + attempts.wait(HERE, now) + 1e-6) == 0
