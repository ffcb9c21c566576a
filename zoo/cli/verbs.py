"""The verbs of ``zoo`` that are plain functions: their parameters are the options, their docstrings the help.

What is heavy is imported inside, after the options were parsed.
"""

import json as jsonlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.utils.errors import missing_file, near
from zoo.utils.old_names import renamed
from zoo.utils.paths import bundled_names, config_names, downloaded_names, read_experiment

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule
    from torch import Tensor, nn

    from zoo.weights.bundle import BundleInfo
    from zoo.weights.catalogue import Released


def list_(pattern: str = "*", json: bool = False) -> None:
    """Print the names of weights that are here, of published checkpoints, and of experiments.

    Args:
        pattern: only names that match, such as 'giraffe*'.
        json: print everything that is known of them, as JSON.
    """
    from zoo.weights.catalogue import released

    here = [*bundled_names(), *downloaded_names()]
    names = {"weights": here, "published": list(released()), "experiments": config_names()}
    found = {title: [name for name in of if fnmatch(name, pattern)] for title, of in names.items()}
    if not any(found.values()):
        systems = [f"{entry.system}*" for entry in released().values()]
        hint = near(pattern, [*systems, *(name for of in names.values() for name in of)])
        raise ValueError(f"Nothing is named '{pattern}'.{hint or ' zoo list shows all names.'}")
    if json:
        published = [released()[name].as_dict() | {"downloaded": name in here} for name in found["published"]]
        print(jsonlib.dumps(found | {"published": published}, indent=1))
        return
    found["published"] = [published_line(released()[name], name in here) for name in found["published"]]
    titles = {"published": "published checkpoints ('zoo download NAME'; those with * are here)"}
    for title, lines in found.items():
        print(f"{titles.get(title, title)}:" + "".join(f"\n  {line}" for line in lines or ["(none)"]))


def published_line(entry: "Released", is_here: bool) -> str:
    """A published checkpoint in one line."""
    fid = f"FID {entry.fid.fid:g} ({entry.fid.certainty})" if entry.fid else "FID not stated"
    licence = (entry.weights_licence or "no licence stated").split(";")[0].split(" (")[0]
    return f"{entry.name + ' *' * is_here:<34} {licence:<18} {fid}"


