"""Lists of machines in JSON: what has not changed since it was shown is not made anew.

Whoever waits for something, or shows it, asks for lists again and again; the JSON of a hundred
machines takes four times as long to make as the rest of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from hyperfleet.api.responses import Urls, machine_out
from hyperfleet.machine import Machine

# About a KiB each, of those that were shown.
_MOST = 16_384


class Listing:
    """Keeps the JSON of the machines that were shown last."""

    def __init__(self, urls: Urls, most: int = _MOST) -> None:
        """`most`: how many are kept."""
        self._urls = urls
        self._most = most
        # A machine that changes is another object, so the same one has the same JSON.
        self._kept: dict[str, tuple[Machine, bytes]] = {}

    def page(self, machines: Iterable[Machine], total: int) -> bytes:
        """A `MachinesOut` of these, as JSON."""
        shown = b",".join([self._json(machine) for machine in machines])
        return b'{"machines":[%b],"total":%d}' % (shown, total)

    def _json(self, machine: Machine) -> bytes:
        kept = self._kept.pop(machine.id, None)
        if kept is None or kept[0] is not machine:
            kept = machine, machine_out(machine, self._urls).model_dump_json().encode()
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
        # The last is the last that is let go of.
        self._kept[machine.id] = kept
        return kept[1]
