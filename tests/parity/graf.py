"""How the published GRAF's arguments, names and draws translate into ours."""

import math
import re
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, normalize

import zoo.graf.rays
import zoo.graf.training
from tests.parity.harness import Before, Case, Replay, Watched, by_published_name, gradients_of, same_tensors, train
from zoo.graf import convert as graf
from zoo.graf.convert import DISCRIMINATOR, GENERATOR
from zoo.graf.model import Discriminator, Generator, HierarchicalRenderer, Latent, RadianceField, uniform
from zoo.graf.rays import AlongAxis, OnSphere, Orthographic, Patches, perspective, sample_patches, z_up
from zoo.graf.training import GRAF, random_flip
from zoo.layers.encoding import positional_encoding
from zoo.render import (
    Camera,
    Importance,
    Integrated,
    Quadrature,
    Rays,
    Samples,
    VolumeRenderer,
    black,
    inverse_cdf,
    to_map,
    white,
)
from zoo.render.cameras import intrinsics_from_fov
from zoo.training.ema import EMA
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, published_name, to_published
from zoo.weights.read import Place, read

# Published arguments


def radius_range(config: dict) -> tuple[float, float]:
    radius = config["data"]["radius"]
    ends = [float(r) for r in radius.split(",")] if isinstance(radius, str) else [radius, radius]
    return ends[0], ends[-1]


def build_poses(data: dict, radius: tuple[float, float]) -> OnSphere:
    polar = [math.degrees(math.acos(1 - 2 * data[end])) for end in ("vmin", "vmax")]
    return OnSphere((360 * data["umin"], 360 * data["umax"]), tuple(polar), radius, data["fov"])


def build_field(config: dict, fine: bool = False) -> RadianceField:
    nerf, z = config["nerf"], config["z_dist"]
    encoded = nerf["i_embed"] != -1
    views = nerf["use_viewdirs"]
    return RadianceField(
        z["dim"] - z["dim_appearance"],
        z["dim_appearance"] if views or not fine else 0,
        nerf["netwidth_fine" if fine else "netwidth"],
        nerf["netdepth_fine" if fine else "netdepth"],
        point_octaves=nerf["multires"] if encoded else 0,
        view_octaves=(nerf["multires_views"] if encoded else 0) if views else None,
        outputs=5 if nerf["N_importance"] > 0 else 4,
    )


def build_renderer(config: dict) -> VolumeRenderer | HierarchicalRenderer:
    data, nerf = config["data"], config["nerf"]
    low, high = radius_range(config)
    depths = AlongAxis(data["near"], data["far"], nerf["N_samples"], high if low < high else None)
    importance = Importance(nerf["N_importance"], floor=1e-5, right=True)
    if not nerf["perturb"]:
        given, chosen = depths, importance
        depths = lambda rays, draws: given(rays, None)  # noqa: E731
        importance = lambda t, weights, draws: chosen(t, weights, None)  # noqa: E731
    renderer = VolumeRenderer(depths, Quadrature(background=white if data["white_bkgd"] else black), chunk=None)
    return (
        HierarchicalRenderer(renderer, importance, build_field(config, fine=True)) if nerf["N_importance"] else renderer
    )


def build_generator(config: dict) -> Generator:
    """Our generator for the published arguments."""
    data = config["data"]
    return Generator(
        build_field(config),
        build_renderer(config),
        build_poses(data, radius_range(config)),
        data["imsize"],
        prior=uniform if config["z_dist"]["type"] == "uniform" else zoo.graf.gaussian,
        lens=Orthographic(data["far"] - data["near"]) if data["orthographic"] else perspective,
    )


def load_generator(case: Case) -> Generator:
    generator = build_generator(case.config)
    state = {n: t for n, t in case.weights("").items() if re.match(r"generator(_fine)?\.", n)}
    generator.load_state_dict(from_published(state, list(generator.state_dict()), GENERATOR))
    return generator


def load_discriminator(case: Case, size: int, channels: int, prefix: str) -> Discriminator:
    discriminator = Discriminator(size, channels)
    discriminator.load_state_dict(
        from_published(case.weights(prefix), list(discriminator.state_dict()), DISCRIMINATOR[size])
    )
    return discriminator


