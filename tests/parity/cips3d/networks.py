"""Cases of the discriminator."""

import re

import torch

from tests.parity.cips3d.build import load_discriminator
from tests.parity.cips3d.draws import recorded, replay
from tests.parity.harness import Case
from tests.parity.published import hearing
from zoo.cips3d.discriminator import Tower
from zoo.layers.diffaugment import diffaugment
from zoo.layers.stylegan2 import GAIN, activate


@torch.no_grad()
def discriminator(case: Case) -> None:
    of = case.config["discriminator"]
    augmented_size = (
        case.outputs["augment.img"].shape[-1] if "augment.img" in case.outputs else max(case.config["sizes"])
    )
    if "augment.img" in case.outputs:
        draws, image = recorded(case, "augment"), case.inputs[f"img{augmented_size}"]
        case.compare("augment.img", diffaugment(image, replay(draws, augmented_size)))
    for group in case.config["stddev_groups"]:
        discriminator = load_discriminator(case, of, f"discriminator_sg{group}.", group)
        for name in case.outputs:
            if found := re.fullmatch(rf"sg{group}\.r(\d+)\.alpha([\d.]+)\.(main|main_aux)", name):
                size, alpha, towers = found.groups()
                image = case.inputs[f"img{size}"]
                both = towers == "main_aux"
                scores = discriminator(torch.cat([image, image.flip(-1)]) if both else image, float(alpha), both).scores
                case.scores(name, scores)
        for towers in ("main", "main_aux"):
            if f"diffaug_sg{group}.{towers}" in case.outputs:
                image = case.inputs[f"img{augmented_size}"]
                draws = replay(recorded(case, f"diffaug_sg{group}"), augmented_size)
                both = towers == "main_aux"
                images = torch.cat([image, image.flip(-1)]) if both else image
                case.scores(f"diffaug_sg{group}.{towers}", discriminator(images, 1.0, both, diffaugment, draws).scores)
                assert draws.used_up()
        tower_features(case, f"sg{group}.feat", discriminator.main)


def tower_features(case: Case, block: str, tower: Tower) -> None:
    """What the parts of the main tower return, at a blend of 0.3."""
    names = [name for name in case.outputs if name.startswith(f"{block}.")]
    if not names:
        return
    size = max(int(found[1]) for name in names if (found := re.search(r"\.convs\.(\d+)$", name)))
    modules = {f"conv_in.{4 * 2**i}": m for i, m in enumerate(tower.from_rgb)}
    modules |= {f"convs.{8 * 2**i}": m for i, m in enumerate(tower.blocks)}
    modules |= {"final_conv": tower.final, "space_linear": tower.dense, "out_linear": tower.score}
    with hearing(modules) as heard:
        tower(case.inputs[f"img{size}"], 0.3)
    ours = {name: calls[0][1] for name, calls in heard.items() if calls}
    # The published program activates, and scales by sqrt(2), in a step of its own, but within these modules.
    ours["final_conv.equal_conv"] = ours["final_conv"] / GAIN - tower.final.bias[:, None, None]
    for name in [name for name in ours if name.startswith("conv_in")] + ["final_conv", "space_linear"]:
        ours[name] = activate(ours[name])
    ours["final_conv.flrelu"] = ours["final_conv"]
    for name in names:
        case.scores(name, ours[name.removeprefix(f"{block}.")], beside=names)
