"""Reads what /metrics says, and holds it to Prometheus' rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

# Prometheus' docs, "Metric and label naming": base units, and no others.
_OTHER_UNITS = re.compile(
    r"_((milli|micro|nano)seconds?|ms|us|ns|second|minutes?|hours?|byte|[kmg]i?b|percent)(_total)?$"
)


class Exposition:
    """One answer's families and samples."""

    def __init__(self, text: str, *, open_metrics: bool = False) -> None:
        parse = openmetrics if open_metrics else prometheus
        self.families: list[Metric] = list(parse(text))

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name whose labels include these."""
        found = self.values(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]

    def values(self, name: str, **labels: str) -> list[float]:
        """Every such sample's value."""
        return [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def names(self) -> list[str]:
        """The families' names."""
        return [family.name for family in self.families]


def broken_rules(families: Iterable[Metric]) -> list[str]:
    """What `promtool check metrics` would say, and a little more; nothing: all is well."""
    listed = list(families)
    said = [f"{name} is there twice" for name, n in _counts(listed).items() if n > 1]
    for family in listed:
        said += [f"{family.name}: {words}" for breaks, words in _RULES if breaks(family)]
    return said


def _counts(families: Iterable[Metric]) -> Counter[str]:
    return Counter(family.name for family in families)


def _samples(family: Metric) -> list[str]:
    return [sample.name for sample in family.samples]


_RULES: tuple[tuple[Callable[[Metric], bool], str], ...] = (
    (
        lambda family: not re.fullmatch(r"[a-z][a-z0-9_]*", family.name),
        "lower case, digits and underscores",
    ),
    (lambda family: not family.name.startswith(("hyperfleet_", "process_")), "whose is it?"),
    (lambda family: not family.documentation.strip(), "no HELP"),
    (lambda family: family.type in ("unknown", "untyped"), "no TYPE"),
    (lambda family: bool(_OTHER_UNITS.search(family.name)), "no base unit"),
    (
        lambda family: family.type == "histogram" and not family.name.endswith("_seconds"),
        "a histogram of what?",
    ),
    (
        lambda family: (
            family.type == "gauge" and family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        ),
        "named as if it were no gauge",
    ),
    (
        lambda family: (
            family.type == "counter"
            and not all(name.endswith(("_total", "_created")) for name in _samples(family))
        ),
        "a counter ends in _total",
    ),
)