def build_patches(config: dict) -> Patches:
    sampler = config["ray_sampler"]
    anneal = sampler["scale_anneal"]
    size = math.isqrt(sampler["N_samples"])
    return Patches(size, sampler["min_scale"], sampler["max_scale"], anneal if anneal >= 0 else None)


def codes(config: dict, z: Tensor) -> Latent:
    appearance = config["z_dist"]["dim_appearance"]
    return Latent(*z.split([z.shape[-1] - appearance, appearance], dim=-1))


def our_camera(poses: Tensor, fov: float) -> Camera:
    """Published poses [B, 3, 4] with z up, in our world."""
    x, y, z = poses.unbind(1)
    bottom = poses.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(x)
    return with_fov(torch.stack([x, z, -y, bottom], dim=1), fov)


def with_fov(pose: Tensor, fov: float) -> Camera:
    """A camera whose focal length [pixels] is rounded only once, as published; for sizes that are no powers of two."""
    return Camera(pose, intrinsics_from_fov(math.radians(fov), len(pose), pose.double()))


def published_pose(camera: Camera) -> Tensor:
    """Our poses [B, 4, 4] as published, [B, 3, 4]."""
    return z_up(camera.pose[:, :3].mT).mT


def share(values: Tensor, low: float, high: float) -> Tensor:
    """Which number in [0, 1] becomes each of these values between low and high."""
    return (values.double() - low) / (high - low) if low < high else torch.zeros_like(values, dtype=torch.float64)


def published_draws(case: Case, block: str, config: dict, patches: Patches | None = None) -> list[tuple[str, Tensor]]:
    """Draws of a block under our names. What was drawn between two ends becomes numbers between 0 and 1."""
    found: dict[str, list[Tensor]] = {}
    for name, numbers in case.named_draws(block).items():
        base = re.sub(r"^\d+_((img|chunk)\d+\.)?", "", name[len(block) + 1 :])
        found.setdefault(re.sub(r"\.\d+$", "", base), []).append(numbers)
    pairs = []
    if "u_np" in found:
        data, (low, high) = config["data"], radius_range(config)
        for ours, theirs, ends in (
            ("azimuth", "u_np", (data["umin"], data["umax"])),
            ("polar", "v_np", (data["vmin"], data["vmax"])),
            ("radius", "radius_np", (low, high)),
        ):
            if theirs in found:
                pairs.append((ours, share(torch.stack(found.pop(theirs)), *ends).to(case.dtype)))
    if "scale" in found:
        scale = torch.cat(found.pop("scale")).double()
        least = patches.least_scale(config["iteration"])
        for name in (n for n in case.named_draws(block) if n.endswith("scale")):  # between which ends it was drawn
            low, high = re.search(r"uniform_\(([^,]+),([^)]+)\)", case.info["inputs"][name]["meaning"]).groups()
            assert math.isclose(float(low), least, rel_tol=1e-5), f"{name}: from {low}, not {least}"
            assert math.isclose(float(high), patches.max_scale, rel_tol=1e-5), f"{name}: to {high}"
        pairs.append(("patch_scale", share(scale, least, patches.max_scale).to(case.dtype)))
        shifts = []
        for axis in ("h", "w"):
            offset = torch.cat(found.pop(f"{axis}_offset")).double()
            sign = 2 * torch.cat(found.pop(f"{axis}_sign_randint")) - 1
            shifts.append((1 + sign * offset / (1 - scale).clamp(min=1e-300)) / 2)
        pairs.append(("patch_shift", torch.stack(shifts, dim=-1).to(case.dtype)))
    renamed = {
        "t_rand_U": "jitter",
        "noise_N": "final_density_noise",
        "coarse_noise_N": "final_density_noise",
        "pdf_u_U": "importance",
        "fine_noise_N": "final_density_noise",
    }
    for theirs, ours in renamed.items():
        if theirs in found:
            pairs.append((ours, torch.cat(found.pop(theirs))))  # one draw for all chunks
    masks = found.pop("hflip_mask", []) + found.pop("mask_randint", [])
    pairs += [("mirror", mask.to(case.dtype)) for mask in masks]  # 1 keeps
    assert not found, f"{block}: draws of unknown meaning: {', '.join(found)}"
    return pairs


