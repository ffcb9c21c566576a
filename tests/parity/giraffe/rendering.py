"""Cases of images, with everything on the way from their rays, and of the published programmes that edit scenes."""

from functools import partial

import torch
from torch import Tensor

from tests.parity.giraffe.build import camera_of, latent_of, load_discriminator, load_generator, reordered, world_mat
from tests.parity.giraffe.draws import CODES, box_draws, present, rendering_draws
from tests.parity.harness import Case
from tests.parity.published import hearing
from tests.parity.replay import Replay
from zoo.giraffe.edits import EDITS, wander
from zoo.giraffe.extras import object_masks
from zoo.giraffe.model import Generator
from zoo.giraffe.rendering import densest
from zoo.giraffe.scenes import Latent
from zoo.render import Camera, to_map


@torch.no_grad()
def render(case: Case) -> None:
    generator, latent = load_generator(case), latent_of(case.inputs)
    camera, farthest = camera_of(case.inputs["camera_mat"], case.inputs["world_mat"])
    compose = generator.scene.compose

    def there(objects: Tensor | bool, background: bool) -> Latent:
        shown = latent.present.clone()
        shown[:, :-1], shown[:, -1] = objects, background
        return latent._replace(present=shown)

    scenes = dict.fromkeys(("val", "train", "max", "ema", "bigger"), latent)
    scenes |= {"no_background": there(True, False), "only_background": there(False, True)}
    if "exist" in case.blocks():
        objects = present(case.block("exist."), latent.scale.shape[1])
        case.compare("exist.mask", objects)
        scenes["exist"] = there(objects, True)
    for name in case.blocks():
        if name == "alpha_map":
            case.compare(name, object_masks(generator, latent, camera, farthest=farthest))
        elif name == "discriminator":
            image = generator.render(latent, camera, farthest=farthest).image
            case.compare("discriminator.score", load_discriminator(case)(image).scores)
        else:
            generator.scene.compose = densest if name == "max" else compose
            march(
                case,
                name,
                load_generator(case, "generator_test.") if name == "ema" else generator,
                scenes[name],
                camera,
                farthest,
                case.block(f"{name}.") if name == "train" else None,
                case.config["extra_resolution_vol"] * 2**generator.neural_renderer.stages if name == "bigger" else None,
            )


def march(
    case: Case,
    name: str,
    generator: Generator,
    latent: Latent,
    camera: Camera,
    farthest: Tensor | None,
    recorded: dict[str, Tensor] | None = None,
    resolution: int | None = None,
) -> None:
    """Render one block of a case, comparing what there is on the way."""
    side = (resolution or generator.resolution) // 2**generator.neural_renderer.stages
    draws = None if recorded is None else Replay(rendering_draws(recorded))
    rays = generator.rays(camera, side, farthest)
    samples = generator.renderer.depths(rays, draws)
    scene = generator.scene
    local = scene.place(samples, latent)
    raw, features = scene.query(local, latent)
    noise = None if draws is None else draws.normal("density_noise", (*raw.transpose(0, 1).shape,))
    densities = scene.densities(raw, local, latent, noise)
    density, shares = scene.compose(densities)

    points = torch.cat([local.points.transpose(0, 1), local.background_points[None]])
    directions = torch.cat([local.directions.transpose(0, 1), local.background_directions[None]])
    ours = {
        "ray_origin": reordered(rays.origins.roll(1, -1)),
        "pixel_world": reordered((rays.origins + rays.directions).roll(1, -1)),
        "ray_dir": reordered(rays.directions.roll(1, -1)),
        "depths": reordered(samples.t),
        "points": reordered(points, 2).flatten(2, 3),
        "point_dirs": reordered(directions, 2),
        "sigma_raw": reordered(raw, 2).flatten(2),
        "feat": reordered(features, 2),
        "sigma": reordered(densities, 2),
        "sigma_sum": reordered(density),
        "feat_weighted": reordered((shares[..., None] * features).sum(0)),
    }
    again = None if draws is None else Replay(rendering_draws(recorded))
    integrated = generator.renderer(scene, rays, latent, again, generator.density_noise)
    assert again is None or again.used_up()
    ours |= {
        "weights": reordered(integrated.weights),
        "depth_map": reordered(integrated.depth)[..., 0],
        "feat_map": to_map(integrated.features),
    }
    neural_renderer = generator.neural_renderer
    layers = {f"renderer.conv{i}_preact": layer for i, layer in enumerate(neural_renderer.layers)}
    if neural_renderer.colour_up is not None:
        layers |= {f"renderer.rgb{i}": layer for i, layer in enumerate(neural_renderer.colours)}
    again = None if draws is None else Replay(rendering_draws(recorded))
    with hearing(layers) as heard:
        image = generator.render(latent, camera, resolution=resolution, draws=again, farthest=farthest).image
    ours |= {layer: calls[-1][1] for layer, calls in heard.items() if calls}
    for key, value in case.recorded(f"{name}.", ours | {"image": (image + 1) / 2}).items():
        compare = case.relative if key.startswith(f"{name}.sigma") else case.compare
        compare(key, value)


