"""How the published GIRAFFE's arguments, names and draws translate into ours."""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.parity.harness import Case, Replay, by_published_name, same_tensors, train
from zoo.giraffe import convert as giraffe
from zoo.giraffe.convert import DISCRIMINATOR, FIELD, GENERATOR, RENDERER
from zoo.giraffe.edits import EDITS, between_codes, wander
from zoo.giraffe.extras import (
    Block,
    GaussianFeatures,
    PlainGenerator,
    PlainLatent,
    ResidualDiscriminator,
    object_masks,
)
from zoo.giraffe.field import Field, Octaves
from zoo.giraffe.model import Discriminator, Generator, NearestUp, NeuralRenderer, SmoothUp
from zoo.giraffe.rendering import SceneRenderer, StratifiedDepths, densest, weighted
from zoo.giraffe.scenes import BoxPrior, Counts, Latent, ScenePoses, are_free, to_zoo, vertical_rotation
from zoo.giraffe.training import GIRAFFE
from zoo.render import (
    Camera,
    Samples,
    infinite_last_interval,
    pixel_corners,
    to_map,
    transmission_weights,
    zero_last_interval,
)
from zoo.training.ema import EMA
from zoo.weights.convert import convert_network
from zoo.weights.names import UNUSED, from_published, inside, published_name, to_published
from zoo.weights.read import Place, read

# The 2D baseline: between its blocks the published lists hold what changes the size, so every other number is missing.
BLOCK = [(r"first\.", "conv_0."), (r"second\.", "conv_1."), (r"skip\.", "conv_s.")]
BLOCKS = [entry for i in range(10) for entry in inside(rf"blocks\.{i}\.", f"resnet.{2 * i}.", BLOCK)]
GENERATOR_2D = [*BLOCKS, (r"enter\.", "fc."), (r"colour\.", "conv_img.")]
DISCRIMINATOR_2D = [*BLOCKS, (r"enter\.", "conv_img."), (r"score\.", "fc.")]
# Of the published generator's count of objects.
EXISTENCE = (0.19456788355146545, 0.24355003312266127, 0.25269546846185522, 0.30918661486401804)


def build_field(of: dict, latent_dim: int) -> Field:
    """Our field for the published decoder's arguments."""
    positions, directions = build_encodings(of)
    return Field(
        positions,
        directions if of.get("use_viewdirs", True) else None,
        latent_dim,
        of.get("hidden_size", 128),
        of.get("n_blocks", 8),
        of.get("skips", [4]),
        of.get("rgb_out_dim", 128),
        of.get("final_sigmoid_activation", False),
    )


def build_encodings(of: dict) -> tuple[nn.Module, nn.Module]:
    """Our encodings of points and directions."""
    downscale = of.get("downscale_p_by", 2.0)
    if of.get("positional_encoding", "normal") == "gauss":
        points = 3 * of.get("gauss_dim_pos", 10)
        std = of.get("gauss_std", 4.0)
        views = GaussianFeatures(3 * of.get("gauss_dim_view", 4), downscale, after=3 * points, std=std)
        return GaussianFeatures(points, downscale, std=std), views
    return Octaves(of.get("n_freq_posenc", 10), downscale), Octaves(of.get("n_freq_posenc_views", 4), downscale)


UPSAMPLING = {"nn": NearestUp, "bilinear": SmoothUp}


def build_renderer(of: dict) -> NeuralRenderer:
    return NeuralRenderer(
        round(math.log2(of.get("img_size", 64))) - 4,
        of.get("input_dim", 128),
        of.get("n_feat", 128),
        of.get("min_feat", 32),
        skips=of.get("use_rgb_skip", True),
        norm=of.get("use_norm", False),
        up=UPSAMPLING[of.get("upsample_feat", "nn")](),
        colour_up=UPSAMPLING[of.get("upsample_rgb", "bilinear")](),
        sigmoid=of.get("final_actvn", True),
    )


def build_boxes(of: dict) -> BoxPrior:
    return BoxPrior(
        count=of.get("n_boxes", 1),
        scale_min=tuple(of.get("scale_range_min", [0.5, 0.5, 0.5])),
        scale_max=tuple(of.get("scale_range_max", [0.5, 0.5, 0.5])),
        place_min=tuple(of.get("translation_range_min", [-0.75, -0.75, 0.0])),
        place_max=tuple(of.get("translation_range_max", [0.75, 0.75, 0.0])),
        rotation=tuple(of.get("rotation_range", [0.0, 1.0])),
        one_scale=of.get("fix_scale_ratio", True),
        level=of.get("z_level_plane", 0.0) if of.get("object_on_plane", False) else None,
        margin=of.get("collision_padding", 0.1) if of.get("check_collison", False) else None,
        coordinates=of.get("prior_npz_file"),
    )


def build_poses(of: dict) -> ScenePoses:
    return ScenePoses(
        tuple(of.get("range_u", (0, 0))),
        tuple(of.get("range_v", (0.25, 0.25))),
        tuple(of.get("range_radius", (2.732, 2.732))),
        of.get("fov", 49.13),
    )


