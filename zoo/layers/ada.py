"""Adaptive discriminator augmentation in plain torch: what lets a GAN learn from few images.

Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, "Training Generative Adversarial Networks with Limited Data", NeurIPS
2020, arXiv:2006.06676. The discriminator sees all images, real or not, through ``Augmentation``: each of its changes
is made to an image with the same probability, which a ``Controller`` raises while the discriminator knows the training
images too well. Everything is differentiable twice in the images; nothing is clamped.

B batch, C channels, H height, W width, T taps of a filter
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, conv_transpose2d, pad

from zoo.draws import Draws
from zoo.layers.lookup import interpolate_linear
from zoo.utils.constants import constant
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, between

# Scaling filters of wavelets, "symlets" (Daubechies 1992): sym6 for warps, sym2 for bands of frequencies.
SYM6 = [
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
]
SYM2 = [-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025]
EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of natural images in the four bands (1/f spectrum)


class Controller(nn.Module):
    """Moves the probability so that the mean sign of the scores of real images stays at a target (section 3).

    Args:
        target: of the mean sign of scores of real images.
        every: iterations between changes.
        images: in which the probability goes from zero to one, at its fastest.
    """

    def __init__(self, target: float = 0.6, every: int = 4, images: int = 500_000) -> None:
        between(-1, 1, self, target=target)
        at_least(1, self, every=every, images=images)
        super().__init__()
        self.target, self.every, self.images = target, every, images
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def observe(self, scores: Tensor) -> None:
        """Note the discriminator's scores of real images."""
        self.signs += scores.sign().sum()
        self.count += scores.numel()

    @torch.no_grad()
    def adjust(self, probability: Tensor, iteration: int, images: int) -> None:
        """Move a probability, every so many iterations; what was noted must then be the same on all processes.

        As published nothing keeps it below one, which is as good as one.

        Args:
            probability: changed in place.
            iteration: number of this one, from 0.
            images: of an iteration on all processes.
        """
        if iteration % self.every:
            return
        direction = torch.sign(self.signs / self.count.clamp(min=1e-3) - self.target)
        probability.copy_((probability + direction * (images * self.every / self.images)).clamp(min=0))
        self.signs.zero_()
        self.count.zero_()


BLIT = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
OTHERS = ("imgfilter", "noise", "cutout")
BGC = dict.fromkeys([*BLIT, *GEOMETRY, *COLOUR], 1.0)  # blit, geometry, colour: what the paper's experiments use
# How much a change changes: a standard deviation or a largest value.
STRENGTHS = {
    "xint": 0.125,  # of the side
    "scale": 0.2,  # octaves
    "rotate": 1.0,  # half turns
    "aniso": 0.2,  # octaves
    "xfrac": 0.125,  # of the side
    "brightness": 0.2,
    "contrast": 0.5,  # octaves
    "hue": 1.0,  # half turns
    "saturation": 1.0,  # octaves
    "imgfilter": 1.0,  # octaves
    "noise": 0.1,
    "cutout": 0.5,  # of the side
}


