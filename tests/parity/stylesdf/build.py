"""How the published StyleSDF's options and tensors become our networks and cameras."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.published import load
from zoo.render import (
    Camera,
    GaussianPoses,
    Orbit,
    Quadrature,
    Stratified,
    VolumeRenderer,
    black,
    infinite_last_interval,
    last_sample,
    softplus,
)
from zoo.stylesdf import convert as stylesdf
from zoo.stylesdf.decoder import Decoder
from zoo.stylesdf.discriminator import ImageDiscriminator, PoseDiscriminator
from zoo.stylesdf.field import OffsetDepths, SDFField, SigmoidDensity
from zoo.stylesdf.model import Generator

# Published tensors that nothing reads
UNREAD = r"kernel$|decoder\.(conv1|convs\.\d+)\.bias$"
INFERENCE = {"static_viewdirs": True, "force_background": True}


def table(network: nn.Module) -> list:
    """The published names of a network's tensors."""
    if isinstance(network, Generator):
        return stylesdf.GENERATOR
    return stylesdf.VOLUME_DISCRIMINATOR if isinstance(network, PoseDiscriminator) else stylesdf.IMAGE_DISCRIMINATOR


def fill(network: nn.Module, state: dict[str, Tensor]) -> Any:
    """The network with a published state dict."""
    unknown = r"mean_w|decoder\.(mean_latent|trained)"
    return load(network, stylesdf.without_axes(state), table(network), UNREAD, unknown)


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
    return fill(generator, state)


def make_discriminator(case: Case, prefix: str = "discriminator.") -> PoseDiscriminator | ImageDiscriminator:
    state = case.weights(prefix)
    if "final_conv.conv.weight" in state:
        sizes = stylesdf.volume_config({f"volume.{name}": tensor for name, tensor in state.items()})
        return fill(PoseDiscriminator(**sizes["init_args"]), state)
    sizes = stylesdf.image_config({f"image.{name}": tensor for name, tensor in state.items()})
    return fill(ImageDiscriminator(**sizes["init_args"]), state)


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