def build_generator(config: dict) -> Generator:
    """Our generator for the published constructors' arguments."""
    of = config["generator_kwargs"]
    near, far = of.get("depth_range", [0.5, 6.0])
    background = {"hidden_size": 128, **config["background_generator_kwargs"]}
    return Generator(
        build_field(config["decoder_kwargs"], config["z_dim"]),
        build_field(background, config["z_dim_bg"]),
        build_boxes(config["bounding_box_generator_kwargs"]),
        build_poses(of),
        SceneRenderer(StratifiedDepths(near, far, of.get("n_ray_samples", 64)), chunk=200),
        build_renderer(config["neural_renderer_kwargs"]),
        densest if of.get("use_max_composition", False) else weighted,
        of.get("resolution_vol", 16),
        tuple(of.get("backround_rotation_range", [0.0, 0.0])),
        Counts(EXISTENCE) if of.get("sample_object_existance", False) else None,
    )


def load(module: nn.Module, state: dict[str, Tensor], table: list, unused: tuple[str, ...] = ()) -> nn.Module:
    """Fill a module from a published state dict; also checks that the way back gives it again."""
    ours = from_published(state, list(module.state_dict()), table)
    again = to_published(ours, table)
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    left = [name for name in ours if name.startswith(UNUSED)]
    assert all(any(part in name for part in unused) for name in left), left
    module.load_state_dict({name: tensor for name, tensor in ours.items() if name not in left})
    return module


def load_generator(case: Case, prefix: str = "generator.", config: dict | None = None) -> Generator:
    return load(build_generator(config or case.config), case.weights(prefix), GENERATOR, NEVER_READ)


# Without colours at every size nothing enlarges them; a skip that counts from 0 is never taken; nor is a direction read
# where it does not matter.
NEVER_READ = ("upsample_rgb.1.f", "fc_z_skips", "fc_p_skips", "fc_view")


def build_discriminator(of: dict) -> Discriminator:
    return Discriminator(of.get("img_size", 64), of.get("n_feat", 512), image_channels=of.get("in_dim", 3))


def load_discriminator(case: Case) -> Discriminator:
    discriminator = build_discriminator(case.config["discriminator_kwargs"])
    return load(discriminator, case.weights("discriminator."), DISCRIMINATOR)


def latent_of(inputs: dict[str, Tensor]) -> Latent:
    """A scene that was recorded."""
    batch, count = inputs["s"].shape[:2]
    codes = (inputs[name] for name in ("z_shape_obj", "z_app_obj", "z_shape_bg", "z_app_bg"))
    there = torch.ones(batch, count + 1, dtype=torch.bool)
    return Latent(*codes, inputs["s"], inputs["t"], inputs["R"], inputs["bg_rotation"], there)


