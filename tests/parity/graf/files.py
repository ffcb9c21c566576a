"""Cases of checkpoints."""

import math

import torch

from tests.parity.graf.build import codes, our_camera, radius_range
from tests.parity.harness import Case, same_tensors
from zoo.graf import convert as graf
from zoo.graf.convert import DISCRIMINATOR, GENERATOR
from zoo.graf.model import Discriminator
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, to_published
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
    experiment = {
        "class_path": "zoo.graf.Generator",
        "init_args": {
            "field": {
                "class_path": "zoo.graf.RadianceField",
                "init_args": {"point_octaves": nerf["multires"], "view_octaves": nerf["multires_views"]},
            },
            "renderer": {
                "class_path": "zoo.render.VolumeRenderer",
                "init_args": {
                    "depths": {
                        "class_path": "zoo.graf.AlongAxis",
                        "init_args": {
                            "near": data["near"],
                            "far": data["far"],
                            "samples": nerf["N_samples"],
                            "radius": radius_range(config)[1],
                        },
                    },
                    "quadrature": {"background": f"zoo.render.{'white' if data['white_bkgd'] else 'black'}"},
                },
            },
            "poses": {"class_path": "zoo.graf.OnSphere", "init_args": {"fov_deg": data["fov"]}},
            "resolution": data["imsize"],
        },
    }
    for weights, prefix in (("raw", "generator."), ("ema", "generator_test.")):
        made = convert_network(graf, place, contents, experiment, weights)
        assert made.network.field.appearance_dim == z["dim_appearance"] and not made.unused
        back, expected = to_published(made.network.state_dict(), GENERATOR), case.published(prefix)
        back = {name.removeprefix("generator."): tensor for name, tensor in back.items()}
        assert same_tensors(back, expected)
        made.network.load_state_dict({n: case.cast(t) for n, t in made.network.state_dict().items()})
        camera = our_camera(case.inputs["poses"], data["fov"])
        latent = made.network.map(codes(config, case.inputs["z"]))
        case.compare(f"image_{weights}", made.network.render(latent, camera).image)
    assert made.card["iterations"] == contents.value["it"]

    size = math.isqrt(config["ray_sampler"]["N_samples"])
    discriminator, expected = Discriminator(size, config["discriminator"]["ndf"]), case.published("discriminator.")
    table = DISCRIMINATOR[size]
    discriminator.load_state_dict(
        from_published(contents.value["discriminator"], list(discriminator.state_dict()), table)
    )
    back = to_published(discriminator.state_dict(), table)
    assert same_tensors(back, expected)
