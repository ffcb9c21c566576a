"""Names of tensors in the published pi-GAN's state dicts (github.com/marcoamonteiro/pi-GAN) and ours."""

import re

from torch import Tensor

# ours -> published
GENERATOR = [
    (r"field\.layers\.(\d+)\.", r"siren.network.\1.layer."),
    (r"field\.density\.", "siren.final_layer."),
    (r"field\.colour_sine\.", "siren.color_layer_sine.layer."),
    (r"field\.colour\.", "siren.color_layer_linear.0."),
    (r"field\.embedding\.cube", "siren.spatial_embeddings"),
    (r"mapping\.layers\.(\d+)\.", lambda m: f"siren.mapping_network.network.{2 * int(m[1])}."),
]
DISCRIMINATOR = [
    (r"blocks\.(\d+)\.first\.conv\.", r"layers.\1.network.0.conv."),
    (r"blocks\.(\d+)\.second\.conv\.", r"layers.\1.network.2.conv."),
    (r"blocks\.(\d+)\.skip\.", r"layers.\1.proj."),
    (r"from_rgb\.(\d+)\.", r"fromRGB.\1.model.0."),
    (r"final\.", "final_layer."),
]
PLAIN_DISCRIMINATOR = [(pattern, to.replace(".conv.", ".")) for pattern, to in DISCRIMINATOR]  # without coordinates
UNUSED = "unused."


def published_name(name: str, table: list) -> str:
    """The published name of one of our tensors."""
    if name.startswith(UNUSED):
        return name.removeprefix(UNUSED)
    for pattern, to in table:
        if re.match(pattern, name):
            return re.sub(pattern, to, name, count=1)
    raise KeyError(f"'{name}' has no counterpart in the published pi-GAN.")


def from_published(state: dict[str, Tensor], names: list[str], table: list) -> dict[str, Tensor]:
    """A published state dict under our names; what our network never reads is kept under ``unused.``.

    Raises:
        KeyError: a tensor that our network needs is not there.
    """
    state, ours = dict(state), {}
    for name in names:
        published = published_name(name, table)
        if published not in state:
            raise KeyError(f"The published state dict has no '{published}', which our '{name}' needs.")
        ours[name] = state.pop(published)
    return ours | {UNUSED + name: tensor for name, tensor in state.items()}


def to_published(state: dict[str, Tensor], table: list) -> dict[str, Tensor]:
    """The way back."""
    return {published_name(name, table): tensor for name, tensor in state.items()}
