"""Cases of checkpoints."""

import torch

from tests.parity.harness import Case
from tests.parity.published import same_tensors
from zoo.eg3d import convert as eg3d
from zoo.eg3d.convert import discriminator_config, generator_config, table
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published, without_noise_axes
from zoo.weights.read import Place, module_state, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of a training run: every tensor, and what is drawn with the EMA."""
    place = Place(case.folder / case.info["file"])
    contents = read(place)
    for weights, model in eg3d.WEIGHTS.items():
        made = convert_network(eg3d, place, contents, None, weights)
        expected = module_state(contents.value[model])
        back = without_noise_axes(to_published(made.network.state_dict() | made.unused, table(made.network)))
        assert same_tensors(back, expected)
        given, sizes = case.config["generator"], case.config["geometry"]
        settings = generator_config(given, given["rendering_kwargs"], sizes)
        assert made.config == (
            discriminator_config(case.config["discriminator"]) if weights == "discriminator" else settings
        )
        if weights != "raw":
            start = "discriminator." if weights == "discriminator" else "generator."
            assert same_tensors(expected, case.published(start)), model
        if weights == "ema":
            assert made.network.resolution == sizes["image_resolution"]
            assert made.network.render_side == sizes["neural_rendering_resolution"]