def flat(x: Tensor) -> Tensor:
    return x.detach().flatten(0, 1)


def disparity(result: Integrated) -> Tensor:
    return 1 / (result.depth / (result.opacity + 1e-10)).clamp(min=1e-10)


# Kinds of case


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
    fields, colours = [field, renderer.field] if two else [field], []
    hooks = [
        (f.output if f.output is not None else f.colour).register_forward_hook(lambda *call: colours.append(call[2]))
        for f in fields
    ]
    results: list[Integrated] = []
    forward = VolumeRenderer.forward

    def recording(self, *args, **kwargs) -> Integrated:
        results.append(forward(self, *args, **kwargs))
        return results[-1]

    own = renderer.depths if two else None
    if two and f"{block}.fine_samples" in case.outputs:
        renderer.depths = partial(recorded_depths, case, block, own)
    with patch.object(VolumeRenderer, "forward", recording):
        renderer(field, rays, latent, draws, config["raw_noise_std_used"])
    for hook in hooks:
        hook.remove()

    origins, directions = z_up(rays.origins), z_up(rays.directions)
    depths = AlongAxis(data["near"], data["far"], 2, first_radius(config))
    columns = [origins, directions, *depths.planes(rays)]
    if nerf["use_viewdirs"]:
        columns.append(normalize(directions, dim=-1))
    ours = {
        "rays": torch.stack([flat(origins), flat(directions)]).unflatten(1, origins.shape[:2]).flatten(1, 2),
        "ray_batch": flat(torch.cat(columns, dim=-1)),
    }
    raws = [flat(torch.cat([c[..., :3], r.raw], dim=-1)) for c, r in zip(colours, results, strict=True)]
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
    for name, value in ours.items():
        if f"{block}.{name}" in case.outputs:
            note(case, f"{block}.{name}", value)


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


def first_radius(config: dict) -> float | None:
    low, high = radius_range(config)
    return high if low < high else None


def query(case: Case, field: RadianceField) -> None:
    """The network at single points; each ray has a latent of its own, so it is a sample of its own."""
    points, directions, z = (case.inputs[f"query.{name}"] for name in ("points", "viewdirs", "z"))
    latent = codes(case.config, z)
    before: list[Tensor] = []
    activate = Tensor.relu_

    def remember(x: Tensor) -> Tensor:
        before.append(x.clone())
        return activate(x)

    colours: list[Tensor] = []
    last = field.output if field.output is not None else field.colour
    hook = last.register_forward_hook(lambda *call: colours.append(call[2]))
    ours = [unswap(x)[:, None] for x in (torch.zeros_like(directions), directions)]
    placed = unswap(points)[:, None]
    with patch.object(Tensor, "relu_", remember):
        raw, _ = field(Samples(*ours, torch.zeros(len(z), 1, points.shape[1]), placed), latent)
    hook.remove()
    parts = [positional_encoding(points, field.point_octaves), latent.shape_code]
    if field.view_octaves is not None:
        parts.append(positional_encoding(directions, field.view_octaves))
    parts.append(latent.appearance_code)
    parts = [x if x.dim() == 3 else x[:, None].expand(-1, points.shape[1], -1) for x in parts]
    case.compare("query.network_input", flat(torch.cat(parts, dim=-1)))
    case.compare("query.pts_linears", torch.stack([flat(x) for x in before[: len(field.layers)]]))
    case.relative("query.raw", torch.cat([colours[0][..., :3], raw], dim=-1)[:, 0])


def unswap(vectors: Tensor) -> Tensor:
    """Published vectors in our world; the way back from ``z_up``."""
    x, y, z = vectors.unbind(-1)
    return torch.stack([x, z, -y], dim=-1)


NUMBER = r"(-?[\d.]+(?:e-?\d+)?)"