def camera_of(camera_mat: Tensor, world_mat: Tensor) -> tuple[Camera, Tensor]:
    """Our camera for published matrices, and for each the distance at which its axis has length 1.

    The axes of the published camera have lengths of their own; ours are rigid, and the intrinsics take the lengths up.
    """
    axes = to_zoo(world_mat[:, :3, :3].mT).double()  # each row an axis, in our world
    across, upwards, reach = axes.norm(dim=-1).unbind(-1)
    origins = to_zoo(world_mat[:, :3, 3]).double()
    pose = torch.eye(4, dtype=torch.float64).repeat(len(axes), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = nn.functional.normalize(axes, dim=-1).mT, origins
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(len(axes), 1, 1)
    intrinsics[:, :2, 2] = 0.5
    intrinsics[:, 0, 0] = reach / across / camera_mat[:, 0, 0].double() / 2
    intrinsics[:, 1, 1] = reach / upwards / camera_mat[:, 1, 1].double() / 2
    return Camera(pose, intrinsics), origins.norm(dim=-1) / reach


def world_mat(camera: Camera, poses: ScenePoses, farthest: Tensor | None = None) -> Tensor:
    """The way back from a camera of ours."""
    distance = camera.origins.norm(dim=-1)
    reach = torch.ones_like(distance) if farthest is None else distance / farthest
    across, upwards = (reach * poses.focal / 2 / camera.intrinsics[:, i, i] for i in (0, 1))
    axes = camera.pose[:, :3, :3].mT * torch.stack([across, upwards, reach], -1)[..., None]
    result = torch.eye(4).repeat(len(axes), 1, 1)
    result[:, :3, :3] = axes.roll(1, -1).mT
    result[:, :3, 3] = camera.origins.roll(1, -1)
    return result


def reordered(rays: Tensor, axis: int = 1) -> Tensor:
    """Rays in the published order, column by column, to ours, row by row; and back."""
    side = math.isqrt(rays.shape[axis])
    return rays.unflatten(axis, (side, side)).transpose(axis, axis + 1).flatten(axis, axis + 1)


def rendering_draws(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Draws of one published rendering, under our names."""
    jitter = recorded["jitter"]
    fields = sum(name.startswith("noise") for name in recorded)
    noise = [reordered(recorded[f"noise{i}"].reshape(jitter.shape)) for i in range(fields)]
    return [("jitter", reordered(jitter)), ("density_noise", torch.stack(noise, 1))]


def block(case: Case, name: str) -> dict[str, Tensor]:
    """The inputs of a block, without its name."""
    return {n.removeprefix(f"{name}."): t for n, t in case.inputs.items() if n.startswith(f"{name}.")}


# Kinds of case


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
        objects = present(block(case, "exist"), latent.scale.shape[1])
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
                block(case, name) if name == "train" else None,
                case.config["extra_resolution_vol"] * 2**generator.neural_renderer.stages if name == "bigger" else None,
            )


def present(recorded: dict[str, Tensor], boxes: int) -> Tensor:
    """Which boxes hold an object, by our rule from recorded draws."""
    order = torch.ones(len(recorded["u"]), boxes)
    for row, count, choice in zip(order, recorded["n_objects"], recorded["choice"], strict=True):
        row[choice[:count]] = 0.0
    draws = Replay([("object_count", recorded["u"]), ("object_choice", order)])
    there = Counts(EXISTENCE)(len(order), boxes, draws)
    assert torch.equal(there.sum(1), recorded["n_objects"])
    return there


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
    seen: dict[str, Tensor] = {}
    hooks = [m.register_forward_hook(lambda m, i, o, n=n: seen.update({n: o.clone()})) for n, m in layers.items()]
    again = None if draws is None else Replay(rendering_draws(recorded))
    image = generator.render(latent, camera, resolution=resolution, draws=again, farthest=farthest).image
    for hook in hooks:
        hook.remove()
    for key, value in (ours | seen | {"image": (image + 1) / 2}).items():
        if f"{name}.{key}" in case.outputs:
            compare = case.relative if key.startswith("sigma") else case.compare
            compare(f"{name}.{key}", value)


@torch.no_grad()
def modules(case: Case) -> None:
    points, directions, shape, appearance = (case.inputs[n] for n in ("points", "dirs", "z_shape", "z_app"))
    for variant, of in case.config["decoders"].items():
        name = f"decoder_{variant}"
        field = load(build_field(of, of["z_dim"]), case.weights(f"{name}."), FIELD, NEVER_READ)
        terms = field.terms(shape, appearance)[:, None]
        encoders = build_encodings(of)
        if of.get("positional_encoding") == "gauss":
            for key, encoder in zip(("gauss_B_pos", "gauss_B_view"), encoders, strict=True):
                torch.testing.assert_close(case.inputs[key][0], encoder.directions, rtol=2**-23, atol=0)
        case.compare(f"{name}.posenc", encoders[0](points[:, :8]))
        case.compare(f"{name}.posenc_view", encoders[1](nn.functional.normalize(directions[:, :8], dim=-1)))
        for suffix, seen in (("", directions), ("_no_dirs", None)):
            if f"{name}.feat{suffix}" in case.outputs:
                raw, hidden = field(points, seen, terms)
                case.compare(f"{name}.feat{suffix}", field.finish(hidden, torch.ones_like(hidden[..., :1])))
        case.relative(f"{name}.sigma", raw)
    for variant, of in case.config["renderers"].items():
        neural_renderer = load(build_renderer(of), case.weights(f"renderer_{variant}."), RENDERER, NEVER_READ)
        case.compare(f"renderer_{variant}.image", neural_renderer(case.inputs["feat_map"])[0])
    case.compare("blur", SmoothUp().blur(case.inputs["blur_in"]))
    case.compare("rgb_upsample", SmoothUp()(case.inputs["blur_in"]))
    shares = numbers_after(case, "interpolate_sphere", " at ")
    case.compare("interpolate_sphere", torch.stack([between_codes(shape[:1], appearance[:1], x) for x in shares]))
    into, out = case.inputs["res_in"].shape[1], case.outputs["resblock"].shape[1]
    case.compare("resblock", load(Block(into, out), case.weights("resblock."), BLOCK)(case.inputs["res_in"]))
    for name, compose in (("composite", weighted), ("composite_max", densest)):
        density, shares = compose(case.inputs["comp_sigma"])
        case.compare(f"{name}.sigma_sum", density)
        case.compare(f"{name}.feat", (shares[..., None] * case.inputs["comp_feat"]).sum(0))
    for name, intervals in (("weights", infinite_last_interval), ("weights_last0", zero_last_interval)):
        lengths = intervals(case.inputs["vol_depth"], case.inputs["vol_ray"])
        case.compare(f"volume.{name}", transmission_weights(case.inputs["vol_sigma"].relu(), lengths))


def numbers_after(case: Case, name: str, text: str) -> Tensor:
    """The numbers that an output's meaning lists behind this text."""
    meaning = case.info["outputs"][name]["meaning"]
    return torch.tensor([float(x) for x in re.findall(r"[\d.]+", meaning.split(text)[1])])


def box_draws(recorded: dict[str, Tensor], count: int) -> list[tuple[str, Tensor]]:
    """Draws of boxes under our names; those of turns come scene after scene, box after box."""
    batch = len(recorded["box_scale"])
    turns = recorded["box_rot"][: batch * count].reshape(batch, count)
    scale, place = recorded["box_scale"][:, :count], recorded["box_trans"][:, :count]
    return [("box_scale", scale), ("box_place", place), ("box_rotation", turns)]


def camera_draws(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [("azimuth", recorded["u"]), ("polar", recorded["v"]), ("radius", recorded["radius"])]


@torch.no_grad()
def sampling(case: Case) -> None:
    inputs = case.inputs
    for name, config in case.config["configs"].items():
        boxes, poses = build_boxes(config["bb"]), build_poses(config["gen"])
        cameras(case, name, poses)
        polar = numbers_after(case, f"{name}.get_camera", "val_v = ")
        chosen = poses.at(torch.full_like(polar, 0.5), polar, torch.full_like(polar, 0.5))
        case.compare(f"{name}.get_camera", world_mat(chosen, poses))
        inverse = torch.eye(4)[None]
        inverse[:, 0, 0] = inverse[:, 1, 1] = 1 / (2 * chosen.intrinsics[0, 0, 0])
        case.compare(f"{name}.camera_mat", inverse)
        drawn = boxes(case.config["batch"], Replay(box_draws(inputs, boxes.count)))
        chosen = boxes.at(*(inputs[key][None, : boxes.count] for key in ("val_s", "val_t", "val_r")))
        for key, ours, given in zip("stR", drawn, chosen, strict=True):
            case.compare(f"{name}.{key}", ours)
            case.compare(f"{name}.get_{key}", given)
        first, last = config["gen"].get("backround_rotation_range", (0.0, 0.0))
        if f"{name}.bg_rotation" in case.outputs:
            rotation = vertical_rotation(first + inputs["bg_u"] * (last - first))[None]
            case.compare(f"{name}.get_bg_rotation", rotation)
            case.compare(f"{name}.bg_rotation", rotation.expand_as(case.outputs[f"{name}.bg_rotation"]))

    # The arguments of these calls are not in the case; they were read off its numbers.
    wide = ScenePoses((0.1, 0.7), (0.2, 0.6), (2.0, 3.5))
    cameras(case, "wide", wide)
    case.compare("wide.middle_pose", world_mat(wide(1, None), wide))
    batch = case.config["batch"]
    count = inputs["col_scale"].shape[1]
    apart = BoxPrior(
        count, (0.1,) * 3, (0.2, 0.3, 0.15), (-0.5, -0.5, 0.0), (0.5, 0.5, 0.2), one_scale=False, margin=0.1
    )
    trials = [(f"box_place_{i}" if i else "box_place", t) for i, t in enumerate(inputs["col_trans"])]
    turns = inputs["box_rot"][: count * batch]
    draws = Replay([("box_scale", inputs["col_scale"]), *trials, ("box_rotation", turns)])
    for key, ours in zip("stR", apart(batch, draws), strict=True):
        case.compare(f"collision.{key}", ours)
    assert draws.used_up()
    draws = Replay([("box_scale", inputs["col_scale"]), trials[0], ("box_rotation", turns)])
    once = BoxPrior(count, apart.scale_min, apart.scale_max, apart.place_min, apart.place_max, one_scale=False)(
        batch, draws
    )
    case.compare("collision.is_free_first", are_free(once.scale, once.place, 0.1))
    case.compare("collision.is_free_3boxes", are_free(inputs["col3_s"], inputs["col3_t"], 0.1))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "coordinates.npz"
        np.savez(path, coordinates=inputs["prior_raw"].cpu().numpy())
        count = inputs["prior_raw"].shape[1]
        of = next(of["bb"] for of in case.config["configs"].values() if of["bb"].get("n_boxes", 1) == count)
        boxes = build_boxes({**of, "prior_npz_file": path})
        scene = (inputs["prior_idx"].double() + 0.5) / len(inputs["prior_raw"])
        draws = Replay([*box_draws(inputs, boxes.count), ("box_scene", scene)])
        for key, ours in zip("stR", boxes(batch, draws), strict=True):
            case.compare(f"prior.{key}", ours)
    case.compare("exist.mask", present(block(case, "exist"), case.outputs["exist.mask"].shape[1]))
    marching(case)
    latents(case)
    in_range(case)


def cameras(case: Case, name: str, poses: ScenePoses) -> None:
    """Cameras drawn together and one by one."""

    def drawn(part: slice) -> Tensor:
        recorded = [(key, numbers[part]) for key, numbers in camera_draws(case.inputs)]
        camera = poses.together(len(recorded[0][1]), Replay(recorded))
        return world_mat(camera, poses, camera.origins.norm(dim=-1).max())

    case.compare(f"{name}.world_mat", drawn(slice(None)))
    if f"{name}.world_mat_one_at_a_time" in case.outputs:
        batch = range(case.config["batch"])
        case.compare(f"{name}.world_mat_one_at_a_time", torch.cat([drawn(slice(i, i + 1)) for i in batch]))
    if f"{name}.world_mat_inverted" in case.outputs:
        few = len(case.outputs[f"{name}.world_mat_inverted"])
        case.compare(f"{name}.world_mat_inverted", torch.linalg.inv(drawn(slice(None)))[:few])


def marching(case: Case) -> None:
    """Depths and the grid of pixels."""
    shape = case.outputs["depths"].shape
    rays = Samples(torch.zeros(*shape[:2], 3), torch.ones(*shape[:2], 3), torch.zeros(*shape[:2], 1))
    depths = StratifiedDepths(0.5, 6.0, shape[2])
    case.compare("depths", depths(rays, None).t)
    case.compare("depths_jittered", depths(rays, Replay([("jitter", case.inputs["jitter"])])).t)
    film = pixel_corners(math.isqrt(case.outputs["pixels"].shape[1]))[None]
    case.compare("pixels", reordered(film * torch.tensor([1.0, -1.0])))  # before its rows are turned upside down


def latents(case: Case) -> None:
    """Codes at two temperatures: our truncation."""
    lat = [case.inputs[f"lat{i}"] for i in range(4)]
    batch, count, size = lat[0].shape
    config = {
        "z_dim": size,
        "z_dim_bg": lat[2].shape[1],
        "decoder_kwargs": {"hidden_size": 4},
        "background_generator_kwargs": {"hidden_size": 4},
        "bounding_box_generator_kwargs": {"n_boxes": count},
        "neural_renderer_kwargs": {},
        "generator_kwargs": {},
    }
    generator = build_generator(config)
    names = ("shape", "appearance", "background_shape", "background_appearance")
    rest = [("box_scale", torch.zeros(batch, count)), ("box_place", torch.zeros(batch, count, 3))]
    rest += [("box_rotation", torch.zeros(batch, count)), ("background_rotation", torch.zeros(batch))]
    drawn = generator.latents(batch, Replay([*zip(names, lat, strict=True), *rest]))
    for temperature in dict.fromkeys(re.findall(r"latent_tmp([\d.]+)\.", " ".join(case.outputs))):
        scaled = generator.map(drawn, truncation=float(temperature))
        for key, ours in zip(("shape_obj", "app_obj", "shape_bg", "app_bg"), scaled, strict=False):
            case.compare(f"latent_tmp{temperature}.{key}", ours)


def in_range(case: Case) -> None:
    """Boxes between chosen shares of their ranges."""
    batch, count = case.outputs["in_range.s"].shape[:2]
    boxes = build_boxes({**case.config["configs"]["cars_64"]["bb"], "n_boxes": count})
    scale, place, turn = case.inputs["range_u"].reshape(batch, -1).split([3 * count, 3 * count, count], dim=1)
    scale, place = (x.unflatten(1, (count, 3)) for x in (scale, place))
    shares = [low + (high - low) * x for (low, high), x in zip(IN_RANGE, (scale, place, turn), strict=True)]
    for key, ours in zip("stR", boxes.at(*shares), strict=True):
        case.compare(f"in_range.{key}", ours)


IN_RANGE = ((0.0, 0.5), (0.2, 0.8), (0.0, 0.3))


@torch.no_grad()
def discriminator(case: Case) -> None:
    for variant, of in case.config["dc"].items():
        discriminator = load(build_discriminator(of), case.weights(f"dc_{variant}."), DISCRIMINATOR)
        images = case.inputs[f"x_{discriminator.resolution}"] * 2 - 1
        seen: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o)) for layer in discriminator.layers
        ]
        case.compare(f"dc_{variant}.score", discriminator(images).scores)
        for hook in hooks:
            hook.remove()
        for i, x in enumerate(seen):
            x = nn.functional.leaky_relu(x, 0.2).flatten(1)
            name = f"dc_{variant}.block{i}_mean_std"
            if name in case.outputs:
                case.compare(name, torch.stack([x.mean(1), x.std(1)]))
        more = torch.cat([images, images[:, :1]], dim=1)
        case.compare(f"dc_{variant}.score_extra_channels", discriminator(more).scores)
    for variant, of in case.config["resnet"].items():
        discriminator = ResidualDiscriminator(
            of.get("image_size", 64), of.get("nfilter", 16), of.get("nfilter_max", 512)
        )
        load(discriminator, case.weights(f"resnet_{variant}."), DISCRIMINATOR_2D)
        case.compare(f"resnet_{variant}.score", discriminator(case.inputs[f"x_{of.get('image_size', 64)}"]).scores)


