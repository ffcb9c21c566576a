"""How the published EG3D's arguments, names and draws translate into ours."""

import copy
import json
import math
import re
from collections.abc import Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, softplus

import zoo.eg3d.training
from tests.parity.harness import Case, Followed, Replay, Watched, by_published_name, same_tensors, train
from zoo.eg3d import convert as eg3d
from zoo.eg3d.cameras import LookAtPoses, camera_of, centred, label_of, published_focal
from zoo.eg3d.convert import FACES, GENERATOR, MODULES, axes_of, discriminator_config, generator_config, table
from zoo.eg3d.discriminator import DualDiscriminator, pair
from zoo.eg3d.extras import published_depth
from zoo.eg3d.field import AXES, BoxLimits, FixedLimits, SmoothedImportance, TriPlaneField, interval_weights
from zoo.eg3d.model import Generator, Latent, Styles
from zoo.eg3d.synthesis import Superresolution
from zoo.eg3d.training import EG3D, DensityTV, Monotonic, RampedDecay
from zoo.layers.ada import Augmentation
from zoo.layers.stylegan2 import minibatch_stddev
from zoo.losses import r1_penalty
from zoo.render import (
    Camera,
    DatasetPoses,
    Integrated,
    MidpointQuadrature,
    Rays,
    Samples,
    SpherePoses,
    VolumeRenderer,
    pixel_centres,
    shifted_softplus,
    through,
    to_map,
    white,
)
from zoo.training.ema import EMA
from zoo.training.schedules import LinearSchedule
from zoo.weights.bundle import UNUSED, build
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, published_name, to_published, with_noise_axes, without_noise_axes
from zoo.weights.read import Place, module_state, read

# Published arguments


def load(case: Case, network: nn.Module, state: dict[str, Tensor], names: list) -> Any:
    """The network with a published state dict, in which stored noise may be left out."""
    state = with_noise_axes(state)
    for name, tensor in network.state_dict().items():
        if name.endswith("noise.stored"):
            state.setdefault(published_name(name, names), case.cast(torch.zeros_like(tensor)))
    ours = from_published(state, list(network.state_dict()), names)
    unused = [name for name in ours if name.startswith(UNUSED)]
    odd = [n for n in unused if not re.search(r"resample_filter$|dataset_label_std$|noise_(const|strength)$", n)]
    assert not odd, odd
    missing, _ = network.load_state_dict({n: t for n, t in ours.items() if n not in unused}, strict=False)
    assert set(missing) <= {"render_side"}, missing
    return network.eval()


def made(config: dict[str, Any]) -> Any:
    """What a config builds; a copy where it was built before, since the parser takes longer than most cases."""
    return copy.deepcopy(built(json.dumps(config), torch.get_default_dtype()))


@cache
def built(config: str, dtype: torch.dtype) -> nn.Module:
    return build(json.loads(config), nn.Module)