@torch.no_grad()
def sampling(case: Case) -> None:
    meaning = {name: about.get("meaning", "") for name, about in case.info["outputs"].items()}
    size = len(case.outputs["rays_o"])
    fov = float(re.search(rf"fov {NUMBER}", meaning["focal"])[1])
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
    pixels = zoo.graf.rays.all_pixels(size)
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
    iteration = int(re.search(r"iteration (\d+)", meaning["img_to_patch"])[1])
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
        composite(case, block, background, float(re.search(rf"raw_noise_std {NUMBER}", meaning[f"{block}.rgb"])[1]))
    for name in [n for n in case.outputs if n.startswith("render_poses_swap")]:
        case.compare(name, trajectory(meaning[name], fov))
    gan = small_gan()
    steps = [int(i) for i in re.search(r"it = ([\d,]+)", meaning["noise_schedule"])[1].split(",")]
    case.compare("noise_schedule", torch.tensor([gan.noise_at(step) for step in steps]))


def small_gan(**kwargs) -> GRAF:
    generator = Generator(RadianceField(1, 1, 2), VolumeRenderer(AlongAxis(1, 2, 2)), OnSphere())
    make = partial(torch.optim.RMSprop, lr=1e-3)
    return GRAF(generator, Discriminator(32, 1), make, make, **kwargs)


def double_camera(azimuth: Tensor, polar: Tensor, radius: float, fov: float) -> Camera:
    """As drawn by the published scripts, which do not round to single precision."""
    return OnSphere(fov_deg=fov).camera(azimuth.reshape(-1, 1), polar.reshape(-1, 1), radius, torch.float64)


def trajectory(meaning: str, fov: float) -> Tensor:
    """The published script's camera path: around the vertical, or with ``swap`` up and down."""
    found = re.search(rf"\({NUMBER}, \({NUMBER}, {NUMBER}\), theta={NUMBER}, N=(\d+), swap=(\w+)\)", meaning)
    radius, first, last, fixed = (float(x) for x in found.groups()[:4])
    return path(radius, (first, last), fixed, int(found[5]), found[6] == "True", fov)


def path(radius: float, ends: tuple[float, float], fixed: float, n: int, swap: bool, fov: float) -> Tensor:
    moving = torch.linspace(*ends, n + 1, dtype=torch.float64)[:-1].clamp(min=0.1).deg2rad()
    still = torch.full_like(moving, math.radians(fixed))
    azimuth, polar = (still, moving) if swap else (moving, still)
    return published_pose(double_camera(azimuth, polar, radius, fov))


def composite(case: Case, block: str, background, noise: float) -> None:
    """The renderer on given outputs of a network."""
    raw, t, directions = (case.inputs[f"comp.{name}"][None] for name in ("raw", "z", "rays_d"))
    rays = Rays(torch.zeros_like(directions), directions)
    renderer = VolumeRenderer(lambda rays, draws: Samples(*rays[:2], t), Quadrature(background=background), chunk=None)
    draws = Replay([("final_density_noise", case.draws(block)[0])])
    result = renderer(lambda *_: (raw[..., 3:], raw[..., :3].sigmoid()), rays, None, draws, noise)
    case.compare(f"{block}.rgb", flat(result.features))
    note(case, f"{block}.disp", flat(disparity(result))[:, 0])
    case.compare(f"{block}.acc", flat(result.opacity)[:, 0])
    case.compare(f"{block}.weights", flat(result.weights))
    case.compare(f"{block}.depth", flat(result.depth)[:, 0])


@torch.no_grad()
def discriminator(case: Case) -> None:
    for of in case.config["models"]:
        size, prefix = of["imsize"], f"imsize{of['imsize']}"
        discriminator = load_discriminator(case, size, of["ndf"], f"discriminator.{prefix}.").eval()
        patches = to_map(case.inputs[f"patch{size}"].unflatten(0, (-1, size**2)))
        inputs, outputs = [], []

        def remember(module, given, result, inputs=inputs, outputs=outputs) -> None:
            inputs.append(given[0])
            outputs.append(result)

        for convolution in discriminator.convolutions:
            convolution.register_forward_hook(remember)
        case.compare(f"{prefix}.eval", discriminator(patches).scores[..., None, None])
        compare_activations(case, f"{prefix}.eval.act", discriminator.first_norm, inputs, outputs)
        if f"{prefix}.eval_hflip" in case.outputs:
            draws = Replay(published_draws(case, "hflip", {}))
            case.compare(f"{prefix}.eval_hflip", discriminator(random_flip(patches, draws)).scores[..., None, None])
        discriminator.train()
        case.compare(f"{prefix}.train1", discriminator(patches).scores[..., None, None])
        case.compare(f"{prefix}.train2", discriminator(patches).scores[..., None, None])
        for name, tensor in discriminator.state_dict().items():
            published = f"{prefix}.after.{published_name(name, DISCRIMINATOR[size])}"
            if published in case.outputs:
                case.compare(published, tensor)


