"""CIPS-3D's discriminators, two of StyleGAN2's, which grow by one level at a time."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.cips3d.model import Augment
from zoo.draws import Draws
from zoo.layers import discriminator
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.losses import logistic_real
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, filled


class Tower(discriminator.Discriminator):
    """StyleGAN2's, for images of several resolutions.

    Args:
        channels: widths of the levels, from 4x4 upwards.
        shrink_first: whether the first convolution of a block halves the resolution, instead of the second.
        group: images whose standard deviation is an input of the last convolution; 0 for none.
    """

    def __init__(self, channels: list[int], shrink_first: bool = False, group: int = 0) -> None:
        filled(self, channels=channels)
        at_least(1, self, channels=channels)
        at_least(0, self, group=group)
        if group == 1:
            raise UserError("A group of one image has no standard deviation: give a group of 2 or more, or 0.")
        widths = {4 * 2**i: width for i, width in enumerate(channels)}
        super().__init__(widths, clamp=None, groups=group, down_first=shrink_first)

    def features(self, images: Tensor, alpha: float = 1.0) -> Tensor:
        """Below 1, alpha is the share of the first block in a blend with what enters at the level below."""
        x = self.enter(images)
        if x.shape[-1] > self.last:
            x = self.block(x)
            if alpha < 1:
                x = alpha * x + (1 - alpha) * self.enter(avg_pool2d(images, 2))
        while x.shape[-1] > self.last:
            x = self.block(x)
        return x


class Discriminator(nn.Module):
    """The tower for final images, and a smaller one for the colours of the field (section 3.3).

    Args:
        main, auxiliary: the towers.
    """

    def __init__(self, main: Tower, auxiliary: Tower) -> None:
        super().__init__()
        self.main, self.auxiliary = main, auxiliary

    def forward(
        self,
        images: Tensor,
        alpha: float = 1.0,
        auxiliary: bool = False,
        augment: Augment | None = None,
        draws: Draws | None = None,
    ) -> DiscriminatorOutput:
        """Scores [B, 1] of images [B, 3, H, H].

        Args:
            images: for the main tower, or one half for each tower.
            alpha: see ``Tower``.
            auxiliary: whether the second half is for the auxiliary tower.
            augment: changes images at random before a tower sees them.
            draws: for ``augment``.
        """
        towers = [self.main, self.auxiliary] if auxiliary else [self.main]
        parts = augmented(images, len(towers), augment, draws).chunk(len(towers))
        scores = [tower(part, alpha).scores for tower, part in zip(towers, parts, strict=True)]
        return DiscriminatorOutput(torch.cat(scores))

    @property
    def is_piecewise_linear(self) -> bool:
        """Whether scores are piecewise linear in their own image and all biases."""
        return not self.main.groups and not self.auxiliary.groups


def augmented(images: Tensor, towers: int, augment: Augment | None, draws: Draws | None) -> Tensor:
    """What so many towers see of images."""
    return images if augment is None else torch.cat([augment(part, draws) for part in images.chunk(towers)])


def real_and_r1(scores: Tensor, images: Tensor, seen: Tensor, biases: list[Tensor]) -> tuple[Tensor, Tensor]:
    """``logistic_real`` and ``r1_penalty`` of a piecewise linear discriminator, in two thirds of the time.

    Between two bends of its leaky ReLUs a score is linear in image and biases, so by Euler's theorem it is the sum of
    each of these times its gradient, whatever the weights are. The gradient of a loss of the scores is then that of the
    sum of each times the loss's gradient by it, the loss's slopes held fixed. That takes the same second derivatives as
    R1, and no first ones by the weights beside them.

    Args:
        scores: [B, 1].
        images: that R1 differentiates by, [B, C, H, H].
        seen: what the discriminator was given, linear in the images but for a constant.
        biases: all that the discriminator has.
    """
    leaf = scores.detach().requires_grad_()
    real = logistic_real(leaf)
    (slopes,) = torch.autograd.grad(real, leaf)
    slopes = slopes.clamp(max=-1e-12)  # never zero, though scores of hundreds round it to that
    inputs = [images, seen, *biases]  # of which biases of levels that take no part have no gradient
    of_images, *gradients = torch.autograd.grad(scores, inputs, slopes, create_graph=True, allow_unused=True)
    terms = zip([seen.detach(), *biases], gradients, strict=True)
    linear = torch.stack([(x * gradient).sum() for x, gradient in terms if gradient is not None]).sum()
    r1 = (of_images / slopes[..., None, None]).square().flatten(1).sum(1).mean()
    return linear - linear.detach() + real.detach(), r1
