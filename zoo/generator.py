"""The contract between generators and all that draws with them, and how samples are drawn.

Training, verbs, metrics and callbacks know of a system what stands here:

    latents, cameras = generator.sample(n, draws)      # from the prior
    styles = generator.map(latents, truncation=0.7)    # all that does not depend on the camera
    rendered = generator.render(styles, cameras)       # images in [-1, 1], depth, opacity

Latents and styles are named tuples of tensors [B, ...], other ones in each system; axis 0 is the sample, so that anyone
may select or repeat them without knowing what they mean. Everything random comes from ``zoo.draws``. The world is
right-handed with y up; lengths are world units, angles radians.

What only some generators can do is a capability, one of the protocols below: whoever defines its method has it, there
is nothing to inherit and nothing to register. Callers check with ``isinstance``, or with ``require`` where they can do
nothing without it. The rasteriser of docs/adding-a-renderer.md is a system with no capability at all.

B batch, N points, R rays, H W pixels, h w pixels of the renderer
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from zoo.draws import Draws, SampleDraws
from zoo.render import Camera, EmptySpace, Poses, Rays, Rendered, VolumeRenderer
from zoo.render.cameras import ORIGIN
from zoo.render.occupancy import CELLS
from zoo.utils.errors import UserError
from zoo.utils.memory import images_at_once
from zoo.utils.ranges import at_least, finite

Latents = TypeVar("Latents", bound=NamedTuple)  # a system's own: tensors [B, ...]
Styles = TypeVar("Styles", bound=NamedTuple)  # likewise; a part that a generator does without is None
Parts = TypeVar("Parts", bound=NamedTuple)  # either


class Generator(nn.Module, ABC, Generic[Latents, Styles]):
    """Base of all generators: ``latents``, ``map`` and ``render`` are a system's own, the rest may stay as it is.

    Args:
        poses: distribution of cameras.
        resolution: default side of images [pixels].
        bounds: world box of the object, two corners [2, 3].
    """

    bounds: Tensor

    def __init__(self, poses: Poses, resolution: int, bounds: Sequence[Sequence[float]]) -> None:
        at_least(1, self, resolution=resolution)
        finite(self, bounds=bounds)
        super().__init__()
        self.poses, self.resolution = poses, resolution
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.get_default_dtype()), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.bounds.device

    @property
    def dtype(self) -> torch.dtype:
        return self.bounds.dtype

    @property
    def is_conditioned(self) -> bool:
        """Whether ``map`` depends on the camera that an object is conditioned on."""
        return False

    @property
    def pivot(self) -> Tensor:
        """The point that cameras are moved round, [3]: that of the poses, or the origin."""
        return self.bounds.new_tensor(getattr(self.poses, "pivot", ORIGIN))

    @abstractmethod
    def latents(self, n: int, draws: Draws) -> Latents:
        """n latents from the prior, a function of their draws: inversion moves those and calls this again."""

    def cameras(self, n: int, draws: Draws | None) -> Camera:
        """n cameras from the prior; with ``draws=None`` n times the middle one, where inversion may begin."""
        return self.poses(n, draws).to(self.bounds)

    def sample(self, n: int, draws: Draws) -> tuple[Latents, Camera]:
        """n latents and the cameras they are seen from; a system that draws them in another order overrides this."""
        return self.latents(n, draws), self.cameras(n, draws)

    @abstractmethod
    def map(self, latents: Latents, *, truncation: float = 1.0, condition: Camera | None = None) -> Styles:
        """Styles of B latents: all that does not depend on the camera they are rendered from.

        Args:
            latents: from ``latents``.
            truncation: 1 for none; below 1, styles move towards their mean.
            condition: B cameras that the generator is conditioned on, for systems such as EG3D:
                not those it is rendered from, which differ from view to view. Samples are conditioned on the cameras
                they were drawn with; None, for views of one object, leaves the choice to the system.
        """

    @abstractmethod
    def render(
        self, styles: Styles, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        """Images of B styles from B cameras.

        Args:
            styles: from ``map``.
            camera: B cameras.
            resolution: side of the image [pixels]; by default the generator's own.
            draws: for jitter and noise; None for an image in which nothing is random.

        Returns:
            image [B, 3, H, W] in [-1, 1], and raw, the colours before any upsampling or the image again; opacity
            [B, 1, h, w] in [0, 1], and depth [B, 1, h, w], the distance along the unit ray of what that counts, NaN
            where it is below 1e-3. A system that knows no depth, such as a 2D network, has 0 and NaN everywhere.

        Raises:
            UserError: there are no images of that side, see ``image_side``.
        """

    def image_side(self, resolution: int | None = None) -> int:
        """The side of images [pixels] that is asked for, or the generator's own; weights need not be loaded for it.

        Raises:
            UserError: there are no images of that side; says of which there are.
        """
        side = self.resolution if resolution is None else resolution
        if side < 1:
            raise UserError(f"A side is at least 1 pixel, not {side}.")
        return side

    def forward(self, latents: Latents, camera: Camera, **kwargs: Any) -> Rendered:
        """``map`` and ``render``."""
        return self.render(self.map(latents), camera, **kwargs)

    def prepare(self) -> Self:
        """Compute what a bundle stores beside what was learned, before it is written: nothing, or a mean style."""
        return self

    def turntable(self, latents: Parts, n: int) -> tuple[Parts, Camera]:
        """Latents (or styles) and cameras, B n long, that show B objects, one after the other, from n sides each."""
        return repeat_for_cameras(latents, self.poses.turntable(n).to(self.bounds))

    def orbit_at(self, latents: Parts, turn: Tensor) -> tuple[Parts, Camera]:
        """As ``turntable``, from these places [T] on its way: 0 is its beginning, 1 its end; both are B T long."""
        return repeat_for_cameras(latents, self.poses.orbit_at(turn).to(self.bounds))

    def free_parameters(self, styles: Styles) -> dict[str, Tensor]:
        """The parts of styles that may be anything, by name: all, unless some follow from others or are bound."""
        return styles._asdict()

    def with_free_parameters(self, styles: Styles, values: dict[str, Tensor]) -> Styles:
        """Styles in which these parts are others, and with them what follows."""
        return styles._replace(**values)


# Capabilities


@runtime_checkable
class HasRays(Protocol):
    """Knows which ray each pixel shows: for meshes, and to compare the depths of two views."""

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays [B, R, 3] of all pixels of an image of this side, row by row."""


