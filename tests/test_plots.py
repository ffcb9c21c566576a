"""Plots of lines, as text."""

import math
import re
from xml.etree import ElementTree

import pytest

from zoo.export.plots import LEFT, TOP, even_ticks, log_ticks, plot, save_plot


def places(svg: str) -> list[list[tuple[float, ...]]]:
    """The points of each line."""
    lines = re.findall(r'polyline.*? points="(.*?)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]


def test_lines_are_where_their_values_are(tmp_path):
    save_plot(tmp_path / "deep" / "x.svg", {"a & b": [(0, 1), (1, 10), (2, 100)], "c": [(1, float("nan"))]}, "x", "y")
    svg = (tmp_path / "deep" / "x.svg").read_text()
    ElementTree.fromstring(svg)  # is XML
    (first, middle, last), nothing = places(svg)
    assert nothing == [] and "a &amp; b" in svg
    assert first[0] == LEFT and last[1] == TOP  # lowest left, highest right
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)  # logarithmic


def test_values_that_are_not_above_zero_are_shown_evenly():
    (first, middle, last) = places(plot({"a": [(0, -1), (1, 0), (2, 1)]}, "", ""))[0]
    assert middle[1] == pytest.approx((first[1] + last[1]) / 2, abs=0.1)


def test_a_single_value_and_none_can_be_drawn():
    assert len(places(plot({"a": [(3, 3)]}, "", ""))[0]) == 1
    ElementTree.fromstring(plot({"a": []}, "", ""))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 24.99, [0, 5, 10, 15, 20]), (-3, 5, [-2, 0, 2, 4]), (0.1, 0.104, [0.1, 0.101, 0.102, 0.103, 0.104])],
)
def test_ticks_are_round(low, high, ticks):
    assert even_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (8.6, 115, [10, 20, 50, 100]),
        (1, 1e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
        (0.5, 1.5, [0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (3.1001, 3.1002, [3.1001, 3.1002]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round(low, high, ticks):
    assert [10**tick for tick in log_ticks(math.log10(low), math.log10(high))] == pytest.approx(ticks)
