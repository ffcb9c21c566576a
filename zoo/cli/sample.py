"""``zoo sample``: a grid of samples, or single images."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.options import LARGEST, MOST_IMAGES, SampleOptions, numbers, refuse_unused
from zoo.utils.errors import UserError
from zoo.utils.memory import images_at_once
from zoo.utils.ranges import between
from zoo.utils.targets import folder_target
from zoo.weights.find import find

if TYPE_CHECKING:
    from PIL import Image

    from zoo.generator import Generator


def run(
    out: Path | None = None,
    images: Path | None = None,
    count: int = 16,
    seeds: str = "0-7",
    views: int = 6,
    depth: bool = True,
    edit: str | None = None,
    exact: bool = False,
    **drawn: Any,
) -> None:
    """Draw a grid (rows: samples and their depths, columns: views), or one file per sample.

    Of several weights, named in one word with commas between, a grid has a block each, side by side: its columns are
    samples and their depths, its rows views.

    Args:
        out: the grid's file.
        images: a folder for single images 000000.png, ...: exactly those that 'zoo evaluate' scores.
        count: how many single images.
        seeds: which samples the grid shows, as in 0-3,8.
        views: columns of the grid.
        depth: also draw depths into the grid: near is yellow, far is violet, nothing is white.
        edit: columns show what this edit does to a scene, instead of its sides; systems that compose scenes have edits.
        exact: also compute what is in empty space, which many large views leave out as far as a coarse grid finds
            nothing there.
    """
    if (out is None) == (images is None):
        what = "Give an output" if out is None else "Give one output"
        raise UserError(f"{what}: --out FILE.png for a grid, or --images DIR for single images.")
    several, indices = each_of(SampleOptions(**drawn)), numbers(seeds)
    between(1, MOST_IMAGES, count=count)
    between(1, LARGEST, views=views)
    if images is None:
        refuse_unused("for a grid", run, count=count)
    else:
        refuse_unused("for --images", run, seeds=seeds, views=views, depth=depth, edit=edit, exact=exact)
        if len(several) > 1:
            raise UserError("Single images are of one set of weights: name one, or give --out for a grid of several.")
        images = folder_target(images, option="--images")
    from zoo.export import grid, save_image, turntable_views, with_depth_rows
    from zoo.export.images import check_target

    if out is not None:
        out = check_target(out)
    if len(several) > 1:
        save_image(out, side_by_side(several, indices, views, depth, edit, exact))
        print(out)
        return
    (options,) = several
    generator, _ = options.load()
    if images is not None:
        print(save_samples(generator, images, count, options))
        return
    rendered_views = turntable_views(generator, indices, views, edit=edit, exact=exact, **options.drawn, progress=True)
    save_image(out, grid(with_depth_rows(rendered_views.image, rendered_views.depth if depth else None)))
    print(out)


def each_of(options: SampleOptions) -> list[SampleOptions]:
    """The options for each of the weights that the source names; a file or folder may have a comma in its name."""
    names = [] if Path(options.source).exists() else [name.strip() for name in options.source.split(",")]
    return [replace(options, source=name) for name in names if name] or [options]


def side_by_side(
    several: list[SampleOptions], indices: list[int], views: int, depth: bool, edit: str | None, exact: bool
) -> "Image.Image":
    """A block for each of several weights, with their system above, or their name where a system comes twice; smaller
    images are enlarged by repetition."""
    from PIL import Image

    from zoo.export import to_pil_image, turntable_views, with_depth_rows
    from zoo.export.cameras import Block, sheet
    from zoo.utils.devices import use_device
    from zoo.weights import load_bundle

    for options in several:
        find(options.source)  # before the first one is drawn
    device = use_device(several[0].device)
    shown, infos = [], []
    for options in several:
        generator, info = load_bundle(options.source, options.resolution)
        how = {"edit": edit, "exact": exact, **options.drawn}
        rendered = turntable_views(generator.to(device), indices, views, **how, progress=True)
        columns = with_depth_rows(rendered.image, rendered.depth if depth else None)  # [samples and depths, views, ...]
        shown.append(columns.transpose(0, 1).flatten(0, 1))
        infos.append(info)
    systems = [info.card.get("system", info.name) for info in infos]
    titles = [info.name if systems.count(name) > 1 else name for info, name in zip(infos, systems, strict=True)]
    side = max(64, *(cells.shape[-1] for cells in shown))
    return sheet(
        [
            Block(title, [to_pil_image(cell).resize((side, side), Image.Resampling.NEAREST) for cell in cells])
            for title, cells in zip(titles, shown, strict=True)
        ],
        columns=len(indices) * (2 if depth else 1),
    )


def save_samples(generator: "Generator", folder: Path, count: int, options: SampleOptions) -> Path:
    """Write samples 0 to count - 1 as PNG files named by their index."""
    from tqdm import tqdm

    from zoo.export import save_image, to_pil_image
    from zoo.generator import quantise, render_samples

    at_once = images_at_once(generator.image_side(options.resolution), generator.device)
    for start in tqdm(range(0, count, at_once), unit="batch", disable=None):
        indices = range(start, min(start + at_once, count))
        rendered = render_samples(generator, indices, **options.drawn)
        for index, image in zip(indices, quantise(rendered.image), strict=True):
            save_image(folder / f"{index:06d}.png", to_pil_image(image), durable=False)
    return folder