@runtime_checkable
class HasDensity(Protocol):
    """Has a density at every point; renderers know theirs, see ``zoo.render.Renderer``."""

    def density(self, points: Tensor, styles: Any) -> Tensor:
        """Density of the object per world length [B, N, 1] at world points [B, N, 3]."""


@runtime_checkable
class HasSurface(Protocol):
    """Has a surface: where a signed distance is zero."""

    def signed_distance(self, points: Tensor, styles: Any) -> Tensor:
        """Distance from the surface [B, N, 1] at world points [B, N, 3], negative inside [world units]."""


@runtime_checkable
class HasForeground(Protocol):
    """Renders a background that is opaque too, and can leave it out."""

    def foreground_only(self, styles: Parts) -> Parts:
        """Styles whose depth and opacity are those of the objects alone."""


@runtime_checkable
class HasBackdrop(Protocol):
    """Has learned its background from the front alone, so that it goes with a camera that goes round, as in
    ``turntable``."""

    def with_backdrop(self, styles: Parts, camera: Camera) -> Parts:
        """Styles whose backgrounds have gone round with these cameras [B]."""


# (generator, B latents, frames, draws) -> latents and cameras of each scene's frames, scene after scene, B frames long
Edit = Callable[[Generator[Latents, Any], Latents, int, Draws], tuple[Latents, Camera]]


@runtime_checkable
class HasEdits(Protocol):
    """Can change what is in a scene; ``--edit`` of ``zoo sample`` and ``zoo orbit`` names one."""

    edits: Mapping[str, Edit]


def require(generator: Generator, purpose: str, *capabilities: type) -> None:
    """Raise a ``UserError`` that says what for, unless the generator can do all of this."""
    if not all(isinstance(generator, capability) for capability in capabilities):
        raise lacking(generator, purpose, *capabilities)


def lacking(generator: Generator, purpose: str, *capabilities: type) -> UserError:
    """The error that says which of these the purpose needs and the generator does not have."""
    missing = [c.__name__.removeprefix("Has").lower() for c in capabilities if not isinstance(generator, c)]
    name = f"{type(generator).__module__}.{type(generator).__name__}"
    return UserError(f"{purpose} needs {' and '.join(missing)}, which {name} does not have.")


# What systems and callers share


def take(parts: Parts, index: slice | Tensor) -> Parts:
    """These of B latents or styles: a slice or an index tensor."""
    return parts._make(None if x is None else x[index] for x in parts)


def repeat_for_cameras(latents: Parts, camera: Camera) -> tuple[Parts, Camera]:
    """Each of B latents from each of n cameras, latent after latent, both B n long; one takes no more memory so."""
    n = len(camera.pose)
    if len(latents[0]) == 1:
        repeated = latents._make(None if x is None else x.expand(n, *x.shape[1:]) for x in latents)
    else:
        repeated = latents._make(None if x is None else x.repeat_interleave(n, 0) for x in latents)
    return repeated, Camera(*(x.repeat(len(latents[0]), 1, 1) for x in camera))