def load_generator(case: Case, without: str = "", **changed: Any) -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        without: an entry of its ``rendering_kwargs`` that is left out.
        changed: other values of them.
    """
    given = case.config["generator"]
    marching = {name: v for name, v in given["rendering_kwargs"].items() if name != without} | changed
    config = generator_config(given, marching, case.config["geometry"])
    generator = load(case, made(config), case.weights("generator."), GENERATOR)
    generator.renderer.chunk = None  # so that parts can be watched
    return generator


def load_discriminator(case: Case, **changed: Any) -> DualDiscriminator:
    network = made(discriminator_config(case.config["discriminator"] | changed))
    return load(case, network, case.weights("discriminator."), table(network))


# Draws


class Silent:
    """No noise at all: the published noise_mode "none"."""

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.zeros(tuple(shape))


def recorded(case: Case, block: str) -> list[tuple[str, Tensor]]:
    """The draws of a block, by our names, which follow from their order, kinds and shapes."""
    side, sides = case.config["geometry"]["plane_resolution"], []
    while side >= 4:
        sides.insert(0, side)
        side //= 2
    planes = [f"planes{side}_{i}" for side in sides for i in (0, 1) if side > 4 or i == 1]
    large = [f"image{side}_{i}" for side in case.config["geometry"]["sr_block_resolutions"] for i in (0, 1)]
    pairs: list[tuple[str, Tensor]] = []
    for name, numbers in case.named_draws(block).items():
        done = [of for of, _ in pairs]
        match re.sub(r".*\d_", "", name), numbers.shape:
            case "randn", [_, 1, _, _]:
                ours = planes[sum(n.startswith("planes") for n in done) % len(planes)]
                if not ours.startswith(f"planes{numbers.shape[-1]}_"):
                    ours = large[sum(n.startswith("image") for n in done) % len(large)]
            case "rand_like", _:
                ours = "jitter"
            case "randn_like", [_, _, 3]:
                ours = "offsets"
            case "randn_like", _:
                ours = "fine_density_noise" if "coarse_density_noise" in done else "coarse_density_noise"
            case "rand", []:
                ours = "swap_all"
            case "rand", [_, 1]:
                ours = "swap"
            case "rand", [_, _, 3]:
                ours = "points"
            case "rand", [_, _]:
                ours = "importance"
            case unknown:
                raise AssertionError(f"{name}: {unknown}")
        pairs.append((ours, numbers))
    return pairs


def styles_of(case: Case, generator: Generator, w: Tensor, mode: str, draws: Replay) -> Styles:
    """Styles with the published noise_mode."""
    return generator.styles(w, {"const": None, "none": Silent(), "random": draws}[mode])


# Kinds of case


@torch.no_grad()
def render(case: Case) -> None:
    for run, settings in case.config["runs"].items():
        one_run(case, run, settings)


def one_run(case: Case, run: str, of: dict[str, Any]) -> None:
    """A rendering with everything on the way."""
    start = "" if run == "main" else f"{run}."
    n = of.get("samples_of_the_batch_used", len(case.inputs["z"]))
    generator = load_generator(case, **of.get("rendering_kwargs_changed", {}))
    renderer, field = generator.renderer, generator.field
    side = of.get("neural_rendering_resolution", round(generator.render_side.item()))
    camera = camera_of(case.inputs.get(f"{run}.c", case.inputs["c"])[:n])
    condition = camera_of(case.inputs["c_conditioning"][:n])
    draws = Replay(recorded(case, run))
    if generator_mode(case, of) == "const":
        for block in (generator.superresolution.first, generator.superresolution.second):
            for i, layer in enumerate((block.first, block.second)):
                draws.queues[f"image{block.resolution}_{i}"] = [layer.noise.stored.expand(n, -1, -1, -1)]
    w = generator.map(Latent(case.inputs["z"][:n]), truncation=of.get("truncation_psi", 1), condition=condition).w
    styles = styles_of(case, generator, w, of["noise_mode"], draws)

    if renderer.fine is not None:
        given = [case.cast(case.outputs[start + k]) if start + k in case.outputs else None for k in FOLLOWED]
        weights = None if given[0] is None else halves(given[0][..., 0])
        renderer.fine = Followed(renderer.fine, weights, given[1])
    watched = field.forward = Watched(field.forward)
    marched = renderer.forward = Watched(renderer.forward)
    inside: dict[str, Any] = {}
    generator.superresolution.first.register_forward_hook(lambda _, args, out: inside.update(args=args, out=out))
    rendered = generator.render(styles, camera, draws=draws, render_side=side)
    assert draws.used_up(), draws.queues.keys()
    ((_, integrated),) = marched.calls
    ((coarse, _), (coarse_raw, coarse_colours)), *rest = watched.calls
    features = 2 * to_map(integrated.features) - 1
    ours = {
        "ws": w,
        "planes": styles.planes.flatten(1, 2),
        "ray_origins": coarse.origins,
        "ray_directions": coarse.directions,
        "depths_coarse": coarse.t[..., None],
        "densities_coarse": coarse_raw,
        "colors_coarse": coarse_colours,
        "depths_all": integrated.samples.t[..., None],
        "weights_all": interval_weights(integrated.weights)[..., None],
        "weights_sum": integrated.opacity,
        "feature_image": features,
        "sr_input_rgb": inside["args"][1],
        "sr_block0_x": inside["out"][0],
        "sr_block0_rgb": inside["out"][1],
        "image_raw_rendered": features[:, :3],
        "image_raw": rendered.raw,
        "image_depth": to_map(published_depth(integrated)),
        "image": rendered.image,
    }
    if rest:
        ours["weights_coarse"] = interval_weights(renderer.fine.weights)[..., None]
        ours["depths_fine"] = renderer.fine.t[..., None]
        ours["densities_fine"] = rest[0][1][0]
    if run == "main" and "points" in case.inputs:
        nothing = torch.zeros_like(case.inputs["points"])
        points = Samples(nothing, nothing, nothing[..., :1], case.inputs["points"][:, :, None])
        ours["points_density"], ours["points_color"] = (x[:, :, 0] for x in field(points, styles.planes))
    for name in [name for name in case.outputs if name.startswith(start) and (start or "." not in name)]:
        value = cut(case, name, ours)
        (case.relative if "densit" in name else case.scores)(name, value)


FOLLOWED = ("weights_coarse", "depths_fine")


def generator_mode(case: Case, of: dict[str, Any]) -> str:
    """The published noise_mode of the superresolution."""
    marching = case.config["generator"]["rendering_kwargs"] | of.get("rendering_kwargs_changed", {})
    return marching.get("superresolution_noise_mode", "none")


def halves(intervals: Tensor) -> Tensor:
    """Weights of samples [B, R, S] of those of intervals [B, R, S - 1], which give a half to both of their ends."""
    return (pad(intervals, (0, 1)) + pad(intervals, (1, 0))) / 2


def cut(case: Case, name: str, ours: dict[str, Tensor]) -> Tensor:
    """The part of our tensor that was recorded, as its meaning says."""
    key, about = name.split(".")[-1], case.info["outputs"][name]["meaning"]
    whole = next(ours[n] for n in (key, re.sub(r"_(mean\d+|corner|centre|crop)$", "", key)) if n in ours)
    if found := re.search(r"every (\d+)th ray", about):
        whole = whole[:, :: int(found[1])]
    if found := re.search(r"_mean(\d+)$", key):
        whole = avg_pool2d(whole, int(found[1]))
    if key.endswith("_corner"):
        height, width = case.outputs[name].shape[2:]
        whole = whole[..., :height, :width]
    if found := re.search(r"rows and columns (\d+)\.\.(\d+)", about):
        part = slice(int(found[1]), int(found[2]) + 1)
        whole = whole[..., part, part]
    return whole[: len(case.outputs[name])]


@torch.no_grad()
def planes(case: Case) -> None:
    planes, points, of = case.inputs["planes"], case.inputs["points"], case.config["decoder"]
    assert axes_of(case.outputs["plane_axes"]) == "official"
    case.compare("projections", torch.stack([points[..., pair] for pair in AXES["official"]], dim=1))
    for name in case.outputs:
        if found := re.fullmatch(r"features_(fixed_)?([\d.]+)", name):
            axes = "fixed" if found[1] else "official"
            field = TriPlaneField(planes.shape[2], extent=float(found[2]), plane_axes=axes)
            case.compare(name, field.look_up(points, planes))
    field = TriPlaneField(of["n_features"], feature_dim=of["decoder_output_dim"], rate=of["decoder_lr_mul"])
    state = {f"decoder.{name}": t for name, t in case.weights("decoder.").items()}
    ours = {f"field.{name}": name for name in field.state_dict()}
    field.load_state_dict({name: state[published_name(key, GENERATOR)] for key, name in ours.items()})
    raw, colours = field.decode(case.cast(case.outputs["features_1"]).mean(1))
    case.compare("decoder_rgb", colours)
    case.relative("decoder_sigma", raw)


@torch.no_grad()
def sampling(case: Case) -> None:
    for i, fov in enumerate(case.config["fov_degrees"]):
        case.outputs[f"intrinsics{i}"] = case.outputs["intrinsics"][i, 0, 0]
        case.compare(f"intrinsics{i}", published_focal(fov))
    focal = torch.tensor([published_focal(fov) for fov in case.config["fov_degrees"]])
    case.compare("intrinsics", intrinsics(focal))
    for i, of in enumerate(case.config["lookat"]):
        v, pivot = of["vertical_mean"], tuple(of["lookat_position"])
        poses = LookAtPoses(math.pi - of["horizontal_mean"], 0, v, 0, of["radius"], pivot=pivot)
        guide = 1e-4 if 0.01 < v < math.pi - 0.01 else 1e-2  # near a pole float32 has few digits left of arccos
        case.compare(f"lookat_{i}", published_pose(poses(1, None)), guide)
    of = case.config["samplers"]
    means = {"yaw_mean": math.pi - of["horizontal_mean"], "pitch_mean": of["vertical_mean"], "radius": of["radius"]}
    spreads = {"yaw_spread": of["horizontal_stddev"], "pitch_spread": of["vertical_stddev"]}
    for name, poses in {
        "gaussian": LookAtPoses(**means, **spreads),
        "uniform": SpherePoses(**means, yaw_spread=math.pi, pitch_spread=math.pi / 2),
        "lookat_random": LookAtPoses(**means, **spreads, pivot=(0.0, 0.0, 0.2)),
    }.items():
        yaw, pitch = case.draws(name)
        draws = Replay([("yaw", 1 - yaw if name == "uniform" else yaw), ("pitch", pitch)])
        case.compare(name, published_pose(poses(len(yaw), draws)))

    raw = camera_of(torch.cat([case.inputs["raw_pose"].flatten().to(case.dtype), torch.zeros(9)])[None])
    about = (0.0, 0.0, 0.175)
    case.compare("fix_pose_orig", published_pose(centred(raw))[0])
    case.compare("fix_pose_cor", published_pose(centred(raw, centre=about))[0])
    case.compare("fix_pose_simplify", published_pose(centred(raw, centre=about, facing=True))[0])
    case.compare("flip_yaw", published_pose(raw.mirrored())[0])
    case.compare("fix_intrinsics", intrinsics(0.5 / torch.tensor([math.radians(FACES / 2)]).tan())[0])

    label = torch.cat([case.inputs[f"rays.{name}"].flatten(1) for name in ("cam2world", "intrinsics")], dim=1)
    side = math.isqrt(case.outputs["rays.origins"].shape[1])
    rays = through(camera_of(label), pixel_centres(side))
    case.compare("rays.origins", rays.origins)
    case.compare("rays.directions", rays.directions)
    box = BoxLimits(number(case, "rays.box_near", r"side ([\d.]+)"), case.outputs["stratified_auto"].shape[2])
    for name, value in zip(("rays.box_near", "rays.box_far"), box.hits(rays), strict=True):
        case.compare(name, value)
    for name, value in zip(("auto_near", "auto_far"), box.limits(rays), strict=True):
        case.compare(name, value)
    near, far = (number(case, "stratified", p) for p in (r"limits ([\d.]+)\.\.", r"\.\.([\d.]+),"))
    count = case.outputs["stratified"].shape[2]
    for name, depths in {
        "stratified": FixedLimits(near, far, count),
        "disparity": FixedLimits(near, far, count, disparity=True),
        "stratified_auto": box,
    }.items():
        case.compare(name, depths(rays, Replay([("jitter", case.draws(name)[0])])).t[..., None])

    t, weights = (case.inputs[f"importance.{name}"][..., 0] for name in ("depths", "weights"))
    (drawn,) = case.draws("importance")
    fine = SmoothedImportance(drawn.shape[1])(t, halves(weights), Replay([("importance", drawn)]))
    case.compare("importance", fine[..., None])
    colours, raw, t = (case.inputs[f"march.{name}"] for name in ("colors", "densities", "depths"))
    for end, options in (("", {}), ("_white", {"background": white})):
        marched = march(MidpointQuadrature(density=shifted_softplus, **options), colours, raw, t[..., 0])
        case.compare(f"march.rgb{end}", 2 * marched.features - 1)
        case.compare(f"march.depth{end}", published_depth(marched))
        case.compare(f"march.weights{end}", interval_weights(marched.weights)[..., None])


def number(case: Case, name: str, pattern: str) -> float:
    """What the meaning of an output says."""
    return float(re.search(pattern, case.info["outputs"][name]["meaning"])[1])


def published_pose(camera: Camera) -> Tensor:
    return label_of(camera)[:, :16].unflatten(1, (4, 4))


def intrinsics(focal: Tensor) -> Tensor:
    """Intrinsics [B, 3, 3] of focal lengths [B]."""
    matrix = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], dim=-1))
    matrix[:, :2, 2] = 0.5
    return matrix


def march(quadrature: MidpointQuadrature, colours: Tensor, raw: Tensor, t: Tensor) -> Integrated:
    """Compositing of given samples: a field that knows them already."""
    rays = Rays(torch.zeros(*t.shape[:2], 3), torch.tensor([0.0, 0.0, 1.0]).expand(*t.shape[:2], 3))
    renderer = VolumeRenderer(lambda rays, draws: Samples(rays.origins, rays.directions, t), quadrature, chunk=None)
    return renderer(lambda samples, _: (raw, colours), rays, None)


@torch.no_grad()
def superresolution(case: Case) -> None:
    for module, of in case.config["modules"].items():
        network = Superresolution(
            **MODULES[module],
            low=of["sr_input_resolution"],
            channels=of["sr_block_channels"],
            feature_dim=of["feature_channels"],
            w_dim=of["w_dim"],
        )
        whole = nn.ModuleDict({"superresolution": network})
        load(case, whole, {f"superresolution.{n}": t for n, t in case.weights(f"{module}.").items()}, GENERATOR)
        for name in case.outputs:
            if found := re.fullmatch(rf"({re.escape(module)}\.\w+)\.image", name):
                features, w = (case.inputs[f"{found[1]}.{part}"] for part in ("feature", "ws"))
                image, raw = network(features, w[:, -1])
                case.scores(name, image)
                case.scores(f"{found[1]}.rgb_after", raw)


@torch.no_grad()
def augment(case: Case) -> None:
    changes = "xflip rotate90 xint scale prerotate aniso postrotate xfrac brightness contrast lumaflip hue saturation"
    names = [name for change in changes.split() for name in (change, f"{change}_gate")]
    gan = SimpleNamespace(sigma=0.0, augment=Augmentation(probability=case.config["p"]))
    draws = Replay([*zip(names, case.draws("pipe"), strict=True)])
    image, raw = EG3D.seen(gan, case.inputs["image"], case.inputs["image_raw"], draws)
    case.compare("image", image)
    case.compare("image_raw", raw)


@torch.no_grad()
def discriminator(case: Case) -> None:
    network, camera = load_discriminator(case), camera_of(case.inputs["c"])
    images = as_images(case, case.inputs["image_uint8"])
    raw, other, large = (case.inputs[f"image_raw{end}"] for end in ("", "_b", "_large"))
    case.compare("raw_resized", pair(images[:1], raw[:1])[:, 3:])
    case.compare("raw_large_resized", pair(images[:1], large)[:, 3:])
    case.scores("cmap", network.camera_features(case.inputs["c"]))
    network.features = Watched(network.features)
    case.scores("score", network(images, raw, camera).scores)
    features = network.features.calls[0][1]
    case.scores("features_4x4", features)
    case.compare("minibatch_std_channel", minibatch_stddev(features, network.groups)[:, -1:])
    case.scores("score_b", network(images, other, camera).scores)
    case.scores("score_batch2", network(images[:2], raw[:2], camera.take(slice(2))).scores)
    case.scores("score_large_raw", network(images[:1], large, camera.take(slice(1))).scores)
    times = float(re.search(r"x (\d+)", case.config["runs"]["clamp"])[1])
    case.scores("score_clamp", network(times * images, times * raw, camera).scores)
    case.scores("score_swapped", network(images, raw, Camera(*(x.roll(1, 0) for x in camera))).scores)
    noisy = load_discriminator(case, disc_c_noise=case.config["disc_c_noise_of_run_noise"])
    draws = Replay([("camera_noise", case.draws("noise")[0])] * 2)
    case.scores("score_noise", noisy(images, raw, camera, draws).scores)
    case.compare("c_after_noise", noisy.label(camera, draws))  # theirs is changed in place


def as_images(case: Case, values: Tensor) -> Tensor:
    return values.to(case.dtype) / 127.5 - 1


def build_gan(case: Case, reg_type: str = "l1", kind: type[EG3D] = EG3D, **options: Any) -> EG3D:
    """Our training for the published arguments."""
    of, marching = case.config["loss"], case.config["generator"]["rendering_kwargs"]
    growth, last = None, of["neural_rendering_resolution_final"]
    if last is not None:
        fade = of["neural_rendering_resolution_fade_kimg"]
        growth = LinearSchedule(of["neural_rendering_resolution_initial"], last, 1000 * fade)
    swap = of["gpc_reg_prob"]
    smooth = DensityTV(marching["density_reg"], spread=None)
    regulariser = {
        "l1": DensityTV(marching["density_reg"], marching["density_reg_p_dist"]),
        "monotonic-detach": Monotonic(detached=True, smooth=smooth),
        "monotonic-fixed": Monotonic(detached=False, smooth=smooth),
    }[reg_type]
    options = {"optimizer_g": torch.optim.Adam, "optimizer_d": torch.optim.Adam} | options
    return kind(
        load_generator(case).train(),
        load_discriminator(case).train(),
        swap=None if swap is None else LinearSchedule(1, swap, 1000 * of["gpc_reg_fade_kimg"]),
        blur=LinearSchedule(of["blur_init_sigma"], 0, 1000 * of["blur_fade_kimg"]),
        growth=growth,
        regulariser=regulariser,
        r1_weight=of["r1_gamma"],
        **options,
    )


def draw_from(generator: Generator, labels: Tensor) -> None:
    """Draw cameras from these labels."""
    generator.poses = DatasetPoses()
    generator.poses.fill(camera_of(labels))


def camera_draws(index: Tensor, of: int) -> Tensor:
    """The draws that choose cameras."""
    return (index + 0.5) / of


def losses(case: Case) -> None:
    real, camera = as_images(case, case.inputs["real_uint8"]), camera_of(case.inputs["real_c"])
    for mode, phases in case.config["modes"].items():
        for phase, of in phases.items():
            gan = build_gan(case, of["reg_type"], density_every=of["gain"], r1_every=of["gain"])
            gan.images_seen, n = of["cur_nimg"], of["batch"]
            draw_from(gan.generator, case.inputs["gen_c"])
            cameras = camera_draws(torch.arange(n), len(case.inputs["gen_c"]))
            draws = Replay([*recorded(case, f"{mode}.{phase}"), ("z", case.inputs["gen_z"][:n]), ("camera", cameras)])
            one_phase(case, f"{mode}.{phase}", gan, real[:n], camera.take(slice(n)), draws)


def one_phase(case: Case, name: str, gan: EG3D, real: Tensor, camera: Camera, draws: Replay) -> None:
    """One phase of the published training: its losses and their gradients."""
    n, scored = len(real), Watched(gan.score)
    gan.grow()
    (reals,) = gan.reals(real, camera)
    gan.score = scored
    network = gan.generator if ".G" in name else gan.discriminator
    kind, ours = name.split(".")[-1], {}
    if kind == "Gmain":
        backward = list(gan.loss_g(n, draws).values())
    elif kind == "Greg":
        backward = list(gan.loss_density(n, draws).values())
    elif kind == "Dmain":
        backward = [gan.loss_fake(n, draws)["fake"], gan.loss_real(reals, draws)["real"]]
        fakes, scores = (result for _, result in scored.calls)
        ours = {"w_avg": gan.generator.mean_w, "Loss_D_loss": softplus(fakes) + softplus(-scores)}
    else:
        backward = [gan.loss_r1(reals, draws)["r1"]]
    scores = [result for _, result in scored.calls]
    if kind.startswith("D"):
        ((*seen, _, _), result) = scored.calls[-1]
        ours |= {"Loss_scores_real": result, "d_image": seen[0], "d_image_raw": seen[1]}
    if kind == "Dreg":
        gradients = torch.autograd.grad(scores[0].sum(), seen, retain_graph=True)
        ours["Loss_r1_penalty"] = sum(x.square().flatten(1).sum(1) for x in gradients)
        ours["Loss_D_reg"] = gan.r1_weight / 2 * ours["Loss_r1_penalty"]
    if kind in ("Gmain", "Dmain"):
        ours["Loss_scores_fake"] = scores[0]
    if kind == "Gmain":
        ours["Loss_G_loss"] = softplus(-scores[0])
    ours |= {
        f"Loss_signs_{of}": ours[f"Loss_scores_{of}"].sign() for of in ("fake", "real") if f"Loss_scores_{of}" in ours
    }
    for key, value in ours.items():
        if (output := f"{name}.{key}") in case.outputs:
            value = value[: len(case.outputs[output])]
            (case.relative if "Loss" in key else case.compare)(output, value, 1e-4)
    case.relative(f"{name}.backward", torch.stack(backward), 1e-4)
    if f"{name}.grad_norms" not in case.outputs:
        return
    network.zero_grad()
    sum(backward).backward()
    gradients = {n: p.grad for n, p in by_published_name(network, table(network)).items()}
    compare_norms(case, f"{name}.grad_norms", gradients)
    for output in case.outputs:
        if output.startswith(f"{name}.grad."):
            ours_ = gradients[output.removeprefix(f"{name}.grad.")]
            case.relative(output, torch.zeros_like(case.outputs[output]) if ours_ is None else ours_)


# Gradients that cancel: what is recorded of them is rounding noise.
CANCELS = {"Greg": ["decoder.net.2.bias"]}


def compare_norms(case: Case, name: str, ours: dict[str, Tensor | None], share: float = 1e-3) -> None:
    """Compare norms, each in units of its own, in the published order of parameters.

    What our network does not have, since nothing reads it, has norm zero.
    """
    order = case.info["config"]["parameter_order"]["discriminator" if ".D" in name else "generator"]
    assert set(ours) <= set(order), set(ours) - set(order)
    without = next((names for phase, names in CANCELS.items() if f".{phase}." in name), [])
    kept = [i for i, parameter in enumerate(order) if parameter not in without]
    case.outputs[name] = case.outputs[name][kept]
    norms = [torch.zeros(()) if ours.get(order[i]) is None else ours[order[i]].norm().to(case.device) for i in kept]
    case.each_relative(name, torch.stack(norms), share)


class Replayed(EG3D):
    """Training on recorded numbers."""

    def draws(self) -> Replay:
        return self.replays[self.iterations]


class After(pl.Callback):
    """Compares the state after each iteration."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def on_train_start(self, trainer: pl.Trainer, gan: EG3D) -> None:
        self.before = {n: {k: p.detach().clone() for k, p in of.items()} for n, of in self.parameters(gan).items()}

    def parameters(self, gan: EG3D) -> dict[str, dict[str, nn.Parameter]]:
        networks = {"G": gan.generator, "G_ema": gan.emas["ema"].module, "D": gan.discriminator}
        return {name: by_published_name(network, table(network)) for name, network in networks.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, gan: EG3D, *_: Any) -> None:
        case, start = self.case, f"it{gan.iterations - 1}"
        for name, values in self.parameters(gan).items():
            changes = {key: case.change(p, self.before[name][key]) for key, p in values.items()}
            compare_norms(case, f"{start}.{name}.change_norms", changes, 1e-2)
            means = {"G": gan.generator, "G_ema": gan.emas["ema"].module}
            if name in means:
                case.compare(f"{start}.{name}.w_avg", means[name].mean_w)
            for output in case.outputs:
                if (key := output.removeprefix(f"{start}.{name}.")) in values and key != output:
                    case.relative(output, values[key], 1e-2)

    def on_train_end(self, trainer: pl.Trainer, gan: EG3D) -> None:
        for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
            values = self.parameters(gan)[name]
            states = {key: optimizer.state[p] for key, p in values.items() if p in optimizer.state}
            moments = {key: state["exp_avg_sq"] for key, state in states.items()}
            compare_norms(self.case, f"end.{name}.second_moment_norms", moments)
            compare_norms(self.case, f"end.{name}.optimizer_steps", {k: s["step"] for k, s in states.items()})


