"""Cases of checkpoints."""

import torch

from tests.parity.harness import Case
from tests.parity.published import same_tensors
from tests.parity.volumegan.draws import replay
from zoo.volumegan import convert as volumegan
from zoo.volumegan.convert import GENERATOR, discriminator_table
from zoo.volumegan.extras import Unjittered
from zoo.volumegan.model import Latent
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Place, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of a training run: every tensor, and what is drawn with them."""
    place = Place(case.folder / case.info["checkpoint"])
    contents = read(place)
    for weights, model in volumegan.WEIGHTS.items():
        if model not in contents.value["models"]:
            continue
        made = convert_network(volumegan, place, contents, None, weights)
        network, expected = made.network, contents.value["models"][model]
        table = discriminator_table(len(network.blocks)) if model == "discriminator" else GENERATOR
        back = to_published(network.state_dict() | made.unused, table)
        assert same_tensors(back, expected)
        about = contents.value["running_metadata"]
        assert (made.card["iterations"], made.card["images_seen"]) == (about["iter"], about["seen_img"])
        case.recast(network)
        if model == "discriminator":
            case.scores("score", network(case.inputs["image"]).scores)
            continue
        network.renderer.depths = Unjittered(network.renderer.depths)
        draws = replay(case, "", generator=network)
        styles = network.map(Latent(case.inputs["z"]))
        camera = network.cameras(len(case.inputs["z"]), draws)
        case.compare(f"image_{model}", network.render(styles, camera, draws=draws).image)
    if "pl_mean" in case.outputs:
        case.compare("pl_mean", contents.value["loss"]["pl_mean"])
