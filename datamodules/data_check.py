"""What a set of images is like, before anything is trained on it: facts as plain values, and as lines to read.

N images, M cameras
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from datamodules.images import Crop, Filter, ImageFiles, ImageFolder, window
from zoo.render.cameras import Camera
from zoo.render.dataset_poses import angles_around, orbit_around
from zoo.utils.errors import UserError, printable
from zoo.utils.image_folders import listing, whole
from zoo.utils.images import kind_of
from zoo.utils.listed_files import Folder, Zip, text

FEW = 3  # names that are listed of many


def check(data: ImageFolder, resolution: int | None, batch_size: int | None) -> dict[str, Any]:
    """The facts, of which ``lines`` makes a text: plain values, as a json holds them.

    Args:
        data: opened at their first use.
        resolution: that a training needs, the largest of its stages; None where that is not known.
        batch_size: likewise.

    Raises:
        UserError: there is no image that can be used.
    """
    files = data.files
    names = files.open()
    kinds = [kind(files, name) for name in names]
    facts: dict[str, Any] = {
        "path": text(files.path),
        "container": next(
            (word for of, word in ((Folder, "folder"), (Zip, "zip")) if isinstance(files.container, of)), "LMDB"
        ),
        "images": len(names),
        "broken": {text(name): problem for name, problem in files.bad.items()},
        "other_files": files.left_out,
        "formats": dict(Counter(format for format, _ in kinds).most_common()),
        "modes": dict(Counter(mode for _, mode in kinds).most_common()),
        "sizes": sizes(files),
        "black_borders": counted_names(bordered(files)),
        "duplicates": duplicates(files.hashes),
        "classes": classes(files),
        "cameras": cameras(files, data.resolution),
    }
    if files.packed is not None:
        facts["packed"] = {
            "from": files.packed.name,
            "resolution": files.packed.resolution,
            "changed": [text(name) for name in changed(files)],
        }
    if resolution is not None:
        small = [name for name in names if shown_side(files.sizes[name], files.crop, files.filter) < resolution]
        facts["resolution"] = resolution
        facts["smaller"] = counted_names(small)
    if batch_size is not None:
        facts["batch_size"] = batch_size
    return facts


def counted_names(names: list[str]) -> dict[str, Any]:
    """How many there are, and the first ones."""
    return {"images": len(names), "first": [text(name) for name in names[:FEW]]}


def bordered(files: ImageFiles) -> list[str]:
    """Names of images that the square which is used of them leaves: it is black there. Of prepared ones, none."""

    def leaves(size: tuple[int, int]) -> bool:
        width, height = files.crop.resized(size)
        left, top, right, bottom = files.crop.square((width, height))
        return min(left, top) < 0 or right > width or bottom > height

    return [name for name, size in files.sizes.items() if files.layout.prepare is whole and leaves(size)]


def kind(files: ImageFiles, name: str) -> tuple[str, str]:
    """Format and mode of an image file; its beginning is read alone where that is enough."""
    for read in (files.container.head, files.container.read):
        with suppress(Exception):  # Pillow raises many kinds for what is cut short
            return kind_of(read(name), name)
    return "?", "?"


def sizes(files: ImageFiles) -> dict[str, Any]:
    """Width and height [pixels] of whole images."""
    by_area = sorted(files.sizes.items(), key=lambda of: of[1][0] * of[1][1])
    (first, smallest), (last, largest) = by_area[0], by_area[-1]
    counts = Counter(tuple(size) for size in files.sizes.values())
    size, count = counts.most_common(1)[0]
    return {
        "smallest": {"size": list(smallest), "name": text(first)},
        "largest": {"size": list(largest), "name": text(last)},
        "commonest": {"size": list(size), "images": count},
        "different": len(counts),
    }


def shown_side(size: tuple[int, int], crop: Crop, filter: Filter) -> float:
    """How many pixels of an image the square that is used of it has each way, in the direction of fewer."""
    _, _, width, height = window(size, 1, filter, crop)
    return min(min(1, width) * size[0], min(1, height) * size[1])


def largest_side(files: ImageFiles) -> float:
    """The most pixels each way of a square that is used."""
    return max(shown_side(size, files.crop, files.filter) for size in files.sizes.values())


def duplicates(hashes: dict[str, str]) -> dict[str, Any]:
    """Files with the same bytes as an earlier one."""
    by_hash = defaultdict(list)
    for name, sha256 in hashes.items():
        by_hash[sha256].append(text(name))
    groups = [names for names in by_hash.values() if len(names) > 1]
    return {"images": sum(len(names) - 1 for names in groups), "first": [names[:2] for names in groups[:FEW]]}


def classes(files: ImageFiles) -> dict[str, int]:
    """How many images each class has, by the name of its folder or by its number."""
    if files.labels is None:
        return {}
    folders = defaultdict(set)
    for name, label in zip(files.open(), files.labels, strict=True):
        folders[label].add(PurePosixPath(name).parts[0] if "/" in name else None)
    by_folder = all(len(of) == 1 and None not in of for of in folders.values())
    names = {label: text(next(iter(of))) if by_folder else str(label) for label, of in folders.items()}
    counts = Counter(files.labels)
    return {names[label]: counts[label] for label in sorted(counts)}


def changed(files: ImageFiles) -> list[str]:
    """Images of a packed zip that are not those that were packed."""
    packed = files.packed.hashes if files.packed else {}
    return sorted(name for name in {*packed, *files.hashes} if packed.get(name) != files.hashes.get(name))


# ------------------------------------------------------------------------------------------------------------- cameras


def cameras(files: ImageFiles, resolution: int) -> dict[str, Any]:
    """How many images have a camera, what is wrong with them, and how they stand, of images as they are shown."""
    try:
        found = files.find_cameras()
    except UserError as error:
        return {"images": 0, "problem": str(error)}
    if not found:
        return {"images": 0}
    known = len({*found.names} & {*files.open()})
    whole = files.cameras(resolution)
    return {"images": known, "source": found.source} | (camera_facts(whole) if whole is not None else {})


def angles(camera: Camera) -> tuple[Tensor, Tensor]:
    """Yaw and pitch [M, 1] [rad] round the point that M cameras look at, as in ``zoo.render.cameras``."""
    return angles_around(camera.origins, camera.pose.new_tensor(orbit_around(camera).pivot))


def camera_facts(camera: Camera) -> dict[str, Any]:
    """How M cameras stand round what they look at; degrees, and world units."""
    orbit = orbit_around(camera)
    _, pitch = angles(camera)
    radius = (camera.origins - camera.pose.new_tensor(orbit.pivot)).norm(dim=-1)
    fov = 2 * torch.atan(0.5 / camera.intrinsics[:, 0, 0])
    roll = torch.atan2(camera.pose[:, 1, 0], camera.pose[:, 1, 1])  # of the horizon in the image
    return {
        "yaw": {"mean": degrees(orbit.yaw_mean), "spread": min(180.0, degrees(orbit.yaw_spread))},
        "pitch": {"mean": degrees(orbit.pitch_mean), "spread": degrees(orbit.pitch_spread), **ends(pitch.rad2deg())},
        "radius": {"mean": rounded(orbit.radius), **ends(radius)},
        "fov": {"median": rounded(orbit.fov_deg), **ends(fov.rad2deg())},
        "roll": {"mean": degrees(roll.mean()), **ends(roll.rad2deg())},
        "pivot": [rounded(place) for place in orbit.pivot],
    }


def degrees(angle: Tensor | float) -> float:
    return rounded(math.degrees(float(angle)))


def rounded(value: Tensor | float) -> float:
    """To three digits after the point, without a minus before zero."""
    return round(float(value), 3) + 0.0


def ends(values: Tensor) -> dict[str, float]:
    """The least and the largest."""
    return {"low": rounded(values.min()), "high": rounded(values.max())}


def differences(ours: dict[str, Any], prior: dict[str, Any]) -> list[str]:
    """In what the cameras of images differ clearly from those of a prior."""
    found = []
    for name in ("yaw", "pitch"):
        apart = abs((ours[name]["mean"] - prior[name]["mean"] + 180) % 360 - 180)
        spreads = sorted((ours[name]["spread"], prior[name]["spread"]))
        all_round = name == "yaw" and spreads[0] >= 90
        if not all_round and (apart > 5 + spreads[1] / 4 or spreads[1] > 5 + 1.5 * spreads[0]):
            found.append(name)
    found += [] if 0.9 < ours["radius"]["mean"] / prior["radius"]["mean"] < 1.1 else ["radius"]
    found += [] if 0.9 < ours["fov"]["median"] / prior["fov"]["median"] < 1.1 else ["field of view"]
    apart = math.dist(ours["pivot"], prior["pivot"])
    found += ["pivot"] if apart > 0.1 * prior["radius"]["mean"] else []
    return found + (["roll"] if max(abs(ours["roll"]["low"]), abs(ours["roll"]["high"])) > 5 else [])


# -------------------------------------------------------------------------------------------------------------- to read


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts in words, each below a title."""
    broken, size = facts["broken"], facts["sizes"]
    yield "images", f"{facts['images']:,} that can be used, in {facts['container']} '{facts['path']}'"
    if broken:
        problems = [f"{name}: {problem}" for name, problem in broken.items()]
        yield "broken", f"{len(broken):,} that cannot: {listing(problems, 20, '; ')}"
    if facts["other_files"]:
        yield "other files", facts["other_files"]
    yield "formats", f"{counted(facts['formats'])}; modes {counted(facts['modes'])}"
    yield "sizes", " ".join(size_words(size))
    if smaller := facts.get("smaller"):
        side, few = f"{facts['resolution']}x{facts['resolution']}", facts["smaller"]["first"]
        what = f"{smaller['images']:,} smaller than that and enlarged ({listing(few)})" if few else "none is smaller"
        yield "resolution", f"{side}: {what}"
    if count := facts["black_borders"]["images"]:
        yield "crop", f"{count:,} smaller than it, with black borders ({listing(facts['black_borders']['first'])})"
    if "batch_size" in facts:
        size, count = facts["batch_size"], facts["images"]
        repeats = "more than there are images: a batch holds some of them twice" if size > count else "enough images"
        yield "batch", f"{size:,}: {repeats}"
    if number := facts["duplicates"]["images"]:
        pairs = [f"{first} = {other}" for first, other in facts["duplicates"]["first"]]
        files = "file" if number == 1 else "files"
        yield "duplicates", f"{number:,} {files} with the bytes of another: {listing(pairs)}"
    else:
        yield "duplicates", "none with the same bytes"
    if facts["classes"]:
        yield "classes", f"{len(facts['classes']):,}: {counted(facts['classes'])}"
    if packed := facts.get("packed"):
        wrong = packed["changed"]
        state = (
            f"{len(wrong):,} are not those that were packed ({listing(wrong)})" if wrong else "all as they were packed"
        )
        yield "packed", f"from '{text(packed['from'])}' at {packed['resolution']}x{packed['resolution']}; {state}"
    yield "cameras", camera_words(facts)
    yield from camera_table(facts)
    if prior := facts.get("prior"):
        yield "prior", prior_words(facts, prior)


