"""The average over the sets as a heatmap per model: layers upwards, widths to the right, the same colours for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rag_ese.errors import MissingExtraError
from rag_ese.eval.sts_report import headline
from rag_ese.eval.sts_results import StsResults
from rag_ese.types import Size

FILE = "layers_and_widths.png"


def draw(results: StsResults, path: Path) -> None:
    """Writes the picture as PNG. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plot", "the picture of layers and widths") from error
    grids = [
        np.array([[model.average(Size(layer, dim)) for dim in model.dims] for layer in model.layers], dtype=np.float64)
        for model in results.models
    ]
    low, high = min(grid.min() for grid in grids), max(grid.max() for grid in grids)
    columns, rows = max(len(model.dims) for model in results.models), max(len(model.layers) for model in results.models)
    size = ((0.72 * columns + 1) * len(grids) + 1.4, 0.42 * rows + 1.9)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(grids), squeeze=False)[0]
    for axes, model, grid in zip(panels, results.models, grids, strict=True):
        image = axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
        axes.set(title=Path(model.name).name, xlabel="dimensions")
        axes.set_xticks(range(len(model.dims)), labels=map(str, model.dims))
        axes.set_yticks(range(len(model.layers)), labels=[f"L{layer}" for layer in model.layers])
        for row, column in np.ndindex(grid.shape):
            colour = "white" if grid[row, column] < low + 0.6 * (high - low) else "black"
            axes.text(column, row, f"{grid[row, column]:.1f}", ha="center", va="center", color=colour, fontsize=9)
    panels[0].set_ylabel("layers that ran")
    figure.colorbar(image, ax=list(panels), shrink=0.9)
    figure.suptitle(headline(results), fontsize=10)
    figure.savefig(path, dpi=130)