def compare_activations(case: Case, prefix: str, first_norm: int, inputs: list, outputs: list) -> None:
    """Published layers in order: convolution, norm where there is one, activation."""
    layers = []
    for i, (given, result) in enumerate(zip(inputs[1:], outputs[:-1], strict=True)):
        layers += [result, instance_norm(result), given] if i >= first_norm else [result, given]
    layers.append(outputs[-1])
    for i, layer in enumerate(layers):
        name = f"{prefix}{i:02d}"
        if name in case.outputs:
            case.compare(name, layer)


def build_gan(kind: type[GRAF], case: Case, *args, **kwargs) -> GRAF:
    config, training = case.config, case.config["training"]
    assert training["optimizer"] == "rmsprop" and training["gan_type"] == "standard" and training["reg_type"] == "real"
    patches = build_patches(config)
    make = partial(torch.optim.RMSprop, alpha=0.99, eps=1e-8)
    nerf = config["nerf"]
    gan = kind(
        *args,
        generator=load_generator(case),
        discriminator=load_discriminator(case, patches.size, config["discriminator"]["ndf"], "discriminator."),
        optimizer_g=partial(make, lr=training["lr_g"]),
        optimizer_d=partial(make, lr=training["lr_d"]),
        patches=patches,
        r1_weight=training["reg_param"],
        density_noise=nerf["raw_noise_std"],
        noise_iterations=5000 if nerf["decrease_noise"] else 0,
        mirror=config["discriminator"]["hflip"],
        milestones=[int(i) for i in str(training["lr_anneal_every"]).split(",")],
        decay=training["lr_anneal"],
        **kwargs,
    )
    gan.iterations = config["iteration"]
    return gan


def losses(case: Case) -> None:
    config = case.config
    gan = build_gan(GRAF, case)
    size, noise = config["data"]["imsize"], config["raw_noise_std_used"]
    real = to_map(case.inputs["real_patches"].unflatten(0, (-1, gan.patches.size**2)))
    discriminator = gan.discriminator.forward = Watched(gan.discriminator.forward)

    draws = Replay(published_draws(case, "d_step", config, gan.patches))
    with torch.no_grad():
        fake = gan.generate(codes(config, case.inputs["z_d"]), size, draws, noise)
    terms = gan.loss_d(real, fake, draws)
    sum(terms.values()).backward()
    assert draws.used_up()
    (_, real_scores), (_, fake_scores) = discriminator.calls
    case.compare("d.real_scores", real_scores.scores.detach()[..., None, None])
    case.compare("d.fake_scores", fake_scores.scores.detach()[..., None, None])
    case.relative("d.loss", (terms["real"] + terms["fake"]).detach(), 1e-4)
    case.relative("d.reg", terms["r1"].detach(), 1e-4)
    found = gradients_of(gan.discriminator, DISCRIMINATOR[gan.patches.size])
    case.gradients("d.grad_norms", "d.grad.", found, case.config["d_param_order"])

    discriminator.calls.clear()
    draws = Replay(published_draws(case, "g_step", config, gan.patches))
    gan.discriminator.requires_grad_(False)
    fake = gan.generate(codes(config, case.inputs["z_g"]), size, draws, noise)
    terms = gan.loss_g(fake, draws)
    sum(terms.values()).backward()
    assert draws.used_up()
    case.compare("g.fake_scores", discriminator.calls[0][1].scores.detach()[..., None, None])
    case.relative("g.loss", terms["fake"].detach(), 1e-4)
    found = gradients_of(gan.generator, GENERATOR)
    case.gradients("g.grad_norms", "g.grad.", found, case.config["g_param_order"])


