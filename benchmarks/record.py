"""A run as it is kept: every sample, so that the report can be written again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.limit import Limit
from benchmarks.sample import Sample
from benchmarks.summary import Table, summarize
from benchmarks.workloads import WORKLOADS


@dataclass(frozen=True)
class Record:
    """One run."""

    facts: dict[str, str]
    seconds: float
    pinning: str
    samples: list[Sample]
    figures: list[Figure]
    failures: dict[str, str]
    limits: list[Limit]
    """Of the rows that are not met."""

    def tables(self) -> list[Table]:
        """One for each workload that has samples."""
        measured = {sample.workload for sample in self.samples}
        return [summarize(w, self.samples) for w in WORKLOADS if w.key in measured]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Record:
        """What `write` wrote."""
        kept = json.loads(path.read_text())
        samples = [Sample(**sample) for sample in kept.pop("samples")]
        figures = [Figure(**figure) for figure in kept.pop("figures")]
        limits = [Limit.read(limit) for limit in kept.pop("limits", [])]
        return cls(samples=samples, figures=figures, limits=limits, **kept)