def rmsprop(lr: float) -> partial:
    return partial(torch.optim.RMSprop, lr=lr, alpha=0.99, eps=1e-8)


def losses(case: Case) -> None:
    generator, discriminator = load_generator(case), load_discriminator(case)
    gan = GIRAFFE(generator, discriminator, rmsprop(5e-4), rmsprop(1e-4))
    latent = latent_of(case.inputs)
    camera, farthest = camera_of(case.inputs["camera_mat"], case.inputs["world_mat"])

    def fakes() -> Tensor:
        draws = Replay(rendering_draws(block(case, "train")))
        return generator.render(latent, camera, draws=draws, farthest=farthest).image

    fake = fakes()
    case.compare("G.image", (fake + 1) / 2)
    case.compare("G.d_fake", discriminator(fake).scores)
    loss = sum(gan.loss_g(fake).values())
    case.relative("G.loss", loss, 1e-4)
    compare_gradients(case, "G", generator, loss, GENERATOR)
    if "G_max.loss" in case.outputs:
        generator.scene.compose = densest
        loss = sum(gan.loss_g(fakes()).values())
        case.relative("G_max.loss", loss, 1e-4)
        compare_gradients(case, "G_max", generator, loss, GENERATOR)

    real = case.inputs["x_real"].requires_grad_()
    scores = discriminator(real * 2 - 1).scores
    case.compare("D.d_real", scores)
    (gradient,) = torch.autograd.grad(scores.sum(), real)
    case.each_relative("D.grad2_per_image", gradient.square().flatten(1).sum(1))
    # As recorded: which side of zero a hidden unit is on decides its slope.
    terms = gan.loss_d(real * 2 - 1, case.cast(case.outputs["G.image"]) * 2 - 1)
    for name, key in (("loss_real", "real"), ("reg", "r1"), ("loss_fake", "fake")):
        case.relative(f"D.{name}", terms[key], 1e-4)
    case.relative("D.loss", sum(terms.values()), 1e-4)
    compare_gradients(case, "D.gan", discriminator, terms["real"] + terms["fake"], DISCRIMINATOR)
    compare_gradients(case, "D.reg", discriminator, terms["r1"], DISCRIMINATOR)
    compare_gradients(case, "D", discriminator, sum(terms.values()), DISCRIMINATOR)


