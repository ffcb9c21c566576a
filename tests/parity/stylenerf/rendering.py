"""Cases of images: with everything on the way from their rays, and the published program's ways of drawing them."""

import copy
import math
import re
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import normalize

import zoo.stylenerf.model
from tests.parity.harness import Case
from tests.parity.published import hearing
from tests.parity.stylenerf.build import (
    build_poses,
    given_camera,
    linear_cameras,
    load_generator,
    published_pose,
    rolled_film,
    rounded,
    weigh,
)
from zoo.render import Camera, Importance, Rays, Samples, last_sample, pixel_centres, to_map
from zoo.stylenerf.extras import PlaneNetwork, TriPlaneField
from zoo.stylenerf.field import Styles, inverted_sphere_directions, paper_axes
from zoo.stylenerf.model import Generator, Latent


@torch.no_grad()
def render(case: Case) -> None:
    z, camera = case.inputs["z"], given_camera(case)
    latent = Latent(z, case.inputs.get("z_shape_bg", z[:, :0]))
    for mode, settings in case.config["modes"].items():
        alpha = settings["alpha"]
        # The program takes 20 samples where its networks were never told how far they have grown.
        generator = load_generator(case, {"n_ray_samples": 20} if alpha == -1 else None)
        generator.renderer.chunk = None
        if generator.background is not None:
            generator.background.chunk = None
        level = generator.grow(alpha)
        styles = generator.map(latent)
        case.compare("ws", styles.w)
        side = min(level.side, generator.feature_side)
        recorded = [n for n in case.outputs if n.endswith(".depth_unit_sorted")]
        name = next((n for n in recorded if n.startswith(f"{mode}.")), *(recorded[:1] or [None]))
        if name is not None and generator.renderer.fine is not None and alpha != -1:
            # Importance samples of one mode were recorded: they are checked by themselves, and what follows in all
            # modes with the same rays starts from them.
            if name.startswith(f"{mode}."):
                compare_fine(case, mode, generator, generator.rays(camera, side))
            if case.outputs[name].shape[1] == side**2:
                fine = recorded_fine(case, name, generator.renderer.samples)
                generator.renderer.fine = lambda t, weights, draws, fine=fine: fine
        ours, raw = intermediate(case, mode, generator, styles, camera)
        for name, value in case.recorded(f"{mode}.", ours | raw).items():
            if name not in case.compared:
                (case.relative if name.removeprefix(f"{mode}.") in raw else case.compare)(name, value)


def recorded_fine(case: Case, name: str, coarse: int) -> Tensor:
    """Those of the recorded depths of this name that are not the coarse ones."""
    found = case.outputs[name]
    fine = []
    for line in found.flatten(0, 1).tolist():
        for value in torch.linspace(0, 1, coarse).tolist():
            line.remove(min(line, key=lambda found, value=value: abs(found - value)))
        fine.append(line)
    return case.cast(torch.tensor(fine)).unflatten(0, found.shape[:2])


def compare_fine(case: Case, mode: str, generator: Generator, rays: Rays) -> None:
    """Our fine depths for the recorded raw densities."""
    renderer, theirs = generator.renderer, case.outputs[f"{mode}.depth_unit_sorted"]
    t = torch.linspace(0, 1, renderer.samples).expand(*theirs.shape[:2], -1)
    weights = weigh(renderer, rays, t, case.cast(case.outputs[f"{mode}.fg_sigma_raw"]).unflatten(1, t.shape[1:]))
    case.compare(f"{mode}.depth_unit_sorted", torch.cat([renderer.fine(t, weights, None), t], -1).sort(-1).values)


