"""``zoo mesh``: objects as coloured surfaces."""

from pathlib import Path
from typing import Any

from zoo.cli.options import LARGEST, SampleOptions, numbers
from zoo.utils.ranges import above, between, given


def run(
    out: Path = Path("mesh.ply"),
    seeds: str = "0",
    cells: int = 128,
    level: float | None = None,
    views: int = 24,
    **drawn: Any,
) -> None:
    """Write objects as coloured surfaces, in world units, y up.

    Args:
        out: the mesh's file, .ply or .glb; with several samples car.ply becomes car-0.ply, car-3.ply, ...
        seeds: which samples, as in 0-3,8.
        cells: of the grid, along the longest side of the object's bounds; twice as many take eight times as long.
        level: density of the surface, per world length; by default the one that fits the rendered silhouettes.
        views: images that colours are taken from.
    """
    options, indices = SampleOptions(**drawn), numbers(seeds)
    between(2, LARGEST, cells=cells)
    between(1, LARGEST, views=views)
    above(0, **given(level=level))
    from zoo.export import mesh_of, save_mesh
    from zoo.export.mesh import check_target

    out = check_target(out)
    generator, _ = options.load()
    for index in indices:
        found = mesh_of(generator, index, cells=cells, level=level, views=views, **options.drawn)
        path = out if len(indices) == 1 else out.with_stem(f"{out.stem}-{index}")
        save_mesh(path, found)
        print(f"{path}: {len(found.faces)} faces, level {found.metadata['level']:.3g}")
