"""Cases of images, with everything on the way from their rays, and of what the published scripts draw."""

from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.parity.graf.build import (
    build_patches,
    codes,
    disparity,
    first_radius,
    flat,
    load_generator,
    our_camera,
    path,
    with_fov,
)
from tests.parity.graf.draws import published_draws
from tests.parity.graf.networks import last_layer, query
from tests.parity.harness import Case
from tests.parity.published import hearing
from tests.parity.replay import Replay
from zoo.graf.model import Generator, HierarchicalRenderer, Latent
from zoo.graf.rays import AlongAxis, z_up
from zoo.render import Camera, Importance, Integrated, VolumeRenderer, to_map


@torch.no_grad()
def render(case: Case) -> None:
    config, data = case.config, case.config["data"]
    generator, size = load_generator(case), data["imsize"]
    query(case, generator.field)
    latent = generator.map(codes(config, case.inputs["z"]))
    compare_block(case, "full", generator, latent, our_camera(case.inputs["poses"], data["fov"]), None)
    case.compare("full.image", to_map(case_rgb(case, generator, latent, None).features) * 2 - 1)
    for name in [n for n in case.outputs if n.startswith("full.rgb_chunk")]:
        chunked = case_rgb(case, generator, latent, int(name.removeprefix("full.rgb_chunk")))
        case.compare(name, flat(chunked.features) * 2 - 1)

    patches = build_patches(config)
    recorded = published_draws(case, "patch", config, patches)
    draws = Replay(recorded)
    camera = with_fov(generator.cameras(len(latent.shape_code), draws).pose, data["fov"])
    places = patches(len(latent.shape_code), config["iteration"], draws)
    compare_block(case, "patch", generator, latent, camera, places, draws)
    assert draws.used_up()
    again = Replay(recorded)  # the public way gives the same image
    camera = with_fov(generator.cameras(len(latent.shape_code), again).pose, data["fov"])
    places = patches(len(latent.shape_code), config["iteration"], again)
    options = {"resolution": size, "draws": again, "density_noise": config["raw_noise_std_used"], "places": places}
    image = generator.render(latent, camera, **options).image
    case.compare("patch.rgb", image.flatten(2).mT.reshape(-1, 3))


def case_rgb(case: Case, generator: Generator, latent: Latent, rays_at_once: int | None) -> Integrated:
    """The whole image, in chunks of so many rays."""
    data = case.config["data"]
    inner = generator.renderer.renderer if isinstance(generator.renderer, HierarchicalRenderer) else generator.renderer
    inner.chunk = rays_at_once and rays_at_once * case.config["nerf"]["N_samples"]
    rays = generator.rays(our_camera(case.inputs["poses"], data["fov"]), data["imsize"])
    result = generator.renderer(generator.field, rays, latent)
    inner.chunk = None
    return result


def compare_block(
    case: Case, block: str, generator: Generator, latent: Latent, camera: Camera, places: Tensor | None, draws=None
) -> None:
    """Everything on the way from rays to an image."""
    data, nerf, config = case.config["data"], case.config["nerf"], case.config
    size = data["imsize"]
    rays = generator.rays(camera, size) if places is None else generator.patch_rays(camera, places, size)
    renderer, field = generator.renderer, generator.field
    two = isinstance(renderer, HierarchicalRenderer)
    layers = {"first": last_layer(field)} | ({"second": last_layer(renderer.field)} if two else {})
    results: list[Integrated] = []
    forward = VolumeRenderer.forward

    def recording(self, *args, **kwargs) -> Integrated:
        results.append(forward(self, *args, **kwargs))
        return results[-1]

    own = renderer.depths if two else None
    if two and f"{block}.fine_samples" in case.outputs:
        renderer.depths = partial(recorded_depths, case, block, own)
    with hearing(layers) as heard, patch.object(VolumeRenderer, "forward", recording):
        renderer(field, rays, latent, draws, config["raw_noise_std_used"])

    origins, directions = z_up(rays.origins), z_up(rays.directions)
    depths = AlongAxis(data["near"], data["far"], 2, first_radius(config))
    columns = [origins, directions, *depths.planes(rays)]
    if nerf["use_viewdirs"]:
        columns.append(normalize(directions, dim=-1))
    ours = {
        "rays": torch.stack([flat(origins), flat(directions)]).unflatten(1, origins.shape[:2]).flatten(1, 2),
        "ray_batch": flat(torch.cat(columns, dim=-1)),
    }
    colours = [colour[..., :3] for ((_, colour),) in heard.values()]
    raws = [flat(torch.cat([c, r.raw], dim=-1)) for c, r in zip(colours, results, strict=True)]
    if two:
        renderer.depths, coarse = own, results[0]
        ours |= {
            "coarse_z": flat(coarse.samples.t),
            "coarse_raw": raws[0],
            "coarse_weights": flat(coarse.weights),
            "extra.rgb0": flat(coarse.features),
            "extra.disp0": flat(disparity(coarse))[:, 0],
            "extra.acc0": flat(coarse.opacity)[:, 0],
        }
    result = results[-1]
    ours |= {
        "z_vals": flat(result.samples.t),
        "raw": raws[-1],
        "weights": flat(result.weights),
        "depth_map": flat(result.depth)[:, 0],
        "rgb_map": flat(result.features),
        "rgb": flat(result.features) * 2 - 1,
        "disp": flat(disparity(result)) * 2 - 1,
        "acc": flat(result.opacity) * 2 - 1,
    }
    for name, value in case.recorded(f"{block}.", ours).items():
        note(case, name, value)


