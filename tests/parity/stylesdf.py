"""How the published StyleSDF's arguments, names and draws translate into ours."""

import itertools
import re
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import zoo.stylesdf.field
import zoo.training.stylegan2
from tests.parity.harness import Case, Replay, Watched, by_published_name, gradients_of, same_tensors, train
from tests.test_official import stylesdf_experiment
from zoo.layers.stylegan2 import minibatch_stddev
from zoo.losses import logistic_real, path_lengths
from zoo.render import (
    Camera,
    GaussianPoses,
    Orbit,
    Quadrature,
    Stratified,
    UniformPoses,
    VolumeRenderer,
    black,
    infinite_last_interval,
    last_sample,
    softplus,
    to_map,
)
from zoo.stylesdf import convert as stylesdf
from zoo.stylesdf.decoder import Decoder
from zoo.stylesdf.discriminator import ImageDiscriminator, PoseDiscriminator, StagedDiscriminator
from zoo.stylesdf.extras import aligned_cube, last_weight, mean_points, published_pose, sweep
from zoo.stylesdf.field import OffsetDepths, SDFField, SigmoidDensity
from zoo.stylesdf.model import Generator, Latent, Styles
from zoo.stylesdf.stages import ImageStage, SphereStage, VolumeStage
from zoo.stylesdf.training import StyleSDF, pose_of, sphere_samples
from zoo.training.ema import EMA
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, published_name, to_published
from zoo.weights.read import Place, read

# Names

# Published tensors that nothing reads
UNREAD = r"kernel$|decoder\.(conv1|convs\.\d+)\.bias$"


def table(network: nn.Module) -> list:
    """The published names of a network's tensors."""
    if isinstance(network, Generator):
        return stylesdf.GENERATOR
    return stylesdf.VOLUME_DISCRIMINATOR if isinstance(network, PoseDiscriminator) else stylesdf.IMAGE_DISCRIMINATOR


def load(network: nn.Module, state: dict[str, Tensor]) -> Any:
    """The network with a published state dict."""
    ours = from_published(stylesdf.without_axes(state), list(network.state_dict()), table(network))
    unread = [name for name in ours if name.startswith("unused.")]
    assert all(re.search(UNREAD, name) for name in unread), unread
    missing, _ = network.load_state_dict({n: t for n, t in ours.items() if n not in unread}, strict=False)
    assert set(missing) <= {"mean_w", "decoder.mean_latent", "decoder.trained"}, missing
    return network


# Published arguments


def near_far(case: Case) -> tuple[float, float]:
    """Limits of depths."""
    reach = case.config["camera"]["dist_radius"]
    return 1 - reach, 1 + reach


def make_poses(case: Case, kind: type[Orbit] = GaussianPoses) -> Orbit:
    of = case.config["camera"]
    return kind(yaw_spread=of["azim"], pitch_spread=of["elev"], fov_deg=2 * of["fov_half_angle_deg"])


def make_generator(
    case: Case,
    prefix: str = "generator.",
    limits: tuple[float, float] | None = None,
    stage: int | None = None,
    **changed: Any,
) -> Generator:
    """Our generator for the case's options, with the weights of this prefix.

    Args:
        limits: other depths than those of the options.
        stage: 1 without the decoder; None for what the weights have.
        changed: other options of the rendering.
    """
    model, of = case.config["model"], case.config["rendering"] | changed
    near, far = limits or near_far(case)
    state = case.weights(prefix)
    if of.get("sigmoid_beta") is not None:
        state["renderer.sigmoid_beta"] = of["sigmoid_beta"]
        state["renderer.network.sigma_linear.bias"] = of["sigma_bias"]
    if stage == 1:
        state = {name: t for name, t in state.items() if not name.startswith("decoder.")}
    if of["no_sdf"]:
        state.pop("renderer.sigmoid_beta")
    view = "camera" if of["static_viewdirs"] else "world"
    width = of["width"]
    field = SDFField(width, of["depth"], width, 1.0 if of["no_z_normalize"] else 2 / (far - near), view, view)
    quadrature = Quadrature(
        softplus if of["no_sdf"] else SigmoidDensity(),
        infinite_last_interval,
        last_sample if of["force_background"] else black,
    )
    depths = (Stratified if of["no_offset_sampling"] else OffsetDepths)(near, far, of["N_samples"])
    decoder = None
    if any(name.startswith("decoder.") for name in state):
        sizes = stylesdf.decoder_config(stylesdf.without_axes(state))["init_args"]
        decoder = Decoder(**sizes, mapping_rate=model["lr_mapping"])
    generator = Generator(
        field,
        VolumeRenderer(depths, quadrature, chunk=None),
        make_poses(case),
        decoder,
        width,
        render_side=model["renderer_spatial_output_dim"],
        density_noise=of["raw_noise_std"] if of["no_sdf"] else 0.0,
    )
    return load(generator, state)


