"""Draws the report's charts as inline SVG.

Marks have a tone as CSS class and the fill ``currentColor``, so the page's style sheet sets all colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report.report_data import Curve, Panel, PhaseTime, StageBand
from verl_rsim.monitoring.report.stats import ShareEstimate, StrategyStats

WIDTH, HEIGHT = 460, 210
"""Size of a chart of curves."""
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 37
"""Margins around its plot area."""


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Returns about ``count`` round numbers that span [low, high]."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    # The tolerances here and below keep rounding errors from adding a tick or doubling the distance.
    size = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.floor(low / size + 1e-9)
    last = math.ceil(high / size - 1e-9)
    return [round(size * index, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """Returns a number with three significant digits."""
    return f"{value:.3g}" if abs(value) >= 1e-12 else "0"


class _Axes:
    """Maps training steps and values to pixels, and draws the grid and the bands of the stages."""

    def __init__(self, curves: Sequence[Curve], low: float | None = None, high: float | None = None):
        points = [point for curve in curves for point in curve.points]
        values = [value for _, value in points if math.isfinite(value)] or [0.0]
        self.y_ticks = ticks(min(values) if low is None else low, max(values) if high is None else high)
        self.first, self.last = min(step for step, _ in points), max(step for step, _ in points)

    def x(self, step: float) -> float:
        """Returns the position of a training step."""
        span = self.last - self.first
        fraction = (step - self.first) / span if span else 0.5
        return round(LEFT + 6 + fraction * (WIDTH - LEFT - RIGHT - 12), 1)

    def y(self, value: float) -> float:
        """Returns the position of a value."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def frame(self, bands: Sequence[StageBand]) -> str:
        """Returns the bands, the grid and the labels of both axes."""
        parts = [self._band(bands, index) for index in range(len(bands))]
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{number(tick)}</text>')
        for tick in ticks(self.first, self.last, 5):
            if tick == int(tick) and self.first <= tick <= self.last:
                parts.append(
                    f'<text class="tick" x="{self.x(tick)}" y="{HEIGHT - 20}" text-anchor="middle">{tick:g}</text>'
                )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">training step</text>')
        return "".join(parts)

    def _band(self, bands: Sequence[StageBand], index: int) -> str:
        """Returns the rectangle of a stage. The first and the last one reach the margins."""
        band = bands[index]
        left = self.x(max(self.first, band.first - 0.5)) if index else LEFT
        right = self.x(min(self.last, band.last + 0.5)) if index < len(bands) - 1 else WIDTH - RIGHT
        return (
            f'<rect class="band band{index % 2}" x="{left}" y="{TOP}" width="{max(0, round(right - left, 1))}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>Weights at {escape(band.label)}</title></rect>'
        )

    def tooltips(self, curves: Sequence[Curve]) -> str:
        """Returns an invisible strip for each training step, with all its values as tooltip."""
        rows: dict[float, list[str]] = {}
        for curve in curves:
            for step, value in curve.points:
                rows.setdefault(step, []).append(f"{curve.label}: {number(value)}")
        steps = sorted(rows)
        positions = [self.x(step) for step in steps]
        edges = [LEFT, *((a + b) / 2 for a, b in pairwise(positions)), WIDTH - RIGHT]
        return "".join(
            f'<rect class="strip" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}">'
            f"<title>{escape(chr(10).join([f'step {step:g}', *rows[step]]))}</title></rect>"
            for step, left, right in zip(steps, edges, edges[1:], strict=False)
        )


