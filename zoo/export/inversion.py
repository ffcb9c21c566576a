"""Writes and reads the results of ``zoo invert``: images, tensors, losses, and a bundle where weights were tuned."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.export.images import depth_to_bytes, grid, save_image, to_pil_image
from zoo.generator import Generator, draws_for, quantise, render_foreground
from zoo.inversion.search import Inversion, camera_angles
from zoo.render import Camera
from zoo.utils.errors import UserError
from zoo.utils.files import replacing_files
from zoo.utils.old_names import renamed_own_tensors
from zoo.weights.bundle import BundleInfo, load_bundle, save_bundle

FOUND, ABOUT, BUNDLE = "found.safetensors", "found.json", "bundle"
COLUMNS = 4


def save_inversion(
    folder: Path, inverted: Inversion, target: Tensor, source: str, info: BundleInfo, tuned: bool, **about: Any
) -> None:
    """Write the result of an inversion.

    Args:
        folder: made where it does not exist.
        inverted: the result.
        target: the image, [3, H, H] in [-1, 1].
        source: name or path of the weights, of which ``info`` says more.
        tuned: whether the weights are others now: then they are written as a bundle.
        about: further facts for found.json.
    """
    if tuned:
        save_bundle(folder / BUNDLE, inverted.generator, info.config, **info.card, tuned="to one image")
    parts = {"latent": inverted.latent, "styles": inverted.styles, "camera": inverted.camera}
    tensors = {f"{name}.{key}": x for name, part in parts.items() for key, x in part._asdict().items() if x is not None}
    yaw, elevation = (
        round(math.degrees(angle), 3) for angle in camera_angles(inverted.camera, inverted.generator.pivot)
    )
    facts = {
        **about,
        "weights": str(info.path.resolve()) if info.path == Path(source) else source,
        "weights_sha256": info.sha256,
        "tuned": tuned,
        "resolution": target.shape[-1],
        "camera": {"yaw_deg": yaw, "elevation_deg": elevation},
        "psnr": {name: round(value, 3) for name, value in inverted.psnr.items()},
        "ssim": round(ssim_of(inverted.rendered.image, target[None].to(inverted.rendered.image)), 4),
        "losses": {name: [round(x, 6) for x in values] for name, values in inverted.losses.items()},
    }
    with replacing_files(folder) as made:
        save_image(made / "comparison.png", comparison(inverted, target), durable=False)
        save_image(made / "reconstruction.png", to_pil_image(quantise(inverted.rendered.image[0])), durable=False)
        save_file({name: x.cpu().contiguous().clone() for name, x in tensors.items()}, made / FOUND)
        (made / ABOUT).write_text(json.dumps(facts, indent=1))


def ssim_of(images: Tensor, targets: Tensor) -> float:
    """Structural similarity of images [B, 3, H, H] in [-1, 1] (Wang et al. 2004: windows of 11 pixels)."""
    from kornia.metrics import ssim

    side = images.shape[-1]
    window = min(11, side - 1 + side % 2)  # odd, and within the image
    return float(ssim(images.clamp(-1, 1), targets, window, max_val=2.0, padding="valid").mean())


def load_inversion(folder: Path | str) -> tuple[Generator, Any, Camera, int]:
    """Generator, styles, camera and resolution of an inversion: ``generator.render`` of them is the reconstruction.

    Raises:
        UserError: the folder is none that ``zoo invert`` wrote, or the weights are others than at the time.
    """
    folder = Path(folder)
    if not (folder / ABOUT).is_file() or not (folder / FOUND).is_file():
        raise UserError(f"{folder} is no result of 'zoo invert': it has no {ABOUT} and {FOUND}.")
    about, tensors = json.loads((folder / ABOUT).read_text()), load_file(folder / FOUND)
    generator, info = load_bundle(folder / BUNDLE if about["tuned"] else about["weights"])
    if not about["tuned"] and info.sha256 != about["weights_sha256"]:
        raise UserError(f"The weights of {about['weights']} are others than those that {folder} was made with.")
    with torch.no_grad():
        like = generator.map(generator.latents(1, draws_for(generator, 0, [0])))
    kind = type(like)
    tensors = renamed_own_tensors(tensors, f"{kind.__module__}.{kind.__name__}", "styles.")
    styles = like._replace(**{name: tensors[f"styles.{name}"] for name in like._fields if f"styles.{name}" in tensors})
    camera = Camera(tensors["camera.pose"], tensors["camera.intrinsics"])
    return generator, styles, camera, about["resolution"]


@torch.no_grad()
def comparison(inverted: Inversion, target: Tensor, views: int = 8) -> Image.Image:
    """First row: image, reconstruction, their difference (grey is none), depth. Below, the object and its depth from
    all sides."""
    generator, side = inverted.generator, target.shape[-1]
    target = target[None].to(inverted.rendered.image)
    depth = render_foreground(generator, inverted.styles, inverted.camera, side).depth
    first = [quantise(x) for x in (target, inverted.rendered.image, (inverted.rendered.image - target) / 2)]
    rows = [torch.cat([*first, depth_cells(depth, side)])]

    turned, cameras = generator.turntable(inverted.styles, views)
    shown = render_foreground(generator, turned, cameras, side)
    images, depths = quantise(shown.image), depth_cells(shown.depth, side)
    for part in range(0, views, COLUMNS):
        rows += [images[part : part + COLUMNS], depths[part : part + COLUMNS]]
    return grid(torch.stack(rows))


def depth_cells(depth: Tensor, side: int) -> Tensor:
    """Colours uint8 [V, 3, H, H] of depths [V, 1, h, h], in one scale."""
    colours = depth_to_bytes(depth[None])[0]
    return interpolate(colours.float(), (side, side), mode="nearest").to(torch.uint8)
