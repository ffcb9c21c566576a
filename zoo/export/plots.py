"""Lines in a plot, as SVG: text that a page shows and a version control can compare."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from zoo.utils.files import replacing

Points = Sequence[tuple[float, float]]
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 260, 58, 14, 40
LEGEND = 170  # pixels on the right


def save_plot(path: Path | str, lines: Mapping[str, Points], across: str, up: str) -> None:
    """Write a plot of lines, each with a name for the legend; the upward axis is logarithmic if all values allow it.

    Args:
        lines: points, those that are not finite left out, by name.
        across, up: titles of the axes.
    """
    with replacing(path) as part:
        part.write_text(plot(lines, across, up), encoding="utf-8")


def plot(lines: Mapping[str, Points], across: str, up: str) -> str:
    """The SVG of ``save_plot``."""
    shown = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in lines.items()}
    values = [p for points in shown.values() for p in points] or [(0.0, 0.0)]
    is_log = all(y > 0 for _, y in values)
    scale = math.log10 if is_log else float
    (left, right), (low, high) = limits([x for x, _ in values]), limits([scale(y) for _, y in values])
    width, height = WIDTH - LEFT - LEGEND, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        column = LEFT + (x - left) / (right - left) * width
        return f"{column:.1f},{TOP + (high - scale(y)) / (high - low) * height:.1f}"

    body = [f'<rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}" fill="none" stroke="#999"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = LEFT + share * width, TOP + (1 - share) * height
        value = low + share * (high - low)
        body.append(text(x, HEIGHT - BOTTOM + 16, f"{left + share * (right - left):.4g}", "middle"))
        body.append(text(LEFT - 6, y + 4, f"{10**value if is_log else value:.3g}", "end"))
        body.append(f'<path d="M{LEFT} {y:.1f}h{width}" stroke="#ddd"/>')
    body += [text(LEFT + width / 2, HEIGHT - 6, across, "middle"), text(6, TOP - 3, up, "start")]
    for index, (name, points) in enumerate(shown.items()):
        colour = COLOURS[index % len(COLOURS)]
        body.append(f'<polyline fill="none" stroke="{colour}" points="{" ".join(place(*p) for p in points)}"/>')
        body.append(text(LEFT + width + 12, TOP + 14 + 16 * index, name, "start", colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and largest value, or something around the only one."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def text(x: float, y: float, words: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