def recorded_depths(case: Case, block: str, own: Importance, t: Tensor, weights: Tensor, draws) -> Tensor:
    """Recorded depths of the second network; ours, which are compared, follow from recorded weights of the first.

    In cells that are nearly empty the rounding of weights moves depths a thousand times as far.
    """
    name = f"{block}.fine_samples"
    ours = own(t, case.cast(case.outputs[f"{block}.coarse_weights"]).view_as(weights), draws)
    case.compare(name, flat(ours))
    if f"{block}.extra.z_std" in case.outputs:
        case.compare(f"{block}.extra.z_std", flat(ours).std(-1, unbiased=False))
    return case.cast(case.outputs[name]).view_as(ours)


def note(case: Case, name: str, ours: Tensor) -> None:
    """Raw densities have no scale, depths that of the scene, and disparities of nearly empty rays go to 1e10."""
    if name.endswith("raw"):
        case.relative(name, ours)
    elif "depth_map" in name:
        case.relative(name, ours, 1e-4)
    elif "disp" in name:
        case.compare(name, ours, scale=case.outputs[name].abs().clamp(min=1))
    else:
        case.compare(name, ours)


@torch.no_grad()
def inference(case: Case) -> None:
    data = case.config["data"]
    generator = load_generator(case)
    shapes, appearances = case.inputs["z_shape"], case.inputs["z_appearance"]
    n = len(shapes)
    latent = Latent(shapes.repeat_interleave(len(appearances), 0), appearances.repeat(n, 1))
    case.compare("z_grid", torch.cat(latent, dim=-1))

    poses = generator.poses
    fov = data["fov"]
    count = len(case.outputs["render_poses"])
    found = path(poses.radius[1], poses.azimuth_deg, sum(poses.polar_deg) / 2, count, False, fov)
    case.compare("render_poses", found)

    seen = int(case.number("grid.rgb", r"render_poses\[(\d+)\]"))
    camera = our_camera(found[seen].expand(len(latent.shape_code), -1, -1), fov)
    rays = generator.rays(camera, data["imsize"])
    result = generator.renderer(generator.field, rays, latent)
    image = to_map(result.features) * 2 - 1
    case.compare("grid.rgb", image)
    case.compare("grid.acc", to_map(result.opacity) * 2 - 1)
    case.compare("grid.depth_colour", coloured(to_map(disparity(result)) * 2 - 1, data["near"], data["far"]))
    case.compare("depth_colour", coloured(case.inputs["disp"], data["near"], data["far"]))
    recorded = case.outputs["grid.rgb"]  # ours may fall on the other side of a level
    quantised = ((recorded / 2 + 0.5) * 255).clamp(0, 255).to(torch.uint8).float() / 255 * 2 - 1
    case.compare("fid_quantised", quantised)


COLOURS = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 1, 0], [1, 1, 1]]
NODES = [0, 0.114, 0.299, 0.413, 0.587, 0.701, 0.886, 1]


def coloured(disparities: Tensor, near: float, far: float) -> Tensor:
    """The published image of a depth [B, 3, H, W], from twice the disparity less one [B, 1, H, W]."""
    depth = (1 / (disparities / 2 + 0.5) - near) / (far - near)
    depth = (depth / depth.flatten(1).max(1).values[:, None, None, None]).clamp(0, 1)[:, 0]
    nodes, colours = depth.new_tensor(NODES), depth.new_tensor(COLOURS)
    index = torch.searchsorted(nodes, depth.contiguous(), right=True).clamp(1, len(nodes) - 1) - 1
    place = (depth - nodes[index]) / (nodes[index + 1] - nodes[index])
    colour = colours[index] + place[..., None] * (colours[index + 1] - colours[index])
    levels = (colour * 255).to(torch.uint8)
    return levels.to(depth.dtype).permute(0, 3, 1, 2) / 255 * 2 - 1
