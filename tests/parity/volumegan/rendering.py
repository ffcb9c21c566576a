"""Cases of images, also with truncated styles, with everything on the way from their rays."""

import re

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.published import Watched, hearing
from tests.parity.replay import Followed, Replay
from tests.parity.volumegan.build import load_generator
from tests.parity.volumegan.draws import replay, stored_noise
from zoo.layers.stylegan2 import normalise
from zoo.render import Integrated, Samples, clamp_pitch
from zoo.volumegan.extras import Unjittered
from zoo.volumegan.field import Styles
from zoo.volumegan.model import Latent
from zoo.volumegan.training import VolumeGAN


@torch.no_grad()
def render(case: Case) -> None:
    generator = load_generator(case)
    renderer, field, synthesis = generator.renderer, generator.field, generator.synthesis
    if "jitter_u" not in case.inputs:
        renderer.depths = Unjittered(renderer.depths)
    given = (case.cast(case.outputs[n]) if n in case.outputs else None for n in ("coarse_weights", "fine_z"))
    renderer.chunk, renderer.fine = None, Followed(renderer.fine, *given)
    low, z = synthesis.low, case.inputs["z"]

    def draws() -> Replay:
        return replay(case, "", generator=generator)

    def const() -> Replay:
        found = draws()
        found.queues |= {name: [noise.expand(len(z), -1, -1, -1)] for name, noise in stored_noise(generator).items()}
        return found

    def as_map(x: Tensor) -> Tensor:
        return x.unflatten(1, (low, low))

    yaw, pitch = generator.poses.angles(len(z), draws())
    camera = generator.poses.camera(yaw, pitch)
    styles = generator.map(Latent(z))
    rays = generator.rays(camera, low)
    watched = Watched(field)
    integrated: Integrated = renderer(watched, rays, field.modulate(styles), const())
    ((coarse, _), (coarse_raw, coarse_hidden)), ((fine, _), (fine_raw, fine_hidden)) = watched.calls
    ours = {
        "z_norm": normalise(z),
        "w": generator.mapping(z),
        "wp": styles.w,
        "yaw": yaw,
        "pitch": clamp_pitch(pitch),
        "cam_pos": camera.origins,
        "cam2world": camera.pose,
        "ray_origins": as_map(rays.origins),
        "ray_dirs": as_map(rays.directions),
        "coarse_pts": as_map(coarse.points),
        "coarse_z": as_map(coarse.t)[..., None],
        "volume": styles.feature_volume,
        "coarse_feat": as_map(field.colour(coarse_hidden)),
        "coarse_weights": as_map(renderer.fine.weights)[..., None],
        "fine_z": as_map(renderer.fine.t)[..., None],
        "fine_pts": as_map(fine.points),
        "fine_feat": as_map(field.colour(fine_hidden)),
        "merged_z": as_map(integrated.samples.t)[..., None],
        "weights": as_map(integrated.weights)[..., None],
        "depth": as_map(integrated.depth),
    }
    for name, value in case.recorded("", ours).items():
        case.scores(name, value)
    raws = {"coarse_sigma": coarse_raw, "fine_sigma": fine_raw, "merged_sigma": integrated.raw}
    for name, value in case.recorded("", raws).items():
        case.relative(name, as_map(value))

    case.scores("feature2d", generator.render_features(styles, camera, const())[0])
    parts: dict[str, nn.Module] = {}
    for i, block in enumerate(synthesis.blocks):
        parts |= {f"layer{2 * i + 1}": block.up, f"layer{2 * i + 2}": block.same, f"output{i + 1}": block.rgb}
    affine = {f"style.{name}": getattr(part, "conv", part).style for name, part in parts.items()}
    with hearing({f"syn.{name}": part for name, part in parts.items()} | affine) as heard:
        rendered = generator.render(styles, camera, draws=const())
    ours = {name: calls[-1][1] for name, calls in heard.items() if calls}
    ours |= dict.fromkeys(("rgb_lowres", "syn.rgb_init_res"), rendered.raw)  # the second where it is a layer
    for name, value in case.recorded("", ours).items():
        if name.startswith("syn.output"):  # without its bias and bound
            value = value + synthesis.blocks[int(name.removeprefix("syn.output")) - 1].rgb.bias[:, None, None]
            value = value if synthesis.clamp is None else value.clamp(-synthesis.clamp, synthesis.clamp)
        case.scores(name, value)
    case.compare("image", rendered.image)

    none = const()
    none.queues |= {name: [torch.zeros_like(numbers[0])] for name, numbers in none.queues.items() if "noise" in name}
    case.compare("image_noise_none", generator.render(styles, camera, draws=none).image)
    case.compare("image_noise_random", generator.render(styles, camera, draws=draws()).image)
    for name in case.outputs:
        if name.startswith("image_lod_"):
            generator.lod.fill_(float(name.removeprefix("image_lod_")))
            case.compare(name, generator.render(styles, camera, draws=const()).image)

    points = case.inputs["query_pts"]
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    raw, hidden = field(samples, field.modulate(styles))
    case.relative("query_sigma", raw[:, :, 0])
    case.scores("query_feat", field.colour(hidden)[:, :, 0])


@torch.no_grad()
def truncation(case: Case) -> None:
    generator = load_generator(case)
    generator.renderer.depths = Unjittered(generator.renderer.depths)
    latent = Latent(case.inputs["z"])

    def draw(styles: Styles) -> Tensor:
        draws = replay(case, "", generator=generator)
        return generator.render(styles, generator.cameras(len(latent.z), draws), draws=draws).image

    for name in case.outputs:
        if found := re.fullmatch(r"wp_psi(.+)_layers(\d+)", name):
            styles = generator.map(latent, truncation=float(found[1]), layers=int(found[2]))
            case.scores(name, styles.w)
            case.compare(name.replace("wp", "image", 1), draw(styles))
    if "image_fused_modulate" in case.outputs:
        case.compare("image_fused_modulate", draw(generator.map(latent)))

    spec = case.config["spec"]
    if "image_video" in case.outputs:
        video = load_generator(case, num_steps=case.inputs["video.pdf_u"].shape[1])
        video.renderer.depths = Unjittered(video.renderer.depths)
        angles = (torch.full((len(latent.z), 1), spec[name]) for name in ("yaw", "pitch"))
        draws = replay(case, "video", generator=video)
        styles = video.map(latent, truncation=0.7, layers=8)  # as the published script has it
        case.compare("image_video", video.render(styles, video.poses.camera(*angles), draws=draws).image)

    if "mix_wp" in case.outputs:
        decay = case.config["generator_train_kwargs"]["w_moving_decay"]
        gan = VolumeGAN(generator, nn.Identity(), torch.optim.Adam, torch.optim.Adam, mean_decay=decay)
        draws = replay(case, "", generator=generator)
        first, end = generator.field.num_layers, generator.num_layers
        draws.queues |= {
            "mixing": [torch.tensor(0.0)],
            "cut": [torch.tensor((spec["cutoff"] - first + 0.5) / (end - first))],
        }
        image, w = gan.generate(len(latent.z), generator.resolution, draws)
        case.scores("mix_wp", w)
        case.compare("mix_image", image)
        case.compare("mix_w_avg_after", generator.mean_w)