def joined(parts: Sequence[Parts]) -> Parts:
    """Latents or styles one after the other."""
    return parts[0]._make(None if x[0] is None else torch.cat(x) for x in zip(*parts, strict=True))


def draws_for(generator: Generator, seed: int, indices: Sequence[int]) -> SampleDraws:
    """The draws of samples, where the generator is and as precise as it is."""
    return SampleDraws(seed, indices, generator.device, generator.dtype)


def render_foreground(
    generator: Generator[Latents, Styles], styles: Styles, camera: Camera, resolution: int | None = None
) -> Rendered:
    """Images as they are, with depth and opacity of the objects alone; as many at once as memory allows."""
    at_once = images_at_once(generator.image_side(resolution), generator.device)
    parts = [slice(start, start + at_once) for start in range(0, len(camera.pose), at_once)]
    shown = [_render_foreground(generator, take(styles, part), camera.take(part), resolution) for part in parts]
    return Rendered(*map(torch.cat, zip(*shown, strict=True)))


def _render_foreground(
    generator: Generator[Latents, Styles], styles: Styles, camera: Camera, resolution: int | None
) -> Rendered:
    rendered = generator.render(styles, camera, resolution=resolution)
    if not isinstance(generator, HasForeground):
        return rendered
    alone = generator.render(generator.foreground_only(styles), camera, resolution=resolution)
    return rendered._replace(depth=alone.depth, opacity=alone.opacity)


class WithoutEmptySpace:
    """Inside this context, views of one object are rendered without querying fields in empty space.

    See ``zoo.render.occupancy``. Views are plain where leaving something out could be wrong or would not pay: where
    styles differ, where no part of the generator is a ``VolumeRenderer`` or it has no density, or where there are fewer
    pixels than a grid has cells. The context may be entered again, for further views.

    Args:
        styles: of the views [V].
        pixels: of all views together.
        exact: render plain views.

    spaces: one for each renderer, which count samples.
    """

    def __init__(self, generator: Generator, styles: NamedTuple, pixels: int, exact: bool = False) -> None:
        plain = exact or pixels < CELLS**3 or not isinstance(generator, HasDensity) or not are_alike(styles)
        parts = () if plain else generator.children()
        self.renderers = [part for part in parts if isinstance(part, VolumeRenderer)]
        cells = round(min(max((pixels / 4) ** (1 / 3), CELLS), 2 * CELLS))  # so that the grid takes little of the time
        self.spaces = [EmptySpace(generator.bounds, cells) for _ in self.renderers]

    def __enter__(self) -> Self:
        for renderer, space in zip(self.renderers, self.spaces, strict=True):
            renderer.empty_space = space
        return self

    def __exit__(self, *_: object) -> None:
        for renderer in self.renderers:
            renderer.empty_space = None


def are_alike(parts: NamedTuple) -> bool:
    """Whether B latents or styles are all the same."""
    return all(x is None or x.stride(0) == 0 or bool((x == x[:1]).all()) for x in parts)


DrawsPolicy = Literal["per-sample", "none"]
Condition = Literal["own", "fixed"]
# (generator, B latents, their cameras of the prior, their draws) -> latents, and the cameras that show them instead
Cameras = Callable[[Generator[Latents, Any], Latents, Camera, Draws], tuple[Latents, Camera]]


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module is as it was."""
    training = [module for network in networks for module in network.modules() if module.training]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def render_samples(
    generator: Generator[Latents, Styles],
    indices: Sequence[int],
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
    draws: DrawsPolicy = "per-sample",
    *,
    condition: Condition = "own",
    cameras: Cameras | None = None,
) -> Rendered:
    """The samples with these indices, in one batch; each depends on (seed, index) only, not on its neighbours.

    Args:
        indices: which samples, at least 0 each.
        truncation: as in ``Generator.map``.
        resolution: side of the image [pixels]; by default the generator's own.
        draws: ``per-sample``: the renderer jitters with numbers that belong to the sample; ``none``: no jitter.
            Latents and cameras are random either way.
        condition: ``own``: conditioned on the camera it is rendered from; ``fixed``: all alike, as ``Generator.map``
            does by itself. The same for systems that are not conditioned.
        cameras: says from where to render instead of the prior.
    """
    random = draws_for(generator, seed, indices)
    with evaluating(generator):
        latents, camera = generator.sample(len(indices), random)
        if cameras is not None:
            latents, camera = cameras(generator, latents, camera, random)
        styles = generator.map(latents, truncation=truncation, condition=camera if condition == "own" else None)
        jitter = {"per-sample": random, "none": None}[draws]
        return generator.render(styles, camera, resolution=resolution, draws=jitter)


QUANTISATION = "round-1"  # version of ``quantise``


def quantise(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, rounded; done once to every image that is scored or written."""
    return ((images + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
