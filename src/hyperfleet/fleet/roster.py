"""Which machines there are, by id and by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from hyperfleet.errors import NotFoundError
from hyperfleet.fleet.owner import Owner
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine


class Roster:
    """Owners, oldest first. `ref` is an id or a name; an id wins."""

    def __init__(self) -> None:
        # An id is taken from the moment that its record is being written.
        self._owners: dict[str, Owner] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Owner]:
        return iter([*self._owners.values()])

    def __contains__(self, word: str) -> bool:
        """Whether a machine is called so, by id or name."""
        return word in self._owners or word in self._names

    def of_id(self, machine_id: str) -> Owner | None:
        """The machine with that id."""
        return self._owners.get(machine_id)

    def find(self, ref: str) -> Owner:
        """The machine.

        Raises:
            NotFoundError: there is none with that id or name.
        """
        owner = self._owners.get(ref) or self._owners.get(self._names.get(ref, ""))
        if owner is None or owner.state.removed:
            raise NotFoundError(f"Machine not found: {ref}")
        return owner

    def enter(self, owner: Owner) -> None:
        """It is one of them."""
        self._owners[owner.machine.id] = owner
        self._names[owner.machine.spec.name] = owner.machine.id

    def leave(self, owner: Owner) -> None:
        """It is not any more."""
        self._owners.pop(owner.machine.id, None)
        if self._names.get(owner.machine.spec.name) == owner.machine.id:
            del self._names[owner.machine.spec.name]

    def tell_time(self) -> None:
        """Has the guests of all that run told the time soon."""
        for owner in self:
            owner.tell_time()

    def machines(self) -> list[Machine]:
        """All, as they stand."""
        return [owner.machine for owner in self._owners.values()]

    def page(
        self,
        status: Status | None,
        labels: Sequence[tuple[str, str | None]],
        limit: int,
        offset: int,
    ) -> tuple[list[Machine], int]:
        """See `Fleet.list`."""
        if status is None and not labels:
            # A page of all costs what the page does, not what all do.
            page = islice(self._owners.values(), offset, offset + limit)
            return [owner.machine for owner in page], len(self._owners)
        found = [
            machine
            for machine in self.machines()
            if (status is None or machine.status is status) and _bears(machine, labels)
        ]
        return found[offset : offset + limit], len(found)


def _bears(machine: Machine, labels: Iterable[tuple[str, str | None]]) -> bool:
    has = machine.spec.labels
    return all(name in has if value is None else has.get(name) == value for name, value in labels)