def make_discriminator(case: Case, prefix: str = "discriminator.") -> PoseDiscriminator | ImageDiscriminator:
    state = case.weights(prefix)
    if "final_conv.conv.weight" in state:
        sizes = stylesdf.volume_config({f"volume.{name}": tensor for name, tensor in state.items()})
        return load(PoseDiscriminator(**sizes["init_args"]), state)
    sizes = stylesdf.image_config({f"image.{name}": tensor for name, tensor in state.items()})
    return load(ImageDiscriminator(**sizes["init_args"]), state)


def camera_of(case: Case, group: str = "") -> Camera:
    """Our cameras of published matrices and focal lengths [pixels]."""
    focal = case.inputs[f"{group}focal"].flatten()
    return camera_from(case.inputs[f"{group}c2w"], focal / case.config["model"]["renderer_spatial_output_dim"])


def camera_from(pose: Tensor, focal: Tensor) -> Camera:
    last = pose.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(pose), 1, 4)
    intrinsics = torch.eye(3, dtype=pose.dtype).repeat(len(pose), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = 0.5
    return Camera(torch.cat([pose, last], dim=1), intrinsics)


# Draws


def recorded(case: Case, block: str, first: int = 0) -> list[tuple[str, Tensor]]:
    """The draws of a block from the first on, by our names; of noise maps, the lowest layer has one alone."""
    pairs: list[tuple[str, Tensor]] = []
    angles, maps = itertools.cycle(("yaw", "pitch")), Counter()
    for name, numbers in [*case.named_draws(block).items()][first:]:
        kind = name.split("_")[-1]
        if kind in ("rand", "random"):
            pairs.append(({"rand": "jitter", "random": "mixing"}[kind], numbers))
        elif numbers.dim() == 5:
            pairs.append(("final_density_noise", numbers))
        elif numbers.dim() == 4 and numbers.shape[1] == 3:
            pairs.append(("path_noise", numbers))
        elif numbers.dim() == 4:
            side = numbers.shape[-1]
            is_first = side == case.config["model"]["renderer_spatial_output_dim"]
            pairs.append((f"image{side}_{1 if is_first else maps[side] % 2}", numbers))
            maps[side] += 1
        elif numbers.shape[-1] == 1:
            pairs.append((next(angles), -numbers))
        else:
            pairs += zip(("z", "mixed_z"), numbers.view(-1, *numbers.shape[-2:]), strict=False)
    return pairs


def cut_draw(index: Tensor, layers: int) -> Tensor:
    """The draw that makes this layer the first of the second styles."""
    return (index.double() - 0.5) / (layers - 1)


# Kinds of case


def rendered(generator: Generator, styles: Styles, camera: Camera, side: int, draws: Any) -> dict[str, Tensor]:
    """Everything that a rendering makes on its way, by its published name."""
    with patch.object(zoo.stylesdf.field, "sine", Watched(zoo.stylesdf.field.sine)) as watched:
        found = generator.integrate(styles, camera, side, draws, with_features=True, differentiable=True)
    sines = [result for _, result in watched.calls]
    samples, quadrature, field = found.samples, generator.renderer.quadrature, generator.field
    directions = samples.directions
    if field.view == "camera":
        directions = directions @ camera.pose[:, :3, :3]
    density = quadrature.density(found.raw, samples.points)
    lengths = quadrature.intervals(samples.t, samples.directions)
    alpha = 1 - torch.exp(-density * lengths[..., None])
    passed = torch.cumprod(1 - alpha[:, :, :-1] + 1e-10, dim=2)
    (gradient,) = torch.autograd.grad(found.raw.sum(), samples.positions)
    shape = samples.t.shape
    along = {
        "film_first": sines[0].unflatten(1, shape[1:]),
        "film_last": sines[-2].unflatten(1, shape[1:]),
        "rays_o": samples.origins,
        "rays_d": samples.directions,
        "viewdirs": torch.nn.functional.normalize(directions, dim=-1),
        "z_vals": samples.t,
        "pts": samples.points,
        "normalized_pts": samples.points * field.input_scale,
        "rgb_raw": field.colour(sines[-1]).unflatten(1, shape[1:]),
        "density": density,
        "dists": lengths,
        "alpha": alpha,
        "visibility": torch.cat([torch.ones_like(alpha[:, :, :1]), passed], dim=2),
        "features_raw": found.sampled[..., 3:],
        "sdf": found.raw,
        "sdf_out": found.raw,
        "weights": found.weights[..., None],
        "eikonal": gradient,
    }
    maps = {
        "feature_map": to_map(found.features[..., 3:]),
        "thumb": to_map(found.features[..., :3]) * 2 - 1,
        "xyz": mean_points(found),
        "mask": last_weight(found),
    }
    return {name: value.unflatten(1, (side, side)) for name, value in along.items()} | maps


def compare_all(case: Case, start: str, ours: dict[str, Tensor]) -> None:
    """Compare those that were recorded; densities and gradients in units of the largest."""
    for name in case.outputs:
        key = name.removeprefix(start)
        if not name.startswith(start) or key not in ours:
            continue
        if key in ("density", "eikonal"):
            case.relative(name, ours[key])
        elif key in ("alpha", "visibility", "weights", "mask"):  # made of densities
            case.compare(name, ours[key], 5e-4)
        else:
            case.scores(name, ours[key])


def group(case: Case, start: str, **changed: Any) -> None:
    """One rendering of the first stage, image by image where they have their own limits."""
    own, prefix = f"{start}c2w" in case.inputs, case.info["weights_prefixes"][0]
    camera, draws = camera_of(case, start if own else ""), recorded(case, f"{start}draw")
    shown = case.outputs[f"{start}z_vals"].shape
    parts = []
    for i in range(shown[0]) if own else [slice(shown[0])]:
        part = slice(i, i + 1) if own else i
        limits = tuple(case.inputs[f"{start}{name}"][i].item() for name in ("near", "far")) if own else None
        generator = make_generator(case, prefix, limits, 1, N_samples=shown[3], **changed)
        styles = generator.map(Latent(case.inputs["z"][part]))
        some = Replay([(name, numbers[part]) for name, numbers in draws]) if draws else None
        parts.append(rendered(generator, styles, camera.take(part), shown[1], some))
        assert some is None or some.used_up(), some.queues
    ours = {name: torch.cat([of[name] for of in parts]) for name in parts[0]}
    first = generator.field.layers[0]
    ours["w"] = generator.mapping(case.inputs["z"])
    ours["film_first_gamma"], ours["film_first_beta"] = 15 * first.frequency(ours["w"]) + 30, first.phase(ours["w"]) / 4
    if f"{start}aligned" in case.outputs:
        ours["aligned"] = aligned_cube(ours["sdf"].flatten(1, 2), *near_far(case))[..., None]
    compare_all(case, start, ours)


INFERENCE = {"static_viewdirs": True, "force_background": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "stratified.": {"no_offset_sampling": True},
    "noznorm.": {"no_z_normalize": True},
    "nosdf.": {"no_sdf": True, "raw_noise_std": 20.0},
    "forced.": {"force_background": True},
    "perview.": {"no_offset_sampling": True},
    "sharp_forced.": {"force_background": True},
}


def render_stage1(case: Case) -> None:
    """Groups of outputs with depths of their own."""
    for start in [name.removesuffix("z_vals") for name in case.outputs if name.endswith("z_vals")]:
        sharp = {n: case.inputs[start + n] for n in ("sigmoid_beta", "sigma_bias") if start + n in case.inputs}
        group(case, start, **VARIANTS.get(start, {}), **sharp)


def render_stage2(case: Case) -> None:
    camera = camera_of(case)
    generator = make_generator(case)
    noise = [n for i in range(2 * 9) if (n := case.inputs.get(f"noise.{i}")) is not None]
    first, second = (generator.mapping(case.inputs[n]) for n in ("z", "z2"))
    styles = generator.styles(first, second, case.config["inject_index"])
    named = [name for name, _ in recorded(case, "random.draw") if name.startswith("image")]
    draws = Replay([*recorded(case, "draw"), *zip(named, noise, strict=True)])
    ours = {"w": first, "w2": second, "decoder_latent": styles.latents}
    ours |= rendered(generator, styles, camera, generator.render_side, draws)
    decoder, heard = generator.decoder, {}
    layers = {"conv1": decoder.layer, "to_rgb1": decoder.rgb}
    for i, block in enumerate(decoder.blocks):
        layers |= {f"convs.{2 * i}": block.first, f"convs.{2 * i + 1}": block.second, f"to_rgbs.{i}": block}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *of, name=f"decoder.{name}": heard.update({name: of[-1]}))
    ours["rgb"] = decoder(ours["feature_map"], styles.latents, draws)
    assert draws.used_up()
    heard["decoder.to_rgb1"] = heard["decoder.to_rgb1"] + decoder.rgb.bias[:, None, None]
    heard |= {name: of[1] for name, of in heard.items() if isinstance(of, tuple)}  # blocks have features, too
    compare_all(case, "", ours | heard)

    ema = make_generator(case, "generator_ema.", **INFERENCE)
    styles = ema.map(Latent(case.inputs["z"]))
    ours = rendered(ema, styles, camera, ema.render_side, None) | {"rgb": ema.render(styles, camera).image}
    compare_all(case, "eval.", ours)

    cut = int(case.inputs["random.draw.randint_00"])
    styles, draws = generator.styles(first, second, cut), Replay(recorded(case, "random.draw"))
    made = generator.render(styles, camera, draws=draws)
    compare_all(case, "random.", {"rgb": made.image, "thumb": made.raw})


