"""``zoo invert``: GAN inversion."""

from math import radians
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.options import LARGEST, SampleOptions, refuse_unused
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, between, given
from zoo.utils.targets import folder_target

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def run(
    image: Path,
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
    **drawn: Any,
) -> None:
    """Invert an image: find the latent, camera, styles and weights that reproduce it; shows the object from all sides.

    Args:
        image: the image, of any size and format that Pillow reads; the largest square in its middle is used, resized.
        out: folder for comparison.png, found.safetensors, found.json, and bundle where weights were tuned.
        samples: of the prior, the nearest of which are the initial latents.
        latent_steps: of optimising the latent; 0 starts styles at the nearest sample.
        style_steps: of optimising the styles, which are more expressive than latents; 0 keeps the latent's.
        weight_steps: of finetuning the weights to this image (pivotal tuning); 0 leaves them.
        locality: weight of preserving other samples' images in finetuning, such as 1; takes twice the time.
        yaw: of the initial camera, from the front [degrees]; by default that of the prior.
        elevation: of the initial camera above the horizon [degrees].
        keep_camera: fix the camera at yaw and elevation, by default in the middle of the prior.
        mask: image of the same shape, white where the distance counts.
    """
    options = SampleOptions(truncation=1.0, **drawn)
    steps = {"latent": latent_steps, "styles": style_steps, "weights": weight_steps}
    at_least(0, locality=locality)
    between(0, LARGEST, latent_steps=latent_steps, style_steps=style_steps, weight_steps=weight_steps)
    between(1, LARGEST, samples=samples)
    between(-360, 360, **given(yaw=yaw))
    between(-90, 90, **given(elevation=elevation))
    if weight_steps == 0:
        refuse_unused("with --weight_steps 0", run, locality=locality)
    out = folder_target(out)
    from tqdm import tqdm

    from zoo.export.inversion import save_inversion
    from zoo.inversion.search import STAGES, camera_at
    from zoo.inversion.search import invert as search
    from zoo.utils.images import read_image

    pixels, weights = read_image(image), None if mask is None else read_image(mask)
    if weights is not None and abs(weights.width * pixels.height - weights.height * pixels.width) > max(pixels.size):
        sizes = [f"{one.width}x{one.height}" for one in (weights, pixels)]
        raise UserError(f"The mask '{mask}' is of another shape than the image, {sizes[0]} instead of {sizes[1]}.")
    generator, info = options.load()
    side = generator.image_side(options.resolution)
    target = fitted(pixels, side)
    angles = [None if angle is None else radians(angle) for angle in (yaw, elevation)]
    has_camera = keep_camera or angles != [None, None]
    with tqdm(total=sum(n + 1 for n in steps.values() if n), unit="step", disable=None, dynamic_ncols=True) as bar:

        def callback(stage: str, loss: float) -> None:
            bar.set_description(stage, refresh=False)
            bar.set_postfix({"loss": f"{loss:.4f}"}, refresh=False)
            bar.update()

        inverted = search(
            generator,
            target,
            stages=[stage._replace(steps=steps[stage.name]) for stage in STAGES],
            camera=camera_at(generator, *angles) if has_camera else None,
            find_camera=not keep_camera,
            samples=samples,
            mask=None if weights is None else (fitted(weights, side).mean(0, keepdim=True) + 1) / 2,
            locality=locality,
            seed=options.seed,
            callback=callback,
        )
    facts = {"image": str(image), "seed": options.seed, "samples": samples, "locality": locality}
    save_inversion(out, inverted, target, options.source, info, tuned=weight_steps > 0, **facts)
    print("  ".join(f"{stage} {value:.1f} dB" for stage, value in inverted.psnr.items()))
    print(out)


def fitted(image: "Image", side: int) -> "Tensor":
    """The largest square in the middle of an image, resized as training images are, [3, H, H] in [-1, 1]."""
    from datamodules.images import fit

    return fit(image, side).float() / 127.5 - 1
