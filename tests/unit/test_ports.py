"""Ports that tests hand out: each to one process, and none that the kernel might hand out too."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import ports

TESTS = Path(__file__).parents[1]
MANY = 250
OTHER = f"from support import ports; print(*(ports.free_port() for _ in range({MANY})), flush=True)"


def test_two_runs_beside_each_other_get_no_port_twice() -> None:
    command = (sys.executable, "-c", f"{OTHER}; input()")
    others = [
        subprocess.Popen(
            command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    given = [ports.free_port() for _ in range(MANY)]
    for other in others:
        assert other.stdout is not None
        given += map(int, other.stdout.readline().split())
    for other in others:
        other.communicate("\n")
        assert other.returncode == 0
    assert len(set(given)) == len(given) == MANY * 3
    low, high = map(int, ports.RANGE.read_text().split())
    # What a host's kernel may leave too few of is not asserted there.
    if high - low < 40_000:
        assert not [port for port in given if low <= port <= high]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
def test_what_somebody_has_is_not_given(address: str) -> None:
    port = ports.free_port()
    with socket.create_server((address, port)):
        assert not ports.keep(port)


def test_a_port_of_ones_choice_is_kept_from_others() -> None:
    chosen = ports.free_port()
    command = (sys.executable, "-c", f"from support import ports; print(ports.keep({chosen}))")

    def another() -> str:
        return subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=True).stdout

    assert another() == "True\n"
    assert ports.keep(chosen)
    assert another() == "False\n"