def compare_gradients(case: Case, name: str, network: nn.Module, loss: Tensor, table: list) -> None:
    """Norms of all gradients in the published order, and the full ones that were recorded."""
    player, _, part = name.partition(".")
    parameters = by_published_name(network, table)
    gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
    prefix = f"{player}.{part}_" if part else f"{player}."
    found = dict(zip(parameters, gradients, strict=True))
    case.gradients(f"{prefix}grad_norms", f"{prefix}grad.", found, case.info[f"param_names_{player[0]}"])


class Replayed(GIRAFFE):
    """Trains with recorded draws, and remembers losses and gradients."""

    def __init__(self, recorded: list[list[tuple[str, Tensor]]], **kwargs) -> None:
        super().__init__(**kwargs)
        self.recorded = recorded
        self.terms: dict[str, dict[str, Tensor]] = {}
        self.gradients: dict[str, dict[str, Tensor]] = {}

    def draws(self) -> Replay:
        return Replay(self.recorded[self.iterations])

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        super().accumulate(prefix, terms)
        network = self.generator if prefix == "loss_g" else self.discriminator
        self.terms[prefix] = {name: term.detach() for name, term in terms.items()}
        self.gradients[prefix] = {name: p.grad.clone() for name, p in network.named_parameters()}


class AfterEach(pl.Callback):
    """Calls a function with the number of the iteration after each."""

    def __init__(self, function) -> None:
        self.function = function

    def on_train_batch_end(self, trainer: pl.Trainer, gan: GIRAFFE, *args) -> None:
        self.function(gan.iterations - 1, trainer.optimizers)


