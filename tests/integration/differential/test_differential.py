"""What the data plane forwards is read alike by servers that have nothing in common.

Whatever a client sends (the table of cases, smuggling and all, and what is made up at random), each
server behind the proxy must see the very same requests: as many, the same lines, hosts, framing,
bodies and trailers. Of the table's cases it is known which ones those are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from support.cases import Forwarded, cases
from support.need import Need
from support.proxy import Proxy, machine
from support.shared import SHARED

from . import readers
from .connections import connections
from .readers import Read, Reader
from .sending import exchange


class Difference(msgspec.Struct, frozen=True):
    """A request that one of the servers refuses, though it is well formed."""

    reader: str
    reason: str
    refuses: Callable[[Forwarded], bool]


DIFFERENCES = (
    Difference(
        "node",
        "of the methods it knows, none is so",
        lambda request: request.method in {"X-OWN", "get", "!#$%&'*+-.^_`|~09az"},
    ),
    Difference(
        "nginx",
        "its methods are of capitals, - and _",
        lambda request: re.fullmatch("[A-Z_-]+", request.method) is None,
    ),
    Difference(
        "nginx",
        "it decodes paths and takes no NUL in them",
        lambda request: "%00" in request.target.partition("?")[0],
    ),
    Difference(
        "nginx",
        "it follows dots, and not above the root",
        lambda request: request.target.startswith("/../"),
    ),
    Difference("nginx", "it has no target *", lambda request: request.target == "*"),
)


@dataclasses.dataclass
class Behind:
    """A reader behind a data plane of its own, and how many requests it has taken down."""

    reader: Reader
    port: int
    done: int = 0

    def read(self, sent: Sequence[bytes], number: int) -> list[Read]:
        """What the reader reads of the pieces that a client sends on one connection."""
        exchange(self.port, *sent)
        # Once this one is taken down, so is all that came before it.
        last = f"/last/{number}"
        exchange(self.port, f"GET /proxy/web/80{last} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        found = readers.up_to(self.reader, self.done, f"GET {last} HTTP/1.1")
        self.done += len(found) + 1
        return found


@pytest.fixture(scope="module")
def behind(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Behind]]:
    with contextlib.ExitStack() as stack:
        found = []
        for reader in readers.all_readers(need, tmp_path_factory.mktemp("nginx")):
            stack.enter_context(reader)
            ports = {80: reader.port, 8080: reader.port}
            machines = [
                machine("web", ports, machine_id="abc123def456"),
                machine("my-box", {80: reader.port}, machine_id="stopped00000", status="stopped"),
            ]
            folder = tmp_path_factory.mktemp(reader.name)
            proxy = stack.enter_context(Proxy(need, folder, machines, ".local.dev"))
            found.append(Behind(reader, proxy.port))
        yield found


NUMBERS = itertools.count()
# Cases that are cut, of them those that each server sees, and their most bytes.
CUT_CASES = 30
CUT_FOR_ALL = 8
SHORT = 1024


def test_every_case_is_read_as_the_table_has_it(
    behind: Sequence[Behind], pytestconfig: pytest.Config
) -> None:
    table = [case for case in cases() if case.sent]
    assert len(table) > 300
    forwarded = refused = 0
    wrong = []
    for case in table:
        number = next(NUMBERS)
        for one in behind:
            found = one.read([case.sent], number)
            read = [it.request for it in found if it.whole]
            expected = [as_shown(one.reader, it) for it in case.forwarded]
            taken = [it for it in expected if not is_refused(one.reader, it)]
            if read != taken:
                wrong.append(f"{one.reader.name}: {case.name}: {read} in place of {taken}")
            forwarded += len(taken)
            refused += len(expected) - len(taken)
    assert not wrong, "\n".join(wrong)
    assert forwarded > 3 * 100
    pytestconfig.stash[SHARED].tell(
        f"{len(table)} cases: read alike {forwarded} times, refused as known {refused} times"
    )


def test_what_is_made_up_is_read_alike(
    behind: Sequence[Behind], pytestconfig: pytest.Config
) -> None:
    tried = forwarded = 0

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(sent=connections())
    def read_alike(sent: bytes) -> None:
        nonlocal tried, forwarded
        number = next(NUMBERS)
        found = {one.reader.name: one.read([sent], number) for one in behind}
        whole = {name: [it.request for it in all_ if it.whole] for name, all_ in found.items()}
        # h11 shows all there is to compare, and refuses nothing that the proxy forwards.
        for one in behind:
            expected = [as_shown(one.reader, it) for it in whole["h11"]]
            taken = [it for it in expected if not is_refused(one.reader, it)]
            assert whole[one.reader.name] == taken, f"{one.reader.name}: {sent!r}"
        tried += 1
        forwarded += len(whole["h11"])

    read_alike()
    assert forwarded > tried // 4
    pytestconfig.stash[SHARED].tell(f"{tried} connections made up: {forwarded} requests read alike")


def as_shown(reader: Reader, request: Forwarded) -> Forwarded:
    return request if reader.shows_trailers else msgspec.structs.replace(request, trailers=())


def is_refused(reader: Reader, request: Forwarded) -> bool:
    return any(it.reader == reader.name and it.refuses(request) for it in DIFFERENCES)


def test_cuts_change_nothing(behind: Sequence[Behind]) -> None:
    """Cases cut into pieces, which the proxy reads one at a time, are read as the table has it."""
    random = Random(20)  # noqa: S311 - the same in each run is what it is for
    table = [case for case in cases() if 1 < len(case.sent) <= SHORT]
    for number, case in enumerate(random.sample(table, CUT_CASES)):
        cuts = sorted(random.sample(range(1, len(case.sent)), min(2, len(case.sent) - 1)))
        pieces = [case.sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(case.sent)])]
        # h11 sees all: it shows all there is to compare.
        for one in behind if number < CUT_FOR_ALL else behind[:1]:
            read = [it.request for it in one.read(pieces, next(NUMBERS)) if it.whole]
            expected = [as_shown(one.reader, it) for it in case.forwarded]
            taken = [it for it in expected if not is_refused(one.reader, it)]
            where = f"{one.reader.name}: {case.name}, cut at {cuts}: {case.sent!r}"
            assert read == taken, where
