"""VolumeGAN: 3D-Aware Image Synthesis via Learning Structural and Textural Representations.

Xu, Peng, Yang, Shen, Zhou, CVPR 2022, arXiv:2112.10759.

What is unusual:

* a small volume of features, made by 3D convolutions, holds the structure; the radiance field reads it at each point
  and adds the point's own coordinates, so it need not remember where things are in its weights;
* what is rendered along the rays is a map of features, not of colours; a 2D network without any spatial kernel but the
  upsampling filter turns it into the image, so that views still agree nearly;
* structure and texture have codes of their own: the first layers of w drive the volume and the field, the others the
  2D network.

B batch, L layers that take w, D width of w, R rays, S samples, N = R S points, C channels, V side of the volume
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo import generator
from zoo.draws import Draws
from zoo.layers.stylegan2 import Mapping, truncate
from zoo.render import Camera, Poses, Rays, Rendered, Renderer, expected_depth, pixel_corners, through, to_map
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, given
from zoo.volumegan.discriminator import missing_levels
from zoo.volumegan.field import StructuralVolume, StyledField, Styles
from zoo.volumegan.synthesis import SynthesisNetwork


class Latent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


# Generator


class Generator(generator.Generator[Latent, Styles]):
    """Latents and cameras to images.

    Args:
        structure: makes the structural volume.
        field: the radiance field, which reads it.
        renderer: of the field.
        synthesis: the 2D network.
        poses: distribution of cameras.
        latent_dim: size of z.
        mapping_dim: width of the mapping network.
        mapping_layers: how many it has.
        mapping_rate: its learning rate, as a share of the others'.
        truncated_layers: layers, from the first, whose w truncation moves; None for all.
        bounds: world box of the object, two corners.
    """

    def __init__(
        self,
        structure: StructuralVolume,
        field: StyledField,
        renderer: Renderer,
        synthesis: SynthesisNetwork,
        poses: Poses,
        latent_dim: int = 512,
        mapping_dim: int = 512,
        mapping_layers: int = 8,
        mapping_rate: float = 0.01,
        truncated_layers: int | None = 8,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.15,) * 3, (0.15,) * 3),
    ) -> None:
        at_least(1, self, latent_dim=latent_dim, mapping_dim=mapping_dim)
        at_least(0, self, mapping_layers=mapping_layers, **given(truncated_layers=truncated_layers))
        above(0, self, mapping_rate=mapping_rate)
        super().__init__(poses, synthesis.resolution, bounds)
        if field.channels != structure.channels:
            raise UserError(
                f"The field reads {field.channels} features of a volume that has {structure.channels}: set the field's "
                "channels to that."
            )
        if field.colour.weight.shape[0] != synthesis.channels:
            raise UserError(
                f"The field renders {field.colour.weight.shape[0]} features, but the 2D network takes "
                f"{synthesis.channels}: set the field's colour_dim to that."
            )
        self.structure, self.field, self.renderer, self.synthesis = structure, field, renderer, synthesis
        self.latent_dim, self.truncated_layers = latent_dim, truncated_layers
        self.num_layers = field.num_layers + synthesis.num_layers
        w_dim = structure.style.in_features
        self.mapping = Mapping(latent_dim, mapping_dim, w_dim, mapping_layers, mapping_rate)
        self.register_buffer("mean_w", torch.zeros(w_dim))
        self.register_buffer("lod", torch.zeros(()))  # how many of the finest levels are not trained yet

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        return Latent(draws.normal("z", (n, self.latent_dim)))

    def map(
        self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None, layers: int | None = None
    ) -> Styles:
        """Styles of latents; truncation below 1 moves w towards its mean, in the first ``layers`` of them.

        Args:
            truncation: share of the way from the mean that is kept.
            layers: by default ``truncated_layers``.
        """
        w = self.mapping(latents.z)[:, None].expand(-1, self.num_layers, -1)
        if truncation < 1:
            layers = self.truncated_layers if layers is None else layers
            layers = self.num_layers if layers is None else layers
            w = truncate(w, self.mean_w, truncation, layers)
        return self.styles(w)

    def styles(self, w: Tensor) -> Styles:
        """Styles from w [B, L, D]; the first one also makes the volume."""
        return Styles(w, self.structure(w[:, 0]))

    def free_parameters(self, styles: Styles) -> dict[str, Tensor]:
        """w; the volume follows."""
        return {"w": styles.w}

    def with_free_parameters(self, styles: Styles, values: dict[str, Tensor]) -> Styles:
        """Styles of this w."""
        return self.styles(values["w"])

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Unit rays [B, R, 3] of all pixels, row by row; the outermost ones lie on the border of the field of view."""
        return through(camera, pixel_corners(resolution, self.device, camera.pose.dtype))

    def image_side(self, resolution: int | None = None) -> int:
        """The side that is asked for, if there is a level of it."""
        side = super().image_side(resolution)
        known = [self.synthesis.low, *(block.resolution for block in self.synthesis.blocks)]
        if side not in known:
            raise UserError(f"VolumeGAN renders images of side {', '.join(map(str, known))}, not {side}.")
        return side

    def render(
        self, styles: Styles, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        """Images of B styles from B cameras.

        Args:
            resolution: side of the image [pixels]: that of the features, doubled up to the synthesis network's.
            draws: for jitter, importance samples and image noise; None for none of them, and stored image noise.

        Raises:
            UserError: there is no level of this resolution.
        """
        resolution = self.image_side(resolution)
        features, depth, opacity = self.render_features(styles, camera, draws)
        w = styles.w[:, self.field.num_layers :]
        image, raw = self.synthesis(features, w, resolution, missing_levels(self, resolution), draws)
        return Rendered(image, raw, depth, opacity)

    def render_features(self, styles: Styles, camera: Camera, draws: Draws | None) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of features, depth and opacity, [B, C or 1, h, h]."""
        rays = self.rays(camera, self.synthesis.low)
        integrated = self.renderer(self.field, rays, self.field.modulate(styles), draws)
        added = 0 if integrated.background is None else integrated.background
        total = integrated.weights.sum(-1, keepdim=True)
        colour = self.field.colour
        features = colour(integrated.features - added) + colour.bias * (total - 1) + added
        return to_map(features), to_map(expected_depth(integrated)), to_map(integrated.opacity)

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.field, self.field.modulate(styles))