def parameters(gan: GIRAFFE, generator_table: list, discriminator_table: list) -> Iterator[tuple[str, dict]]:
    """Parameters by published name of the three networks."""
    networks = {
        "generator": (gan.generator, generator_table),
        "generator_test": (gan.emas["ema"].module, generator_table),
        "discriminator": (gan.discriminator, discriminator_table),
    }
    for name, (network, table) in networks.items():
        yield name, by_published_name(network, table)


def compare_changes(case: Case, prefix: str, gan: GIRAFFE, before: dict, tables: tuple[list, list]) -> None:
    """How far each parameter has moved, and the values that were recorded."""
    for network, now in parameters(gan, *tables):
        changes = [case.change(now[n], before[network][n]).norm() for n in order_of(case, network)]
        case.each_relative(f"{prefix}{network}.change_norms", torch.stack(changes), 1e-2)
        for name in case.outputs:
            if name.startswith(f"{prefix}after.{network}."):
                case.relative(name, now[name.removeprefix(f"{prefix}after.{network}.")])


def order_of(case: Case, network: str) -> list[str]:
    """Published names of a network's parameters, in order."""
    return [n.removeprefix(f"{network}.") for n in case.info["param_names"][network]]


def seen_later(case: Case, name: str) -> bool:
    """Whether the recording shows a parameter as it was after the last step: it kept no copies on the way."""
    _, after, rest = name.partition(".after.")
    last = f"step{case.config['steps'] - 1}{after}{rest}"
    return name != last and last in case.outputs and torch.equal(case.outputs[name], case.outputs[last])


