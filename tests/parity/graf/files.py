"""Cases of checkpoints."""

import math

import torch

from tests.parity.graf.build import codes, our_camera, radius_range
from tests.parity.harness import Case
from tests.parity.published import load, same_tensors
from tests.tiny import named
from zoo.graf import convert as graf
from zoo.graf.convert import DISCRIMINATOR, GENERATOR
from zoo.graf.model import Discriminator
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Place, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """The file of a training run: every tensor, and what is drawn with them."""
    config, data = case.config, case.config["data"]
    nerf, z = config["nerf"], config["z_dist"]
    place = Place(case.folder / "model.pt")
    contents = read(place)
    assert contents.names == case.info["files"]["model.pt"]["pickle_globals"]
    assert graf.part(contents) == "generator" and len(graf.experiments(contents)) > 0
    limits = {"near": data["near"], "far": data["far"], "samples": nerf["N_samples"], "radius": radius_range(config)[1]}
    background = f"zoo.render.{'white' if data['white_bkgd'] else 'black'}"
    experiment = named(
        "zoo.graf.Generator",
        field=named("zoo.graf.RadianceField", point_octaves=nerf["multires"], view_octaves=nerf["multires_views"]),
        renderer=named(
            "zoo.render.VolumeRenderer",
            depths=named("zoo.graf.AlongAxis", **limits),
            quadrature={"background": background},
        ),
        poses=named("zoo.graf.OnSphere", fov_deg=data["fov"]),
        resolution=data["imsize"],
    )
    for weights, prefix in (("raw", "generator."), ("ema", "generator_test.")):
        made = convert_network(graf, place, contents, experiment, weights)
        assert made.network.field.appearance_dim == z["dim_appearance"] and not made.unused
        back, expected = to_published(made.network.state_dict(), GENERATOR), case.published(prefix)
        back = {name.removeprefix("generator."): tensor for name, tensor in back.items()}
        assert same_tensors(back, expected)
        case.recast(made.network)
        camera = our_camera(case.inputs["poses"], data["fov"])
        latent = made.network.map(codes(config, case.inputs["z"]))
        case.compare(f"image_{weights}", made.network.render(latent, camera).image)
    assert made.card["iterations"] == contents.value["it"]

    size = math.isqrt(config["ray_sampler"]["N_samples"])
    table = DISCRIMINATOR[size]
    discriminator = load(Discriminator(size, config["discriminator"]["ndf"]), contents.value["discriminator"], table)
    assert same_tensors(to_published(discriminator.state_dict(), table), case.published("discriminator."))
