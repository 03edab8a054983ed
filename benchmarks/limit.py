"""What a row that is not met is made of: system calls, the kernel's part, functions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.profile import Function

# Functions that are told, and calls of which there are fewer a unit are not.
_TOLD = 15
_RARE = 0.01


@dataclass(frozen=True)
class Limit:
    """Of one row."""

    title: str
    """The row's."""
    unit: str
    calls: dict[str, dict[str, float]]
    """For each unit, by the proxy's title and the call's name; ours first."""
    functions: list[Function]
    """Of ours, the most first."""
    missing: list[str]
    """What could not be found out, and why."""

    @classmethod
    def read(cls, kept: dict[str, Any]) -> Limit:
        """What `dataclasses.asdict` made of one."""
        functions = [Function(**one) for one in kept.pop("functions")]
        return cls(functions=functions, **kept)


def markdown(limit: Limit) -> str:
    """A section's text."""
    parts = []
    if limit.calls:
        rows = [
            f"| {title} | {sum(calls.values()):.2f} | {named(calls)} |"
            for title, calls in limit.calls.items()
        ]
        parts += [
            f"| system calls of a {limit.unit} | in all | |\n|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        ]
    if limit.functions:
        ours = next(iter(limit.calls), "ours")
        most = limit.functions[:_TOLD]
        rest = sum(function.part for function in limit.functions[_TOLD:])
        rows = [f"| {one.part:.1%} | {one.where} | `{one.name}` |" for one in most]
        rows += [f"| {rest:.1%} | | {len(limit.functions) - len(most)} others |"] if rest else []
        where = ", ".join(f"{name} {part:.0%}" for name, part in places(limit.functions).items())
        parts += [
            f"Where the CPU time of {ours} goes: {where}.\n",
            "| part | where | function |\n|---|---|---|\n" + "\n".join(rows) + "\n",
        ]
    parts += [f"Not found out: {why}\n" for why in limit.missing]
    return "\n".join(parts)


def places(functions: list[Function]) -> dict[str, float]:
    """The part of the kernel, of the program and of each library; the most first."""
    found: dict[str, float] = {}
    for function in functions:
        found[function.where] = found.get(function.where, 0.0) + function.part
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def named(calls: Mapping[str, float]) -> str:
    """Each call with how many there are, the most first; the rare ones are left out."""
    told = sorted(calls.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:.2f}" for name, count in told if count > _RARE)