def sample(
    source: str,
    out: Path | None = None,
    images: Path | None = None,
    count: int = 16,
    seeds: str = "0-7",
    views: int = 6,
    depth: bool = True,
    truncation: float = 1.0,
    resolution: int | None = None,
    edit: str | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Draw a grid (rows: samples and their depths, columns: views), or one file per sample.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, or a .ckpt of a run.
        out: the grid's file.
        images: a folder for single pictures 000000.png, ...: exactly those that 'zoo evaluate' scores.
        count: how many single pictures.
        seeds: which samples the grid shows, as in 0-3,8.
        views: columns of the grid.
        depth: also draw depths into the grid: near is yellow, far is violet, nothing is white.
        truncation: below 1, samples are nearer to the mean.
        resolution: side of the pictures in pixels; by default the generator's own.
        edit: columns show what this edit does to a scene, instead of its sides; systems that compose scenes have edits.
        seed: of the whole set of samples.
        device: cpu, cuda or cuda:1.
    """
    if (out is None) == (images is None):
        raise ValueError("Say where to: --out FILE.png for a grid, or --images DIR for single pictures.")
    indices = numbers(seeds)
    from zoo.export.pictures import beside, grid
    from zoo.export.views import turntable_views
    from zoo.weights.bundle import load_bundle

    generator = load_bundle(source)[0].to(device)
    if images is not None:
        print(save_samples(generator, images, count, seed, truncation, resolution))
        return
    options = {"seed": seed, "truncation": truncation, "resolution": resolution, "edit": edit}
    turned = turntable_views(generator, indices, views, **options, progress=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    grid(beside(turned.image, turned.depth if depth else None)).save(out)
    print(out)


def save_samples(
    generator: "nn.Module", folder: Path, count: int, seed: int, truncation: float, resolution: int | None
) -> Path:
    """Write samples 0 to count - 1 as PNG files named by their index."""
    from tqdm import tqdm

    from zoo.export.pictures import picture
    from zoo.generator import quantise, render_samples

    folder.mkdir(parents=True, exist_ok=True)
    for start in tqdm(range(0, count, 8), unit="batch", disable=None):
        indices = range(start, min(start + 8, count))
        rendered = render_samples(generator, indices, seed, truncation, resolution)
        for index, image in zip(indices, quantise(rendered.image), strict=True):
            picture(image).save(folder / f"{index:06d}.png")
    return folder


def orbit(
    source: str,
    out: Path = Path("orbit.gif"),
    seeds: str = "0-3",
    frames: int = 36,
    seconds: float = 3.0,
    path: Literal["turntable", "wobble", "rise", "spiral", "zoom", "still"] = "turntable",
    interpolate: bool = False,
    depth: bool = True,
    truncation: float = 1.0,
    resolution: int | None = None,
    edit: str | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Film objects from all sides, a row for each: its image and beside it its depth.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, or a .ckpt of a run.
        out: the film's file: .gif, .webp, or .mp4 where imageio-ffmpeg is installed.
        seeds: which samples, as in 0-3,8.
        frames: pictures of the film.
        seconds: for all of them.
        path: of the camera: the turntable, an ellipse in front (wobble), up and down (rise), round and up and down
            (spiral), nearer and back (zoom), or none (still); always within the poses that the generator knows.
        interpolate: one row only, which becomes each of the samples in turn, and the first again.
        depth: draw depths: near is yellow, far is violet, nothing is white.
        truncation: below 1, samples are nearer to the mean.
        resolution: side of the pictures in pixels; by default the generator's own.
        edit: frames show what this edit does to a scene, instead of its sides; systems that compose scenes have edits.
        seed: of the whole set of samples.
        device: cpu, cuda or cuda:1.
    """
    indices = numbers(seeds)
    if edit is not None and (interpolate or path != "turntable"):
        raise ValueError("An edit has a camera and samples of its own: leave out --edit, or --path and --interpolate.")
    if frames < 1 or seconds <= 0:
        raise ValueError(f"A film has at least one frame and takes some time, not {frames} in {seconds:g} seconds.")
    from zoo.export.orbit import check_suffix, orbit_frames, save_orbit
    from zoo.export.views import interpolated_views, turntable_views
    from zoo.weights.bundle import load_bundle

    check_suffix(out)
    generator = load_bundle(source)[0].to(device)
    options = {"seed": seed, "truncation": truncation, "resolution": resolution, "path": path, "progress": True}
    if interpolate:
        filmed = interpolated_views(generator, indices, frames, **options)
    else:
        filmed = turntable_views(generator, indices, frames, edit=edit, **options)
    save_orbit(out, orbit_frames(filmed, depth), frames / seconds)
    print(out)


def mesh(
    source: str,
    out: Path = Path("mesh.ply"),
    seeds: str = "0",
    cells: int = 128,
    level: float | None = None,
    views: int = 24,
    truncation: float = 1.0,
    resolution: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Write objects as coloured surfaces, in world units, y up.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, or a .ckpt of a run.
        out: the mesh's file, .ply or .glb; with several samples car.ply becomes car-0.ply, car-3.ply, ...
        seeds: which samples, as in 0-3,8.
        cells: of the grid, along the longest side of the object's bounds; twice as many take eight times as long.
        level: density of the surface, per world length; by default the one with the silhouettes that are rendered.
        views: pictures that colours are taken from.
        truncation: below 1, samples are nearer to the mean.
        resolution: side of these pictures in pixels; by default the generator's own.
        seed: of the whole set of samples.
        device: cpu, cuda or cuda:1.
    """
    indices = numbers(seeds)
    if cells < 2 or views < 1:
        raise ValueError(f"A mesh takes at least 2 cells and 1 view, not {cells} and {views}.")
    if level is not None and level <= 0:
        raise ValueError(f"The level of a surface is a density above 0, not {level:g}.")
    from zoo.export.mesh import check_target, mesh_of, save_mesh
    from zoo.weights.bundle import load_bundle

    check_target(out)
    generator = load_bundle(source)[0].to(device)
    options = {"seed": seed, "cells": cells, "views": views, "truncation": truncation, "resolution": resolution}
    for index in indices:
        found = mesh_of(generator, index, level=level, **options)
        path = out if len(indices) == 1 else out.with_stem(f"{out.stem}-{index}")
        save_mesh(path, found)
        print(f"{path}: {len(found.faces)} faces, level {found.metadata['level']:.3g}")


def invert(
    image: Path,
    source: str,
    out: Path = Path("inverted"),
    samples: int = 128,
    latent_steps: int = 150,
    style_steps: int = 150,
    weight_steps: int = 100,
    locality: float = 0.0,
    yaw: float | None = None,
    elevation: float | None = None,
    keep_camera: bool = False,
    mask: Path | None = None,
    resolution: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Find the latent, camera, styles and weights that draw a picture; shows the object from all sides.

    Args:
        image: the picture (png, jpeg or webp) of any size; the largest square in its middle is used.
        source: a name that 'zoo list' shows, the folder of a weights bundle, or a .ckpt of a run.
        out: folder for comparison.png, found.safetensors, found.json, and bundle where weights were tuned.
        samples: of the prior, the best of which are the starts.
        latent_steps: for the latent; 0 starts styles at the best sample.
        style_steps: for styles, which can draw more than latents can; 0 for the latent's own.
        weight_steps: for the weights, which then draw this picture best; 0 leaves them.
        locality: how much other samples' pictures shall stay while weights are tuned, such as 1; takes twice the time.
        yaw: start with cameras so far round from the front [degrees]; by default with those of the prior.
        elevation: start with cameras so high above the horizon [degrees].
        keep_camera: keep the camera where yaw and elevation say, by default in the middle of the prior.
        mask: picture of the same shape that is white where the first one counts.
        resolution: side that the picture is resized to, in pixels; by default the generator's own.
        seed: of the samples.
        device: cpu, cuda or cuda:1.
    """
    steps = {"latent": latent_steps, "styles": style_steps, "weights": weight_steps}
    if min(steps.values()) < 0:
        raise ValueError("Numbers of steps are 0 or more.")
    from math import radians

    from tqdm import tqdm

    from zoo.export.inversion import save_inversion
    from zoo.inversion.search import STAGES, camera_at
    from zoo.inversion.search import invert as search
    from zoo.weights.bundle import load_bundle

    generator, info = load_bundle(source)
    generator, side = generator.to(device), resolution or generator.resolution
    target = read_picture(image, side)
    angles = [None if angle is None else radians(angle) for angle in (yaw, elevation)]
    given = keep_camera or angles != [None, None]
    with tqdm(total=sum(n + 1 for n in steps.values() if n), unit="step", disable=None, dynamic_ncols=True) as bar:

        def tell(stage: str, loss: float) -> None:
            bar.set_description(stage, refresh=False)
            bar.set_postfix({"loss": f"{loss:.4f}"}, refresh=False)
            bar.update()

        inverted = search(
            generator,
            target,
            stages=[stage._replace(steps=steps[stage.name]) for stage in STAGES],
            camera=camera_at(generator, *angles) if given else None,
            find_camera=not keep_camera,
            samples=samples,
            mask=None if mask is None else (read_picture(mask, side).mean(0, keepdim=True) + 1) / 2,
            locality=locality,
            seed=seed,
            tell=tell,
        )
    facts = {"image": str(image), "seed": seed, "samples": samples, "locality": locality}
    save_inversion(out, inverted, target, source, info, tuned=weight_steps > 0, **facts)
    print("  ".join(f"{stage} {value:.1f} dB" for stage, value in inverted.psnr.items()))
    print(out)


def read_picture(path: Path, resolution: int) -> "Tensor":
    """The largest square in the middle of a picture, resized as training pictures are, [3, H, H] in [-1, 1].

    Raises:
        FileNotFoundError, ValueError: it is not there, or no picture.
    """
    from datamodules.images import BadPicture, decode, fit

    if not path.is_file():
        raise FileNotFoundError(missing_file(path))
    try:
        return fit(decode(path.read_bytes()), resolution).float() / 127.5 - 1
    except BadPicture as error:
        raise ValueError(f"'{path}' is no usable picture: {error}.") from None


def evaluate(
    source: str,
    real: str = "datamodules.Cars",
    extractor: Literal["cars", "inception2015"] = "cars",
    inception_weights: Path | None = None,
    count: int | None = None,
    real_count: int | None = None,
    truncation: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "cpu",
    consistency: int = 0,
    record: bool = False,
    results: Path = Path("runs/results.csv"),
) -> None:
    """Score weights or a folder of pictures against real pictures, and add rows to a table.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, a .ckpt of a run, or a folder of pictures.
        real: real pictures: a class such as datamodules.Cars, a yaml with a class_path or a data block (an experiment),
            or a folder or zip of pictures.
        extractor: network whose features are compared.
        inception_weights: local file for inception2015.
        count: generated pictures; by default as many as real ones.
        real_count: real pictures; by default all.
        truncation: below 1, samples are nearer to the mean.
        seed: of the samples.
        batch_size: pictures at once.
        device: cpu, cuda or cuda:1.
        consistency: also print how well so many samples hold together in 3D (weights only).
        record: also add the rows to the table that the project publishes.
        results: the table of your own scores.
    """
    from zoo.evaluate.metrics.consistency import MEANINGS
    from zoo.evaluate.pictures import PictureFolder
    from zoo.evaluate.protocol import evaluate as score
    from zoo.weights.bundle import load_bundle

    about: dict[str, Any] = {}
    scored: Any = Path(source)
    if holds_pictures(scored):
        scored = PictureFolder(scored)
    else:
        scored, info = load_bundle(source)
        scored = scored.to(device)
        about = about_weights(info)
    scores = score(
        scored,
        real_pictures(real, getattr(scored, "resolution", None)),
        extractor=extractor,
        inception_weights=inception_weights,
        n_fake=count,
        n_real=real_count,
        truncation=truncation,
        seed=seed,
        batch_size=batch_size,
        device=device,
        consistency_latents=consistency,
        about=about,
        record=record,
        results=results,
    )
    for name, value in scores.values.items():
        print(f"{name:<24} {value:.4g}")
    for name, value in scores.consistency.items():
        print(f"{name:<24} {value:<10.4g} {MEANINGS[name]}")
    print(f"Added to {results}; 'zoo leaderboard' shows the table.")


def about_weights(info: "BundleInfo") -> dict[str, Any]:
    """The columns of a results file that say what was scored."""
    card = info.card
    return {
        "system": card.get("system") or info.config["class_path"].split(".")[-2],
        "config": card.get("experiment"),
        "weights": info.name,
        "weights_sha256": info.sha256,
        "images_seen": int(card["images_seen"]) if "images_seen" in card else None,
        "seconds": float(card["seconds"]) if "seconds" in card else None,
        "precision": "float32",
    }


def holds_pictures(path: Path) -> bool:
    """Whether this is a folder of pictures."""
    return path.is_dir() and any(f.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for f in path.iterdir())


def real_pictures(name: str, resolution: int | None) -> "LightningDataModule":
    """The datamodule that a class name, a yaml, or a folder or zip of pictures stands for.

    Args:
        name: see ``evaluate``.
        resolution: of the pictures to compare with; used where the name doesn't fix one.
    """
    import yaml
    from pytorch_lightning import LightningDataModule

    from zoo.weights.bundle import build

    path = Path(name)
    size = {} if resolution is None else {"resolution": resolution}
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(missing_file(path))
        config = renamed(yaml.safe_load(path.read_text()))
        config = config.get("data", config)
    elif path.exists():
        config = {"class_path": "datamodules.ImageFolder", "init_args": {"path": name, **size}}
    elif "/" not in name and "." in name and not name.endswith(".zip"):
        config = {"class_path": name, "init_args": size}
    else:
        raise FileNotFoundError(missing_file(path))
    return build(config, LightningDataModule)


def leaderboard(
    dataset: str | None = None,
    metric: str | None = None,
    results: Path = Path("runs/results.csv"),
    published: bool = False,
    markdown: bool = False,
    top: int = 20,
) -> None:
    """Print the table of scores: measured by this project, and your own.

    Args:
        dataset: only this one.
        metric: only metrics whose names begin so, such as fid or kid-cars.
        results: the table of your own scores.
        published: add the numbers of the papers, in a table of their own.
        markdown: as Markdown.
        top: rows of each table.
    """
    from zoo.leaderboard import RESULTS, show

    shown = show(
        (results, RESULTS), dataset=dataset, metric=metric, markdown=markdown, with_published=published, top=top
    )
    print(shown)


def benchmark(
    config: str,
    work: Literal["render", "train"] = "render",
    resolution: int | None = None,
    batch: int = 1,
    threads: int | None = None,
    steps: int = 3,
    beside_load: bool = False,
    json: bool = False,
) -> None:
    """Time rendering (seconds per image) or training (seconds per step) of an experiment.

    Args:
        config: an experiment, a file or a name that 'zoo list' shows.
        work: what to time.
        resolution: side of the pictures in pixels; by default the generator's own.
        batch: pictures at once.
        threads: of the processor; by default all that training would use.
        steps: how often; the median counts, after one that doesn't.
        beside_load: time it once more while another process keeps one CPU busy, and print the ratio.
        json: print one line of JSON.
    """
    from zoo.cli.benchmark import measure

    facts = measure(read_experiment(config), work, resolution, batch, threads, steps, beside_load)
    width = max(map(len, facts))
    print(jsonlib.dumps(facts) if json else "\n".join(f"{name:<{width}} {value}" for name, value in facts.items()))


def bundle(
    checkpoint: str, out: Path, experiment: str | None = None, license: str | None = None, data: str | None = None
) -> None:
    """Write the weights in a checkpoint as a bundle: model.safetensors, config.yaml and a model card.

    Args:
        checkpoint: a .ckpt of a run; its averaged generator is written.
        out: the bundle's folder.
        experiment: name of the config they were trained with, for the card and for tables of scores.
        license: of the weights, for the card.
        data: what they were trained on, for the card.
    """
    from zoo.weights.bundle import load_bundle, save_bundle

    generator, info = load_bundle(checkpoint)
    save_bundle(out, generator, info.config, **info.card, experiment=experiment, license=license, data=data)
    print(out)


def download(name: str, from_file: Path | None = None, rest: bool = True) -> None:
    """Fetch published weights, check and convert them; afterwards their name stands for them everywhere.

    Args:
        name: a published checkpoint that 'zoo list' shows, or hf:user/repository for a bundle on the Hub.
        from_file: the file, fetched by hand; --from does, too.
        rest: also keep raw weights, other averages and the discriminator, where they are there.
    """
    from zoo.weights.download import download as fetch_weights

    print(fetch_weights(name, from_file, rest))


def push(source: str, repository: str, private: bool = False, redistribute: bool = False) -> None:
    """Copy a bundle to the Hugging Face Hub; 'zoo download hf:user/name' fetches it from there.

    Args:
        source: name or folder of a bundle.
        repository: user/name; made where there is none.
        private: a new repository is seen by its owner only.
        redistribute: also weights that were converted from somebody else's, who have permitted it.
    """
    from zoo.weights.hub import push as push_bundle

    print(push_bundle(source, repository, private, redistribute))


def convert(
    file: str,
    out: Path,
    system: str | None = None,
    experiment: str | None = None,
    weights: str | None = None,
    rest: bool = True,
    to: Literal["zoo", "official"] = "zoo",
    license: str | None = None,
    data: str | None = None,
) -> None:
    """Turn a published checkpoint into a weights bundle, or back; nothing in the file is imported or run.

    Args:
        file: of the checkpoint; or a folder or zip with one generator in it, or download.zip/folder/file.pth. On the
            way back a bundle, its name or folder.
        out: the bundle's folder.
        system: such as pigan, or 'tensors' to write tensors and settings alone, of whatever networks the file holds; by
            default the one that knows the file.
        experiment: gives cameras, depths and numbers of samples where the file does not hold them: a file or a name
            that 'zoo list' shows; by default the published one, if there is only one.
        weights: which of the file's weights, such as raw or ema; by default those that the paper's pictures come from.
        rest: also write the others and the discriminator, where they are there.
        to: zoo for a bundle; official for state dicts as the published program saves them.
        license: of the weights, for the card.
        data: what they were trained on, for the card.
    """
    from zoo.weights.convert import convert as convert_file
    from zoo.weights.convert import save_tensors, to_official

    if to == "official":
        print(*to_official(file, out), sep="\n")
        return
    if system == "tensors":
        contents = save_tensors(file, out)
        print("Wrote tensors and settings alone: nothing can be drawn with them here.")
    else:
        options = {"rest": rest, "license": license, "data": data}
        converted, contents = convert_file(file, out, system, experiment, weights, **options)
        print(f"Used {converted.used}.")
    print(f"The file ({contents.container}) asked for these, none of which was imported or run:")
    print("".join(f"  {name}\n" for name in contents.names or ["(nothing)"]), end="")
    print(out)


def numbers(text: str) -> list[int]:
    """The numbers in a text such as '0-3,8'.

    Raises:
        ValueError: it is something else.
    """
    try:
        return [number for part in text.split(",") for number in span(part)]
    except ValueError:
        raise ValueError(f"'{text}' is not a list of samples such as 0-7 or 0,3,8.") from None


def span(part: str) -> Iterator[int]:
    """The numbers from the first to the last in '3-8'."""
    first, _, last = part.partition("-")
    return iter(range(int(first), int(last or first) + 1))