def intermediate(
    case: Case, mode: str, generator: Generator, styles: Styles, camera: Camera
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An image and all that leads to it, by published name; raw densities apart."""
    ours: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    front, behind = generator.foreground, generator.background
    networks = {"front": front, "renderer": generator.renderer} | dict(enumerate(generator.synthesis.blocks))
    if behind is not None:
        networks |= {"behind": behind, "behind.field": behind.field}
    with hearing(networks) as heard:
        rendered = generator.render(styles, camera, resolution=case.outputs[f"{mode}.img"].shape[-1])

    low = rendered.raw.shape[-1]
    film = pixel_centres(low).expand(len(styles.w), -1, -1)
    rays = generator.rays(camera, low)
    ours["pixels"] = film
    ours["ray_origin"], ours["ray_vector"] = paper_axes(rays.origins), paper_axes(rays.directions)
    ours["ray_target"] = paper_axes(rays.origins + rays.directions)
    shares = []
    for number, ((samples, _), (density, hidden)) in enumerate(heard["front"]):
        last = "" if number == 0 else f".{number + 1}"
        shares.append(samples.t)
        ours[f"fg_points{last}"] = paper_axes(samples.points).flatten(1, 2)
        raw[f"fg_sigma_raw{last}"] = density.flatten(1, 2)
        ours[f"fg_feat{last}"] = front.colours(hidden.flatten(1, 2), 1.0, styles)
    ((_, integrated),) = heard["renderer"]
    ours["depth_sorted"] = integrated.samples.t
    ours["fg_weights"], ours["bg_lambda"] = integrated.weights, 1 - integrated.opacity[..., 0]
    ours["depth_map"] = integrated.depth[..., 0]
    if behind is not None:
        (((samples, _), (density, hidden)),) = heard["behind.field"]
        ((_, found),) = heard["behind"]
        sphere = inverted_sphere_directions(samples.origins, samples.directions, samples.t)
        ours["bg_points"] = torch.cat([paper_axes(sphere), samples.t[..., None]], -1).flatten(1, 2)
        ours["bg_feat"] = behind.field.colours(hidden.flatten(1, 2), 1.0)
        raw["bg_sigma_raw"] = density.flatten(1, 2)
        ours["bg_weights"], ours["bg_depths"] = found.weights, -samples.t
    if heard.get(0):
        ours["feature_lowres"] = heard[0][0][0][0]
    else:
        colours = generator.composite(integrated, found if behind is not None else None, styles)
        ours["feature_lowres"] = colours[..., 3:].mT.unflatten(2, (low, low))
    ours["image_lowres"] = rendered.raw
    for i, block in enumerate(generator.synthesis.blocks):
        for _, (features, image) in heard[i]:
            ours[f"b{block.resolution}.x"], ours[f"b{block.resolution}.img"] = features, image
    ours["img"] = rendered.image
    if isinstance(front, TriPlaneField):
        ours |= planes_of(front.network, styles.w)
    ours["depth_unit_sorted"] = torch.cat(shares, -1).sort(-1).values
    return ours, raw


def planes_of(network: PlaneNetwork, w: Tensor) -> dict[str, Tensor]:
    """Features and planes after each block."""
    blocks = dict(enumerate(network.blocks))
    with hearing({"first": network.layer, "rgb": network.rgb} | blocks) as heard:
        network(w)
    found = {f"in_b{network.start}.x": heard["first"][0][1]}
    found[f"in_b{network.start}.img"] = heard[0][0][0][1] if blocks else heard["rgb"][0][1]
    for i, block in blocks.items():
        _, (x, image) = heard[i][0]
        found |= {f"in_b{block.resolution}.x": x, f"in_b{block.resolution}.img": image}
    return found


def truncation(case: Case) -> None:
    ours = truncate(case, load_generator(case))
    for name in case.outputs:
        case.compare(name, ours[name])


def truncate(case: Case, generator: Generator) -> dict[str, Tensor]:
    """All numbers of the case, by published name."""
    given = case.config["generator"]["synthesis_kwargs"]["camera_kwargs"]
    steps = next(int(name.split(":")[1]) for name in case.outputs if name.startswith("img.steps:"))
    stepped, alone = copy.deepcopy(generator), copy.deepcopy(generator)
    stepped.renderer.samples, stepped.renderer.fine = steps, Importance(steps)
    alone.background, alone.renderer.quadrature.background = None, last_sample
    z, other, behind = (case.inputs[name] for name in ("z", "z2", "z_shape_bg"))
    latent, camera = Latent(z, behind), given_camera(case)
    plain, second = generator.map(latent), generator.map(Latent(other, behind))
    ours = {"ws.psi1": plain.w, "ws2.psi1": second.w, "img.psi1": generator.render(plain, camera).image}
    for name in case.outputs:
        if found := re.fullmatch(r"ws\.psi([\d.]+?)(\.cutoff(\d+))?", name):
            if found[1] != "1":
                layers = None if found[3] is None else int(found[3])
                ours[name] = generator.map(latent, truncation=float(found[1]), layers=layers).w
                ours[name.replace("ws", "img", 1)] = generator.render(Styles(ours[name], behind), camera).image
        elif found := re.fullmatch(r"ws\.mix(\d+)-(\d+)", name):
            first, last = int(found[1]), int(found[2]) + 1
            w = torch.cat([plain.w[:, :first], second.w[:, first:last], plain.w[:, last:]], 1)
            ours[name], ours[name.replace("ws", "img", 1)] = w, generator.render(Styles(w, behind), camera).image
        elif found := re.fullmatch(r"img\.roll([\d.]+)", name):
            film = rolled_film(pixel_centres(generator.synthesis.low), float(found[1]))
            with patch.object(zoo.stylenerf.model, "pixel_centres", lambda *_, film=film: film):
                ours[name] = generator.render(plain, camera).image
    ours[f"img.steps:{steps}"] = stepped.render(plain, camera).image
    ours["img.not_render_background"] = alone.render(plain, camera).image

    def at(u: float, v: float) -> Camera:
        seen = linear_cameras(given, torch.tensor([[u, v, 0.5]]))
        return Camera(*(x.expand(len(z), -1, -1) for x in seen))

    still = build_poses(given).camera(
        *(torch.full((len(z), 1), angle, dtype=torch.float64) for angle in (math.pi / 2, math.pi / 2 + 0.2))
    )
    still = rounded(still)
    ours["img.freeze_bg"] = generator.render(plain, at(0.8, 0.3), background_camera=still).image  # as its meaning says
    empty = copy.deepcopy(generator)
    empty.renderer.quadrature.density = lambda raw, points: torch.zeros_like(raw)
    ours["img.only_render_background"] = empty.render(plain, camera).image
    ours |= early(generator, plain, camera)

    t = case.inputs["traj_t"].double() * 2 * math.pi
    camera = build_poses(given).camera(math.pi / 2 - 0.4 * t.sin()[:, None], math.pi / 2 + 0.2 * t.cos()[:, None])
    ours["traj.c2w"] = published_pose(camera)
    generator.mean_w.lerp_(generator.mapping(z).mean(0), 1 - 0.995)
    ours["w_avg.after"] = generator.mean_w
    return ours


def early(generator: Generator, styles: Styles, camera: Camera) -> dict[str, Tensor]:
    """Maps of positions, of normals computed from them, and of the density's gradient."""
    low = generator.synthesis.low
    rays = generator.rays(camera, low)
    condition = generator.foreground.modulate(styles)
    found = generator.renderer(generator.foreground, rays, condition)
    places = to_map(paper_axes(rays.origins + found.depth * rays.directions))
    right = places[:, :, 1:-1, 2:] - places[:, :, 1:-1, :-2]
    down = places[:, :, 2:, 1:-1] - places[:, :, :-2, 1:-1]
    normals = normalize(torch.linalg.cross(right, down, dim=1), dim=1)
    points = Samples(rays.origins, rays.directions, found.samples.t).points.detach().requires_grad_()
    raw, _ = generator.foreground(Samples(rays.origins, rays.directions, found.samples.t, points), condition)
    (gradient,) = torch.autograd.grad(raw.sum(), points)
    gradient = -normalize(torch.einsum("brs,brsc->brc", found.weights, paper_axes(gradient)), dim=-1)
    return {"img.early_depth": places, "img.early_normal": normals, "img.early_gradient": to_map(gradient)}
