"""The stages of StyleSDF's training: a sphere, the volume renderer, the decoder (section 3.4)."""

from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.training.schedules import LinearSchedule, PiecewiseLinearSchedule
from zoo.utils.ranges import above, at_least, between, given

Parts = Literal["sum", "mean"]


@dataclass(frozen=True)
class SphereStage:
    """Before the first stage: distances become those of a sphere (Atzmon 2020), from which all shapes start.

    Args:
        iterations: of this stage.
        batch: objects of an iteration on each process, whatever the data's batches are.
        radius: of the sphere, a quarter of far - near [world units].
    """

    iterations: int = 10_000
    batch: int = 3
    radius: float = 0.06

    def __post_init__(self) -> None:
        at_least(1, self, iterations=self.iterations, batch=self.batch)
        above(0, self, radius=self.radius)


@dataclass(frozen=True)
class VolumeStage:
    """The first stage: the volume renderer.

    Args:
        iterations: of this stage, if the decoder's follows.
        r1_weight: half of it multiplies the R1 penalty.
        r1_every: iterations, always as published; it weighs as many times as much.
        pose_weight: of wrong guesses of cameras, in the losses of both networks.
        eikonal_weight: of how far the lengths of the distances' gradients are from one.
        eikonal_points: of each object, uniform in its bounds, where these are computed; None for all samples of its
            image, as published, which costs second derivatives of all of them.
        surface_weight, surface_sharpness: of the minimal surface term, exp(-sharpness |d|).
        at_once: images of each part of a generator's batch (chunk); None for the whole batch.
        parts: whether the losses of parts, which are means, are summed, as published, or averaged.
        beta: of ``SigmoidDensity``, by the images seen, so that a short training ends with a sharp surface; None to
            learn it, as published. Where learning is fast, a learned one soon is zero, and losses not finite.
    """

    iterations: int = 200_001
    r1_weight: float = 10.0
    r1_every: int = 1
    pose_weight: float = 15.0
    eikonal_weight: float = 0.1
    eikonal_points: int | None = None
    surface_weight: float = 0.05
    surface_sharpness: float = 100.0
    at_once: int | None = None
    parts: Parts = "sum"
    beta: LinearSchedule | PiecewiseLinearSchedule | None = None

    def __post_init__(self) -> None:
        at_least(1, self, iterations=self.iterations, r1_every=self.r1_every)
        at_least(1, self, **given(at_once=self.at_once, eikonal_points=self.eikonal_points))
        at_least(0, self, r1_weight=self.r1_weight, pose_weight=self.pose_weight, eikonal_weight=self.eikonal_weight)
        at_least(0, self, surface_weight=self.surface_weight, surface_sharpness=self.surface_sharpness)


@dataclass(frozen=True)
class ImageStage:
    """The second stage: the decoder, of a renderer that stays as it is. It has no end.

    Args:
        settings_g, settings_d: of the optimizers for the decoder and its discriminator, where they are others than for
            the first stage, such as ``lr``.
        r1_weight: half of it multiplies the R1 penalty.
        r1_every: iterations; it weighs as many times as much.
        path_weight: of the path length penalty (Karras 2020, section 3.2).
        path_every: iterations between its steps of their own; it weighs as many times as much.
        path_shrink: a batch of it is so many times smaller.
        path_decay: share of a batch in the mean path length.
        path_passes: "whole": for each part that a batch of it has, the whole of it is rendered and penalised again, as
            published; "parts": each part is.
        mixing: share of batches in which the decoder's later layers get another latent's styles.
        at_once: images of each part of a batch (chunk), within which images are compared; None for the whole batch.
        parts: as in ``VolumeStage``, for both networks.
    """

    settings_g: dict[str, Any] = field(default_factory=dict)
    settings_d: dict[str, Any] = field(default_factory=dict)
    r1_weight: float = 10.0
    r1_every: int = 16
    path_weight: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    path_decay: float = 0.01
    path_passes: Literal["whole", "parts"] = "whole"
    mixing: float = 0.9
    at_once: int | None = None
    parts: Parts = "sum"

    def __post_init__(self) -> None:
        at_least(0, self, r1_weight=self.r1_weight, path_weight=self.path_weight)
        at_least(1, self, r1_every=self.r1_every, path_every=self.path_every, path_shrink=self.path_shrink)
        at_least(1, self, **given(at_once=self.at_once))
        between(0, 1, self, path_decay=self.path_decay, mixing=self.mixing)


Stage = SphereStage | VolumeStage | ImageStage
