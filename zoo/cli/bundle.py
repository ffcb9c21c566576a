"""``zoo bundle``: the weights of a checkpoint as a bundle."""

from pathlib import Path

from zoo.utils.targets import folder_target
from zoo.weights.find import find


def run(
    checkpoint: str, out: Path, experiment: str | None = None, license: str | None = None, data: str | None = None
) -> None:
    """Write the weights in a checkpoint as a bundle: model.safetensors, config.yaml and a model card.

    Args:
        checkpoint: a .ckpt of a run, whose averaged generator is written; or a bundle, to state more on its card.
        out: the bundle's folder.
        experiment: name of the config they were trained with, for the card and for tables of scores.
        license: of the weights, for the card.
        data: what they were trained on, for the card.
    """
    out = folder_target(out)
    find(checkpoint)
    from zoo.weights.bundle import load_bundle, save_bundle

    generator, info = load_bundle(checkpoint)
    stated = {"experiment": experiment, "license": license, "data": data}
    save_bundle(out, generator, info.config, **info.card | {name: x for name, x in stated.items() if x is not None})
    print(out)
