"""The sums of a soak, and whether it was passed. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Growth:
    """Memory of one process over its life, bytes."""

    first: int
    last: int


@dataclass
class Tally:
    """What has happened so far."""

    seed: int
    started: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    found_again: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """Acts of the machines' users that came to their end."""
    requests: int = 0
    execs: int = 0
    calls: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    memory: dict[str, dict[int, Growth]] = field(default_factory=dict)

    def grew(self, of: str, pid: int, size: int) -> None:
        """A process of kind `of` takes so many bytes now."""
        life = self.memory.setdefault(of, {}).setdefault(pid, Growth(size, size))
        life.last = size

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, wrong or left, and something was tried."""
        return bool(self.requests) and not (self.lost or self.wrong or self.leftovers)

    def text(self) -> str:
        """For people, a line each."""
        kills = ", ".join(f"{kind} {number}" for kind, number in sorted(self.killed.items()))
        acts = ", ".join(f"{act} {number}" for act, number in self.done.most_common())
        lines = [
            f"seed                {self.seed}",
            f"started             {self.started}",
            f"killed              {self.killed.total()} ({kills or 'none'})",
            f"found again         {self.found_again}",
            f"done                {acts.replace('_', ' ') or 'nothing'}",
            f"lost                {len(self.lost)}",
            f"wrong answers       {len(self.wrong)}",
            f"leftovers           {len(self.leftovers)}",
            f"requests            {self.requests}, execs {self.execs}, calls {self.calls}",
        ]
        for of, lives in sorted(self.memory.items()):
            most = max(lives.values(), key=lambda life: life.last - life.first)
            lines.append(
                f"memory              {of}: {_mib(most.first)} to {_mib(most.last)} MiB "
                f"in the life that grew most, of {len(lives)}"
            )
        for title, what in (
            ("lost", self.lost),
            ("wrong", self.wrong),
            ("left over", self.leftovers),
        ):
            lines += [f"{title}: {one}" for one in what]
        return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"
