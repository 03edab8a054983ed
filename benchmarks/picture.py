"""The results as a picture: for each workload every proxy's cost, the best rival's being 1."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import OURS
from benchmarks.record import Record

# Bars beyond this are cut, and their number tells.
_WIDEST = 3.0
_COLOURS = {
    OURS: "#d1495b",
    "nginx": "#2e7d32",
    "nginx-64k": "#81c784",
    "haproxy": "#1565c0",
    "haproxy-64k": "#64b5f6",
    "haproxy-tcp": "#b0bec5",
    "envoy": "#8e24aa",
    "traefik": "#f9a825",
    "caddy": "#6d4c41",
}


def draw(record: Record, titles: dict[str, str], path: Path) -> None:
    """Writes the SVG.

    Raises:
        ImportError: matplotlib is not there (benchmarks/requirements.txt has it).
    """
    import matplotlib as mpl  # noqa: PLC0415 - only `make bench` has it

    mpl.use("svg")
    # The same results make the same file.
    mpl.rcParams["svg.hashsalt"] = "hyperfleet"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    tables = [table for table in record.tables() if table.best is not None]
    columns = 3
    rows = max(1, -(-len(tables) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(13, 2.6 * rows), squeeze=False)
    for place in axes.flat[len(tables) :]:
        place.axis("off")
    for place, table in zip(axes.flat, tables, strict=False):
        lines = sorted(table.lines, key=lambda line: line.ratio.median, reverse=True)
        names = [titles[line.peer] for line in lines]
        ratios = [line.ratio.median for line in lines]
        colours = [_COLOURS.get(line.peer, "#999999") for line in lines]
        bars = place.barh(names, [min(ratio, _WIDEST) for ratio in ratios], color=colours)
        place.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=2, fontsize=7)
        place.axvline(table.workload.target, color="#333333", linewidth=0.8, linestyle="--")
        place.set_xlim(0, _WIDEST * 1.12)
        place.set_title(f"{table.title} ({table.workload.measure.value})", fontsize=9)
        place.tick_params(labelsize=7)
        place.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Cost beside the best rival (= 1); dashed: the target", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
