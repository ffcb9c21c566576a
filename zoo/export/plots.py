"""Lines in a plot, as SVG: text that a page shows and a version control can compare."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from zoo.utils.files import replacing

Points = Sequence[tuple[float, float]]
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 270, 58, 24, 40
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
    for x in even_ticks(left, right):
        body.append(text(LEFT + (x - left) / (right - left) * width, HEIGHT - BOTTOM + 16, f"{x:.4g}", "middle"))
    for value in log_ticks(low, high) if is_log else even_ticks(low, high):
        y = TOP + (high - value) / (high - low) * height
        body.append(text(LEFT - 6, y + 4, f"{10**value if is_log else value:.4g}", "end"))
        body.append(f'<path d="M{LEFT} {y:.1f}h{width}" stroke="#ddd"/>')
    body += [text(LEFT + width / 2, HEIGHT - 6, across, "middle"), text(6, TOP - 10, up, "start")]
    for index, (name, points) in enumerate(shown.items()):
        colour = COLOURS[index % len(COLOURS)]
        dashes = ' stroke-dasharray="5 3"' if index >= len(COLOURS) else ""
        body.append(f'<polyline fill="none" stroke="{colour}"{dashes} points="{" ".join(place(*p) for p in points)}"/>')
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


def even_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between two, in equal steps."""
    unit = 10.0 ** math.floor(math.log10(high - low))
    step = next(unit * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / (unit * part) < 6.5)
    return [step * count for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of up to eight round numbers between two logarithms: of powers of ten, and of as many of their parts
    as that needs."""
    for parts in ([1], [1, 2, 5], [part / 2 for part in range(2, 20)], [part / 10 for part in range(10, 100)]):
        powers = range(math.floor(low), math.ceil(high) + 1)
        every = sorted(power + math.log10(part) for power in powers for part in parts)
        found = [tick for tick in every if low - 1e-9 <= tick <= high + 1e-9]
        if len(found) > 3:
            break
    return found[:: math.ceil(len(found) / 8)] if found else [low, high]


def text(x: float, y: float, words: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
