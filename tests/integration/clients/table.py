"""The table of clients and scenarios, as it is printed at the end of the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from integration.clients.limits import BLIND, CANNOT


class Table:
    """Columns (clients) and rows (scenarios) of each part; a cell is filled in by its test."""

    def __init__(self, parts: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> None:
        self._parts = parts
        self._cells: dict[tuple[str, str, str], str] = {}
        self._reasons: list[str] = []

    def passed(self, part: str, client: str, scenario: str, blind: Sequence[str] = ()) -> None:
        """`blind`: what of it the client does not show."""
        notes = "".join(f" {self._note(client, BLIND[client, field])}" for field in blind)
        self._cells[part, client, scenario] = f"ok{notes}"

    def failed(self, part: str, client: str, scenario: str) -> None:
        self._cells[part, client, scenario] = "FAILED"

    def text(self) -> str:
        """All parts; `-` is what a library can't do, a number the reason, below."""
        lines: list[str] = []
        for part, (clients, scenarios) in self._parts.items():
            width = max(map(len, [part, *scenarios])) + 2
            lines.append(f"{part:<{width}}" + "".join(f"{client:<12}" for client in clients))
            for scenario in scenarios:
                cells = (self._cell(part, client, scenario) for client in clients)
                lines.append(f"{scenario:<{width}}" + "".join(f"{cell:<12}" for cell in cells))
            lines.append("")
        lines += [f"{number} {reason}" for number, reason in enumerate(self._reasons, 1)]
        return "\n".join(line.rstrip() for line in lines)

    def _cell(self, part: str, client: str, scenario: str) -> str:
        reason = CANNOT.get((client, scenario))
        if reason is not None:
            return f"- {self._note(client, reason)}"
        return self._cells.get((part, client, scenario), "not run")

    def _note(self, client: str, reason: str) -> int:
        text = f"{client}: {reason}"
        if text not in self._reasons:
            self._reasons.append(text)
        return self._reasons.index(text) + 1