class Augmentation(nn.Module):
    """Random changes of images, each with a probability that is the common one times a weight of its own (appendix B).

    Args:
        weights: of the changes, by name; those that are not named are never made.
        probability: the common one; where a controller starts.
        controller: moves it while a system trains; None for a fixed one.
        strengths: of changes, where they are not those of ``STRENGTHS``.
        bands: weights of the four bands of frequencies of "imgfilter".

    Raises:
        UserError: there is no such change.
    """

    def __init__(
        self,
        weights: dict[str, float] = BGC,
        probability: float = 0.0,
        controller: Controller | None = None,
        strengths: dict[str, float] | None = None,
        bands: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        between(0, 1, self, probability=probability)
        at_least(0, self, weights=weights, strengths=strengths or {}, bands=bands)
        super().__init__()
        known = [*BLIT, *GEOMETRY, *COLOUR, *OTHERS]
        unknown = sorted({*weights, *(strengths or {})} - {*known})
        if unknown:
            raise UserError(f"There is no augmentation '{unknown[0]}', only {', '.join(known)}.")
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.strengths, self.bands = STRENGTHS | (strengths or {}), bands
        self.controller = controller
        self.register_buffer("probability", torch.tensor(float(probability)))

    def observe(self, scores: Tensor) -> None:
        """Note the discriminator's scores of real images."""
        if self.controller is not None:
            self.controller.observe(scores)

    def running_statistics(self) -> list[Tensor]:
        """Running statistics of one process's batches, to be averaged over all processes at the end of an iteration."""
        return [] if self.controller is None else [self.controller.signs, self.controller.count]

    def adjust(self, iteration: int, images: int) -> None:
        """Move the probability, see ``Controller``; at the end of an iteration."""
        if self.controller is not None:
            self.controller.adjust(self.probability, iteration, images)

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Images [B, 3, H, W], each changed in its own way; or several of one scene [B, 3 n, H, W], in the same way."""
        if not self.weights.keys().isdisjoint((*BLIT, *GEOMETRY)):
            images = warp(images, self.warps(images, draws))
        if not self.weights.keys().isdisjoint(COLOUR):
            matrix = self.colour_changes(images, draws)
            colours = images.unflatten(1, (-1, 3)).flatten(3)
            images = (matrix[:, None, :3, :3] @ colours + matrix[:, None, :3, 3:]).view_as(images)
        if "imgfilter" in self.weights:
            images = filter_bands(images, self.band_gains(images, draws))
        if "noise" in self.weights:
            size = draws.normal("noise", (len(images), 1, 1, 1)).abs() * self.strengths["noise"]
            size = self.gated("noise", size, 0.0, draws)
            images = images + draws.normal("noise_pixels", images.shape) * size
        if "cutout" in self.weights:
            images = images * self.cutout_mask(images, draws)
        return images

    def chance(self, name: str) -> Tensor:
        """The probability of a change."""
        return self.probability * self.weights[name]

    def gated(self, name: str, values: Tensor, otherwise: float, draws: Draws, chance: Tensor | None = None) -> Tensor:
        """Values [B, ...] for the images that the change is made to; for the rest another value."""
        gate = draws.uniform(f"{name}_gate", (len(values), *[1] * (values.dim() - 1)))
        return torch.where(gate < (self.chance(name) if chance is None else chance), values, otherwise)

    def octaves(self, name: str, n: int, draws: Draws) -> Tensor:
        """Factors [n], one where nothing is changed."""
        return self.gated(name, (draws.normal(name, (n,)) * self.strengths[name]).exp2(), 1.0, draws)

    def warps(self, images: Tensor, draws: Draws) -> Tensor:
        """Matrices [B, 3, 3] from places in the new image to those in the old one, in pixels from the middle."""
        n, size = len(images), constant([images.shape[3], images.shape[2]], images)
        matrix = torch.eye(3, device=images.device, dtype=images.dtype).expand(n, -1, -1)
        half = 1 - (1 - self.probability * self.weights.get("rotate", 0.0)).clamp(0, 1).sqrt()  # a chance before the
        # image is stretched and one after it: together those of one turn
        for name in ("xflip", "rotate90", "xint", "scale", "prerotate", "aniso", "postrotate", "xfrac"):
            if ("rotate" if name in ("prerotate", "postrotate") else name) not in self.weights:
                continue
            match name:
                case "xflip":
                    flip = self.gated(name, (draws.uniform(name, (n,)) * 2).floor(), 0.0, draws)
                    matrix = matrix @ scaling(1 - 2 * flip, torch.ones_like(flip))
                case "rotate90":
                    turns = self.gated(name, (draws.uniform(name, (n,)) * 4).floor(), 0.0, draws)
                    matrix = matrix @ rotation(turns * (math.pi / 2))
                case "xint":
                    part = (draws.uniform(name, (n, 2)) * 2 - 1) * self.strengths[name]
                    matrix = matrix @ translation(-(self.gated(name, part, 0.0, draws) * size).round())
                case "scale":
                    factor = 1 / self.octaves(name, n, draws)
                    matrix = matrix @ scaling(factor, factor)
                case "prerotate" | "postrotate":
                    angle = (draws.uniform(name, (n,)) * 2 - 1) * (math.pi * self.strengths["rotate"])
                    matrix = matrix @ rotation(self.gated(name, angle, 0.0, draws, half))
                case "aniso":
                    factor = self.octaves(name, n, draws)
                    matrix = matrix @ scaling(1 / factor, factor)
                case "xfrac":
                    part = draws.normal(name, (n, 2)) * self.strengths[name]
                    matrix = matrix @ translation(-(self.gated(name, part, 0.0, draws) * size))
        return matrix

    def colour_changes(self, images: Tensor, draws: Draws) -> Tensor:
        """Matrices [B, 4, 4] from colours to colours, with a column to add."""
        n = len(images)
        whole = torch.eye(4, device=images.device, dtype=images.dtype)
        grey = constant([1.0, 1.0, 1.0, 0.0], images) / math.sqrt(3)
        along = torch.outer(grey, grey)  # the part of a colour that is its brightness
        matrix = whole.expand(n, -1, -1)
        if "brightness" in self.weights:
            added = draws.normal("brightness", (n,)) * self.strengths["brightness"]
            added = self.gated("brightness", added, 0.0, draws)
            column = constant([0.0, 0.0, 0.0, 1.0], images)
            shift = constant([1.0, 1.0, 1.0, 0.0], images)
            matrix = (whole + added[:, None, None] * torch.outer(shift, column)) @ matrix
        if "contrast" in self.weights:
            factor = self.octaves("contrast", n, draws)[:, None]
            matrix = torch.diag_embed(torch.cat([factor.expand(-1, 3), torch.ones_like(factor)], 1)) @ matrix
        if "lumaflip" in self.weights:
            flip = (draws.uniform("lumaflip", (n, 1, 1)) * 2).floor()
            matrix = (whole - 2 * along * self.gated("lumaflip", flip, 0.0, draws)) @ matrix
        if "hue" in self.weights:
            angle = (draws.uniform("hue", (n,)) * 2 - 1) * (math.pi * self.strengths["hue"])
            matrix = rotate_hue(self.gated("hue", angle, 0.0, draws)) @ matrix
        if "saturation" in self.weights:
            factor = (draws.normal("saturation", (n, 1, 1)) * self.strengths["saturation"]).exp2()
            factor = self.gated("saturation", factor, 1.0, draws)
            matrix = (along + (whole - along) * factor) @ matrix
        return matrix

    def band_gains(self, images: Tensor, draws: Draws) -> Tensor:
        """Factors [B, 4] of bands of frequencies that leave the expected power as it is."""
        n, power = len(images), constant(EXPECTED_POWER, images)
        gains = images.new_ones(n, 4)
        for band, weight in enumerate(self.bands):
            factor = (draws.normal(f"imgfilter{band}", (n,)) * self.strengths["imgfilter"]).exp2()
            factor = self.gated(f"imgfilter{band}", factor, 1.0, draws, self.chance("imgfilter") * weight)
            change = torch.ones_like(gains).index_copy(1, torch.full((1,), band, device=gains.device), factor[:, None])
            gains = gains * change / (power * change.square()).sum(1, keepdim=True).sqrt()
        return gains

    def cutout_mask(self, images: Tensor, draws: Draws) -> Tensor:
        """One outside of a square somewhere in each image and zero inside, [B, 1, H, W]."""
        size = images.new_full((len(images), 1), self.strengths["cutout"])
        half = self.gated("cutout", size, 0.0, draws) / 2
        middle = draws.uniform("cutout", (len(images), 2))
        outside = []
        for axis, side in enumerate((images.shape[3], images.shape[2])):
            place = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / side
            outside.append((place - middle[:, axis, None]).abs() >= half)
        return (outside[0][:, None, None] | outside[1][:, None, :, None]).to(images.dtype)


# Warps


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Matrices [B, 3, 3] that scale by factors [B]."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=-1))


def rotation(angle: Tensor) -> Tensor:
    """Matrices [B, 3, 3] that rotate by angles [B] [rad]."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def translation(shift: Tensor) -> Tensor:
    """Matrices [B, 3, 3] that move by [B, 2]."""
    matrix = torch.eye(3, device=shift.device, dtype=shift.dtype).repeat(len(shift), 1, 1)
    matrix[:, :2, 2] = shift
    return matrix


def rotate_hue(angle: Tensor) -> Tensor:
    """Matrices [B, 4, 4] that turn colours around the grey axis by angles [B] [rad]."""
    axis = 1 / math.sqrt(3)
    cos, sin = angle.cos(), angle.sin() * axis
    rest = (1 - cos) / 3
    equal, next_one, one_before = cos + rest, rest - sin, rest + sin
    rows = [equal, next_one, one_before, one_before, equal, next_one, next_one, one_before, equal]
    matrix = torch.eye(4, device=angle.device, dtype=angle.dtype).repeat(len(angle), 1, 1)
    matrix[:, :3, :3] = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return matrix


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Images [B, C, H, W] seen through matrices [B, 3, 3], mirrored beyond their borders.

    They are looked up bilinearly at twice the resolution, between wavelets' filters, so that hardly anything is lost.
    """
    height, width = images.shape[2:]
    like = {"device": images.device, "dtype": images.dtype}
    low_pass = constant(SYM6, images)
    low_pass = low_pass / low_pass.sum()
    around = len(SYM6) // 4

    # How far beyond the borders any image looks.
    middle = constant([(width - 1) / 2, (height - 1) / 2], images)
    corners = constant([[-1, -1], [1, -1], [1, 1], [-1, 1]], images) * middle
    seen = corners @ matrix[:, :2, :2].mT + matrix[:, None, :2, 2]
    most = constant([width - 1, height - 1], images)
    low, high = (-seen).amax((0, 1)), seen.amax((0, 1))
    beyond = torch.stack([far + 2 * around - middle for far in (low, high)]).clamp(min=0).minimum(most).ceil()
    (left, top), (right, bottom) = beyond.int().tolist()
    images = pad(images, (left, right, top, bottom), mode="reflect")
    shift = ((beyond[0] - beyond[1]) / 2).expand(len(images), -1)
    matrix = translation(shift) @ matrix

    images = upsample_with(images, low_pass)
    two, half = scaling(*torch.full((2, 1), 2.0, **like)), torch.full((1, 2), 0.5, **like)
    matrix = translation(-half) @ two @ matrix @ scaling(*torch.full((2, 1), 0.5, **like)) @ translation(half)
    shape = (len(images), images.shape[1], 2 * (height + 2 * around), 2 * (width + 2 * around))
    # Filled on the device: each batch reaches as far as it happens to, so these are no constants.
    place = [torch.full((1,), 2 / side, **like) for side in (images.shape[3], images.shape[2])]
    back = constant([[shape[3] / 2], [shape[2] / 2]], images)
    matrix = scaling(*place) @ matrix @ scaling(*back)
    images = sample_bilinear(images, affine_grid(matrix[:, :2], shape, align_corners=False))
    return downsample_with(images, low_pass)


def upsample_with(x: Tensor, line: Tensor) -> Tensor:
    """Zeros between the pixels, filtered with a line [T] both ways, times four."""
    channels, taps = x.shape[1], len(line)
    column, row = (line * 2).view(1, 1, taps, 1), (line * 2).view(1, 1, 1, taps)
    margin = taps // 2 - 1
    kernels = (kernel.expand(channels, -1, -1, -1) for kernel in (row, column))
    x = conv_transpose2d(x, next(kernels), stride=(1, 2), padding=(0, margin), groups=channels)
    return conv_transpose2d(x, next(kernels), stride=(2, 1), padding=(margin, 0), groups=channels)


def downsample_with(x: Tensor, line: Tensor) -> Tensor:
    """Filtered with a line [T] both ways, without a border of half of it, and every second pixel."""
    channels, taps = x.shape[1], len(line)
    x = x[:, :, 1:-1, 1:-1]
    x = conv2d(x, line.view(1, 1, 1, taps).expand(channels, -1, -1, -1), stride=(1, 2), groups=channels)
    return conv2d(x, line.view(1, 1, taps, 1).expand(channels, -1, -1, -1), stride=(2, 1), groups=channels)


def sample_bilinear(images: Tensor, grid: Tensor) -> Tensor:
    """Images [B, C, H, W] at places of a grid [B, h, w, 2] from -1 to 1, bilinearly; zeros beyond the border."""
    size = torch.stack([grid.new_full((), side) for side in (images.shape[3], images.shape[2])])
    places = ((grid + 1) * size - 1) / 2 + 1  # in images with a border of one zero
    found = interpolate_linear(pad(images, (1, 1, 1, 1)).movedim(1, -1), places.flatten(1, 2).flip(-1))
    return found.mT.unflatten(2, grid.shape[1:3])


# Bands of frequencies


def band_filters() -> Tensor:
    """Float64 filters [4, 43] that together leave everything as it is, each of half as high frequencies as the next."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    low, high = (convolved(line, line.flip(0)) / 2 for line in (low, high))
    bank = torch.eye(4, 1, dtype=torch.float64)
    for band in range(1, 4):
        bank = torch.stack([bank, torch.zeros_like(bank)], dim=-1).flatten(1)[:, :-1]
        bank = torch.stack([convolved(line, low) for line in bank])
        start = (bank.shape[1] - len(high)) // 2
        bank[band, start : start + len(high)] += high
    return bank


def convolved(one: Tensor, other: Tensor) -> Tensor:
    """The convolution of two lines, whole."""
    return conv_transpose2d(one.view(1, 1, 1, -1), other.view(1, 1, 1, -1)).flatten()


def filter_bands(images: Tensor, gains: Tensor) -> Tensor:
    """Images [B, C, H, W] with their bands of frequencies times gains [B, 4]; mirrored beyond their borders.

    Raises:
        UserError: the images are too small to be mirrored that far.
    """
    batch, channels, height, width = images.shape
    lines = (gains @ band_filters().to(gains)).repeat_interleave(channels, 0)
    around = lines.shape[1] // 2
    if min(height, width) <= around:
        raise UserError(
            f"The augmentation 'imgfilter' needs images of more than {around} pixels a side, not {width}x{height}: "
            "leave it out of the weights."
        )
    x = pad(images.reshape(1, batch * channels, height, width), (around,) * 4, mode="reflect")
    x = conv2d(x, lines[:, None, None, :], groups=batch * channels)
    return conv2d(x, lines[:, None, :, None], groups=batch * channels).view_as(images)