def step(case: Case) -> None:
    of, n = case.config, case.config["batch_size"]
    labels = case.inputs["labels"]
    optimizers = {
        f"optimizer_{p.lower()}": partial(
            torch.optim.Adam, lr=of["effective"][f"{p} lr"], betas=of["effective"][f"{p} betas"]
        )
        for p in ("G", "D")
    }
    every = {"density_every": of["optimizer"]["G"]["reg_interval"], "r1_every": of["optimizer"]["D"]["reg_interval"]}
    decay = RampedDecay(1000 * of["ema_kimg"], n, of["ema_rampup"])
    gan = build_gan(case, kind=Replayed, emas={"ema": EMA(decay)}, at_once=of["batch_gpu"], **optimizers, **every)
    gan.images_seen = of["cur_nimg_at_start"]
    gan.emas["ema"].updates = gan.images_seen // n
    draw_from(gan.generator, labels)
    draw_from(gan.emas["ema"].module, labels)
    phases = [phase["name"] for phase in of["phases"]]
    gan.replays = []
    for start in dict.fromkeys(name.split(".")[0] for name in phases):
        z, *index = case.draws(f"{start}.data")
        cameras = camera_draws(torch.stack(index).to(case.dtype), len(labels))
        pairs = []
        for i, phase in enumerate(("Gmain", "Greg", "Dmain")):
            if f"{start}.{phase}" in phases:
                for first in range(i * n, (i + 1) * n, of["batch_gpu"]):
                    part = slice(first, min(first + of["batch_gpu"], (i + 1) * n))
                    pairs += [("z", z[part]), ("camera", cameras[part])]
                pairs += recorded(case, f"{start}.{phase}")
        gan.replays.append(Replay(pairs))
    scored, reg = Watched(gan.score), Watched(gan.loss_density)
    gan.score, gan.loss_density, penalties = scored, reg, []

    def watched_penalty(scores: Tensor, *images: Tensor) -> Tensor:
        gradients = torch.autograd.grad(scores.sum(), images, retain_graph=True)
        penalties.append(sum(x.square().flatten(1).sum(1) for x in gradients))
        return r1_penalty(scores, *images)

    images = as_images(case, case.inputs["real_uint8"])
    with patch.object(zoo.eg3d.training, "r1_penalty", watched_penalty):
        train(gan, images, n, After(case), cameras=camera_of(labels))
    assert gan.iterations == len(gan.replays) and all(draws.used_up() for draws in gan.replays)
    scores = [result.detach() for _, result in scored.calls]
    for phase in phases:
        kind, ours, backward = phase.split(".")[-1], {}, []
        for _ in range(0, n, of["batch_gpu"]):  # what parts of a batch report is one after the other
            now = {}
            if kind == "Gmain":
                fake = scores.pop(0)
                now = {"Loss_scores_fake": fake, "Loss_G_loss": softplus(-fake)}
                backward.append(softplus(-fake).mean())
            if kind == "Dmain":
                fake, real = scores.pop(0), scores.pop(0)
                terms = softplus(fake), softplus(-real)
                now = {"Loss_scores_fake": fake, "Loss_scores_real": real, "Loss_D_loss": sum(terms)}
                backward += [term.mean() for term in terms]
            if kind == "Dreg":
                penalty = penalties.pop(0)
                now = {"Loss_scores_real": scores.pop(0), "Loss_r1_penalty": penalty}
                now["Loss_D_reg"] = gan.r1_weight / 2 * penalty
                backward.append(gan.r1_every * now["Loss_D_reg"].mean())
            if kind == "Greg":
                backward += [term.detach() for term in reg.calls.pop(0)[1].values()]
            ours = {name: torch.cat([ours[name], value]) if ours else value for name, value in now.items()}
        ours["backward"] = torch.stack(backward)
        for name, value in ours.items():
            case.relative(f"{phase}.{name}", value, 1e-4)


