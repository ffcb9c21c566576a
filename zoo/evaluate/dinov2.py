"""DINOv2's vision transformer (Oquab et al. 2023), which has learnt 142 million images without labels.

A vision transformer (Dosovitskiy et al. 2021) of pre-norm blocks whose branches have a learnt scale a channel (Touvron
et al. 2021, "LayerScale"). Names of tensors are those of the published files.

B batch, N tokens: the class and one a patch, C channels
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

PATCH = 14  # pixels
SIDE = 224  # pixels that images are resized to: 16x16 patches
HEAD = 64  # channels of a head, in all sizes
OFFSET = 0.1  # patches, that the published program adds to the side when it resizes its embedding of positions
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours in [0, 1]


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention of tokens [B, N, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, each added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(channels, 4 * channels), "fc2": nn.Linear(4 * channels, channels)})
        self.ls1, self.ls2 = LayerScale(channels), LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        wide = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2(self.mlp["fc2"](wide))


class DinoV2(nn.Module):
    """uint8 images [B, 3, H, W] to the class token after the last normalisation [B, C].

    Images are resized to 224x224 pixels as torch-fidelity does for this network: bilinearly, as TensorFlow 1 did.

    Args:
        channels: 1,024 in ViT-L/14.
        depth: blocks; 24 in ViT-L/14.
        positions: patches each way of the embedding of positions; 37 in the published files (518 pixels).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int = 1024, depth: int = 24, positions: int = 37) -> None:
        super().__init__()
        self.positions = positions
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions**2, channels))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, channels, PATCH, PATCH)})
        self.blocks = nn.ModuleList([Block(channels) for _ in range(depth)])
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        images = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
        return self.features((images - self.mean) / self.std)

    def features(self, images: Tensor) -> Tensor:
        """Features [B, C] of standardised images [B, 3, H, H], H a multiple of 14."""
        patches = self.patch_embed["proj"](images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self.embedding(patches.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def embedding(self, side: int) -> Tensor:
        """The embedding of positions [1, 1 + side^2, C], resized for so many patches each way."""
        if side == self.positions:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].mT.unflatten(2, (self.positions, self.positions))
        scale = (side + OFFSET) / self.positions
        grid = interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).mT], dim=1)


def network(state: dict[str, Tensor]) -> DinoV2:
    """The network of the size that these tensors have, with them; what only training needs is left out."""
    state = {name: tensor for name, tensor in state.items() if name != "mask_token"}
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    positions = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    made = DinoV2(state["cls_token"].shape[2], depth, positions)
    made.load_state_dict(state)
    return made.eval().requires_grad_(False)
