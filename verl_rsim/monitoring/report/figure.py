"""The report's curves as one picture, for a paper or a chat; needs matplotlib (extra ``report``)."""

from __future__ import annotations

from pathlib import Path

from verl_rsim.monitoring.report.facts import Facts, Panel
from verl_rsim.utils.errors import RsimError

COLOURS = {"planner": "#b8400b", "reasoner": "#1d4ed8"} | {
    f"s{index}": colour
    for index, colour in enumerate(
        ("#3f63cc", "#c96a04", "#c2334d", "#0b857b", "#39853d", "#b3269a", "#7c4fe0", "#747a84", "#7c4a1e")
    )
}


def write_png(path: Path, facts: Facts) -> None:
    """Draw the training curves and the strategies' shares.

    Raises:
        RsimError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise RsimError("png needs matplotlib: pip install 'verl-rsim[report]'") from None
    shares = facts.shares()
    panels = [*facts.panels(), *([shares] if shares else [])]
    if not panels:
        raise RsimError("png shows the training curves; this run has no metrics")
    columns = min(3, len(panels))
    figure = Figure(figsize=(5 * columns, 3.2 * -(-len(panels) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    for position, panel in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, position)
        for number, band in enumerate(facts.bands()):
            if number % 2 == 0:
                axes.axvspan(band.first - 0.5, band.last + 0.5, color="#eef1f5", zorder=0)
        _draw(axes, panel, stacked=panel is shares)
    figure.suptitle(facts.title)
    figure.savefig(path, dpi=150)


def _draw(axes, panel: Panel, stacked: bool) -> None:
    if stacked:
        steps = [step for step, _ in panel.curves[0].points]
        values = [[value for _, value in curve.points] for curve in panel.curves]
        colours = [COLOURS[curve.tone] for curve in panel.curves]
        axes.stackplot(steps, values, colors=colours, labels=[curve.label for curve in panel.curves])
    else:
        for curve in panel.curves:
            style = {"linestyle": "--", "marker": "o"} if curve.sparse else {}
            axes.plot(*zip(*curve.points, strict=True), color=COLOURS[curve.tone], label=curve.label, **style)
    axes.set_title(panel.title)
    axes.set_xlabel("step of training")
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if stacked else {}
    axes.legend(fontsize="x-small", **place)
