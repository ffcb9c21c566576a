"""Cases of cameras, rays, patches, depths and compositing."""

import math
import re

import torch
from torch import Tensor

from tests.parity.graf.build import build_patches, disparity, double_camera, flat, our_camera, path, published_pose
from tests.parity.graf.draws import published_draws
from tests.parity.graf.rendering import note
from tests.parity.harness import Case
from tests.parity.replay import Replay, composited
from zoo.graf.model import Discriminator, Generator, RadianceField
from zoo.graf.rays import AlongAxis, OnSphere, Orthographic, Patches, all_pixels, sample_patches, z_up
from zoo.graf.training import GRAF
from zoo.layers.encoding import positional_encoding
from zoo.render import Quadrature, Rays, VolumeRenderer, black, inverse_cdf, white

NUMBER = r"(-?[\d.]+(?:e-?\d+)?)"


@torch.no_grad()
def sampling(case: Case) -> None:
    size = len(case.outputs["rays_o"])
    fov = case.number("focal", rf"fov {NUMBER}")
    for name in [n for n in case.outputs if re.fullmatch(r"sphere\d+\.loc", n)]:
        block = name.removesuffix(".loc")
        u, v = case.draws(block)
        pose = published_pose(double_camera(2 * math.pi * u, (1 - 2 * v).arccos(), 1.0, fov))[0]
        case.compare(f"{block}.loc", pose[:, 3])
        case.compare(f"{block}.R", pose[:, :3])

    camera = our_camera(case.inputs["pose"][None], fov)
    case.compare("focal", camera.intrinsics[0, 0, 0].double() * size)
    generator = Generator(RadianceField(1, 1, 2), VolumeRenderer(AlongAxis(1, 2, 2)), OnSphere(fov_deg=fov))
    rays = generator.rays(camera, size)
    case.compare("rays_o", z_up(rays.origins).reshape(size, size, 3))
    case.compare("rays_d", z_up(rays.directions).reshape(size, size, 3))
    case.compare("full_sampler.rays", torch.stack([z_up(rays.origins)[0], z_up(rays.directions)[0]]))
    pixels = all_pixels(size)
    case.compare("full_sampler.hw", (pixels.flip(-1) - size / 2) / size)

    for name in [n for n in case.outputs if n.startswith("patch_") and n.endswith(".grid")]:
        block = name.removesuffix(".grid")
        least, anneal, iteration = re.fullmatch(rf"patch_min{NUMBER}_anneal{NUMBER}_it(\d+)", block).groups()
        settings = {"min_scale": float(least), "max_scale": 1.0, "scale_anneal": float(anneal)}
        points = case.outputs[name].shape[0]
        patches = build_patches({"ray_sampler": settings | {"N_samples": points**2}})
        places = patches(
            1, int(iteration), Replay(published_draws(case, block, {"iteration": int(iteration)}, patches))
        )
        case.compare(name, places[0])
        rays = generator.patch_rays(camera, places, size)
        case.compare(f"{block}.rays", torch.stack([z_up(rays.origins)[0], z_up(rays.directions)[0]]))
        drawn = (places[0, -1, -1] - places[0, 0, 0]) / 2
        case.compare(f"{block}.scale", drawn[:1])

    generator.lens = Orthographic(5.0)
    rays = generator.rays(camera, size)
    case.compare("ortho_rays_o", z_up(rays.origins).reshape(size, size, 3))
    case.compare("ortho_rays_d", z_up(rays.directions).reshape(size, size, 3))

    images = case.inputs["images"]
    iteration = int(case.number("img_to_patch", r"iteration (\d+)"))
    side = math.isqrt(len(case.outputs["img_to_patch"]) // len(images))
    patches = Patches(side)
    draws = Replay(published_draws(case, "img_to_patch", {"iteration": iteration}, patches))
    case.compare(
        "img_to_patch", sample_patches(images, patches(len(images), iteration, draws)).flatten(2).mT.reshape(-1, 3)
    )

    bins, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    count = case.outputs["pdf.det"].shape[-1]
    case.compare("pdf.det", inverse_cdf(bins, weights, torch.linspace(0, 1, count).expand(len(bins), -1), right=True))
    case.compare("pdf.random", inverse_cdf(bins, weights, case.draws("pdf_random")[0], right=True))
    for octaves in [int(n.removeprefix("pe.multires")) for n in case.outputs if n.startswith("pe.multires")]:
        case.compare(f"pe.multires{octaves}", positional_encoding(case.inputs["pe.x"], octaves))
    for block, background in (("comp_white0", black), ("comp_white1", white)):
        composite(case, block, background, case.number(f"{block}.rgb", rf"raw_noise_std {NUMBER}"))
    for name in [n for n in case.outputs if n.startswith("render_poses_swap")]:
        case.compare(name, trajectory(case.info["outputs"][name]["meaning"], fov))
    gan = GRAF(generator, Discriminator(32, 1), torch.optim.RMSprop, torch.optim.RMSprop)
    steps = [
        int(i) for i in re.search(r"it = ([\d,]+)", case.info["outputs"]["noise_schedule"]["meaning"])[1].split(",")
    ]
    case.compare("noise_schedule", torch.tensor([gan.noise_at(step) for step in steps]))


def trajectory(meaning: str, fov: float) -> Tensor:
    """The published script's camera path: around the vertical, or with ``swap`` up and down."""
    found = re.search(rf"\({NUMBER}, \({NUMBER}, {NUMBER}\), theta={NUMBER}, N=(\d+), swap=(\w+)\)", meaning)
    radius, first, last, fixed = (float(x) for x in found.groups()[:4])
    return path(radius, (first, last), fixed, int(found[5]), found[6] == "True", fov)


def composite(case: Case, block: str, background, noise: float) -> None:
    """The renderer on given outputs of a network."""
    raw, t, directions = (case.inputs[f"comp.{name}"][None] for name in ("raw", "z", "rays_d"))
    renderer = VolumeRenderer(AlongAxis(1, 2, 2), Quadrature(background=background), chunk=None)
    rays, draws = (
        Rays(torch.zeros_like(directions), directions),
        Replay([("final_density_noise", case.draws(block)[0])]),
    )
    result = composited(renderer, t, raw[..., 3:], raw[..., :3].sigmoid(), draws, noise, rays)
    case.compare(f"{block}.rgb", flat(result.features))
    note(case, f"{block}.disp", flat(disparity(result))[:, 0])
    case.compare(f"{block}.acc", flat(result.opacity)[:, 0])
    case.compare(f"{block}.weights", flat(result.weights))
    case.compare(f"{block}.depth", flat(result.depth)[:, 0])
