"""The size study as a picture: quality against the bytes that a search touches, one line per depth.

The numbers along the deepest line are widths.
"""

from __future__ import annotations

from pathlib import Path

from rag_ese.errors import MissingExtraError
from rag_ese.eval.results import Results, SystemResult
from rag_ese.types import Size

FILE = "sizes.png"
_PANELS = (("ndcg@10", "nDCG@10"), ("both_gold@10", "both gold passages in top 10"), ("f1", "answer F1"))


def draw(results: Results, path: Path) -> None:
    """Writes the picture as PNG. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plot", "the picture of the sizes") from error
    panels = [(metric, title) for metric, title in _PANELS if results.systems[0].mean(metric) is not None]
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    for number, (metric, title) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        lines = _by_depth(results)
        for depth, rows in lines.items():
            points = [(row.index_bytes / 1e6, 100 * (row.mean(metric) or 0)) for row in rows]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=f"{depth} layers")
            for (x, y), row in zip(points, rows, strict=True):
                if depth == max(lines):  # the widths stand at the same place on every line
                    width = row.name.partition("-d")[2]
                    axes.annotate(width, (x, y), xytext=(0, -11), textcoords="offset points", fontsize=8, ha="center")
        for row, style in zip(_controls(results), ("--", ":", "-.", (0, (6, 2)), (0, (1, 3))), strict=False):
            if row.mean(metric) is None:
                continue
            axes.axhline(100 * (row.mean(metric) or 0), linestyle=style, color="grey", linewidth=1, label=row.name)
        ticks = sorted({row.index_bytes / 1e6 for rows in lines.values() for row in rows})
        axes.set(title=title, xlabel="index, MB", xscale="log", ylim=(0, None))
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("points of 100")
    figure.axes[-1].legend(fontsize=8, loc="lower right")
    sample = ", NOT HotpotQA: bundled sample" if "sample" in results.data["source"] else ""
    figure.suptitle(f"{len(results.questions)} questions, {results.pool['passages']:,} passages{sample}", fontsize=10)
    figure.savefig(path, dpi=130)


def _by_depth(results: Results) -> dict[int, list[SystemResult]]:
    lines: dict[int, list[SystemResult]] = {}
    for row in results.systems:
        if row.kind == "size":
            lines.setdefault(Size.parse(row.name).layers, []).append(row)
    return lines


def _controls(results: Results) -> list[SystemResult]:
    """BM25, the hybrid of the reference size, and the reader's floor and ceiling (which have answers alone)."""
    controls = ("BM25", f"{results.reference} + BM25")
    return [row for row in results.systems if row.name in controls or row.kind == "bound"]