def step(case: Case) -> None:
    steps, of = case.config["steps"], case.config
    recorded = [[pair for phase in "GD" for pair in scene_draws(block(case, f"step{k}.{phase}"))] for k in range(steps)]
    gan = Replayed(
        recorded,
        generator=load_generator(case),
        discriminator=load_discriminator(case),
        optimizer_g=rmsprop(of["learning_rate"]),
        optimizer_d=rmsprop(of["learning_rate_d"]),
        emas={"ema": EMA(case.info["ema_beta"], "keep")},
        fakes=len(case.inputs["step0.G.z_shape_obj"]),
    )
    gan.emas["ema"].module = load_generator(case, "generator_test.").requires_grad_(False)
    tables = GENERATOR, DISCRIMINATOR
    before = {name: {n: p.detach().clone() for n, p in ps.items()} for name, ps in parameters(gan, *tables)}

    def look(k: int, optimizers: list[torch.optim.Optimizer]) -> None:
        loss_d = gan.terms["loss_d"]
        case.relative(f"step{k}.loss_generator", gan.terms["loss_g"]["fake"], 1e-4)
        case.relative(f"step{k}.loss_discriminator", loss_d["real"] + loss_d["fake"], 1e-4)
        case.relative(f"step{k}.loss_regularizer", loss_d["r1"], 1e-4)
        compare_changes(case, f"step{k}.", gan, before, tables)
        for name, now in parameters(gan, *tables):
            if name != "generator_test":
                state = optimizers[name == "discriminator"].state
                moments = [state[now[n]]["square_avg"].norm() for n in order_of(case, name)]
                case.each_relative(f"step{k}.{name}.square_avg_norms", torch.stack(moments))

    real = torch.stack([case.inputs[f"step{k}.x_real"] for k in range(steps)])
    train(gan, real.flatten(0, 1) * 2 - 1, real.shape[1], AfterEach(look))
    assert gan.iterations == steps
    final = dict(parameters(gan, *tables))
    for name in filter(partial(seen_later, case), case.outputs):
        network, parameter = name.partition(".after.")[2].split(".", 1)
        case.relative(name, final[network][parameter])


CODES = {
    "z_shape_obj": "shape",
    "z_app_obj": "appearance",
    "z_shape_bg": "background_shape",
    "z_app_bg": "background_appearance",
}


