"""The report's charts as inline SVG. Colours are the page's: a mark has its tone as class, and ``currentColor``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report.facts import Band, Curve, Panel, Phase
from verl_rsim.monitoring.report.stats import ShareEstimate, StrategyStats

WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 37


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers that span [low, high]."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    size = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.floor(low / size + 1e-9)
    last = math.ceil(high / size - 1e-9)
    return [round(size * index, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number in at most four digits."""
    return f"{value:.3g}" if abs(value) >= 1e-12 else "0"


class _Axes:
    """Maps steps and values to pixels, and draws frame, grid and the bands of the stages."""

    def __init__(self, curves: Sequence[Curve], low: float | None = None, high: float | None = None):
        points = [point for curve in curves for point in curve.points]
        values = [value for _, value in points if math.isfinite(value)] or [0.0]
        self.y_ticks = ticks(min(values) if low is None else low, max(values) if high is None else high)
        self.first, self.last = min(step for step, _ in points), max(step for step, _ in points)

    def x(self, step: float) -> float:
        span = self.last - self.first
        place = (step - self.first) / span if span else 0.5
        return round(LEFT + 6 + place * (WIDTH - LEFT - RIGHT - 12), 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def frame(self, bands: Sequence[Band]) -> str:
        parts = []
        for index, band in enumerate(bands):
            left = self.x(max(self.first, band.first - 0.5)) if index else LEFT
            right = self.x(min(self.last, band.last + 0.5)) if index < len(bands) - 1 else WIDTH - RIGHT
            parts.append(
                f'<rect class="band band{index % 2}" x="{left}" y="{TOP}" width="{max(0, round(right - left, 1))}" '
                f'height="{HEIGHT - TOP - BOTTOM}"><title>Weights at {escape(band.label)}</title></rect>'
            )
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{number(tick)}</text>')
        whole = [tick for tick in ticks(self.first, self.last, 5) if tick == int(tick)]
        for tick in (tick for tick in whole if self.first <= tick <= self.last):
            parts.append(
                f'<text class="tick" x="{self.x(tick)}" y="{HEIGHT - 20}" text-anchor="middle">{tick:g}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">step of training</text>')
        return "".join(parts)

    def readouts(self, curves: Sequence[Curve]) -> str:
        """A strip for each step that shows all values of it."""
        rows: dict[float, list[str]] = {}
        for curve in curves:
            for step, value in curve.points:
                rows.setdefault(step, []).append(f"{curve.label}: {number(value)}")
        steps = sorted(rows)
        places = [self.x(step) for step in steps]
        edges = [LEFT, *((a + b) / 2 for a, b in pairwise(places)), WIDTH - RIGHT]
        return "".join(
            f'<rect class="strip" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}">'
            f"<title>{escape(chr(10).join([f'step {step:g}', *rows[step]]))}</title></rect>"
            for step, left, right in zip(steps, edges, edges[1:], strict=False)
        )


def _svg(body: str, label: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def lines(panel: Panel, bands: Sequence[Band]) -> str:
    """Curves over the steps."""
    axes = _Axes(panel.curves)
    marks = []
    for curve in panel.curves:
        places = [f"{axes.x(step)} {axes.y(value)}" for step, value in curve.points if math.isfinite(value)]
        if not places:
            continue
        dashed = ' stroke-dasharray="5 3"' if curve.sparse else ""
        shapes = f'<path d="M{"L".join(places)}" fill="none" stroke="currentColor" stroke-width="2"{dashed}/>'
        if curve.sparse or len(places) == 1:
            shapes += "".join(
                '<circle cx="{}" cy="{}" r="3.5" fill="currentColor"/>'.format(*p.split()) for p in places
            )
        marks.append(f'<g class="{curve.tone}">{shapes}</g>')
    label = f"{panel.title} over the steps: " + "; ".join(
        f"{curve.label} from {number(curve.points[0][1])} to {number(curve.points[-1][1])}" for curve in panel.curves
    )
    return _svg(axes.frame(bands) + "".join(marks) + axes.readouts(panel.curves), label)


def areas(panel: Panel, bands: Sequence[Band]) -> str:
    """Shares over the steps, stacked; every curve has the same steps."""
    axes = _Axes(panel.curves, 0, 1)
    steps = [step for step, _ in panel.curves[0].points]
    below = [0.0] * len(steps)
    marks = []
    for curve in panel.curves:
        above = [low + value for low, (_, value) in zip(below, curve.points, strict=True)]
        if len(steps) == 1:
            rect = f'y="{axes.y(above[0])}" height="{axes.y(below[0]) - axes.y(above[0]):.1f}"'
            shape = f'<rect x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" {rect} fill="currentColor"/>'
        else:
            top = [f"{axes.x(step)} {axes.y(value)}" for step, value in zip(steps, above, strict=True)]
            bottom = [f"{axes.x(step)} {axes.y(value)}" for step, value in zip(steps, below, strict=True)]
            shape = f'<path d="M{"L".join([*top, *reversed(bottom)])}Z" fill="currentColor"/>'
        marks.append(f'<g class="{curve.tone}">{shape}</g>')
        below = above
    return _svg(axes.frame(bands) + "".join(marks) + axes.readouts(panel.curves), f"{panel.title} over the steps")


ROW, NAME = 24, 142


def _rows(count: int) -> int:
    return count * ROW + 30


def intervals(
    estimates: Sequence[ShareEstimate | None], low: float, high: float, title: str, missing: str, percent: str = "%"
) -> str:
    """A point and its interval for each strategy; ``missing`` is said where there is none."""
    marks_at = ticks(low, high)
    low, high = marks_at[0], marks_at[-1]
    height = _rows(len(STRATEGIES))

    def x(value: float) -> float:
        return round(NAME + (value - low) / (high - low) * (WIDTH - NAME - 24), 1)

    body = "".join(
        f'<path class="grid{" zero" if not tick else ""}" d="M{x(tick)} 4V{height - 24}"/>'
        f'<text class="tick" x="{x(tick)}" y="{height - 8}" text-anchor="middle">{tick * 100:g} {percent}</text>'
        for tick in marks_at
    )
    for index, (strategy, found) in enumerate(zip(STRATEGIES, estimates, strict=True)):
        y = index * ROW + 16
        body += f'<text class="name" x="{NAME - 10}" y="{y + 4}" text-anchor="end">{strategy.title}</text>'
        if found is None:
            body += f'<text class="tick" x="{NAME + 4}" y="{y + 4}">{missing}</text>'
            continue
        said = f"{strategy.title}: {found.value:.1%} ({found.low:.1%} to {found.high:.1%}), {found.count} episodes"
        body += (
            f'<g class="s{index}"><title>{escape(said)}</title><rect class="strip" x="{NAME}" y="{y - ROW / 2}" '
            f'width="{WIDTH - NAME}" height="{ROW}"/>'
            f'<path d="M{x(found.low)} {y}H{x(found.high)}" stroke="currentColor" stroke-width="3"/>'
            f'<circle cx="{x(found.value)}" cy="{y}" r="5.5" fill="currentColor"/></g>'
        )
    return _svg(body, title, WIDTH, height)


def pairs(before: Iterable[float], after: Iterable[float], title: str) -> str:
    """Two bars for each strategy: before and after training."""
    both = list(zip(before, after, strict=True))
    marks_at = ticks(0, max((max(pair) for pair in both), default=0) or 1)
    height = _rows(len(both))
    scale = (WIDTH - NAME - 24) / marks_at[-1]
    body = "".join(
        f'<path class="grid" d="M{NAME + tick * scale:.1f} 4V{height - 24}"/>'
        f'<text class="tick" x="{NAME + tick * scale:.1f}" y="{height - 8}" text-anchor="middle">{number(tick)}</text>'
        for tick in marks_at
    )
    for index, (strategy, (first, last)) in enumerate(zip(STRATEGIES, both, strict=True)):
        y = index * ROW + 16
        said = f"{strategy.title}: {first:.2f} before, {last:.2f} after"
        body += (
            f'<text class="name" x="{NAME - 10}" y="{y + 4}" text-anchor="end">{strategy.title}</text>'
            f'<g class="s{index}"><title>{escape(said)}</title>'
            f'<rect class="before" x="{NAME}" y="{y - 9}" width="{first * scale:.1f}" height="8"/>'
            f'<rect x="{NAME}" y="{y + 1}" width="{last * scale:.1f}" height="8" fill="currentColor"/></g>'
        )
    return _svg(body, title, WIDTH, height)


def matrix(rows: Sequence[Sequence[float]], title: str) -> str:
    """Probabilities of what follows what, as :meth:`Tally.transitions` gives them."""
    size, top, left = 30, 112, 142
    names = [strategy.title for strategy in STRATEGIES]
    body = ""
    for column, name in enumerate([*names, "the end"]):
        x, y = left + column * size + size / 2 + 4, top - 8
        body += f'<text class="name" x="{x}" y="{y}" transform="rotate(-55 {x} {y})">{name}</text>'
    for index, (name, row) in enumerate(zip([*names, "the beginning"], rows, strict=True)):
        y = top + index * size
        body += f'<text class="name" x="{left - 8}" y="{y + size / 2 + 4}" text-anchor="end">{name}</text>'
        for column, (target, share) in enumerate(zip([*names, "the end"], row, strict=True)):
            x = left + column * size
            text = f'<text x="{x + size / 2}" y="{y + size / 2 + 4}">{share * 100:.0f}</text>' if share >= 0.005 else ""
            strong = " strong" if share > 0.7 else ""
            body += (
                f'<g class="cell{strong}"><title>{escape(f"{name}, then {target}: {share:.1%}")}</title>'
                f'<rect class="empty" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}"/>'
                f'<rect class="heat" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" '
                f'fill-opacity="{share:.3f}"/>{text}</g>'
            )
    return _svg(body, title, left + 10 * size + 50, top + 10 * size + 4)


def bars(phases: Sequence[Phase]) -> str:
    """Mean seconds of the phases of a step."""
    height = len(phases) * ROW + 8
    longest = max((phase.seconds for phase in phases), default=0) or 1
    body = ""
    for index, phase in enumerate(phases):
        y, width = index * ROW + 14, phase.seconds / longest * (WIDTH - NAME - 80)
        tone = phase.name.split("/")[0] if phase.name.split("/")[0] in ("planner", "reasoner") else "other"
        body += (
            f'<text class="name" x="{NAME - 10}" y="{y + 4}" text-anchor="end">{escape(phase.name)}</text>'
            f'<g class="{tone}"><rect x="{NAME}" y="{y - 8}" width="{max(width, 1):.1f}" height="16" '
            f'fill="currentColor"/></g>'
            f'<text class="name" x="{NAME + max(width, 1) + 6:.1f}" y="{y + 4}">{number(phase.seconds)} s</text>'
        )
    return _svg(body, "Mean seconds of the phases of a step", WIDTH, height)


def win_rates(stats: Sequence[StrategyStats]) -> str:
    """Accuracy of the episodes that used each strategy."""
    return intervals(
        [item.win_rate for item in stats], 0, 1, "Win rate of each strategy with 95 % intervals", "not used"
    )


def lifts(stats: Sequence[StrategyStats]) -> str:
    """Accuracy with each strategy minus accuracy without it."""
    found = [item.lift for item in stats if item.lift]
    low, high = min((e.low for e in found), default=-1), max((e.high for e in found), default=1)
    estimates = [item.lift for item in stats]
    title = "Lift of each strategy with 95 % intervals"
    return intervals(estimates, min(low, 0), max(high, 0), title, "no comparison", "pp")
