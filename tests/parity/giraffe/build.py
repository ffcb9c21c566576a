"""How the published GIRAFFE's options and tensors become our networks, boxes and cameras."""

import math

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.published import load
from zoo.giraffe.convert import DISCRIMINATOR, GENERATOR
from zoo.giraffe.extras import GaussianFeatures, ResidualDiscriminator
from zoo.giraffe.field import Field, Octaves
from zoo.giraffe.model import Discriminator, Generator, NearestUp, NeuralRenderer, SmoothUp
from zoo.giraffe.rendering import SceneRenderer, StratifiedDepths, densest, weighted
from zoo.giraffe.scenes import BoxPrior, Counts, Latent, ScenePoses, to_zoo
from zoo.render import Camera
from zoo.weights.names import inside

# The 2D baseline: between its blocks the published lists hold what changes the size, so every other number is missing.
BLOCK = [(r"first\.", "conv_0."), (r"second\.", "conv_1."), (r"skip\.", "conv_s.")]
BLOCKS = [entry for i in range(10) for entry in inside(rf"blocks\.{i}\.", f"resnet.{2 * i}.", BLOCK)]
GENERATOR_2D = [*BLOCKS, (r"enter\.", "fc."), (r"colour\.", "conv_img.")]
DISCRIMINATOR_2D = [*BLOCKS, (r"enter\.", "conv_img."), (r"score\.", "fc.")]
# Of the published generator's count of objects.
EXISTENCE = (0.19456788355146545, 0.24355003312266127, 0.25269546846185522, 0.30918661486401804)
# Without colours at every size nothing enlarges them; a skip that counts from 0 is never taken; nor is a direction read
# where it does not matter.
NEVER_READ = r"upsample_rgb\.1\.f|fc_z_skips|fc_p_skips|fc_view"
UPSAMPLING = {"nn": NearestUp, "bilinear": SmoothUp}


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


def load_generator(case: Case, prefix: str = "generator.", config: dict | None = None) -> Generator:
    return load(build_generator(config or case.config), case.weights(prefix), GENERATOR, NEVER_READ)


def build_discriminator(of: dict) -> Discriminator:
    return Discriminator(of.get("img_size", 64), of.get("n_feat", 512), image_channels=of.get("in_dim", 3))


def load_discriminator(case: Case) -> Discriminator:
    discriminator = build_discriminator(case.config["discriminator_kwargs"])
    return load(discriminator, case.weights("discriminator."), DISCRIMINATOR)


def load_residual(case: Case, of: dict, prefix: str) -> ResidualDiscriminator:
    """The discriminator of the 2D baseline."""
    sizes = of.get("image_size", 64), of.get("nfilter", 16), of.get("nfilter_max", 512)
    return load(ResidualDiscriminator(*sizes), case.weights(prefix), DISCRIMINATOR_2D)


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
