"""A heat map as an SVG file, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LETTER, MARGIN = 150, 58, 7.2, 16
BLUE, WHITE, RED = (33, 102, 172), (247, 247, 247), (178, 24, 43)


@dataclass(frozen=True, slots=True)
class Square:
    """A square of the map; None where nothing is known. ``value``, ``low``, ``high`` and ``gain`` are shares."""

    row: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    gain: float | None


def heat_map(squares: Sequence[Square], title: str) -> str:
    """Values with their intervals in squares; blue where ``gain`` is above 0 and red where it is below.

    Where no square has a gain, the value itself is the colour: the bluer the higher.
    """
    rows = list(dict.fromkeys(square.row for square in squares))
    columns = list(dict.fromkeys(square.column for square in squares))
    left = MARGIN + LETTER * max(map(len, rows), default=0) + 8
    top = MARGIN + 52
    with_gain = any(square.gain is not None for square in squares)
    span = max((abs(_shade(square, with_gain)) for square in squares), default=0) or 1.0
    width, height = left + WIDTH * len(columns) + MARGIN, top + HEIGHT * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        _text(MARGIN, MARGIN + 12, title, "start", 'font-weight="bold" font-size="15"'),
    ]
    for index, column in enumerate(columns):
        for line, part in enumerate(column.split(" / ")):
            parts.append(_text(left + WIDTH * (index + 0.5), top - 22 + 15 * line, part, "middle", ""))
    for index, row in enumerate(rows):
        parts.append(_text(left - 8, top + HEIGHT * (index + 0.5) + 4, row, "end", ""))
    for square in squares:
        x, y = left + WIDTH * columns.index(square.column), top + HEIGHT * rows.index(square.row)
        parts += _square(square, x, y, with_gain, span)
    legend = "blue: better than the reasoner alone, red: worse" if with_gain else "the bluer, the higher"
    parts.append(
        _text(left, height - 18, f"{legend}; in brackets the 95 % confidence interval", "start", 'fill="#555"')
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shade(square: Square, with_gain: bool) -> float:
    """The number that gives the colour; 0 where nothing is known."""
    number = square.gain if with_gain else square.value
    return 0.0 if number is None or math.isnan(number) else number


def _square(square: Square, x: float, y: float, with_gain: bool, span: float) -> list[str]:
    shade = _shade(square, with_gain)
    colour = _mix(BLUE if shade >= 0 else RED, abs(shade) / span)
    ink = "white" if sum(colour) < 380 else "#111"
    fill = "#{:02x}{:02x}{:02x}".format(*colour)
    parts = [f'<rect x="{x + 1:.0f}" y="{y + 1:.0f}" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="3" fill="{fill}"/>']
    middle = x + WIDTH / 2
    if square.value is None or math.isnan(square.value):
        return [*parts, _text(middle, y + HEIGHT / 2 + 4, "no result", "middle", 'fill="#777"')]
    gain = f" ({100 * square.gain:+.1f})" if square.gain is not None and not math.isnan(square.gain) else ""
    bold = f'font-weight="bold" fill="{ink}"'
    parts.append(_text(middle, y + 26, f"{100 * square.value:.1f}{gain}", "middle", bold))
    if square.low is not None and square.high is not None and not math.isnan(square.low):
        bounds = f"[{100 * square.low:.1f}, {100 * square.high:.1f}]"
        parts.append(_text(middle, y + 44, bounds, "middle", f'font-size="11" fill="{ink}"'))
    return parts


def _mix(colour: tuple[int, int, int], share: float) -> tuple[int, ...]:
    return tuple(round(white + (full - white) * share) for white, full in zip(WHITE, colour, strict=True))


def _text(x: float, y: float, text: str, anchor: str, extra: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'
