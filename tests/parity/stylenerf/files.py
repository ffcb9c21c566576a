"""Cases of checkpoints."""

import torch

from tests.parity.harness import Case
from tests.parity.stylenerf.build import beside
from zoo.stylenerf import convert as stylenerf
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Place, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of a training run: every tensor, and what is drawn with them."""
    place = Place(case.folder / case.info["file"])
    contents = read(place)
    assert stylenerf.part(contents) == "generator" and stylenerf.experiments(contents) is None
    render_case = beside(case, "render")
    expected = {
        "raw": case.published("generator."),
        "ema": render_case.published("generator."),
        "discriminator": render_case.published("discriminator."),
    }
    for weights, state in expected.items():
        made = convert_network(stylenerf, place, contents, weights=weights)
        back = to_published(made.network.state_dict() | made.unused, stylenerf.table(made.network))
        (back,) = stylenerf.official({weights: back}, {})["network-snapshot.pt"].values()
        assert set(back) == set(state), set(back) ^ set(state)
        assert all(torch.allclose(back[name].to(t.dtype), t, rtol=0, atol=1e-12) for name, t in state.items()), weights
        config = case.config["discriminator" if weights == "discriminator" else "generator"]
        make = stylenerf.discriminator_config if weights == "discriminator" else stylenerf.generator_config
        assert made.config == make(config), weights
        assert made.card["images_seen"] == 0