class Replayed(GRAF):
    """Training on recorded numbers and density noise, with a record of the losses."""

    def __init__(self, replay: Replay, noises: list[float], **kwargs) -> None:
        super().__init__(**kwargs)
        self.replay, self.noises, self.terms = replay, noises, {}

    def draws(self) -> Replay:
        return self.replay

    def noise_at(self, iteration: int) -> float:
        return self.noises.pop(0)  # the case begins in the middle, where the discriminator's is not the schedule's

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.terms[prefix] = {name: term.detach().clone() for name, term in terms.items()}
        super().accumulate(prefix, terms)


def step(case: Case) -> None:
    config, training = case.config, case.config["training"]
    patches = build_patches(config)
    recorded = []
    for block in ("patches", "d_step", "g_step"):
        if block != "patches":
            recorded.append(("z", case.inputs[f"z_{block[0]}"]))
        recorded += published_draws(case, block, config, patches)
    emas = {"ema": EMA(training["model_average_beta"])} if training["take_model_average"] else {}
    noises = [config["raw_noise_std_d_step"], config["raw_noise_std_g_step"]]
    gan = build_gan(Replayed, case, Replay(recorded), noises, emas=emas)
    gan.generator.prior = zoo.graf.gaussian  # the codes were recorded as they are
    table = DISCRIMINATOR[patches.size]
    if emas:
        state = {
            n.replace("_test.", ".", 1): t
            for n, t in case.weights("").items()
            if re.match(r"generator(_fine)?_test\.", n)
        }
        ema = gan.emas["ema"].module
        ema.load_state_dict(from_published(state, list(ema.state_dict()), GENERATOR))

    networks = {"d": by_published_name(gan.discriminator, table)}
    networks["generator"] = by_published_name(gan.generator, GENERATOR)
    if emas:
        networks["generator_test"] = by_published_name(gan.emas["ema"].module, GENERATOR)
    for name in ("generator", "generator_test"):
        networks |= split_networks(name, networks.pop(name, {}))
    # the optimizer has the second network's parameters after the first one's
    both = [networks["generator"], networks.get("generator_fine", {})]
    order = [part[name] for part in both for name in published_order(config, part)]
    fills = {"g": order, "d": [networks["d"][name] for name in config["d_param_order"]]}
    moments = [
        {
            parameter: {"square_avg": torch.full_like(parameter, value)}
            for parameter, value in zip(of, case.inputs[f"opt_{player}.square_avg_fill"].tolist(), strict=True)
        }
        for player, of in fills.items()
    ]
    before = {player: {n: p.detach().clone() for n, p in ps.items()} for player, ps in networks.items()}
    with patch.object(zoo.graf.training, "sample_patches", Watched(sample_patches)) as cuts:
        images = case.inputs["real_images"]
        train(gan, images, len(images), Before(moments))
    assert gan.replay.used_up() and not gan.noises

    case.compare("real_patches", cuts.calls[0][1].flatten(2).mT.reshape(-1, 3))
    d, g = gan.terms["loss_d"], gan.terms["loss_g"]
    case.each_relative("losses", torch.stack([d["real"] + d["fake"], d["r1"], g["fake"]]), 1e-4)
    state = {f"d.after.{published_name(n, table)}": t for n, t in gan.discriminator.state_dict().items()}
    for player, parameters in networks.items():
        if f"{player}.change_norms" in case.outputs:
            names = config[f"{player}_param_order"]
            changes = [case.change(parameters[n], before[player][n]).norm() for n in names]
            case.each_relative(f"{player}.change_norms", torch.stack(changes), 1e-2)
        state |= {f"{player}.after.{n}": p.detach() for n, p in parameters.items()}
    for name in case.outputs:
        if name in state:
            case.relative(name, state[name])


def split_networks(name: str, parameters: dict[str, nn.Parameter]) -> dict[str, dict[str, nn.Parameter]]:
    """generator or generator_test as its published parts, under names without the part's."""
    fine = name.replace("generator", "generator_fine")
    parts: dict[str, dict[str, nn.Parameter]] = {}
    for published, parameter in parameters.items():
        part, rest = published.split(".", 1)
        parts.setdefault({"generator": name, "generator_fine": fine}[part], {})[rest] = parameter
    return parts


