"""How the published CIPS-3D's arguments, names and draws translate into ours."""

import math
import re
from collections.abc import Callable
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.parity.harness import (
    Case,
    Followed,
    Replay,
    Watched,
    by_published_name,
    even_quantiles,
    gradients_of,
    same_tensors,
    train,
)
from zoo.cips3d import convert as cips3d
from zoo.cips3d.convert import DISCRIMINATOR, GENERATOR
from zoo.cips3d.discriminator import Discriminator, Tower
from zoo.cips3d.extras import Heads, swap_layers
from zoo.cips3d.inr import Inr
from zoo.cips3d.model import FilmSiren, Generator, Latent, Mapping, MappingNetwork, Styles
from zoo.cips3d.training import CIPS3D, Stage
from zoo.layers.diffaugment import cutout_places, diffaugment, largest_shift
from zoo.layers.stylegan2 import GAIN, activate
from zoo.render import (
    Camera,
    FixedPoses,
    GaussianPoses,
    HybridPoses,
    Importance,
    Integrated,
    JitteredUniform,
    Orbit,
    Quadrature,
    Rays,
    Rendered,
    Samples,
    SpherePoses,
    TruncatedGaussianPoses,
    UniformPoses,
    VolumeRenderer,
    black,
    clamp_pitch,
    inverse_cdf,
    last_sample,
    look_at,
    pixel_corners,
    relu,
    softplus,
    through,
    white,
)
from zoo.training.ema import EMA
from zoo.weights.bundle import UNUSED
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, to_published
from zoo.weights.read import Place, read


class UntossedPoses(HybridPoses):
    """The published coin is Python's own; where it was not recorded, the numbers tell: uniform ones are in [0, 1)."""

    def angles(self, n: int, draws: Replay) -> tuple[Tensor, Tensor]:
        if not draws.queues.get("pose_kind"):
            numbers = torch.cat([draws.queues[name][0].flatten() for name in ("yaw", "pitch")])
            draws.queues["pose_kind"] = [torch.tensor(0.0 if bool(((numbers >= 0) & (numbers < 1)).all()) else 1.0)]
        return super().angles(n, draws)


POSES = {
    "uniform": UniformPoses,
    "gaussian": GaussianPoses,
    "normal": GaussianPoses,
    "truncated_gaussian": TruncatedGaussianPoses,
    "spherical_uniform": SpherePoses,
    "hybrid": UntossedPoses,
    "mean": FixedPoses,
}


# Networks


def build_mapping(of: dict, style_dim: int, names: list[str]) -> nn.Module:
    """A mapping network for layers with these names."""
    layers, heads = of["base_layers"], of.get("head_layers", 0)
    if layers < 1:
        raise ValueError(
            "A mapping without common layers takes a latent for every layer: base_layers must be 1 or more."
        )
    norm_hidden, norm_out = of.get("add_norm", False), of.get("norm_out", False)
    if not heads:
        return MappingNetwork(of["z_dim"], of["hidden_dim"], layers, norm_hidden, norm_out)
    base = MappingNetwork(of["z_dim"], of["hidden_dim"], layers, norm_hidden, norm_out=norm_hidden)
    return Heads(base, style_dim, names, heads, norm_out)


def build_generator(of: dict, kind: str) -> Generator:
    """Our generator for the published constructor's arguments; nothing there reads the outermost ``z_dim``."""
    field = {"hidden_dim": 256, "hidden_layers": 2, "rgb_dim": 3, "style_dim": 512} | of["nerf_cfg"]
    inr = {"hidden_dim": 256, "pre_rgb_dim": 32} | of["inr_cfg"] | {"input_dim": of["nerf_cfg"].get("rgb_dim", 3)}
    if field.get("in_dim", 3) != 3:
        raise ValueError(f"The published field is only ever asked at points: in_dim is 3, not {field['in_dim']}.")
    if "v1" in kind and of["mapping_nerf_cfg"].get("head_layers", 0) + of["mapping_inr_cfg"].get("head_layers", 0):
        raise ValueError("generator_v1 gives its features one style of the whole appearance: head_layers must be 0.")
    shape_layers = [*map(str, range(field["hidden_layers"])), "colour"]
    return Generator(
        FilmSiren(field["hidden_dim"], field["hidden_layers"], field["rgb_dim"], field["style_dim"]),
        Inr(inr["input_dim"], inr["hidden_dim"], inr["style_dim"], rgb_dim=inr["pre_rgb_dim"]),
        Mapping(
            build_mapping(of["mapping_nerf_cfg"], field["style_dim"], shape_layers),
            build_mapping(of["mapping_inr_cfg"], inr["style_dim"], [str(i) for i in range(18)]),
            "appearance" if "v1" in kind else "shape",
        ),
        VolumeRenderer(JitteredUniform(0.88, 1.12, 4)),
        Orbit(),
    )


def load_generator(case: Case, of: dict, kind: str, prefix: str = "generator.") -> Generator:
    generator = build_generator(of, kind)
    names = [n for n in generator.state_dict() if not n.startswith("mean_")]
    state = from_published(case.weights(prefix), names, GENERATOR)
    assert all(re.search(r"\.norm\.|to_rgbs\.(4|8|16)\.", n) for n in state if n.startswith(UNUSED))
    missing, unexpected = generator.load_state_dict(
        {n: t for n, t in state.items() if not n.startswith(UNUSED)}, strict=False
    )
    assert not unexpected and all(n.startswith("mean_") for n in missing)
    return generator


