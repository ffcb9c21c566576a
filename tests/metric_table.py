"""The tables of docs/metrics.md, scenes of tests/analytic.py against all metrics: ``python -m tests.metric_table``."""

from pathlib import Path

import torch

from tests.analytic import SCENES, Scene
from zoo.evaluate.metrics.objects import object_views
from zoo.evaluate.metrics.radiance_fit import fit_metric
from zoo.evaluate.metrics.reprojection import COLOURS, reprojection_metric
from zoo.evaluate.metrics.surface import surface_metric
from zoo.leaderboard import update_page

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
LEFT_OUT = {f"{name}_raw" for name in COLOURS}  # scenes have no 2D network


def scenes() -> dict[str, Scene]:
    """All, seen from all around, and those that a frontal camera may take for another, seen from the front."""
    frontal = {f"{name}, frontal cameras": SCENES[name](frontal=True) for name in ("honest car", "board in the world")}
    return {name: scene() for name, scene in SCENES.items()} | frontal


def table(kinds: list) -> str:
    """Numbers of one object of each scene, to three digits, as a Markdown table; ``kinds`` make metrics."""
    rows: list[list[str]] = []
    for name, scene in scenes().items():
        shown, numbers = object_views(scene, 0), {}
        for kind in kinds:
            metric = kind()
            metric.update(0, shown)
            numbers |= {key: value for key, value in metric.compute().items() if key not in LEFT_OUT}
        rows = rows or [["Scene", *(f"`{key}`" for key in numbers)], ["---", *("---:" for _ in numbers)]]
        rows.append([name, *(f"{value:.3g}" for value in numbers.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def views_table() -> str:
    return table([reprojection_metric, surface_metric])


def fit_table() -> str:
    return table([fit_metric])


if __name__ == "__main__":
    torch.set_num_threads(1)
    update_page(PAGE, views=views_table(), fit=fit_table())
