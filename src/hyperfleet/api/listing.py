"""Lists of machines in JSON: what has not changed since it was shown is not made anew.

Whoever waits for something, or shows it, asks for lists again and again; the JSON of a hundred
machines takes four times as long to make as the rest of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import ref

from hyperfleet.api.responses import Urls, machine_out
from hyperfleet.machine import Machine

# Of what is kept: a machine takes about a KiB, one with hundreds of ports a hundred.
_MOST_BYTES = 16 * 1024 * 1024


class Listing:
    """Keeps the JSON of machines that were shown, for as long as they stay as they are."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        """`most_bytes`: how much is kept; what was not shown for longest goes first."""
        self._most = most_bytes
        self._bytes = 0
        # A machine that changes is another object, so the same one has the same JSON. One that is
        # gone takes it along.
        self._kept: dict[str, tuple[ref[Machine], bytes]] = {}

    def page(self, machines: Iterable[Machine], total: int, urls: Urls) -> bytes:
        """A `MachinesOut` of these, as JSON; `urls` are always the same."""
        shown = b",".join([self._json(machine, urls) for machine in machines])
        return b'{"machines":[%b],"total":%d}' % (shown, total)

    def _json(self, machine: Machine, urls: Urls) -> bytes:
        kept = self._kept.pop(machine.id, None)
        if kept is not None and kept[0]() is machine:
            # The last is the last that is let go of.
            self._kept[machine.id] = kept
            return kept[1]
        if kept is not None:
            self._bytes -= len(kept[1])
        machine_id = machine.id
        made = machine_out(machine, urls).model_dump_json().encode()
        self._bytes += len(made)
        self._kept[machine_id] = ref(machine, lambda gone: self._forget(machine_id, gone)), made
        while self._bytes > self._most:
            self._let_go(next(iter(self._kept)))
        return made

    def _forget(self, machine_id: str, gone: ref[Machine]) -> None:
        kept = self._kept.get(machine_id)
        if kept is not None and kept[0] is gone:
            self._let_go(machine_id)

    def _let_go(self, machine_id: str) -> None:
        kept = self._kept.pop(machine_id, None)
        if kept is not None:
            self._bytes -= len(kept[1])