def published_order(config: dict, part: dict[str, nn.Parameter]) -> list[str]:
    """Names of a network's parameters in the order in which the published code made them."""
    return sorted(part, key=config["generator_param_order"].index)


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

    seen = int(re.search(r"render_poses\[(\d+)\]", case.info["outputs"]["grid.rgb"]["meaning"])[1])
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


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """The file of a training run: every tensor, and what is drawn with them."""
    config, data = case.config, case.config["data"]
    nerf, z = config["nerf"], config["z_dist"]
    place = Place(case.folder / "model.pt")
    contents = read(place)
    assert contents.names == case.info["files"]["model.pt"]["pickle_globals"]
    assert graf.part(contents) == "generator" and len(graf.experiments(contents)) > 0
    experiment = {
        "class_path": "zoo.graf.Generator",
        "init_args": {
            "field": {
                "class_path": "zoo.graf.RadianceField",
                "init_args": {"point_octaves": nerf["multires"], "view_octaves": nerf["multires_views"]},
            },
            "renderer": {
                "class_path": "zoo.render.VolumeRenderer",
                "init_args": {
                    "depths": {
                        "class_path": "zoo.graf.AlongAxis",
                        "init_args": {
                            "near": data["near"],
                            "far": data["far"],
                            "samples": nerf["N_samples"],
                            "radius": radius_range(config)[1],
                        },
                    },
                    "quadrature": {"background": f"zoo.render.{'white' if data['white_bkgd'] else 'black'}"},
                },
            },
            "poses": {"class_path": "zoo.graf.OnSphere", "init_args": {"fov_deg": data["fov"]}},
            "resolution": data["imsize"],
        },
    }
    for weights, prefix in (("raw", "generator."), ("ema", "generator_test.")):
        made = convert_network(graf, place, contents, experiment, weights)
        assert made.network.field.appearance_dim == z["dim_appearance"] and not made.unused
        back, expected = to_published(made.network.state_dict(), GENERATOR), case.published(prefix)
        back = {name.removeprefix("generator."): tensor for name, tensor in back.items()}
        assert same_tensors(back, expected)
        made.network.load_state_dict({n: case.cast(t) for n, t in made.network.state_dict().items()})
        camera = our_camera(case.inputs["poses"], data["fov"])
        latent = made.network.map(codes(config, case.inputs["z"]))
        case.compare(f"image_{weights}", made.network.render(latent, camera).image)
    assert made.card["iterations"] == contents.value["it"]

    size = math.isqrt(config["ray_sampler"]["N_samples"])
    discriminator, expected = Discriminator(size, config["discriminator"]["ndf"]), case.published("discriminator.")
    table = DISCRIMINATOR[size]
    discriminator.load_state_dict(
        from_published(contents.value["discriminator"], list(discriminator.state_dict()), table)
    )
    back = to_published(discriminator.state_dict(), table)
    assert same_tensors(back, expected)


KINDS = {
    "checkpoint": checkpoint,
    "render": render,
    "sampling": sampling,
    "discriminator": discriminator,
    "losses": losses,
    "step": step,
    "inference": inference,
}

# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {}

# Outputs whose tolerance may be over ten times the usual, by kind of case and pattern of names: how often, and why.
ENCODING = "places of samples are rounded to float32, and the encoding's highest frequency is 2^9 per world unit"
NEARLY_EMPTY = "in cells which are nearly empty rounding moves importance samples a thousand times as far"
KINKS = f"{ENCODING}; units of the discriminator that are that near zero have one slope or another"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render_hierarchical": {r".*\.fine_samples": (300, NEARLY_EMPTY)},
    "render": {r"(full|patch)\.(weights|coarse_weights|depth_map|rgb.*|image|acc|extra\..*)": (300, ENCODING)},
    "inference": {
        r"grid\.(rgb|acc)": (300, ENCODING),
        r"(grid\.)?depth_colour": (300, "colours of 256 levels, cut off"),
    },
    "checkpoint": {r"image_.*": (300, ENCODING)},
    "losses": {r"g\.loss|[dg]\.fake_scores": (300, ENCODING), r"[dg]\.grad.*": (300, KINKS)},
    "step": {r"losses": (300, ENCODING)},
}