@torch.no_grad()
def sampling(case: Case) -> None:
    angles, generator = case.config["camera"], make_generator(case)
    low, (near, far) = generator.render_side, near_far(case)
    cameras: dict[str, Camera] = {}
    for name, kind in {"gaussian": GaussianPoses, "uniform": UniformPoses}.items():
        azimuth, elevation = (1 - x if name == "uniform" else -x for x in case.draws(f"{name}.draw"))
        cameras[name] = make_poses(case, kind)(len(azimuth), Replay([("yaw", azimuth), ("pitch", elevation)]))
        case.compare(f"{name}.viewpoint", pose_of(cameras[name]))
    (above,) = case.draws("sweep.draw")
    pairs = {name: case.inputs[f"{name}.locations"].split(1, dim=1) for name in ("fixed", "poles")}
    pairs["sweep"] = sweep(len(above), angles["azim"], angles["elev"], Replay([("elevation", above)]))
    for name, pair in pairs.items():
        case.compare(f"{name}.viewpoint", torch.cat(pair, dim=1))
        focal = cameras["gaussian"].intrinsics[:1, 0, 0].expand(len(pair[0]))
        cameras[name] = camera_from(published_pose(*pair)[:, :3], focal)
    for name, camera in cameras.items():
        case.compare(f"{name}.c2w", camera.pose[:, :3])
        case.compare(f"{name}.focal", low * camera.intrinsics[:, 0, 0].view(-1, 1, 1))
        for limit, value in (("near", near), ("far", far)):
            case.compare(f"{name}.{limit}", torch.full_like(case.outputs[f"{name}.{limit}"], value))
    for start, static in (("rays.", False), ("rays_static.", True)):
        ours = rendered_rays(make_generator(case, static_viewdirs=static), cameras["gaussian"], low)
        compare_all(case, start, ours)
    for start, off in (("offset.", False), ("none.", False), ("stratified.", True), ("stratified_none.", True)):
        depths = make_generator(case, no_offset_sampling=off).renderer.depths
        draws = Replay(recorded(case, f"{start}draw")) if case.draws(f"{start}draw") else None
        t = depths(generator.rays(cameras["gaussian"], low), draws).t
        case.compare(f"{start}z_vals", t.unflatten(1, (low, low)))
    mixing(case, generator)