@torch.no_grad()
def truncation(case: Case) -> None:
    generator, z = load_generator(case), case.inputs["z"]
    camera = camera_of(case.inputs["c"])
    for name in case.outputs:
        if found := re.fullmatch(r"ws_psi(.+)_cut(\w+)", name):
            layers = None if found[2] == "None" else int(found[2])
            styles = generator.map(Latent(z), truncation=float(found[1]), condition=camera, layers=layers)
            case.scores(name, styles.w)
    zero = load_generator(case, c_gen_conditioning_zero=True)
    case.scores("ws_zero_conditioning", zero.map(Latent(z)).w)
    for name in case.outputs:
        if name.startswith("ws_c_scale_"):
            scaled = load_generator(case, c_scale=float(name.removeprefix("ws_c_scale_")))
            case.scores(name, scaled.map(Latent(z), condition=camera).w)
    case.scores("ws_no_c_scale", load_generator(case, without="c_scale").map(Latent(z), condition=camera).w)

    marched = generator.renderer.forward = Watched(generator.renderer.forward)

    def draw(name: str, w: Tensor, mode: str) -> None:
        draws, n = Replay(recorded(case, name)), len(case.draws(name)[-2])
        styles = styles_of(case, generator, w[:n], mode, draws)
        rendered = generator.render(styles, camera.take(slice(n)), draws=draws)
        (_, integrated) = marched.calls[-1]
        start = "image" if name == "image" else f"image_{name}"
        for output, value in (
            (start, rendered.image),
            (f"{start}_raw", rendered.raw),
            (f"{start}_depth", to_map(published_depth(integrated))),
        ):
            if output in case.outputs:
                case.compare(output, value[: len(case.outputs[output])])

    psi, cutoff = number(case, "image", r"psi ([\d.-]+)"), int(number(case, "image", r"cutoff (\d+)"))
    rolled = Camera(*(x.roll(1, 0) for x in camera))
    draw("image", generator.map(Latent(z), truncation=psi, condition=camera, layers=cutoff).w, "const")
    draw("fixed", generator.map(Latent(z), truncation=psi, condition=rolled, layers=cutoff).w, "none")
    draw("random", generator.map(Latent(z), truncation=psi, condition=camera).w, "random")
    w = generator.map(Latent(z), condition=camera).w
    first = int(number(case, "image_mixed", r"ws (\d+)\.\."))
    draw("mixed", torch.cat([w[:, :first], w.roll(1, 0)[:, first:]], dim=1), "const")
    gan = EG3D(generator, nn.Identity(), torch.optim.Adam, torch.optim.Adam)
    gan.styles(Latent(z), camera, Silent(), update_mean=True)
    case.compare("w_avg_after_update", generator.mean_w)


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of a training run: every tensor, and what is drawn with the EMA."""
    place = Place(case.folder / case.info["file"])
    contents = read(place)
    for weights, model in eg3d.WEIGHTS.items():
        made = convert_network(eg3d, place, contents, None, weights)
        expected = module_state(contents.value[model])
        back = without_noise_axes(to_published(made.network.state_dict() | made.unused, table(made.network)))
        assert same_tensors(back, expected)
        given, sizes = case.config["generator"], case.config["geometry"]
        settings = generator_config(given, given["rendering_kwargs"], sizes)
        assert made.config == (
            discriminator_config(case.config["discriminator"]) if weights == "discriminator" else settings
        )
        if weights != "raw":
            start = "discriminator." if weights == "discriminator" else "generator."
            assert same_tensors(expected, case.published(start)), model
        if weights == "ema":
            assert made.network.resolution == sizes["image_resolution"]
            assert made.network.render_side == sizes["neural_rendering_resolution"]


KINDS = {
    "render": render,
    "planes": planes,
    "sampling": sampling,
    "superresolution": superresolution,
    "augment": augment,
    "discriminator": discriminator,
    "losses": losses,
    "step": step,
    "truncation": truncation,
    "checkpoint": checkpoint,
}
# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {
    "planes": {"plane_axes": "we keep the two coordinates that matrices stand for; that these do is asserted"},
    "step": {
        f"it{k}.{name}.dataset_label_std": "of the data set; the published program keeps it in the generator unused"
        for k in range(10)
        for name in ("G", "G_ema")
    },
}
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "losses": {r".*\.Gmain\.grad_norms": (100, "gradients of biases before a leaky ReLU are sums that cancel")},
    "step": {r"it0\.G_ema\.change_norms": (100, "so small a change is rounded where weights are stored")},
}
