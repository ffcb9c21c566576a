"""The published GRAF's checkpoints, from its list of pretrained models. No FID is stated beside them."""

from zoo.weights.catalogue import CELEBA, MIT, row

FOLDER = "https://s3.eu-central-1.amazonaws.com/avg-projects/graf/models"
COMMON = {"paper": "https://arxiv.org/abs/2007.02442", "weights_licence": MIT}
CARLA = "not stated; images that the authors rendered with CARLA"

RELEASED = [
    row("graf", name, config, "s3", f"{FOLDER}/{file}", data_licence=data, **COMMON)
    for name, config, file, data in [
        ("carla-64", "carla64", "carla/carla_64.pt", CARLA),
        ("carla-128", "carla128", "carla/carla_128.pt", CARLA),
        ("carla-256", "carla256", "carla/carla_256.pt", CARLA),
        ("carla-512", "carla512", "carla/carla_512.pt", CARLA),
        ("celeba-64", "celeba64", "faces/celebA_64.pt", CELEBA),
        ("celeba-128", "celeba128", "faces/celebA_128.pt", CELEBA),
        ("celebahq-256", "celebahq256", "faces/celebA_hq_256.pt", CELEBA),
        ("celebahq-512", "celebahq512", "faces/celebA_hq_512.pt", CELEBA),
        ("cats-64", "cats64", "cats/cats_64.pt", None),
        ("cub-64", "cub64", "birds/cub_64.pt", None),
    ]
]