def load_discriminator(case: Case, of: dict, prefix: str, group: int | None = None) -> Discriminator:
    group = of.get("stddev_group", 0) if group is None else group
    main, auxiliary = tower_widths(of)
    discriminator = Discriminator(Tower(main, of.get("first_downsample", False), group), Tower(auxiliary, True, group))
    state = from_published(case.weights(prefix), list(discriminator.state_dict()), DISCRIMINATOR)
    # The published towers have an entrance for every resolution, even beyond their largest one.
    largest = of.get("max_size", 1024)
    for name in (n for n in state if n.startswith(UNUSED) and not n.endswith(".down_blur.kernel")):
        entrance = re.search(r"_disc\.conv_in\.(\d+)\.", name)
        assert entrance and int(entrance[1]) > largest, f"nothing reads {name}"
    discriminator.load_state_dict({n: t for n, t in state.items() if not n.startswith(UNUSED)})
    return discriminator


def tower_widths(of: dict) -> tuple[list[int], list[int]]:
    """Channels of both towers from 4x4 up to ``max_size``; a case may have made them smaller than the published ones.

    Only the main tower's published widths follow ``channel_multiplier``, and only from 64x64 on.
    """
    sides = [4 * 2**i for i in range(int(math.log2(of.get("max_size", 1024))) - 1)]
    many = of.get("channel_multiplier", 2)
    main = {side: 512 if side < 64 else many * 16384 // side for side in sides}
    auxiliary = {side: 256 if side < 256 else 32768 // side for side in sides}
    for widths, name in ((main, "main_channels"), (auxiliary, "aux_channels")):
        widths.update({int(side): width for side, width in of.get(name, {}).items() if int(side) in widths})
    return list(main.values()), list(auxiliary.values())


def build_renderer(options: dict) -> VolumeRenderer:
    """Our renderer for the published forward call's arguments."""
    samples = options["num_steps"]

    def background(weights: Tensor) -> tuple[Tensor, Tensor]:
        added = white(weights)[1] if options.get("white_back") else black(weights)[1]
        return (last_sample(weights)[0] if options.get("last_back") else weights), added

    return VolumeRenderer(
        JitteredUniform(options["ray_start"], options["ray_end"], samples),
        Quadrature(softplus if options.get("clamp_mode") == "softplus" else relu, background=background),
        fine=Importance(samples, floor=2e-5) if options.get("hierarchical_sample") else None,
        chunk=None,
    )


def build_poses(of: dict) -> Orbit:
    """Our distribution of cameras for the published forward call's arguments."""
    means = of.get("h_mean", math.pi / 2), of.get("v_mean", math.pi / 2)
    kind = POSES.get(of.get("sample_dist"))
    if kind is None:
        raise ValueError(f"The published program has no sample_dist {of.get('sample_dist')}, only {', '.join(POSES)}.")
    return kind(means[0], of["h_stddev"], means[1], of["v_stddev"], radius=of.get("r", 1.0), fov_deg=of.get("fov", 12))


# Draws

# A published draw's name without number -> ours.
DRAWS = {
    "z_nerf": "z_shape",
    "z_inr": "z_appearance",
    "perturb_u": "jitter",
    "yaw_draw": "yaw",
    "pitch_draw": "pitch",
    "yaw_truncnormal": "yaw",
    "pitch_truncnormal": "pitch",
    "hybrid_u": "pose_kind",
    "ray_permutation": "gradient_rays",
    "coarse_noise": "coarse_density_noise",
    "fine_u": "importance",
    "final_noise": "final_density_noise",
    "brightness_u": "brightness",
    "saturation_u": "saturation",
    "contrast_u": "contrast",
    "shift_rows": "shift_rows",
    "shift_cols": "shift_columns",
    "cutout_row": "cutout_row",
    "cutout_col": "cutout_column",
}
BY_IMAGE = ("gradient_rays", "yaw", "pitch", "pose_kind")
BY_RAY = ("coarse_density_noise", "importance", "final_density_noise")
Recorded = list[tuple[str, Tensor]]


def recorded(case: Case, block: str) -> Recorded:
    """The random numbers of a block under our names, in the published order."""
    start = f"{block}.draw."
    names = sorted((n for n in case.inputs if n.startswith(start)), key=lambda n: int(n[len(start) :].split(".")[0]))
    kinds = [name.rsplit(".", 1)[1] for name in names]
    if unknown := sorted({kind for kind in kinds if kind not in DRAWS}):
        raise ValueError(f"Draws of the published program with no name here: {', '.join(unknown)} in {block}.")
    return [(DRAWS[kind], case.inputs[name]) for kind, name in zip(kinds, names, strict=True)]


def replay(draws: Recorded, size: int, one_by_one: bool = False) -> Replay:
    """Draws as ours ask for them.

    The published program draws for parts of an image as it renders them, and with ``forward_points`` image by image;
    we draw for whole images. Its whole pixels become the numbers in [0, 1) that give them.
    """
    ours, calls = [], []
    for name, numbers in draws:
        if name == "jitter":
            calls.append({"jitter": [numbers]})
        elif calls and name in (*BY_RAY, *BY_IMAGE):
            calls[-1].setdefault(name, []).append(numbers)
        else:
            ours.append((name, as_uniform(name, numbers, size)))
    whole = [whole_image(call) for call in calls]
    if one_by_one:
        whole = [{name: torch.cat([call[name] for call in whole]) for name in whole[0]}]
    return Replay([*ours, *(pair for call in whole for pair in call.items())])


def whole_image(call: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """The draws of one published rendering: its parts are put together, in the order of the rays."""
    batch, rays = call["jitter"][0].shape[:2]
    order = call["gradient_rays"][0] if "gradient_rays" in call else torch.arange(rays)
    made = {}
    for name, parts in call.items():
        if name in BY_RAY:
            parts = [part.reshape(batch, -1, part.shape[-2] if part.dim() == 4 else part.shape[-1]) for part in parts]
            made[name] = torch.cat(parts, dim=1)[:, order.argsort()]
        else:
            made[name] = order.argsort() / rays if name == "gradient_rays" else parts[0]
    return made


def as_uniform(name: str, numbers: Tensor, size: int) -> Tensor:
    """A whole number of pixels as the number in [0, 1) that gives it."""
    if name.startswith("shift"):
        most = largest_shift(size)
        return (numbers + most + 0.5) / (2 * most + 1)
    return (numbers + 0.5) / cutout_places(size) if name.startswith("cutout") else numbers


def untold_noise(told: float | None, is_noisy: bool, distance: Callable[[float], Tensor]) -> float:
    """The standard deviation of density noise; where its draws are recorded, but it is not, the one that fits best.

    One number cannot make all outputs of a case agree.
    """
    if told is not None or not is_noisy:
        return told or 0.0
    return min((0.05 * i for i in range(1, 41)), key=lambda noise: distance(noise).abs().max().item())


# Comparisons


def compare_field(case: Case, name: str, ours: Tensor) -> None:
    """Compare features and, in the last channel, raw densities as two outputs: densities are much larger."""
    theirs, about = case.outputs.pop(name), case.info["outputs"].get(name, {})
    for part, (values, recorded) in {
        "features": (ours[..., :-1], theirs[..., :-1]),
        "density": (ours[..., -1], theirs[..., -1]),
    }.items():
        case.outputs[f"{name}.{part}"], case.info["outputs"][f"{name}.{part}"] = recorded, about
        case.relative(f"{name}.{part}", values) if part == "density" else case.compare(f"{name}.{part}", values)


class Heard:
    """Remembers what modules were given and returned."""

    def __init__(self, **modules: nn.Module) -> None:
        self.calls = {name: [] for name in modules}
        self.hooks = [m.register_forward_hook(partial(self.keep, name)) for name, m in modules.items()]

    def keep(self, name: str, module: nn.Module, inputs: tuple, output) -> None:
        self.calls[name].append((inputs, output.clone() if isinstance(output, Tensor) else output))

    def __getitem__(self, name: str) -> list:
        return self.calls[name]

    def stop(self) -> None:
        for hook in self.hooks:
            hook.remove()


def followed(case: Case, block: str, fine: Importance) -> Followed:
    """Importance samples of a block, with what was recorded of them."""
    names = (f"{block}.coarse_weights", f"{block}.fine_z")
    return Followed(fine, *(case.cast(case.outputs[name]) if name in case.outputs else None for name in names))


# Kinds of case


def published_images(rendered: Rendered, options: dict) -> Tensor:
    """As the published generator returns them."""
    return torch.cat([rendered.image, rendered.raw]) if options.get("return_aux_img") else rendered.image


@torch.no_grad()
def render(case: Case) -> None:
    generator = load_generator(case, case.config["generator"], case.config["generator_class"])
    for block, scenario in case.config["scenarios"].items():
        options = scenario["kwargs"]
        if options.get("grad_points") is not None:
            raise ValueError(
                "Rendering without gradients knows no grad_points; such a case is of the kind partial_grad."
            )
        generator.renderer, generator.poses = build_renderer(options), build_poses(options)
        generator.renderer.fine = fine = generator.renderer.fine and followed(case, block, generator.renderer.fine)
        generator.chunk = 10**9
        latent = Latent(case.inputs[f"{block}.z_nerf"], case.inputs[f"{block}.z_inr"])
        size, count, staged = options["img_size"], len(latent.z_shape), bool(options.get("forward_points"))
        psi, numbers = options.get("psi", 1), recorded(case, block)
        if psi < 1:
            numbers = with_means(generator, numbers)
        draws = replay(numbers, size, one_by_one=staged)
        if scenario["call"] not in ("forward", "forward_camera_pos_and_lookup"):
            raise ValueError(f"The published generator renders by forward or by camera, not by {scenario['call']}.")
        if scenario["call"] == "forward":
            yaw, pitch = generator.poses.angles(count, draws)
            camera = generator.poses.camera(yaw, pitch)
            angles = torch.cat([clamp_pitch(pitch), yaw], dim=-1)
        else:
            camera = given_camera(case, block, options)
            yaw, pitch, angles = None, None, torch.zeros(count, 2)  # the published program gives none for these
        inr = {f"block{i}": b for i, b in enumerate(generator.inr.blocks)}
        rgb = {f"rgb{i}": b.to_rgb for i, b in enumerate(generator.inr.blocks) if b.to_rgb is not None}
        modules = {"field": generator.field, "renderer": generator.renderer, "inr": generator.inr}
        heard = Heard(**modules, aux=generator.auxiliary, **inr, **rgb)
        styles = generator.map(latent, truncation=min(psi, 1))
        noise = options.get("nerf_noise", 0)
        rendered = generator.render(styles, camera, resolution=size, draws=draws, density_noise=noise)
        heard.stop()
        assert draws.used_up() or noise == 0

        ((coarse, _), (coarse_raw, coarse_features)), integrated = heard["field"][0], heard["renderer"][0][1]
        rays = generator.rays(camera, size)
        ours = {
            "w_nerf": styles.shape,
            "w_inr": styles.appearance,
            "pitch": pitch,
            "yaw": yaw,
            "pitch_yaw": angles.repeat(2 if options.get("return_aux_img") else 1, 1),
            "cam2world": camera.pose,
            "ray_origins": rays.origins[:, :1],
            "ray_directions": rays.directions,
            "coarse_z": coarse.t[..., None],
            "points": coarse.points.flatten(1, 2),
            "siren_out": torch.cat([coarse_features, coarse_raw], -1).flatten(1, 2),
        }
        if fine is not None:
            _, (fine_raw, fine_features) = heard["field"][1]
            ours |= {
                "coarse_weights": fine.weights[..., None],
                "fine_z": fine.t[..., None],
                "siren_out.2": torch.cat([fine_features, fine_raw], -1).flatten(1, 2),
            }
        ours |= {
            "final_sorted_rgb_sigma": torch.cat([integrated.sampled, integrated.raw], -1),
            "final_sorted_z": integrated.samples.t[..., None],
            "final_weights": integrated.weights[..., None],
            "feature_map": integrated.features,
            "depth": integrated.depth,
        }
        total = 0
        for i in range(len(generator.inr.blocks)):
            ours[f"inr_block.{4 * 2**i}"] = heard[f"block{i}"][0][1]
            if f"rgb{i}" in rgb:
                total = total + heard[f"rgb{i}"][0][1]
                ours[f"inr_rgb_sum.{4 * 2**i}"] = total
        ours |= {
            "inr_out": heard["inr"][0][1],
            "aux_out": heard["aux"][0][1].tanh(),
            "img": published_images(rendered, options),
        }
        for name, value in ours.items():
            if f"{block}.{name}" in case.outputs:
                is_field = name.startswith(("siren_out", "final_sorted_rgb"))
                compare_field(case, f"{block}.{name}", value) if is_field else case.compare(f"{block}.{name}", value)


def with_means(generator: Generator, draws: Recorded) -> Recorded:
    """Give a generator the mean styles of the first two draws, the published one's fresh latents; the other draws."""
    (_, shape), (_, appearance), *rest = draws
    means = Styles(*(style.mean(0, keepdim=True) for style in generator.mapping(Latent(shape, appearance))))
    generator.mean_shape, generator.mean_colour, generator.mean_appearance = means
    return rest


def given_camera(case: Case, block: str, options: dict) -> Camera:
    """Cameras at given places, looking in given directions."""
    places, ahead = case.inputs[f"{block}.camera_pos"], case.inputs[f"{block}.camera_lookup"]
    ups = case.inputs.get(f"{block}.up_vector") if options.get("forward_points") else None
    intrinsics = FixedPoses(fov_deg=options["fov"])(len(places), None).intrinsics
    return Camera(looking(places, ahead, ups), intrinsics)


def looking(places: Tensor, ahead: Tensor, ups: Tensor | None = None) -> Tensor:
    """Poses with a direction and, if given, an "up" each."""
    if ups is None:
        return look_at(places, places + ahead)
    return torch.cat(
        [look_at(p[None], (p + a)[None], tuple(u.tolist())) for p, a, u in zip(places, ahead, ups, strict=True)]
    )


def partly(case: Case, block: str, generator: Generator, noise: float) -> tuple[Rendered, Tensor]:
    """An image of which some rays keep gradients, and its angles."""
    size, draws = case.config["kwargs"]["img_size"], replay(recorded(case, block), case.config["kwargs"]["img_size"])
    latent = Latent(case.inputs["z_nerf"], case.inputs["z_inr"])
    yaw, pitch = generator.poses.angles(len(latent.z_shape), draws)
    how = {"resolution": size, "draws": draws, "density_noise": noise, "gradient_rays": case.config["grad_points"]}
    rendered = generator(latent, generator.poses.camera(yaw, pitch), **how)
    return rendered, torch.cat([clamp_pitch(pitch), yaw], dim=-1)


def partial_grad(case: Case) -> None:
    config, options = case.config, case.config["kwargs"]
    if options.get("psi", 1) < 1:
        raise ValueError("Partial gradients were recorded without truncation: psi must be 1.")
    for block in dict.fromkeys(name.split(".")[0] for name in case.outputs):
        generator = load_generator(case, config["generator"], config["generator_class"])
        generator.renderer, generator.poses = build_renderer(options), build_poses(options)
        for part in frozen_parts(config["generator_class"]):
            generator.get_submodule(part).requires_grad_(False)
        cotangent, theirs = case.inputs[f"{block}.cotangent"], case.outputs[f"{block}.img"]
        times = len(cotangent) // len(case.inputs["z_nerf"])

        def off(noise: float, block=block, generator=generator, theirs=theirs, times=times) -> Tensor:
            with torch.no_grad():
                image = published_images(partly(case, block, generator, noise)[0], {"return_aux_img": times == 2})
            return image - theirs

        is_noisy = any(name == "final_density_noise" for name, _ in recorded(case, block))
        rendered, angles = partly(case, block, generator, untold_noise(options.get("nerf_noise"), is_noisy, off))
        image = published_images(rendered, {"return_aux_img": times == 2})
        (image * cotangent).sum().backward()
        case.compare(f"{block}.img", image.detach())
        case.compare(f"{block}.pitch_yaw", angles.repeat(times, 1))
        found = gradients_of(generator, GENERATOR)
        case.gradients(f"{block}.grad_norms", f"{block}.grad.", found, config["param_names"])


@torch.no_grad()
def sampling(case: Case) -> None:
    of = case.config
    for mode in of["camera"]["modes"]:
        block = f"camera_{mode}"
        poses = build_poses(of["camera"] | {"sample_dist": mode})
        yaw, pitch = poses.angles(len(case.outputs[f"{block}.yaw"]), Replay(recorded(case, block)))
        case.compare(f"{block}.yaw", yaw)
        case.compare(f"{block}.pitch", clamp_pitch(pitch))
        case.compare(f"{block}.position", poses.camera(yaw, pitch).origins)
    for name, ups in (("cam2world", None), ("cam2world_up", case.inputs["up_vector"])):
        places = case.cast(case.outputs[name][:, :3, 3])
        case.compare(name, looking(places, -places, ups))

    of = case.config["rays"]
    depths = JitteredUniform(of["ray_start"], of["ray_end"], of["num_steps"])
    still = Camera(torch.eye(4)[None], FixedPoses(fov_deg=of["fov"])(1, None).intrinsics)
    rays = through(still, pixel_corners(of["resolution"]))
    for block, draws in (("rays", None), ("perturb", Replay(recorded(case, "perturb")))):
        samples = depths(rays, draws)
        case.compare(f"{block}.points", samples.points)
        case.compare(f"{block}.z", samples.t[..., None])
    case.compare("rays.dirs_cam", rays.directions)

    edges, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    ((_, u),) = recorded(case, "pdf")
    case.compare("pdf.samples", inverse_cdf(edges, weights, u))
    even = even_quantiles(edges, case.outputs["pdf_det.samples"])
    case.compare("pdf_det.samples", inverse_cdf(edges, weights, even))

    for block in case.blocks():
        if block.startswith("int_"):
            integrate(case, block)


UNUSED_DEPTHS = {"ray_start": 0.0, "ray_end": 1.0, "num_steps": 2}


def integrate(case: Case, block: str) -> None:
    """Compositing of given features and densities: a field that knows them already."""
    features, raw = case.inputs["int.feat_sigma"].split([case.config["integrate"]["dim_rgb"], 1], dim=-1)
    t = case.inputs["int.z"][..., 0]
    flags = {"clamp_mode": "softplus" if "softplus" in block else "relu"}
    flags |= {name: name in block for name in ("last_back", "white_back")}
    renderer = build_renderer(UNUSED_DEPTHS | flags)
    renderer.depths = lambda rays, draws: Samples(*rays[:2], t)
    rays = Rays(torch.zeros(*t.shape[:2], 3), torch.tensor([0.0, 0.0, -1.0]).expand(*t.shape[:2], 3))
    numbers = recorded(case, block)

    def integrated(noise: float) -> Integrated:
        return renderer(lambda samples, _: (raw, features), rays, None, Replay(numbers), noise)

    told, theirs = case.config["integrate"].get("nerf_noise"), case.outputs[f"{block}.weights"][..., 0]
    result = integrated(untold_noise(told, bool(numbers), lambda noise: integrated(noise).weights - theirs))
    painted = result.features
    if "fill_weight" in block:  # a view of the published program, with the weights' sum for a colour
        painted = result.weights.sum(-1, keepdim=True).expand_as(painted)
    case.compare(f"{block}.features", painted)
    case.compare(f"{block}.depth", result.depth)
    case.compare(f"{block}.weights", result.weights[..., None])


@torch.no_grad()
def discriminator(case: Case) -> None:
    of = case.config["discriminator"]
    augmented_size = (
        case.outputs["augment.img"].shape[-1] if "augment.img" in case.outputs else max(case.config["sizes"])
    )
    if "augment.img" in case.outputs:
        draws, image = recorded(case, "augment"), case.inputs[f"img{augmented_size}"]
        case.compare("augment.img", diffaugment(image, replay(draws, augmented_size)))
    for group in case.config["stddev_groups"]:
        discriminator = load_discriminator(case, of, f"discriminator_sg{group}.", group)
        for name in case.outputs:
            if found := re.fullmatch(rf"sg{group}\.r(\d+)\.alpha([\d.]+)\.(main|main_aux)", name):
                size, alpha, towers = found.groups()
                image = case.inputs[f"img{size}"]
                both = towers == "main_aux"
                scores = discriminator(torch.cat([image, image.flip(-1)]) if both else image, float(alpha), both).scores
                case.scores(name, scores)
        for towers in ("main", "main_aux"):
            if f"diffaug_sg{group}.{towers}" in case.outputs:
                image = case.inputs[f"img{augmented_size}"]
                draws = replay(recorded(case, f"diffaug_sg{group}"), augmented_size)
                both = towers == "main_aux"
                images = torch.cat([image, image.flip(-1)]) if both else image
                case.scores(f"diffaug_sg{group}.{towers}", discriminator(images, 1.0, both, diffaugment, draws).scores)
                assert draws.used_up()
        tower_features(case, f"sg{group}.feat", discriminator.main)


def tower_features(case: Case, block: str, tower: Tower) -> None:
    """What the parts of the main tower return, at a blend of 0.3."""
    names = [name for name in case.outputs if name.startswith(f"{block}.")]
    if not names:
        return
    size = max(int(found[1]) for name in names if (found := re.search(r"\.convs\.(\d+)$", name)))
    modules = {f"conv_in.{4 * 2**i}": m for i, m in enumerate(tower.from_rgb)}
    modules |= {f"convs.{8 * 2**i}": m for i, m in enumerate(tower.blocks)}
    modules |= {"final_conv": tower.final, "space_linear": tower.dense, "out_linear": tower.score}
    heard = Heard(**modules)
    tower(case.inputs[f"img{size}"], 0.3)
    heard.stop()
    ours = {name: calls[0][1] for name, calls in heard.calls.items() if calls}
    # The published program activates, and scales by sqrt(2), in a step of its own, but within these modules.
    ours["final_conv.equal_conv"] = ours["final_conv"] / GAIN - tower.final.bias[:, None, None]
    for name in [name for name in ours if name.startswith("conv_in")] + ["final_conv", "space_linear"]:
        ours[name] = activate(ours[name])
    ours["final_conv.flrelu"] = ours["final_conv"]
    for name in names:
        case.scores(name, ours[name.removeprefix(f"{block}.")], beside=names)


def frozen_parts(kind: str) -> tuple[str, ...]:
    """What does not learn in a published class of generators."""
    if "freeze" not in kind:
        return ()
    return ("field", "mapping" if "v1" in kind else "mapping.shape", "auxiliary")


def build_gan(case: Case, block: str, scenario: dict, cls: type[CIPS3D], **more) -> CIPS3D:
    """Our training for a published scenario."""
    cfg, kind = scenario["cfg"], scenario["gen"]
    if cfg.get("batch_split", 1) not in (1, 2):
        raise ValueError(
            "The published program breaks off with more than two slices of a batch: batch_split is 1 or 2."
        )
    if cfg.get("use_amp_D") or cfg.get("use_amp_G"):
        raise ValueError("The published numbers are those of float32: use_amp_D and use_amp_G must be off.")
    if cfg["G_kwargs"].get("psi", 1) < 1:
        raise ValueError("The published program never trains with truncated styles: psi must be 1.")
    if cfg["img_size"] >= 256:
        raise ValueError("From 256 pixels on, the published program draws in parts (forward_points) in one step only.")
    generator = load_generator(case, case.config["generator"], kind)
    generator.renderer, generator.poses = build_renderer(cfg["G_kwargs"]), build_poses(cfg["G_kwargs"])
    stage = Stage(
        lr_g=cfg["gen_lr"],
        lr_d=cfg["disc_lr"],
        auxiliary_every=cfg["update_aux_every"] if cfg["train_aux_img"] else 0,
        fade_iterations=cfg["fade_steps"] if cfg["warmup_D"] else 0,
        noise_iterations=0 if cfg["nerf_noise_disable"] else 5000,
        augment=diffaugment if scenario["diffaug"] else None,
        frozen=frozen_parts(kind),
        batch_split=cfg.get("batch_split", 1),
        gradient_rays=None if cfg.get("grad_points") is None else cfg["grad_points"] ** 2,  # pixels along a side
        ema_start=scenario.get("ema_start_itr", 1000),
    )
    of = {"betas": cfg["betas"], "eps": 1e-8, "weight_decay": 0} | case.config.get("adam", {})
    adam = partial(
        torch.optim.Adam, betas=tuple(map(float, of["betas"])), eps=of["eps"], weight_decay=of["weight_decay"]
    )
    gan = cls(
        generator=generator,
        discriminator=load_discriminator(case, case.config["discriminator"], "discriminator."),
        optimizer_g=adam,
        optimizer_d=adam,
        r1_weight=cfg["r1_lambda"],
        r1_every=cfg["d_reg_every"],
        clip_norm=cfg["grad_clip"],
        stages=[stage],
        **more,
    )
    gan.iterations = scenario["step"]
    return gan


def losses(case: Case) -> None:
    names = {"G": case.config["param_names_G"], "D": case.config["param_names_D"]}
    real = case.inputs["real_u8"] / 127.5 - 1
    for block, scenario in case.config["scenarios"].items():
        gan = build_gan(case, block, scenario, CIPS3D)
        gan.freeze(gan.stage)
        draws = replay(recorded(case, block), real.shape[-1])
        case.compare(f"{block}.alpha", gan.alpha)
        case.compare(f"{block}.nerf_noise", gan.density_noise)

        with torch.no_grad():
            fake = gan.fakes(real, draws)
        discriminator = gan.discriminate = Watched(gan.discriminate)
        terms = gan.loss_real(real, draws) | gan.loss_fake(fake, draws)
        ((images, _), real_scores), (_, fake_scores) = discriminator.calls
        if "r1" in terms:
            (gradient,) = torch.autograd.grad(real_scores.sum(), images, retain_graph=True)
            weight = 0.5 * gan.r1_weight * gan.r1_every
            penalties = weight * gradient.square().flatten(1).sum(1, keepdim=True)
            assert torch.allclose(terms["r1"], penalties.mean())
        else:  # the published program's placeholder in iterations without R1
            penalties = torch.zeros_like(case.outputs[f"{block}.D.grad_penalty"])
        sum(terms.values()).backward()
        order = torch.arange(len(fake))
        if gan.stage.batch_split == 2 and not gan.auxiliary:  # the published program swaps quarters then
            order = order.view(2, 2, -1).transpose(0, 1).flatten()
        case.compare(f"{block}.D.fake_images", fake[order])
        case.scores(f"{block}.D.r_preds", real_scores)
        case.scores(f"{block}.D.g_preds", fake_scores[order])
        case.each_relative(f"{block}.D.grad_penalty", penalties, 1e-3)
        case.each_relative(f"{block}.D.d_loss", sum(terms.values()), 1e-4)
        found = gradients_of(gan.discriminator, DISCRIMINATOR)
        case.gradients(f"{block}.D.grad_norms", f"{block}.D.grad.", found, names["D"])

        discriminator.calls.clear()
        gan.discriminator.requires_grad_(False)
        slices = [gan.generate(latent, real, draws) for latent in gan.slices(real, draws)]
        terms = [sum(gan.loss_g(torch.cat(parts), draws).values()) for parts in slices]
        sum(terms).backward()
        fake = torch.cat([torch.cat(parts) for parts in zip(*slices, strict=True)])
        scores = [result.chunk(len(slices[0])) for _, result in discriminator.calls]
        case.compare(f"{block}.G.fake_images", fake.detach())
        case.scores(f"{block}.G.g_preds", torch.cat([torch.cat(p) for p in zip(*scores, strict=True)]))
        case.each_relative(f"{block}.G.g_loss", terms[-1], 1e-4)  # the published loop keeps the last
        found = gradients_of(gan.generator, GENERATOR)
        case.gradients(f"{block}.G.grad_norms", f"{block}.G.grad.", found, names["G"])
        assert draws.used_up()


class Replayed(CIPS3D):
    """Training on recorded numbers, with a record of losses and of gradient norms before clipping."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.replays, self.losses, self.totals, self.norms = [], {}, [], []

    def draws(self) -> Replay:
        return self.replays.pop(0)

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.losses[prefix] = sum(terms.values()).detach()
        super().accumulate(prefix, terms)

    def step(self, optimizer, **how) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(torch.stack([g.norm() for g in gradients]).norm())
        self.totals += self.losses.values()
        self.losses = {}
        super().step(optimizer, **how)


def step(case: Case) -> None:
    real = case.inputs["real_u8"] / 127.5 - 1
    for block, scenario in case.config["scenarios"].items():
        ema, iterations = EMA(scenario["ema_decay"]), scenario["iters"]
        gan = build_gan(case, block, scenario, Replayed, emas={"ema": ema})
        gan.replays = [replay(recorded(case, f"{block}.it{i}"), real.shape[-1]) for i in range(iterations)]
        averaged = load_generator(case, case.config["generator"], scenario["gen"], "G_ema.")
        ema.module.load_state_dict(averaged.state_dict())
        networks = {
            "G": by_published_name(gan.generator, GENERATOR),
            "D": by_published_name(gan.discriminator, DISCRIMINATOR),
            "E": by_published_name(ema.module, GENERATOR),
        }
        before = {player: {n: p.detach().clone() for n, p in ps.items()} for player, ps in networks.items()}
        used = list(gan.replays)
        train(gan, real.repeat(iterations, 1, 1, 1), len(real), pl.Callback())
        assert all(draws.used_up() for draws in used)

        for i in range(iterations):
            for k, player in enumerate("DG"):
                name = f"{block}.it{i}.{player}_total_norm"
                case.each_relative(name, gan.norms[2 * i + k], 1e-3)
                case.each_relative(f"{block}.it{i}.{player.lower()}_loss", gan.totals[2 * i + k], 1e-4)
        for player, parameters in networks.items():
            order = case.config[f"param_names_{'D' if player == 'D' else 'G'}"]
            changes = {n: case.change(p, before[player][n]).norm() for n, p in parameters.items()}
            if player == "E":  # what nothing reads changes, too, where the ema started from other numbers
                kept = [n in changes for n in order]
                order = [n for n in order if n in changes]
                case.outputs[f"{block}.E.change_norms"] = case.outputs[f"{block}.E.change_norms"][kept]
            # What our network does not have, since nothing reads it, doesn't change.
            norms = torch.stack([changes.get(n, torch.tensor(0.0)) for n in order])
            case.each_relative(f"{block}.{player}.change_norms", norms, 1e-2)
            for name in case.outputs:
                if name.startswith(f"{block}.{player}.after."):
                    case.compare(name, parameters[name.removeprefix(f"{block}.{player}.after.")].detach())


@torch.no_grad()
def truncation(case: Case) -> None:
    config, options = case.config, case.config["kwargs"]
    generator = load_generator(case, config["generator"], config["generator_class"])
    latent = Latent(case.inputs["z_nerf"], case.inputs["z_inr"])
    for block in case.blocks():
        draws = recorded(case, block)
        used = generator
        if (of := config.get("swap", {}).get(block)) is not None:
            target = load_generator(case, config["generator"], config["generator_class"], "target.")
            used = swap_layers(generator, target, [int(math.log2(n)) - 2 for n in of["layers"]], of["gamma_target"])
        psi = options.get("psi", 1.0)
        if found := re.fullmatch(r"psi_?(\d)[._]?(\d*)", block):
            psi = float(f"{found[1]}.{found[2] or 0}")
        if psi < 1:
            draws = with_means(used, draws)
            case.compare(f"{block}.avg_w_nerf", used.mean_shape)
            case.compare(f"{block}.avg_w_inr", used.mean_appearance)
        used.renderer, used.poses = build_renderer(options), build_poses(options)
        numbers = replay(draws, options["img_size"])
        camera = used.cameras(len(latent.z_shape), numbers)
        styles = used.map(latent, truncation=min(psi, 1.0))
        rendered = used.render(styles, camera, resolution=options["img_size"], draws=numbers)
        both = len(case.outputs[f"{block}.img"]) == 2 * len(latent.z_shape)
        case.compare(f"{block}.img", published_images(rendered, {"return_aux_img": both}))


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """Files of a training run: every tensor, and what is drawn with them once they are bundles."""
    options = case.config["render_kwargs"]
    (block,) = {name.removesuffix(".z_nerf") for name in case.inputs if name.endswith(".z_nerf")}
    latent = Latent(case.inputs[f"{block}.z_nerf"], case.inputs[f"{block}.z_inr"])
    experiment = {
        "class_path": "zoo.cips3d.Generator",
        "init_args": {
            "field": {"class_path": "zoo.cips3d.FilmSiren"},
            "inr": {"class_path": "zoo.cips3d.Inr"},
            "mapping": {"class_path": "zoo.cips3d.Mapping"},
            "renderer": {
                "class_path": "zoo.render.VolumeRenderer",
                "init_args": {
                    "depths": {
                        "class_path": "zoo.render.JitteredUniform",
                        "init_args": {"near": options["ray_start"], "far": options["ray_end"], "samples": 2},
                    }
                },
            },
            "poses": {"class_path": "zoo.render.Orbit", "init_args": {"fov_deg": options["fov"]}},
        },
    }
    (folder,) = {path.parent for path in case.folder.rglob("generator.pth")}
    found = {}

    def there(*names: str) -> list[str]:
        return [name for name in names if (folder / name).is_file()]

    for name, weights in (("generator", "raw"), ("G_ema", "ema")):
        if not there(f"{name}.pth"):
            continue
        place = Place(folder / f"{name}.pth")
        expected = torch.load(place.path, weights_only=True)
        for source in there(f"{name}.pth", f"{name}_model.pth", "generator.pth"):
            other = Place(folder / source)
            made = convert_network(cips3d, other, read(other), experiment, weights)
            used, unused = made.network, made.unused
            learned = {n: t for n, t in used.state_dict().items() if not n.startswith("mean_")}
            back = to_published(learned | unused, GENERATOR)
            assert same_tensors(back, expected)
        used.load_state_dict({n: case.cast(t) for n, t in used.to(case.dtype).state_dict().items()})
        used.renderer, used.poses = build_renderer(options), build_poses(options)
        numbers = replay(recorded(case, block), options["img_size"])
        camera = used.cameras(len(latent.z_shape), numbers)
        rendered = used(latent, camera, resolution=options["img_size"], draws=numbers)
        found[name] = published_images(rendered, options)
        case.compare(f"{name}.img", found[name])
        assert made.card["iterations"] == torch.load(folder / "state_dict.pth", weights_only=False)["step"]
    assert len(found) == 1 or not torch.allclose(*found.values(), atol=1e-3)

    if not there("discriminator.pth"):
        return
    expected = torch.load(folder / "discriminator.pth", weights_only=True)
    for source in there("discriminator.pth", "discriminator_model.pth"):
        other = Place(folder / source)
        made = convert_network(cips3d, other, read(other))
        back = to_published(made.network.state_dict() | made.unused, DISCRIMINATOR)
        assert same_tensors(back, expected)
    discriminator, image = made.network.to(case.dtype), case.inputs["img"]
    discriminator.load_state_dict({n: case.cast(t) for n, t in discriminator.state_dict().items()})
    case.scores("discriminator.main_aux", discriminator(torch.cat([image, image]), auxiliary=True).scores)


KINDS = {
    "render": render,
    "render_v1": render,
    "partial_grad": partial_grad,
    "sampling": sampling,
    "discriminator": discriminator,
    "losses": losses,
    "step": step,
    "truncation": truncation,
    "checkpoint": checkpoint,
}

# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {
    "sampling": {
        f"path_{path}.{what}": "cameras of the published web demo; ours follow an orbit of their own"
        for path in ("circle", "translate_circle", "translate_rotate", "yaw_sweep")
        for what in ("position", "lookup", "yaw", "pitch", "up")
    }
}
# Outputs with tolerances of more than ten times what is usual, by case and pattern of names, with the reason.
IMPORTANCE = (
    "follows from importance samples that were not recorded: in cells which are nearly empty rounding moves them a "
    "thousand times as far"
)
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {
        r".*\.fine_z": (
            30,
            "in cells which are nearly empty rounding moves importance samples a thousand times as far",
        ),
        r".*\.(siren_out\.2\..*|final_.*|feature_map|depth|inr_.*|aux_out|img)": (100, IMPORTANCE),
    },
    "partial_grad": {r".*\.(img|grad_norms|grad\..*)": (100, IMPORTANCE)},
    "losses": {r".*\.(fake_images|g_preds|[dg]_loss|grad_norms|grad\..*)": (100, IMPORTANCE)},
    "step": {
        r".*\.change_norms": (100, "two steps of Adam, which are nearly signs, may cancel but for their rounding")
    },
    "truncation": {r".*\.img": (100, IMPORTANCE)},
    "checkpoint": {r".*\.img": (100, IMPORTANCE)},
}
