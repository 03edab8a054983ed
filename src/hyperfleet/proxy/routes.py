"""Routes: a function of machines, computed and numbered. Pure; `link` sends what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hyperfleet.machine import Machine, PortOptions
from hyperfleet.wire import control

# Bound of a snapshot's part, bytes. Far below a frame's: the data plane takes a part in less than a
# millisecond, and serves requests between two.
_PART = 64 * 1024
_AS_USUAL = PortOptions(port=0)


def route(machine: Machine) -> control.Machine:
    """What the data plane has to know of a machine."""
    options = {one.port: one for one in machine.spec.port_options}
    return control.Machine(
        id=machine.id,
        name=machine.spec.name,
        status=machine.status.value,
        lifecycle=machine.lifecycle,
        ports=tuple(
            control.Port(
                port=port.port,
                upstream=port.upstream,
                listening=port.listening,
                host=as_asked.host,
                strip_prefix=as_asked.strip_prefix,
            )
            for port in machine.ports
            for as_asked in (options.get(port.port, _AS_USUAL),)
        ),
    )


class Table:
    """The routes as they should be, and the number of the last step that led there."""

    def __init__(self) -> None:
        self.number = 0
        self._machines: dict[str, control.Machine] = {}

    def __len__(self) -> int:
        return len(self._machines)

    def upsert(self, machine: Machine) -> control.Change | None:
        """The next step, or None when the data plane would see no difference."""
        new = route(machine)
        if self._machines.get(new.id) == new:
            return None
        self._machines[new.id] = new
        self.number += 1
        return control.Change(number=self.number, upsert=(new,), remove=())

    def remove(self, machine_id: str) -> control.Change | None:
        """The next step, or None when there was no such machine."""
        if self._machines.pop(machine_id, None) is None:
            return None
        self.number += 1
        return control.Change(number=self.number, upsert=(), remove=(machine_id,))

    def snapshot(self) -> list[control.ToProxy]:
        """The whole table, numbered as its last step."""
        return snapshot(self._machines.values(), self.number)


def snapshot(machines: Iterable[control.Machine], number: int) -> list[control.ToProxy]:
    """A whole table in parts that fit a frame, to be step `number`."""
    return [
        control.SnapshotBegin(number=number),
        *(control.SnapshotPart(machines=part) for part in parts(machines, _PART)),
        control.SnapshotEnd(number=number),
    ]


def parts(machines: Iterable[control.Machine], bound: int) -> Iterator[tuple[control.Machine, ...]]:
    """Divides machines, in order, so that no part's encoding is over `bound` bytes.

    A machine that is over the bound alone becomes a part alone.
    """
    part: list[control.Machine] = []
    size = 0
    for machine in machines:
        machine_size = len(control.encode_machine(machine))
        if part and size + machine_size > bound:
            yield tuple(part)
            part, size = [], 0
        part.append(machine)
        size += machine_size
    if part:
        yield tuple(part)
