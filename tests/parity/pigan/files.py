"""Cases of checkpoints."""

import math

import torch

from tests.parity.harness import Case
from tests.parity.pigan.build import IMAGE, build_renderer
from tests.parity.pigan.draws import forward_draws
from tests.parity.published import same_tensors
from tests.parity.replay import Replay
from tests.tiny import named
from zoo.pigan import convert as pigan
from zoo.pigan.convert import DISCRIMINATOR, GENERATOR
from zoo.pigan.model import Latent
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Place, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """Files of a training run: every tensor, and what is drawn with them once they are bundles."""
    config, jitter = case.config, case.draws("hier_noise")[0]  # as block hier_noise of the case "render"
    options = {"fov": 12, "ray_start": 0.88, "ray_end": 1.12, "num_steps": jitter.shape[2], "nerf_noise": 0.4}
    limits = {"near": options["ray_start"], "far": options["ray_end"], "samples": jitter.shape[2]}
    depths = named("zoo.render.JitteredUniform", **limits)
    experiment = named(
        "zoo.pigan.Generator",
        field=named("zoo.pigan.FilmSiren"),
        renderer=named("zoo.render.VolumeRenderer", depths=depths),
        poses=named("zoo.render.Orbit", fov_deg=options["fov"]),
    )
    place = Place(case.folder / "generator.pth")
    contents = read(place)
    for name, about in case.info["files"].items():
        assert read(case.folder / name).names == about["pickle_globals"], name

    rendered_images = {}
    for weights, prefix in (("raw", "generator."), ("ema", "ema."), ("ema2", "ema2.")):
        made = convert_network(pigan, place, contents, experiment, weights)
        generator, expected = made.network, case.published(prefix)
        back = to_published(generator.state_dict() | made.unused, GENERATOR)
        assert same_tensors(back, expected)
        assert made.card["iterations"] == 12345 and generator.latent_dim == config["generator"]["z_dim"]
        case.recast(generator)
        generator.renderer = build_renderer(options)
        camera = generator.poses.camera(case.inputs["yaw"], case.inputs["pitch"])
        draws = Replay(forward_draws(case.draws("hier_noise"), True))
        styles = generator.map(Latent(case.inputs["z"]))
        rendered = generator.render(
            styles, camera, resolution=math.isqrt(jitter.shape[1]), draws=draws, density_noise=options["nerf_noise"]
        )
        rendered_images[weights] = rendered.image
    for weights in ("raw", "ema"):
        for name in (f"image_{weights}", f"image_{weights}_torch1.8.1"):
            case.compare(name, rendered_images[weights], IMAGE)
    assert not torch.allclose(rendered_images["raw"], rendered_images["ema"], atol=1e-2)

    place = Place(case.folder / "discriminator.pth")
    made = convert_network(pigan, place, read(place))
    back, expected = to_published(made.network.state_dict(), DISCRIMINATOR), case.published("discriminator.")
    assert same_tensors(back, expected)
    assert made.network.from_rgb[0].out_channels == config["discriminator"]["channel_map"]["32"]
