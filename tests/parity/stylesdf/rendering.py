"""Cases of images, also with truncated styles, with everything on the way from their rays."""

import re
from typing import Any

import torch
from torch import Tensor

import zoo.stylesdf.field
from tests.parity.harness import Case
from tests.parity.published import hearing, watching
from tests.parity.replay import Replay
from tests.parity.stylesdf.build import INFERENCE, camera_of, make_generator, near_far
from tests.parity.stylesdf.draws import recorded
from zoo.render import Camera, to_map
from zoo.stylesdf.extras import aligned_cube, last_weight, mean_points
from zoo.stylesdf.model import Generator, Latent, Styles


def rendered(generator: Generator, styles: Styles, camera: Camera, side: int, draws: Any) -> dict[str, Tensor]:
    """Everything that a rendering makes on its way, by its published name."""
    with watching(zoo.stylesdf.field, "sine") as watched:
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
    for name, value in case.recorded(start, ours).items():
        key = name.removeprefix(start)
        if key in ("density", "eikonal"):
            case.relative(name, value)
        elif key in ("alpha", "visibility", "weights", "mask"):  # made of densities
            case.compare(name, value, 5e-4)
        else:
            case.scores(name, value)


VARIANTS: dict[str, dict[str, Any]] = {
    "stratified.": {"no_offset_sampling": True},
    "noznorm.": {"no_z_normalize": True},
    "nosdf.": {"no_sdf": True, "raw_noise_std": 20.0},
    "forced.": {"force_background": True},
    "perview.": {"no_offset_sampling": True},
    "sharp_forced.": {"force_background": True},
}


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
    decoder = generator.decoder
    layers = {"conv1": decoder.layer, "to_rgb1": decoder.rgb}
    for i, block in enumerate(decoder.blocks):
        layers |= {f"convs.{2 * i}": block.first, f"convs.{2 * i + 1}": block.second, f"to_rgbs.{i}": block}
    with hearing(layers) as heard:
        ours["rgb"] = decoder(ours["feature_map"], styles.latents, draws)
    assert draws.used_up()
    for name, ((_, made),) in heard.items():
        ours[f"decoder.{name}"] = made[1] if isinstance(made, tuple) else made  # blocks have features, too
    ours["decoder.to_rgb1"] = ours["decoder.to_rgb1"] + decoder.rgb.bias[:, None, None]
    compare_all(case, "", ours)

    ema = make_generator(case, "generator_ema.", **INFERENCE)
    styles = ema.map(Latent(case.inputs["z"]))
    ours = rendered(ema, styles, camera, ema.render_side, None) | {"rgb": ema.render(styles, camera).image}
    compare_all(case, "eval.", ours)

    cut = int(case.inputs["random.draw.randint_00"])
    styles, draws = generator.styles(first, second, cut), Replay(recorded(case, "random.draw"))
    made = generator.render(styles, camera, draws=draws)
    compare_all(case, "random.", {"rgb": made.image, "thumb": made.raw})


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
