"""Cases of images, also with truncated styles, with everything on the way from their rays."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from tests.parity.eg3d.build import halves, load_generator
from tests.parity.eg3d.draws import Silent, recorded, styles_of
from tests.parity.harness import Case
from tests.parity.published import Watched, hearing
from tests.parity.replay import Followed, Replay
from zoo.eg3d.cameras import camera_of
from zoo.eg3d.extras import published_depth
from zoo.eg3d.field import interval_weights
from zoo.eg3d.model import Latent
from zoo.eg3d.training import EG3D
from zoo.render import Camera, Samples, to_map


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
    with hearing({"first": generator.superresolution.first}) as heard:
        rendered = generator.render(styles, camera, draws=draws, render_side=side)
    assert draws.used_up(), draws.queues.keys()
    ((_, integrated),) = marched.calls
    ((coarse, _), (coarse_raw, coarse_colours)), *rest = watched.calls
    (((_, enlarged, *_), (enlarged_x, enlarged_rgb)),) = heard["first"]
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
        "sr_input_rgb": enlarged,
        "sr_block0_x": enlarged_x,
        "sr_block0_rgb": enlarged_rgb,
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

    psi, cutoff = case.number("image", r"psi ([\d.-]+)"), int(case.number("image", r"cutoff (\d+)"))
    rolled = Camera(*(x.roll(1, 0) for x in camera))
    draw("image", generator.map(Latent(z), truncation=psi, condition=camera, layers=cutoff).w, "const")
    draw("fixed", generator.map(Latent(z), truncation=psi, condition=rolled, layers=cutoff).w, "none")
    draw("random", generator.map(Latent(z), truncation=psi, condition=camera).w, "random")
    w = generator.map(Latent(z), condition=camera).w
    first = int(case.number("image_mixed", r"ws (\d+)\.\."))
    draw("mixed", torch.cat([w[:, :first], w.roll(1, 0)[:, first:]], dim=1), "const")
    gan = EG3D(generator, nn.Identity(), torch.optim.Adam, torch.optim.Adam)
    gan.styles(Latent(z), camera, Silent(), update_mean=True)
    case.compare("w_avg_after_update", generator.mean_w)
