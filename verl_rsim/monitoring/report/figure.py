"""Draws the report's curves as one PNG picture. Needs matplotlib (extra ``report``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from verl_rsim.monitoring.report.report_data import Panel, ReportData
from verl_rsim.utils.errors import RsimError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRATEGY_COLOURS = ("#3f63cc", "#c96a04", "#c2334d", "#0b857b", "#39853d", "#b3269a", "#7c4fe0", "#747a84", "#7c4a1e")
COLOURS = {"planner": "#b8400b", "reasoner": "#1d4ed8"}
COLOURS |= {f"s{index}": colour for index, colour in enumerate(STRATEGY_COLOURS)}
"""Colours by tone; the same as in page.css."""


def write_png(path: Path, data: ReportData) -> None:
    """Draws the training curves and the strategies' shares.

    Raises:
        RsimError: matplotlib is not installed, or the run has no metrics.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise RsimError("png needs matplotlib: pip install 'verl-rsim[report]'") from None
    shares = data.shares()
    panels = data.panels()
    if shares:
        panels.append(shares)
    if not panels:
        raise RsimError("png shows the training curves; this run has no metrics")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    # Not pyplot, which would start a window system's toolkit and keep the figure in memory.
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for position, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, position)
        for number, band in enumerate(data.bands()):
            if number % 2 == 0:
                axes.axvspan(band.first - 0.5, band.last + 0.5, color="#eef1f5", zorder=0)
        _draw(axes, panel, stacked=panel is shares)
    figure.suptitle(data.title)
    figure.savefig(path, dpi=150)


def _draw(axes: Axes, panel: Panel, stacked: bool) -> None:
    """Draws one panel."""
    if stacked:
        steps = [step for step, _ in panel.curves[0].points]
        layers = []
        for curve in panel.curves:
            layers.append([value for _, value in curve.points])
        colours = [COLOURS[curve.tone] for curve in panel.curves]
        axes.stackplot(steps, layers, colors=colours, labels=[curve.label for curve in panel.curves])
    else:
        for curve in panel.curves:
            steps = [step for step, _ in curve.points]
            values = [value for _, value in curve.points]
            line, marker = ("--", "o") if curve.sparse else ("-", "")
            axes.plot(steps, values, color=COLOURS[curve.tone], label=curve.label, linestyle=line, marker=marker)
    axes.set_title(panel.title)
    axes.set_xlabel("training step")
    if stacked:  # the areas fill the plot: the legend goes beside it
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(fontsize="x-small")
