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
    check: int = 0,
    picture: Path | None = None,
    exact: bool = False,
    **drawn: Any,
) -> None:
    """Write objects as coloured surfaces, in world units, y up.

    Args:
        out: the mesh's file, .ply or .glb; with several samples car.ply becomes car-0.ply, car-3.ply, ...
        seeds: which samples, as in 0-3,8.
        cells: of the grid, along the longest side of the object's bounds; twice as many take eight times as long.
        level: density of the surface, per world length; by default the surface is where the signed distance is zero, if
            the system knows one, or else has the level that fits the rendered silhouettes.
        views: images that colours are taken from.
        check: views, drawn from the prior of cameras, in which to compare the mesh's silhouettes with rendered ones.
        picture: also draw the meshes: a row of four views in their colours, and one in grey, for each sample.
        exact: also compute what is in empty space, which is left out as far as a coarse grid finds nothing there.
    """
    options, indices = SampleOptions(**drawn), numbers(seeds)
    between(2, LARGEST, cells=cells)
    between(1, LARGEST, views=views)
    between(0, LARGEST, check=check)
    above(0, **given(level=level))
    from torch import stack

    from zoo.export import grid, mesh_of, mesh_views, save_image, save_mesh, silhouette_iou
    from zoo.export.images import check_target as check_picture
    from zoo.export.mesh import check_target

    out, picture = check_target(out), picture and check_picture(picture, "--picture")
    generator, _ = options.load()
    rows = []
    for index in indices:
        found = mesh_of(generator, index, cells=cells, level=level, views=views, exact=exact, **options.drawn)
        path = out if len(indices) == 1 else out.with_stem(f"{out.stem}-{index}")
        save_mesh(path, found)
        chosen = found.metadata["level"]
        said = ["zero set of the signed distance" if chosen is None else f"level {chosen:.3g}"]
        if check:
            said.append("watertight" if found.is_watertight else "with holes")
            agreement = silhouette_iou(generator, index, found, views=check, **options.drawn)
            said.append(f"silhouettes in {check} other views agree to {agreement:.3f} (intersection over union)")
        print(f"{path}: {len(found.faces)} faces, {', '.join(said)}")
        rows += mesh_views(generator, index, found, seed=options.seed) if picture else []
    if picture:
        save_image(picture, grid(stack(rows)))
        print(picture)