def _svg(body: str, label: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def line_chart(panel: Panel, bands: Sequence[StageBand]) -> str:
    """Draws curves over the training steps."""
    axes = _Axes(panel.curves)
    marks = "".join(_line(axes, curve) for curve in panel.curves)
    changes = [
        f"{curve.label} from {number(curve.points[0][1])} to {number(curve.points[-1][1])}" for curve in panel.curves
    ]
    label = f"{panel.title} over the steps: {'; '.join(changes)}"
    return _svg(axes.frame(bands) + marks + axes.tooltips(panel.curves), label)


def _line(axes: _Axes, curve: Curve) -> str:
    """Returns a curve; its points are marked if they are sparse or if there is only one."""
    points = [(axes.x(step), axes.y(value)) for step, value in curve.points if math.isfinite(value)]
    if not points:
        return ""
    dashed = ' stroke-dasharray="5 3"' if curve.sparse else ""
    path = "L".join(f"{x} {y}" for x, y in points)
    shapes = f'<path d="M{path}" fill="none" stroke="currentColor" stroke-width="2"{dashed}/>'
    if curve.sparse or len(points) == 1:
        shapes += "".join(f'<circle cx="{x}" cy="{y}" r="3.5" fill="currentColor"/>' for x, y in points)
    return f'<g class="{curve.tone}">{shapes}</g>'


def stacked_area_chart(panel: Panel, bands: Sequence[StageBand]) -> str:
    """Draws stacked shares over the training steps. All curves must have the same steps."""
    axes = _Axes(panel.curves, 0, 1)
    steps = [step for step, _ in panel.curves[0].points]
    below = [0.0] * len(steps)
    marks = []
    for curve in panel.curves:
        above = [low + value for low, (_, value) in zip(below, curve.points, strict=True)]
        marks.append(f'<g class="{curve.tone}">{_area(axes, steps, below, above)}</g>')
        below = above
    return _svg(axes.frame(bands) + "".join(marks) + axes.tooltips(panel.curves), f"{panel.title} over the steps")


def _area(axes: _Axes, steps: Sequence[float], below: Sequence[float], above: Sequence[float]) -> str:
    """Returns the area between two curves; of a single step a bar, since its area would have no width."""
    if len(steps) == 1:
        height = axes.y(below[0]) - axes.y(above[0])
        return (
            f'<rect x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" y="{axes.y(above[0])}" height="{height:.1f}" '
            f'fill="currentColor"/>'
        )
    top = [f"{axes.x(step)} {axes.y(value)}" for step, value in zip(steps, above, strict=True)]
    bottom = [f"{axes.x(step)} {axes.y(value)}" for step, value in zip(steps, below, strict=True)]
    return f'<path d="M{"L".join([*top, *reversed(bottom)])}Z" fill="currentColor"/>'


ROW, NAME = 24, 142
"""Height of a row, and width of the names, in a chart with a row for each strategy or phase."""


def _rows_height(count: int) -> int:
    """Returns the height of a chart of rows with an axis below them."""
    return count * ROW + 30


def interval_chart(
    estimates: Sequence[ShareEstimate | None], low: float, high: float, title: str, missing: str, percent: str = "%"
) -> str:
    """Draws an estimate with its interval for each strategy.

    Args:
        estimates: One per strategy, or None.
        low: Lower end of the axis.
        high: Upper end of the axis.
        title: Description for screen readers.
        missing: Text for a strategy without an estimate.
        percent: Unit of the axis.
    """
    x_ticks = ticks(low, high)
    low, high = x_ticks[0], x_ticks[-1]
    height = _rows_height(len(STRATEGIES))

    def x(value: float) -> float:
        return round(NAME + (value - low) / (high - low) * (WIDTH - NAME - 24), 1)

    body = "".join(
        f'<path class="grid{" zero" if not tick else ""}" d="M{x(tick)} 4V{height - 24}"/>'
        f'<text class="tick" x="{x(tick)}" y="{height - 8}" text-anchor="middle">{tick * 100:g} {percent}</text>'
        for tick in x_ticks
    )
    for index, (strategy, estimate) in enumerate(zip(STRATEGIES, estimates, strict=True)):
        y = index * ROW + 16
        body += f'<text class="name" x="{NAME - 10}" y="{y + 4}" text-anchor="end">{strategy.title}</text>'
        if estimate is None:
            body += f'<text class="tick" x="{NAME + 4}" y="{y + 4}">{missing}</text>'
            continue
        interval = f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
        tooltip = f"{strategy.title}: {interval}, {estimate.count} episodes"
        body += (
            f'<g class="s{index}"><title>{escape(tooltip)}</title><rect class="strip" x="{NAME}" y="{y - ROW / 2}" '
            f'width="{WIDTH - NAME}" height="{ROW}"/>'
            f'<path d="M{x(estimate.low)} {y}H{x(estimate.high)}" stroke="currentColor" stroke-width="3"/>'
            f'<circle cx="{x(estimate.value)}" cy="{y}" r="5.5" fill="currentColor"/></g>'
        )
    return _svg(body, title, WIDTH, height)


def paired_bar_chart(before: Iterable[float], after: Iterable[float], title: str) -> str:
    """Draws two bars for each strategy: one for before training and one for after it."""
    pairs = list(zip(before, after, strict=True))
    longest = max((max(pair) for pair in pairs), default=0) or 1
    x_ticks = ticks(0, longest)
    height = _rows_height(len(pairs))
    scale = (WIDTH - NAME - 24) / x_ticks[-1]
    body = "".join(
        f'<path class="grid" d="M{NAME + tick * scale:.1f} 4V{height - 24}"/>'
        f'<text class="tick" x="{NAME + tick * scale:.1f}" y="{height - 8}" text-anchor="middle">{number(tick)}</text>'
        for tick in x_ticks
    )
    for index, (strategy, (first, last)) in enumerate(zip(STRATEGIES, pairs, strict=True)):
        y = index * ROW + 16
        tooltip = f"{strategy.title}: {first:.2f} before, {last:.2f} after"
        body += (
            f'<text class="name" x="{NAME - 10}" y="{y + 4}" text-anchor="end">{strategy.title}</text>'
            f'<g class="s{index}"><title>{escape(tooltip)}</title>'
            f'<rect class="before" x="{NAME}" y="{y - 9}" width="{first * scale:.1f}" height="8"/>'
            f'<rect x="{NAME}" y="{y + 1}" width="{last * scale:.1f}" height="8" fill="currentColor"/></g>'
        )
    return _svg(body, title, WIDTH, height)


def transition_matrix(rows: Sequence[Sequence[float]], title: str) -> str:
    """Draws the probabilities of the next strategy, as :meth:`Tally.transitions` returns them."""
    size, top, left = 30, 112, 142
    names = [strategy.title for strategy in STRATEGIES]
    body = ""
    for column, name in enumerate([*names, "the end"]):
        x, y = left + column * size + size / 2 + 4, top - 8
        body += f'<text class="name" x="{x}" y="{y}" transform="rotate(-55 {x} {y})">{name}</text>'
    # A cell is an empty square below one in the heat's colour: its opacity is the share, in both colour schemes.
    for index, (name, row) in enumerate(zip([*names, "the beginning"], rows, strict=True)):
        y = top + index * size
        body += f'<text class="name" x="{left - 8}" y="{y + size / 2 + 4}" text-anchor="end">{name}</text>'
        for column, (target, share) in enumerate(zip([*names, "the end"], row, strict=True)):
            x = left + column * size
            text = f'<text x="{x + size / 2}" y="{y + size / 2 + 4}">{share * 100:.0f}</text>' if share >= 0.005 else ""
            strong = " strong" if share > 0.7 else ""  # a light number on a dark cell
            body += (
                f'<g class="cell{strong}"><title>{escape(f"{name}, then {target}: {share:.1%}")}</title>'
                f'<rect class="empty" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}"/>'
                f'<rect class="heat" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" '
                f'fill-opacity="{share:.3f}"/>{text}</g>'
            )
    return _svg(body, title, left + 10 * size + 50, top + 10 * size + 4)


def phase_bar_chart(phases: Sequence[PhaseTime]) -> str:
    """Draws the mean time of each phase of a training step."""
    height = len(phases) * ROW + 8
    longest = max((phase.seconds for phase in phases), default=0) or 1
    body = ""
    for index, phase in enumerate(phases):
        y, width = index * ROW + 14, phase.seconds / longest * (WIDTH - NAME - 80)
        role = phase.name.split("/")[0]
        tone = role if role in ("planner", "reasoner") else "other"
        body += (
            f'<text class="name" x="{NAME - 10}" y="{y + 4}" text-anchor="end">{escape(phase.name)}</text>'
            f'<g class="{tone}"><rect x="{NAME}" y="{y - 8}" width="{max(width, 1):.1f}" height="16" '
            f'fill="currentColor"/></g>'
            f'<text class="name" x="{NAME + max(width, 1) + 6:.1f}" y="{y + 4}">{number(phase.seconds)} s</text>'
        )
    return _svg(body, "Mean seconds of the phases of a training step", WIDTH, height)


def win_rate_chart(stats: Sequence[StrategyStats]) -> str:
    """Draws the accuracy of the episodes that used each strategy."""
    estimates = [item.win_rate for item in stats]
    return interval_chart(estimates, 0, 1, "Win rate of each strategy with 95 % intervals", "not used")


def lift_chart(stats: Sequence[StrategyStats]) -> str:
    """Draws the accuracy with each strategy minus the accuracy without it."""
    estimates = [item.lift for item in stats]
    low = min((estimate.low for estimate in estimates if estimate), default=-1)
    high = max((estimate.high for estimate in estimates if estimate), default=1)
    title = "Lift of each strategy with 95 % intervals"
    return interval_chart(estimates, min(low, 0), max(high, 0), title, "no comparison", "pp")