def rendered_rays(generator: Generator, camera: Camera, side: int) -> dict[str, Tensor]:
    """Rays and directions as the field sees them."""
    rays = generator.rays(camera, side)
    rotation = generator.field.condition(torch.zeros(len(camera.pose), generator.field.style_dim), camera.pose).rotation
    seen = rays.directions if rotation is None else rays.directions @ rotation
    named = {"origins": rays.origins, "directions": rays.directions, "viewdirs": seen / seen.norm(dim=-1, keepdim=True)}
    return {name: value.unflatten(1, (side, side)) for name, value in named.items()}


def mixing(case: Case, generator: Generator) -> None:
    """Codes that are drawn for the decoder's layers."""
    numbers = iter(case.draws("mixing"))
    for i in dict.fromkeys(name.split(".")[1] for name in case.outputs if name.startswith("mixing.")):
        about = case.info["outputs"][f"mixing.{i}.count"]["meaning"]
        probability = float(re.search(r"probability ([\d.]+)", about)[1])
        coin = next(numbers) if probability > 0 else torch.zeros(())
        codes = next(numbers).view(-1, *case.outputs[f"mixing.{i}.z0"].shape)
        names = ["z", "mixed_z"][: len(codes)]
        z: list[Tensor] = []
        generator.mapping.forward = lambda x, z=z: z.append(x) or x
        angles = [(name, torch.zeros(len(codes[0]), 1)) for name in ("yaw", "pitch")]
        draws = Replay([("mixing", coin), *zip(names, codes, strict=True), *angles])
        StyleSDF.objects(SimpleNamespace(generator=generator), ImageStage(mixing=probability), len(codes[0]), draws)
        case.compare(f"mixing.{i}.count", torch.tensor(len(z)))
        for k, code in enumerate(z):
            case.compare(f"mixing.{i}.z{k}", code)


