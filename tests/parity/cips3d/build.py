"""How the published CIPS-3D's options and tensors become our networks, cameras and renderers."""

import math

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.pigan import build as pigan
from tests.parity.published import load
from tests.parity.replay import Replay
from zoo.cips3d.convert import DISCRIMINATOR, GENERATOR
from zoo.cips3d.discriminator import Discriminator, Tower
from zoo.cips3d.extras import Heads
from zoo.cips3d.inr import Inr
from zoo.cips3d.model import FilmSiren, Generator, Mapping, MappingNetwork
from zoo.render import (
    FixedPoses,
    HybridPoses,
    JitteredUniform,
    Orbit,
    Rendered,
    VolumeRenderer,
    look_at,
)


class UntossedPoses(HybridPoses):
    """The published coin is Python's own; where it was not recorded, the numbers tell: uniform ones are in [0, 1)."""

    def angles(self, n: int, draws: Replay) -> tuple[Tensor, Tensor]:
        if not draws.queues.get("pose_kind"):
            numbers = torch.cat([draws.queues[name][0].flatten() for name in ("yaw", "pitch")])
            draws.queues["pose_kind"] = [torch.tensor(0.0 if bool(((numbers >= 0) & (numbers < 1)).all()) else 1.0)]
        return super().angles(n, draws)


POSES = pigan.POSES | {"hybrid": UntossedPoses, "mean": FixedPoses}


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
    unread = r"\.norm\.|to_rgbs\.(4|8|16)\."
    return load(build_generator(of, kind), case.weights(prefix), GENERATOR, unread, unknown="mean_.*")


def load_discriminator(case: Case, of: dict, prefix: str, group: int | None = None) -> Discriminator:
    group = of.get("stddev_group", 0) if group is None else group
    main, auxiliary = tower_widths(of)
    discriminator = Discriminator(Tower(main, of.get("first_downsample", False), group), Tower(auxiliary, True, group))
    # The published towers have an entrance for every resolution, even beyond their largest one.
    beyond = "|".join(str(2**i) for i in range(2, 16) if 2**i > of.get("max_size", 1024))
    unread = rf"\.down_blur\.kernel$|_disc\.conv_in\.({beyond})\."
    return load(discriminator, case.weights(prefix), DISCRIMINATOR, unread)


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
    return pigan.build_renderer({"hierarchical_sample": False} | options | {"chunk": None})


def build_poses(of: dict) -> Orbit:
    """Our distribution of cameras for the published forward call's arguments."""
    means = of.get("h_mean", math.pi / 2), of.get("v_mean", math.pi / 2)
    kind = POSES.get(of.get("sample_dist"))
    if kind is None:
        raise ValueError(f"The published program has no sample_dist {of.get('sample_dist')}, only {', '.join(POSES)}.")
    return kind(means[0], of["h_stddev"], means[1], of["v_stddev"], radius=of.get("r", 1.0), fov_deg=of.get("fov", 12))


def looking(places: Tensor, ahead: Tensor, ups: Tensor | None = None) -> Tensor:
    """Poses with a direction and, if given, an "up" each."""
    if ups is None:
        return look_at(places, places + ahead)
    return torch.cat(
        [look_at(p[None], (p + a)[None], tuple(u.tolist())) for p, a, u in zip(places, ahead, ups, strict=True)]
    )


def frozen_parts(kind: str) -> tuple[str, ...]:
    """What does not learn in a published class of generators."""
    if "freeze" not in kind:
        return ()
    return ("field", "mapping" if "v1" in kind else "mapping.shape", "auxiliary")


def published_images(rendered: Rendered, options: dict) -> Tensor:
    """As the published generator returns them."""
    return torch.cat([rendered.image, rendered.raw]) if options.get("return_aux_img") else rendered.image