# The published programmes for scenes, and the edit that each is here.
PROGRAMMES = {
    "render_object_rotation": "rotate",
    "render_object_translation_horizontal": "sideways",
    "render_object_translation_depth": "depth",
    "render_object_translation_circle": "circle",
    "render_camera_elevation": "elevation",
    "render_add_objects_cars5": "add-cars",
    "render_add_objects_clevr10": "add-clevr10",
    "render_add_objects_clevr6": "add-clevr6",
}


@torch.no_grad()
def truncation(case: Case) -> None:
    for model, programmes in case.config["programs"].items():
        config = case.config[model]
        generator = load_generator(case, f"{model}.generator_test.", config)
        for name, programme in programmes.items():
            play(case, f"{model}.{name}", generator, programme)


def play(case: Case, name: str, generator: Generator, programme: dict) -> None:
    """One programme: what it hands to the generator, and what comes out."""
    recorded = case.block(f"{name}.")
    drawn = [recorded[f"z{i}"] for i in range(programme["n_randn"])]
    batch, count = drawn[0].shape[:2]
    rotation = recorded.get("bg_u", torch.zeros(()))
    rest = [("box_scale", torch.zeros(batch, count)), ("box_place", torch.zeros(batch, count, 3))]
    rest += [("box_rotation", torch.zeros(batch, count)), ("background_rotation", rotation.expand(batch))]
    if generator.counts is not None:
        rest += [("object_count", torch.ones(batch)), ("object_choice", torch.zeros(batch, count))]
    if "rand0" in recorded:
        rest[:3] = box_draws(
            {"box_scale": recorded["rand0"], "box_trans": recorded["rand1"], "box_rot": recorded["np_rand"]}, count
        )
    latent = generator.latents(batch, Replay([*zip(CODES.values(), drawn[:4], strict=True), *rest]))
    method, options = programme["method"], programme["kwargs"]
    more, frames, extra = drawn[4:], len(case.outputs[f"{name}.frames"]), []
    if method.startswith("render_interpolation"):
        code = {"app": "appearance", "shape": "shape"}[options.get("mode", "app")]
        code = f"background_{code}_code" if method.endswith("_bg") else f"{code}_code"
        edit = partial(wander, code=code, stations=len(more))
        extra = [("stations", torch.stack(more, 1))]
    else:
        edit = EDITS[PROGRAMMES[method]]
        if more:
            extra = [("added_shape", more[0]), ("added_appearance", more[1])]
    scenes, camera = edit(generator, latent, frames, Replay(extra))
    scenes = generator.map(scenes, truncation=0.65)

    image = (generator.render(scenes, camera).image + 1) / 2
    turned_to = by_frame(scenes.background_rotation, frames)
    ours = {
        "s": by_frame(scenes.scale, frames),
        "t": by_frame(scenes.place, frames),
        "R": by_frame(scenes.rotation, frames),
        "world_mat": by_frame(world_mat(camera, generator.poses), frames),
        "z_shape_obj": by_frame(scenes.shape_code, frames),
        "z_app_obj": by_frame(scenes.appearance_code, frames),
        "z_shape_bg": by_frame(scenes.background_shape_code, frames),
        "z_app_bg": by_frame(scenes.background_appearance_code, frames),
        "bg_rotation": turned_to[0],
        "frames": by_frame(image, frames),
    }
    for key, value in ours.items():
        if f"{name}.{key}" in case.outputs:
            same = value.dim() > case.outputs[f"{name}.{key}"].dim()  # recorded once for all frames
            case.compare(f"{name}.{key}", value[0] if same else value)


def by_frame(x: Tensor, frames: int) -> Tensor:
    """Scene after scene to frame after frame, [T, B, ...]."""
    return x.unflatten(0, (-1, frames)).transpose(0, 1)
