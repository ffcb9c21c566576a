"""The published VolumeGAN's random numbers under our names."""

import torch
from torch import Tensor

from tests.parity.harness import Case
from tests.parity.replay import Replay
from zoo.render import HybridPoses
from zoo.volumegan.model import Generator

# A published draw's name -> ours
DRAWS = {
    "z": "z",
    "mix_u": "mixing",
    "mix_z": "mixed_z",
    "cam_yaw_n": "yaw",
    "cam_pitch_n": "pitch",
    "cam_yaw_u": "yaw",
    "cam_pitch_u": "pitch",
    "tn_yaw": "yaw",
    "tn_pitch": "pitch",
    "jitter_u": "jitter",
    "pdf_u": "importance",
    "image_noise": "path_noise",
}


def replay(case: Case, *blocks: str, generator: Generator) -> Replay:
    """The draws of some blocks (prefixes of names), one block after the other.

    What a block did without comes from what the generator stores: image noise, and depths without jitter.
    """
    pairs = []
    silent = case.config.get("generator_train_kwargs", {}).get("noise_mode") == "none"
    for block in blocks:
        found = case.block(f"{block}." if block else "")
        pairs += [(DRAWS[name], numbers) for name, numbers in found.items() if name in DRAWS]
        if isinstance(generator.poses, HybridPoses):  # the numbers that it drew show which half it took
            pairs.append(("pose_kind", torch.tensor(0.2 if "cam_yaw_u" in found else 0.8)))
        if block and "mix_u" not in found:  # no mixing
            pairs.append(("mixing", torch.tensor(1.0)))
        if "mix_cutoff" in found:
            first, end = generator.field.num_layers, generator.num_layers
            pairs.append(("cut", (found["mix_cutoff"] - first + 0.5) / (end - first)))
        n = len(found["pdf_u"]) // generator.synthesis.low**2
        for name, noise in stored_noise(generator).items():
            given = found.get(name.replace("noise", "noise_layer"), noise * (not silent))
            pairs.append((name, given.expand(n, -1, -1, -1)))
    return Replay(pairs)


def stored_noise(generator: Generator) -> dict[str, Tensor]:
    """Image noise by the name of its draw."""
    layers = [layer for block in generator.synthesis.blocks for layer in (block.up, block.same)]
    return {f"noise{i + 1}": layer.noise.stored for i, layer in enumerate(layers)}