# Training


def parameters(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters, in their published names and shapes."""
    named = by_published_name(network, table(network))
    return stylesdf.with_axes({name: p.detach().clone() for name, p in named.items()})


def gradients(network: nn.Module, loss: Tensor | None = None) -> dict[str, Tensor]:
    """Gradients in published names and shapes, of this loss, or those that there are."""
    if loss is not None:
        network.zero_grad()
        loss.backward(retain_graph=True)
    return stylesdf.with_axes(gradients_of(network, table(network)))


def order_of(case: Case, name: str) -> list[str]:
    """The published order of the parameters that an output of this name is of."""
    keys = (f"{name[0]}.parameter_order", "g.parameter_order", "parameter_order")
    return next(case.config[key] for key in keys if key in case.config)


def compare_changes(
    case: Case, name: str, network: nn.Module, before: dict[str, Tensor], more: dict[str, Tensor] | None = None
) -> None:
    """Compare norms of what a step has changed; ``more`` of tensors that we do not have."""
    now = parameters(network)
    changes = {n: case.change(now[n], before[n]) for n in now} | (more or {})
    case.norms(name, changes, order_of(case, name), 1e-2)


def adam(of: dict[str, Any]) -> Any:
    """Makes the published optimizer."""
    return partial(torch.optim.Adam, lr=of["lr"], betas=tuple(map(float, of["betas"])), eps=of["eps"])


def build_gan(case: Case, kind: type[StyleSDF] = StyleSDF, **options: Any) -> StyleSDF:
    """Training with the case's networks, and its optimizers where it has any."""
    discriminator = make_discriminator(case)
    part = "image" if isinstance(discriminator, ImageDiscriminator) else "volume"
    of = case.config.get("optimizers", {role: NO_OPTIMIZER for role in ("generator", "discriminator")})
    optimizers = [adam(of[role]) for role in ("generator", "discriminator")]
    staged = StagedDiscriminator(**{part: discriminator})
    return kind(make_generator(case), staged, *optimizers, **({"volume": None} | options))


NO_OPTIMIZER = {"lr": 1e-3, "betas": [0, 0.9], "eps": 1e-8}


def sphere_init(case: Case) -> None:
    stage = SphereStage(batch=len(case.inputs["z"]), radius=case.config["camera"]["dist_radius"] / 2)
    gan = build_gan(case, sphere=stage)
    generator = gan.generator
    camera = camera_of(case)
    generator.cameras = lambda n, draws: camera
    block = [("z", case.inputs["z"]), *recorded(case, "draw")]
    samples = sphere_samples(generator, camera, Replay(block))
    shape = case.outputs["z_vals"].shape
    condition = generator.field.condition(generator.mapping(case.inputs["z"]))
    case.compare("z_vals", samples.t.view(shape))
    case.scores("sdf", generator.field.distances(samples.points, condition).view(shape))
    case.compare("target", (samples.points.norm(dim=-1) - stage.radius).view(shape))
    loss = gan.loss_sphere(stage, Replay(block))
    case.compare("loss", loss)
    case.gradients("grad_norm", "grad.", gradients(generator, loss), order_of(case, "grad_norm"))
    before = parameters(generator)
    adam(case.config["optimizer"])(generator.parameters()).step()
    compare_changes(case, "change_norm", generator, before)


def discriminator_stage1(case: Case) -> None:
    image = case.inputs["image"]
    network, without = make_discriminator(case), make_discriminator(case, "discriminator_nopose.")
    x = torch.nn.functional.leaky_relu(network.from_rgb(image), 0.2)
    case.scores("convs.0", x)
    for i, block in enumerate(network.blocks, 1):
        x = block(x)
        case.scores(f"convs.{i}", x)
    case.scores("score", network(image).scores)
    case.scores("viewpoint", network(image).camera)
    case.scores("nopose.score", without(image).scores)


def discriminator_stage2(case: Case) -> None:
    network = make_discriminator(case)
    for name in [name for name in case.outputs if name.startswith("score_")]:
        n = int(name.removeprefix("score_"))
        images = case.inputs["image"][:n]
        case.scores(name, network(images).scores)
        x = network.features(images)
        case.scores(f"stddev_{n}", minibatch_stddev(x, network.group(n))[:, -1:])
        if f"trunk_{n}" in case.outputs:
            case.scores(f"trunk_{n}", x)


def relative(case: Case, start: str, **ours: Tensor) -> None:
    """Compare losses and what they are made of."""
    for name, value in ours.items():
        case.relative(f"{start}{name}", value, 1e-4)


def terms(case: Case, start: str, network: nn.Module, ours: dict[str, Tensor]) -> None:
    """Compare losses and their gradients by term."""
    for name, loss in (ours | {"total": sum(ours.values())}).items():
        if f"{start}.{name}" in case.outputs:
            case.relative(f"{start}.{name}", loss, 1e-4)
        if f"{start}.grad_norm.{name}" in case.outputs:
            found, order = gradients(network, loss), order_of(case, start)
            case.gradients(f"{start}.grad_norm.{name}", f"{start}.grad.{name}.", found, order)


def volume_stage(of: dict[str, Any], **more: Any) -> VolumeStage:
    return VolumeStage(
        r1_weight=of["r1"],
        pose_weight=of["view_lambda"],
        eikonal_weight=of["eikonal_lambda"],
        surface_weight=of["min_surf_lambda"],
        surface_sharpness=of["min_surf_beta"],
        **more,
    )


def losses_stage1(case: Case) -> None:
    stage, camera = volume_stage(case.config["loss"]), camera_of(case)
    gan = build_gan(case, volume=stage)
    found = gan.loss_d(stage, case.inputs["real"], case.inputs["fake"], pose_of(camera), with_r1=True)
    relative(case, "d.unweighted.", r1=found["r1"] / (stage.r1_weight / 2), view=found["pose"] / stage.pose_weight)
    ours = {"adversarial": found["real"] + found["fake"], "r1": found["r1"], "view": found["pose"]}
    terms(case, "d", gan.discriminator.volume, ours)

    w, block = gan.generator.mapping(case.inputs["z"]), recorded(case, "draw")
    image = gan.rendered(w, *camera, Replay(block))
    case.compare("g.image", image)
    found = gan.loss_of(stage, w, camera, Replay(block))
    names = {"fake": "adversarial", "pose": "view", "eikonal": "eikonal", "surface": "minimal_surface"}
    weights = {"view": stage.pose_weight, "eikonal": stage.eikonal_weight, "minimal_surface": stage.surface_weight}
    ours = {names[name]: value for name, value in found.items()}
    relative(case, "g.unweighted.", **{name: ours[name] / weight for name, weight in weights.items()})
    terms(case, "g", gan.generator, ours)


def image_stage(of: dict[str, Any], **more: Any) -> ImageStage:
    return ImageStage(
        r1_weight=of["r1"],
        r1_every=of["d_reg_every"],
        path_weight=of["path_regularize"],
        path_every=of["g_reg_every"],
        path_decay=of.get("path_decay", 0.01),
        **more,
    )


def losses_stage2(case: Case) -> None:
    stage, camera = image_stage(case.config["loss"]), camera_of(case)
    gan = build_gan(case, image=stage)
    found = gan.loss_d_image(stage, case.inputs["real"], case.inputs["fake"], True)
    relative(case, "d.unweighted.", r1=found["r1"] / (stage.r1_weight / 2 * stage.r1_every))
    terms(case, "d", gan.discriminator.image, {"adversarial": found["real"] + found["fake"], "r1": found["r1"]})

    with torch.no_grad():
        w, other = (gan.generator.mapping(case.inputs[name]) for name in ("z", "z2"))
    image, _ = gan.images(w, None, *camera, Replay(recorded(case, "draw")))
    case.compare("g.image", image)
    terms(case, "g", gan.generator, {"adversarial": logistic_real(gan.discriminator.image(image).scores)})

    layers = gan.generator.decoder.num_layers
    (noise,) = case.draws("path_noise")
    # The index at which styles are switched was not recorded, but what came of it.
    is_first = (case.outputs["g.path_latents"] - gan.generator.styles(w).latents).abs().amax((0, 2)) < 1e-3
    cut = cut_draw(is_first.sum(), layers)
    draws = Replay([*recorded(case, "path.draw"), ("path_noise", noise), ("cut", cut)])
    image, latents = gan.images(w, other, *camera, draws)
    gan.mean_path.copy_(case.inputs["mean_path_length"])
    with patch.object(zoo.training.stylegan2, "path_lengths", Watched(path_lengths)) as lengths:
        loss = gan.loss_path(stage, image, latents, draws)
    relative(case, "g.", path_lengths=lengths.calls[0][1], mean_path_length=gan.mean_path)
    relative(case, "g.unweighted.", path=loss / (stage.path_weight * stage.path_every))
    case.scores("g.path_latents", latents)
    terms(case, "g", gan.generator, {"path": loss})


class Stepwise(StyleSDF):
    """Training on recorded numbers that compares gradients and weights of each step."""

    def begin(self, case: Case) -> None:
        switches = sorted(name for name in case.inputs if re.fullmatch(r"draw\.randint_\d+", name))
        cuts = [("cut", cut_draw(case.inputs[name], self.generator.decoder.num_layers)) for name in switches]
        self.replay = Replay([*recorded(case, "draw", first=2), *cuts])  # the first two are of its validation
        self.case, self.first = case, self.iterations
        self.noted: dict[str, Tensor] = {}
        self.part = self.discriminator.image or self.discriminator.volume
        self.part.forward = self.scored = Watched(self.part.forward)

    def draws(self) -> Replay:
        return self.replay

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.noted |= {f"{prefix}.{name}": term.detach() for name, term in terms.items()}
        super().accumulate(prefix, terms)

    def step(self, optimizer: Any, *, counted: bool = True, **how: Any) -> None:
        of_generator = optimizer is self.optimizers()[0]
        network = self.generator if of_generator else self.part
        step = ("g" if counted else "path") if of_generator else "d"
        label = f"{'g' if of_generator else 'd'}.{step}{self.iterations - self.first}"
        before = parameters(network)
        self.case.norms(f"{label}.grad_norm", gradients(network), order_of(self.case, label))
        if not of_generator:
            order = ["real_score", "fake_score"]
            order = order[::-1] if isinstance(self.part, ImageDiscriminator) else order
            scores = [result.scores.detach().mean() for _, result in self.scored.calls[-2:]]
            self.noted |= zip(order, scores, strict=True)
        super().step(optimizer, counted=counted, **how)
        self.compare(label, network, before)

    def compare(self, label: str, network: nn.Module, before: dict[str, Tensor], **more: Tensor) -> None:
        """Compare changes, and the values that were recorded."""
        compare_changes(self.case, f"{label}.change_norm", network, before, more)
        unread = {n: t for n, t in self.case.weights("generator.").items() if re.search(UNREAD, n)}
        values = unread | parameters(network)
        for name in [n for n in self.case.outputs if n.startswith(f"{label}.value.")]:
            self.case.relative(name, values[name.removeprefix(f"{label}.value.")], 1e-2)

    def update_emas(self) -> None:
        network = self.emas["ema"].module
        before = parameters(network)
        super().update_emas()
        label, decay = self.iterations - self.first, self.emas["ema"].decay
        theirs, average = (self.case.weights(f"{name}.") for name in ("generator", "generator_ema"))
        unread = [n for n in theirs if re.search(UNREAD, n) and n.endswith("bias")]  # but averaged
        drawn = {n: (1 - decay) * decay**label * (theirs[n] - average[n]) for n in unread}
        self.compare(f"ema{label}", network, before, **drawn)
        ours = self.noted | {"loss_d": self.noted["loss_d.real"] + self.noted["loss_d.fake"]}
        found = {theirs: ours[name] for theirs, name in LOGGED.items() if name in ours}
        seen = {n: loss for n, loss in found.items() if f"loss{label}.{n}" in self.case.outputs}
        relative(self.case, f"loss{label}.", **seen)


LOGGED = {
    "d": "loss_d",
    "d_view": "loss_d.pose",
    "r1": "loss_d.r1",
    "g": "loss_g.fake",
    "g_view": "loss_g.pose",
    "g_eikonal": "loss_g.eikonal",
    "g_minimal_surface": "loss_g.surface",
    "real_score": "real_score",
    "fake_score": "fake_score",
}


def steps(case: Case, start: int = 0, **stages: Any) -> Stepwise:
    """Train for as many iterations as were recorded."""
    ema = EMA(case.config["ema_decay"], "keep")
    gan = build_gan(case, Stepwise, emas={"ema": ema}, **stages)
    ema.module.load_state_dict(make_generator(case, "generator_ema.").state_dict())
    gan.iterations = start
    gan.begin(case)
    real = [case.inputs[f"real.{i}"] for i in range(len([n for n in case.inputs if n.startswith("real.")]))]
    train(gan, torch.cat(real), len(real[0]))
    assert gan.replay.used_up() or set(n for n, q in gan.replay.queues.items() if q) <= {"mixing", "mixed_z"}
    return gan


def step_stage1(case: Case) -> None:
    of = case.config["training"]
    steps(case, volume=volume_stage(of, at_once=of["chunk"]))


def step_stage2(case: Case) -> None:
    of = case.config["training"]
    stage = image_stage(of, mixing=of["mixing"], at_once=of["chunk"], path_shrink=of["path_batch_shrink"])
    with patch.object(zoo.training.stylegan2, "path_lengths", Watched(path_lengths)) as lengths:
        steps(case, of["start_iter"], image=stage)
    mean = torch.zeros(())
    for i, (_, of_pass) in enumerate(lengths.calls):
        mean = torch.lerp(mean, of_pass.detach().mean(), stage.path_decay)
        penalty = (of_pass - mean).square().mean()
        relative(case, f"path.pass{i}.", lengths=of_pass, mean=mean, penalty=penalty)
    for k in (0, 1):  # the last pass's, in both
        relative(case, f"loss{k}.", path=penalty, path_length=of_pass.mean())


@torch.no_grad()
def truncation(case: Case) -> None:
    generator, camera = make_generator(case, "generator_ema.", **INFERENCE), camera_of(case)
    (z,) = case.draws("mean")
    mean_w, mean_latent = generator.means_of(z)
    case.scores("mean_renderer", mean_w[None])
    case.scores("mean_decoder", mean_latent[None])
    first, second = (generator.mapping(case.inputs[name]) for name in ("z", "z2"))
    psi = case.config["truncation"]
    cut = int(re.search(r"switch index (\d+)", " ".join(case.info["notes"]))[1])
    for start, mixed in (("", ()), ("mixed.", (second, cut))):
        styles = generator.truncate(generator.styles(first, *mixed), psi, mean_w, mean_latent, *mixed)
        case.scores(f"{start}w", styles.w)
        case.scores(f"{start}decoder_latent", styles.latents)
        made = generator.render(styles, camera)
        case.compare(f"{start}rgb", made.image)
        case.compare(f"{start}thumb", made.raw)
    alone = make_generator(case, "generator_ema.", stage=1, **INFERENCE)
    psi = float(re.search(r"at truncation ([\d.]+)", " ".join(case.info["notes"]))[1])
    styles = alone.truncate(alone.styles(first), psi, mean_w, None)
    case.compare("stage1.thumb", alone.render(styles, camera).image)


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of either stage: every tensor, and what is drawn with the EMA."""
    place = Place(case.folder / case.config["file"])
    contents, made = read(place), {}
    inference = make_generator(case, "generator_ema.")
    experiment = stylesdf_experiment()["model"]["init_args"]["generator"]
    for weights, entry in stylesdf.WEIGHTS.items():
        one = made[weights] = convert_network(stylesdf, place, contents, experiment, weights)
        tensors = one.network.state_dict() | one.unused
        back = stylesdf.official({weights: to_published(tensors, stylesdf.table(one.network))}, {})
        theirs = {"g": "generator.", "g_ema": "generator_ema.", "d": "discriminator."}[entry]
        ours = next(iter(back.values()))[entry]
        for expected in (case.published(theirs), contents.value[entry]):
            assert same_tensors(ours, expected), weights
    inference.load_state_dict({n: case.cast(t) for n, t in made["ema"].network.state_dict().items()})
    styles, camera = inference.map(Latent(case.inputs["z"])), camera_of(case)
    with torch.enable_grad():
        ours = rendered(inference, styles, camera, inference.render_side, None)
    image = inference.render(styles, camera).image
    judged = made["discriminator"].network.to(case.dtype)(image)
    ours |= {"rgb": image, "score": judged.scores, "viewpoint": judged.camera}
    compare_all(case, "", ours)
    if "transfer.count" in case.outputs:
        first = [name for name in inference.state_dict() if published_name(name, stylesdf.GENERATOR)]
        case.compare("transfer.count", torch.tensor(len(first)))
        case.scores("transfer.thumb_w", styles.w)


KINDS = {
    "checkpoint": checkpoint,
    "render_stage1": render_stage1,
    "render_stage2": render_stage2,
    "sampling": sampling,
    "sphere_init": sphere_init,
    "discriminator_stage1": discriminator_stage1,
    "discriminator_stage2": discriminator_stage2,
    "losses_stage1": losses_stage1,
    "losses_stage2": losses_stage2,
    "step_stage1": step_stage1,
    "step_stage2": step_stage2,
    "truncation": truncation,
}
# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {}
LOOSE: dict[str, dict[str, tuple[float, str]]] = {}