def scene_draws(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Draws of one published generator call, under our names."""
    count = recorded["z_shape_obj"].shape[1]
    cameras = {name.removeprefix("cam_"): numbers for name, numbers in recorded.items()}
    # Without a range the published code draws no turn of the background.
    background = [("background_rotation", recorded.get("bg_rot", torch.zeros(())))]
    codes = [(ours, recorded[theirs]) for theirs, ours in CODES.items()]
    boxes = box_draws({**recorded, "box_rot": recorded["box_rot"].flatten()}, count)
    return [*codes, *camera_draws(cameras), *boxes, *background, *rendering_draws(recorded)]


def gan2d(case: Case) -> None:
    of = case.config
    size = of["generator_kwargs"].get("size", 64)
    widths = of["generator_kwargs"].get("nfilter", 16), of["generator_kwargs"].get("nfilter_max", 512)

    def generator(prefix: str) -> PlainGenerator:
        return load(PlainGenerator(of["z_dim"], size, *widths), case.weights(prefix), GENERATOR_2D)

    discriminator_kwargs = of["discriminator_kwargs"]
    discriminator = ResidualDiscriminator(
        discriminator_kwargs["image_size"],
        discriminator_kwargs.get("nfilter", 16),
        discriminator_kwargs.get("nfilter_max", 512),
    )
    load(discriminator, case.weights("discriminator."), DISCRIMINATOR_2D)
    gan = Replayed(
        [[("z", case.inputs["z_G"]), ("z", case.inputs["z_D"])]],
        generator=generator("generator."),
        discriminator=discriminator,
        optimizer_g=rmsprop(of["learning_rate"]),
        optimizer_d=rmsprop(of["learning_rate_d"]),
        emas={"ema": EMA(0.999, "keep")},
        r1_range=2.0,
        fakes=of["batch"],
    )
    gan.emas["ema"].module = generator("generator_test.").requires_grad_(False)
    with torch.no_grad():
        latent = PlainLatent(case.inputs["z_eval"])
        image = gan.generator(latent, gan.generator.cameras(len(latent.z), None)).image
        case.compare("image_tanh", image)
        case.compare("image_01", 0.5 * image + 0.5)
        case.compare("score", discriminator(image).scores)
    tables = GENERATOR_2D, DISCRIMINATOR_2D
    before = {name: {n: p.detach().clone() for n, p in ps.items()} for name, ps in parameters(gan, *tables)}

    def look(k: int, optimizers: list[torch.optim.Optimizer]) -> None:
        terms = gan.terms["loss_d"]
        ours = {
            "generator": gan.terms["loss_g"]["fake"],
            "discriminator": terms["real"] + terms["fake"],
            "regularizer": terms["r1"],
            "d_real": terms["real"],
            "d_fake": terms["fake"],
        }
        for name, value in ours.items():
            case.relative(f"step.{name}", value, 1e-4)
        compare_changes(case, "step.", gan, before, tables)
        for player, prefix, network, table in (
            ("D", "loss_d", "discriminator", DISCRIMINATOR_2D),
            ("G", "loss_g", "generator", GENERATOR_2D),
        ):
            gradients = {published_name(n, table): g for n, g in gan.gradients[prefix].items()}
            case.gradients(f"{player}.grad_norms", f"{player}.grad.", gradients, order_of(case, network))

    train(gan, case.inputs["x_real"], of["batch"], AfterEach(look))


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
    recorded = block(case, name)
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


def as_config(config: dict) -> dict:
    """The experiment of our generator for the published constructors' arguments."""

    def field(of: dict) -> dict:
        downscale = of.get("downscale_p_by", 2.0)
        octaves = {"positions": of.get("n_freq_posenc", 10), "directions": of.get("n_freq_posenc_views", 4)}
        waves = {
            name: {"class_path": "zoo.giraffe.Octaves", "init_args": {"octaves": count, "downscale": downscale}}
            for name, count in octaves.items()
        }
        waves |= {} if of.get("use_viewdirs", True) else {"directions": None}
        options = {"skips": of.get("skips", [4]), "sigmoid": of.get("final_sigmoid_activation", False)}
        return {"class_path": "zoo.giraffe.Field", "init_args": waves | options}

    render = config["neural_renderer_kwargs"]
    options = {
        "skips": render.get("use_rgb_skip", True),
        "norm": render.get("use_norm", False),
        "sigmoid": render.get("final_actvn", True),
        "up": {"class_path": f"zoo.giraffe.{UPSAMPLING[render.get('upsample_feat', 'nn')].__name__}"},
        "colour_up": {"class_path": f"zoo.giraffe.{UPSAMPLING[render.get('upsample_rgb', 'bilinear')].__name__}"},
    }
    of, poses = config["generator_kwargs"], build_poses(config["generator_kwargs"])
    near, far = of.get("depth_range", [0.5, 6.0])
    depths = {"near": near, "far": far, "samples": of.get("n_ray_samples", 64)}
    return {
        "class_path": "zoo.giraffe.Generator",
        "init_args": {
            "objects": field(config["decoder_kwargs"]),
            "background": field(config["background_generator_kwargs"]),
            "boxes": {
                "class_path": "zoo.giraffe.BoxPrior",
                "init_args": asdict(build_boxes(config["bounding_box_generator_kwargs"])),
            },
            "poses": {"class_path": "zoo.giraffe.ScenePoses", "init_args": asdict(poses)},
            "renderer": {
                "class_path": "zoo.giraffe.SceneRenderer",
                "init_args": {"depths": {"class_path": "zoo.giraffe.StratifiedDepths", "init_args": depths}},
            },
            "neural_renderer": {"class_path": "zoo.giraffe.NeuralRenderer", "init_args": options},
            "compose": f"zoo.giraffe.{'densest' if of.get('use_max_composition') else 'weighted'}",
            "feature_resolution": of.get("resolution_vol", 16),
        },
    }


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """Files of training runs: every tensor, and what is drawn with them."""
    latent = latent_of(case.inputs)
    camera, farthest = camera_of(case.inputs["camera_mat"], case.inputs["world_mat"])
    for name in case.info["files"]:
        place = Place(case.folder / name)
        contents = read(place)
        assert giraffe.part(contents) == "generator"
        for weights, prefix in list(giraffe.WEIGHTS.items())[:2]:
            made = convert_network(giraffe, place, contents, as_config(case.config), weights)
            back = to_published(made.network.state_dict() | made.unused, GENERATOR)
            assert same_tensors(back, case.published(prefix))
            assert made.card["iterations"] == case.info["layout"]["it"]
            made.network.load_state_dict({n: case.cast(t) for n, t in made.network.state_dict().items()})
            image = made.network.render(latent, camera, farthest=farthest).image
            case.compare(f"{prefix}image", (image + 1) / 2)
        for optimizer in ("optimizer", "optimizer_d"):
            moments = contents.value[optimizer]["state"]
            norms = [moments[i]["square_avg"].double().norm() for i in sorted(moments)]
            case.each_relative(f"{optimizer}.square_avg_norms", torch.stack(norms), 1e-5)


KINDS = {
    "checkpoint": checkpoint,
    "render": render,
    "modules": modules,
    "sampling": sampling,
    "discriminator": discriminator,
    "losses": losses,
    "step": step,
    "gan2d": gan2d,
    "truncation": truncation,
}

# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {}
# Outputs whose tolerance may be over ten times the usual, by kind of case and pattern of names: how often, and why.
ENCODING = "places of samples are rounded to float32, and the encoding's highest frequency is 2^9 pi per unit of a box"
CANCELS = f"{ENCODING}; shares of a density's gradient cancel"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {r".*\.(feat.*|weights|depth_map|image|renderer\..*)|alpha_map": (100, ENCODING)},
    "losses": {r".*\.(grad_norms|grad\..*)": (100, CANCELS)},
    "step": {r".*\.square_avg_norms": (100, CANCELS)},
    "truncation": {r".*\.frames": (100, ENCODING)},
    "checkpoint": {r".*\.image": (100, ENCODING)},
}
