"""The published GRAF's checkpoints, from its list of pretrained models. No FID is stated beside them."""

from zoo.weights.catalogue import Address, Released

FOLDER = "https://s3.eu-central-1.amazonaws.com/avg-projects/graf/models"
CODE = "MIT (the repository's; none is stated for the weights alone)"
CARLA = "not stated; pictures that the authors rendered with CARLA"
CELEBA = "CelebA: research that is not commercial"


def graf(name: str, config: str, file: str, data: str | None) -> Released:
    """A row; ``file`` is below ``FOLDER``."""
    return Released(
        name=f"graf-{name}.official",
        config=f"graf/{config}",
        paper="https://arxiv.org/abs/2007.02442",
        file=file.split("/")[-1],
        addresses=(Address("s3", f"{FOLDER}/{file}"),),
        weights_licence=CODE,
        data_licence=data,
    )


RELEASED = [
    graf("carla-64", "carla64", "carla/carla_64.pt", CARLA),
    graf("carla-128", "carla128", "carla/carla_128.pt", CARLA),
    graf("carla-256", "carla256", "carla/carla_256.pt", CARLA),
    graf("carla-512", "carla512", "carla/carla_512.pt", CARLA),
    graf("celeba-64", "celeba64", "faces/celebA_64.pt", CELEBA),
    graf("celeba-128", "celeba128", "faces/celebA_128.pt", CELEBA),
    graf("celebahq-256", "celebahq256", "faces/celebA_hq_256.pt", CELEBA),
    graf("celebahq-512", "celebahq512", "faces/celebA_hq_512.pt", CELEBA),
    graf("cats-64", "cats64", "cats/cats_64.pt", None),
    graf("cub-64", "cub64", "birds/cub_64.pt", None),
]