def size_words(size: dict[str, Any]) -> Iterator[str]:
    def pixels(of: dict[str, Any]) -> str:
        return "{}x{}".format(*of["size"])

    if size["different"] == 1:
        yield f"all {pixels(size['smallest'])}"
    else:
        yield f"{pixels(size['smallest'])} ({size['smallest']['name']}) to {pixels(size['largest'])}"
        yield f"({size['largest']['name']}); {size['different']:,} different"
        if size["commonest"]["images"] > 1:
            yield f"and most often {pixels(size['commonest'])} ({size['commonest']['images']:,} images)"


def counted(counts: dict[str, int], most: int = 8) -> str:
    """Names with how many there are of each."""
    return listing([f"{name} {count:,}" for name, count in counts.items()], most)


def camera_words(facts: dict[str, Any]) -> str:
    found = facts["cameras"]
    if problem := found.get("problem"):
        return f"not used: {printable(problem, 300)}"
    if not found["images"]:
        return "none"
    if found["images"] < facts["images"]:
        return f"not used: {found['images']:,} of {facts['images']:,} images have one ({found['source']})"
    return f"of each image ({found['source']})"


def camera_table(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The cameras of the images, and beside them those of the prior."""
    sets = [found for found in (facts["cameras"], facts.get("prior", {})) if "yaw" in found]
    if "yaw" not in facts["cameras"]:
        return
    if len(sets) > 1:
        yield "", f"{'of the images':<38}of the prior"
    for name, unit in (("yaw", "°"), ("pitch", "°"), ("radius", ""), ("fov", "°"), ("roll", "°")):
        yield name, "".join(f"{camera_line(found[name], unit):<38}" for found in sets).rstrip()
    yield "pivot", "".join(f"{', '.join(f'{x:g}' for x in found['pivot']):<38}" for found in sets).rstrip()


def camera_line(values: dict[str, float], unit: str) -> str:
    """The middle and the spread, and the ends, of one quantity."""
    middle = f"{values.get('mean', values.get('median')):.4g}{unit}"
    if "spread" in values:
        middle = "all round" if values["spread"] >= 90 else f"{middle} ± {values['spread']:.3g}{unit}"
    return middle + (f" ({values['low']:.4g} to {values['high']:.4g})" if "low" in values else "")


def prior_words(facts: dict[str, Any], prior: dict[str, Any]) -> str:
    if problem := prior.get("problem"):
        return problem
    if "yaw" not in facts["cameras"]:
        return f"that of {prior['experiment']}, with no cameras to compare it with: see views.png of a first training"
    if not prior["differences"]:
        return f"that of {prior['experiment']} is like the cameras of the images"
    return (
        f"that of {prior['experiment']} differs in {', '.join(prior['differences'])}: set it to these numbers, or draw "
        "from the cameras of the images (--model.generator.poses zoo.render.DatasetPoses)"
    )
