"""Draws a heat map as SVG text, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LETTER, MARGIN = 150, 58, 7.2, 16
BLUE, WHITE, RED = (33, 102, 172), (247, 247, 247), (178, 24, 43)


@dataclass(frozen=True, slots=True)
class HeatMapCell:
    """Holds one cell of a heat map; ``value``, ``low``, ``high`` and ``gain`` are shares, or None if unknown."""

    row: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    gain: float | None


def heat_map_svg(cells: Sequence[HeatMapCell], title: str) -> str:
    """Returns an SVG image of the cells with their values and intervals.

    Cells with a positive ``gain`` are blue, those with a negative one red. If no cell has a gain, the colour shows the
    value: the higher, the bluer.

    Args:
        cells: one cell for each row and column.
        title: title of the image.
    """
    rows = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    left = MARGIN + LETTER * max(map(len, rows), default=0) + 8
    top = MARGIN + 52
    with_gain = any(cell.gain is not None for cell in cells)
    span = max((abs(_shade(cell, with_gain)) for cell in cells), default=0) or 1.0
    width, height = left + WIDTH * len(columns) + MARGIN, top + HEIGHT * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        _text(MARGIN, MARGIN + 12, title, "start", 'font-weight="bold" font-size="15"'),
    ]
    for index, column in enumerate(columns):
        for line, part in enumerate(column.split(" / ")):  # reasoner and dataset, one below the other
            parts.append(_text(left + WIDTH * (index + 0.5), top - 22 + 15 * line, part, "middle", ""))
    for index, row in enumerate(rows):
        parts.append(_text(left - 8, top + HEIGHT * (index + 0.5) + 4, row, "end", ""))
    for cell in cells:
        x, y = left + WIDTH * columns.index(cell.column), top + HEIGHT * rows.index(cell.row)
        parts += _draw_cell(cell, x, y, with_gain, span)
    legend = "blue: better than the reasoner alone, red: worse" if with_gain else "the bluer, the higher"
    parts.append(
        _text(left, height - 18, f"{legend}; in brackets the 95 % confidence interval", "start", 'fill="#555"')
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shade(cell: HeatMapCell, with_gain: bool) -> float:
    """Returns the number that the colour shows; 0 if it is unknown."""
    number = cell.gain if with_gain else cell.value
    return 0.0 if number is None or math.isnan(number) else number


def _draw_cell(cell: HeatMapCell, x: float, y: float, with_gain: bool, span: float) -> list[str]:
    shade = _shade(cell, with_gain)
    colour = _mix(BLUE if shade >= 0 else RED, abs(shade) / span)
    ink = "white" if sum(colour) < 380 else "#111"  # readable on dark and on light cells
    fill = "#{:02x}{:02x}{:02x}".format(*colour)
    parts = [f'<rect x="{x + 1:.0f}" y="{y + 1:.0f}" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="3" fill="{fill}"/>']
    middle = x + WIDTH / 2
    if cell.value is None or math.isnan(cell.value):
        return [*parts, _text(middle, y + HEIGHT / 2 + 4, "no result", "middle", 'fill="#777"')]
    gain = f" ({100 * cell.gain:+.1f})" if cell.gain is not None and not math.isnan(cell.gain) else ""
    bold = f'font-weight="bold" fill="{ink}"'
    parts.append(_text(middle, y + 26, f"{100 * cell.value:.1f}{gain}", "middle", bold))
    if cell.low is not None and cell.high is not None and not math.isnan(cell.low):
        bounds = f"[{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
        parts.append(_text(middle, y + 44, bounds, "middle", f'font-size="11" fill="{ink}"'))
    return parts


def _mix(colour: tuple[int, int, int], share: float) -> tuple[int, ...]:
    return tuple(round(white + (full - white) * share) for white, full in zip(WHITE, colour, strict=True))


def _text(x: float, y: float, text: str, anchor: str, extra: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'
