"""What a viewer shows: choices and a viewpoint to an image.

H W pixels
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zoo.draws import MixedDraws
from zoo.export.images import depth_to_bytes
from zoo.export.views import find_edit
from zoo.generator import (
    Generator,
    HasBackdrop,
    HasEdits,
    HasForeground,
    HasRays,
    WithoutEmptySpace,
    are_alike,
    draws_for,
    evaluating,
    quantise,
    take,
)
from zoo.render import Camera, Rendered
from zoo.render.projection import views_of
from zoo.utils.devices import wait_for
from zoo.utils.errors import UserError
from zoo.view.viewpoints import Stand, Viewpoint

SIDES = (8, 16, 32, 64, 128, 256, 512, 1024)  # that may be chosen, where a generator has them [pixels]
LARGEST_FACTOR = 8  # of them, over the generator's own
EDIT_FRAMES = 25  # of an edit
VIEWS = 64  # of an object, that a grid of its empty space is made for
FAST = 0.1  # seconds that an image may take while the camera moves


class Choice(NamedTuple):
    """What is looked at.

    index: which sample.
    other, mix: another sample, and how far the object is on the way to it, from 0 to 1.
    parts: of the latents that go there; None for all.
    edit, frame: name of an edit, and which of its ``EDIT_FRAMES`` frames.
    truncation: as in ``Generator.map``.
    condition: from where the camera looks that a generator is conditioned on; None leaves it to the system.
    """

    index: int = 0
    other: int = 1
    mix: float = 0.0
    parts: tuple[str, ...] | None = None
    edit: str | None = None
    frame: int = 0
    truncation: float = 1.0
    condition: Viewpoint | None = None


class Scene:
    """The objects of a generator, one after the other; the styles of the last one are kept.

    Args:
        generator: of the objects.
        seed: of the set of samples.

    seconds: that the last image of each side took.
    """

    def __init__(self, generator: Generator, seed: int = 0) -> None:
        self.generator, self.seed = generator, seed
        self.stand = Stand(generator)
        self.seconds: dict[int, float] = {}
        self.choice: Choice | None = None
        self.styles: Any = None
        self.space: WithoutEmptySpace | None = None

    def render(
        self,
        choice: Choice,
        camera: Camera,
        resolution: int | None = None,
        exact: bool = False,
        objects: bool = False,
    ) -> Rendered:
        """One image, in which nothing is random; but for the first of a choice, empty space is left out.

        See ``zoo.generator.WithoutEmptySpace``. The first image, and any ``exact`` one, is as ``zoo sample`` has it.

        Args:
            objects: without the background, where the generator can leave it out.

        Raises:
            UserError: there is no such edit, or there are no images of this side.
        """
        generator, side = self.generator, self.generator.image_side(resolution)
        is_new, makes_grid = choice != self.choice, False
        with evaluating(generator):
            if is_new:
                self.choice, self.styles, self.space = choice, self.styles_of(choice), None
            elif self.space is None and not exact:
                makes_grid = True
                self.space = WithoutEmptySpace(generator, self.styles, VIEWS * generator.image_side() ** 2)
            styles = self.styles
            if isinstance(generator, HasBackdrop):
                styles = generator.with_backdrop(styles, camera)
            if objects and isinstance(generator, HasForeground):  # another density, of which there is no grid
                styles, exact = generator.foreground_only(styles), True
            start = time.perf_counter()
            with nullcontext() if exact or self.space is None else self.space:
                rendered = generator.render(styles, camera, resolution=side)
            wait_for(generator.device)
        if not (exact or makes_grid):
            self.seconds[side] = time.perf_counter() - start
        return rendered

    def picture(
        self,
        choice: Choice,
        viewpoint: Viewpoint,
        shown: str = "image",
        resolution: int | None = None,
        exact: bool = False,
    ) -> Tensor:
        """What is seen, uint8 [3, H, W]; depth and normals are those of the objects alone.

        Args:
            choice: what is looked at.
            viewpoint: from where.
            shown: one of ``kinds``.
            resolution: side of the image [pixels]; by default the generator's own. Depth and normals have the side of
                the system's renderer, which may be smaller.
            exact: also compute what is in empty space.

        Raises:
            UserError: as of ``render``.
        """
        camera = self.stand.cameras([viewpoint])
        rendered = self.render(choice, camera, resolution, exact, objects=shown != "image")
        return KINDS[shown](self.generator, rendered, camera)

    def styles_of(self, choice: Choice) -> Any:
        """Styles of one object."""
        condition = None if choice.condition is None else self.stand.cameras([choice.condition])
        return self.generator.map(self.latents_of(choice), truncation=choice.truncation, condition=condition)

    def latents_of(self, choice: Choice) -> Any:
        """Latents of one object: a sample, mixed with another one, and edited."""
        draws = draws_for(self.generator, self.seed, [choice.index])
        latent, _ = self.generator.sample(1, draws)
        if choice.mix:
            turn = choice.mix * math.pi / 2
            both = draws_for(self.generator, self.seed, [choice.index, choice.other])
            weights = torch.tensor([[math.cos(turn), math.sin(turn)]])
            mixed, _ = self.generator.sample(1, MixedDraws(both, weights))
            parts = mixed._fields if choice.parts is None else choice.parts
            latent = latent._replace(**{name: getattr(mixed, name) for name in parts})
        if choice.edit is not None:
            latents, _ = find_edit(self.generator, choice.edit)(self.generator, latent, EDIT_FRAMES, draws)
            latent = take(latents, slice(choice.frame, choice.frame + 1))
        return latent

    def parts(self) -> list[str]:
        """Parts of the latents that differ from sample to sample, if there are several."""
        draws = draws_for(self.generator, self.seed, range(4))
        latents, _ = self.generator.sample(4, draws)
        differ = [name for name, x in latents._asdict().items() if x is not None and not (x == x[:1]).all()]
        return differ if len(differ) > 1 else []

    def edits(self) -> list[str]:
        """Names of the edits that change what is in a scene, instead of moving the camera alone."""
        generator = self.generator
        if not isinstance(generator, HasEdits):
            return []
        draws = draws_for(generator, self.seed, [0])
        latent, _ = generator.sample(1, draws)
        return [name for name, edit in generator.edits.items() if not are_alike(edit(generator, latent, 3, draws)[0])]

    def kinds(self) -> list[str]:
        """What can be shown; normals need rays."""
        return [name for name in KINDS if name != "normals" or isinstance(self.generator, HasRays)]

    def sides(self) -> list[int]:
        """Sides that images can have [pixels]."""
        own = self.generator.resolution
        return [side for side in sorted({*SIDES, own}) if side <= LARGEST_FACTOR * own and self.has(side)]

    def has(self, side: int) -> bool:
        """Whether there are images of this side."""
        try:
            return self.generator.image_side(side) == side
        except UserError:
            return False

    def moving_side(self, resolution: int | None = None) -> int:
        """Side of images while the camera moves: a half or quarter of the one at rest, where that takes too long."""
        side = self.generator.image_side(resolution)
        sides = [s for s in (side, side // 2, side // 4) if s == side or (s >= min(SIDES) and self.has(s))]
        fast = (s for s in sides if self.expected_seconds(s) <= FAST)
        return next(fast, sides[-1])

    def expected_seconds(self, side: int) -> float:
        """How long an image of this side takes, as far as those of other sides tell; inf before there were any."""
        if side in self.seconds:
            return self.seconds[side]
        return max((seconds * side**2 / s**2 for s, seconds in self.seconds.items()), default=math.inf)


def image_of(generator: Generator, rendered: Rendered, camera: Camera) -> Tensor:
    """The image, uint8 [3, H, W]."""
    return quantise(rendered.image[0])


def depth_of(generator: Generator, rendered: Rendered, camera: Camera) -> Tensor:
    """Depths in colours, uint8 [3, H, W]: near is yellow, far is violet, nothing is white."""
    return depth_to_bytes(rendered.depth[:, None])[0, 0]


def normals_of(generator: Generator, rendered: Rendered, camera: Camera) -> Tensor:
    """Normals of what the depth shows, uint8 [3, H, W]: red to the right, green upwards, blue towards the camera."""
    shown = views_of(generator.rays, rendered, camera, generator.bounds)
    points = shown.points.unflatten(1, shown.depth.shape[1:])
    points = points.where(shown.solid[..., None], torch.nan)
    down, right = torch.gradient(points, dim=(1, 2))
    normals = normalize(torch.linalg.cross(right, -down), dim=-1)[0] @ camera.pose[0, :3, :3]
    colours = quantise(normals.movedim(-1, 0).nan_to_num())
    return colours.where(normals.isfinite().all(-1), 255)


# (generator, rendered, its one camera) -> uint8 [3, H, W]
KINDS: Mapping[str, Callable[[Generator, Rendered, Camera], Tensor]] = {
    "image": image_of,
    "depth": depth_of,
    "normals": normals_of,
}
