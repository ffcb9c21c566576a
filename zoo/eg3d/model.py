"""EG3D: Efficient Geometry-aware 3D Generative Adversarial Networks.

Chan, Lin, Chan, Nagano, Pan, De Mello, Gallo, Guibas, Tremblay, Khamis, Karras, Wetzstein, CVPR 2022, arXiv:2112.07945.

What is unusual:

* a StyleGAN2 makes three planes of features; a point in space has the mean of its features in all three, which one
  small network turns into density and colour: so a volume costs hardly more than an image;
* what is rendered is a small map of features, whose first three are an image already; a second, shallow StyleGAN2 makes
  it larger, and the discriminator sees both images, so that they agree;
* cameras of the data set come with its images. The discriminator is told the camera, and so is the mapping network:
  what is in front of a camera depends on where it is (people smile at cameras). The camera that an object is
  conditioned on and the one that it is seen from are two things.

The two StyleGAN2 networks are in ``synthesis.py``, the field and the depths in ``field.py``, cameras as the published
program has them in ``cameras.py``; here is the generator that is made of them.

B batch, L layers that take w, D width of w, R rays, C channels, V side of a plane, N points
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo import generator
from zoo.draws import Draws
from zoo.eg3d.cameras import NUMBERS, label_of
from zoo.eg3d.field import TriPlaneField
from zoo.eg3d.synthesis import PlaneNetwork, Superresolution
from zoo.layers import stylegan2
from zoo.layers.stylegan2 import GAIN, Dense, activate, normalise, truncate
from zoo.render import Camera, Poses, Rays, Rendered, Renderer, expected_depth, pixel_centres, through, to_map
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import number
from zoo.utils.ranges import above, at_least, given


class Latent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


class Styles(NamedTuple):
    """w [B, L, D], and planes [B, 3, C, V, V] that were made of it."""

    w: Tensor
    planes: Tensor


class Mapping(stylegan2.Mapping):
    """StyleGAN2's, of z and of the camera that the object is conditioned on.

    Args:
        latent_dim: size of z.
        w_dim: size of w.
        layers: how many.
        rate: their learning rate, as a share of the others'.
    """

    def __init__(self, latent_dim: int, w_dim: int, layers: int = 2, rate: float = 0.01) -> None:
        at_least(1, self, latent_dim=latent_dim, w_dim=w_dim)
        super().__init__(latent_dim + w_dim, w_dim, w_dim, layers, rate)
        self.embed = Dense(NUMBERS, w_dim)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """[B, latent_dim] and the camera's 25 numbers [B, 25], zeros by default, to [B, w_dim]."""
        label = z.new_zeros(len(z), NUMBERS) if label is None else label
        x = torch.cat([normalise(z), normalise(self.embed(label))], dim=1)
        for layer in self.layers:
            x = activate(layer(x, GAIN))
        return x


class Generator(generator.Generator[Latent, Styles]):
    """Latents and cameras to images.

    Args:
        plane_network: makes the planes.
        field: reads them.
        renderer: of the field.
        superresolution: makes the rendered image larger.
        poses: distribution of cameras.
        latent_dim: size of z.
        mapping_layers: layers of the mapping network.
        mapping_rate: its learning rate, as a share of the others'.
        condition_scale: times the camera's numbers that the mapping network is told (c_scale); 0 for none of them.
        truncated_layers: layers, from the first, whose w truncation moves; None for all. The last one's drives the
            superresolution, too.
        render_side: side of the rendered image [pixels], until training sets another.
        density_noise: standard deviation of the noise on raw densities; no published experiment has any.
    """

    render_side: Tensor

    def __init__(
        self,
        plane_network: PlaneNetwork,
        field: TriPlaneField,
        renderer: Renderer,
        superresolution: Superresolution,
        poses: Poses,
        latent_dim: int = 512,
        mapping_layers: int = 2,
        mapping_rate: float = 0.01,
        condition_scale: float = 1.0,
        truncated_layers: int | None = None,
        render_side: int = 64,
        density_noise: float = 0.0,
    ) -> None:
        at_least(1, self, latent_dim=latent_dim, mapping_layers=mapping_layers, render_side=render_side)
        at_least(0, self, condition_scale=condition_scale, density_noise=density_noise)
        at_least(0, self, **given(truncated_layers=truncated_layers))
        above(0, self, mapping_rate=mapping_rate)
        half = field.extent / 2
        super().__init__(poses, superresolution.resolution, [[-half] * 3, [half] * 3])
        check_sizes(plane_network, field, superresolution)
        self.plane_network, self.field, self.renderer = plane_network, field, renderer
        self.superresolution = superresolution
        self.latent_dim, self.condition_scale = latent_dim, condition_scale
        self.truncated_layers, self.density_noise = truncated_layers, density_noise
        self.num_layers = plane_network.num_layers
        self.mapping = Mapping(latent_dim, plane_network.w_dim, mapping_layers, mapping_rate)
        self.register_buffer("mean_w", torch.zeros(plane_network.w_dim))
        self.register_buffer("render_side", torch.tensor(float(render_side)))

    @property
    def is_conditioned(self) -> bool:
        """Whether the mapping network is told a camera."""
        return bool(self.condition_scale)

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        return Latent(draws.normal("z", (n, self.latent_dim)))

    def map(
        self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None, layers: int | None = None
    ) -> Styles:
        """Styles of latents; truncation other than 1 moves w towards its mean, in the first ``layers`` of them.

        Args:
            truncation: share of the way from the mean that is kept.
            condition: B cameras that the mapping network is told; by default the middle one of all.
            layers: by default ``truncated_layers``.
        """
        if condition is None and self.condition_scale:
            condition = self.cameras(len(latents.z), None)
        w = self.conditioned(latents.z, condition)[:, None].expand(-1, self.num_layers, -1)
        if truncation != 1:
            layers = self.truncated_layers if layers is None else layers
            w = truncate(w, self.mean_w, truncation, self.num_layers if layers is None else layers)
        return self.styles(w)

    def conditioned(self, z: Tensor, condition: Camera | None) -> Tensor:
        """w [B, D] of z and of the cameras that it is conditioned on."""
        return self.mapping(z, label_of(condition) * self.condition_scale if self.condition_scale else None)

    def styles(self, w: Tensor, draws: Draws | None = None) -> Styles:
        """Styles from w [B, L, D]; draws are for the planes' image noise, None for the stored one."""
        return Styles(w, self.plane_network(w, draws))

    def free_parameters(self, styles: Styles) -> dict[str, Tensor]:
        """w; the planes follow."""
        return {"w": styles.w}

    def with_free_parameters(self, styles: Styles, values: dict[str, Tensor]) -> Styles:
        """Styles of this w."""
        return self.styles(values["w"])

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Unit rays [B, R, 3] of all pixels, row by row."""
        return through(camera, pixel_centres(resolution, self.device, camera.pose.dtype))

    def image_side(self, resolution: int | None = None) -> int:
        """The side that is asked for, if it is the generator's own."""
        side = super().image_side(resolution)
        if side != self.resolution:
            raise UserError(f"EG3D makes images of side {self.resolution}, not {side}.")
        return side

    def render(
        self,
        styles: Styles,
        camera: Camera,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        render_side: int | None = None,
    ) -> Rendered:
        """Images of B styles from B cameras.

        Args:
            resolution: side of the image [pixels], which has to be the generator's.
            draws: for jitter, importance samples and any noise; None for none of them.
            render_side: side of the rendered image [pixels], for this call; by default ``self.render_side``.

        Raises:
            UserError: there are no images of that side.
        """
        self.image_side(resolution)
        rays = self.rays(camera, round(number(self.render_side)) if render_side is None else render_side)
        integrated = self.renderer(self.field, rays, styles.planes, draws, self.density_noise)
        features = 2 * to_map(integrated.features) - 1
        image, raw = self.superresolution(features, styles.w[:, -1], draws)
        return Rendered(image, raw, to_map(expected_depth(integrated)), to_map(integrated.opacity))

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.field, styles.planes)


def check_sizes(planes: PlaneNetwork, field: TriPlaneField, superresolution: Superresolution) -> None:
    """Refuse networks that do not fit together."""
    if field.channels != planes.channels:
        raise UserError(
            f"The field reads {field.channels} channels of planes that have {planes.channels}: set the field's "
            "channels to that."
        )
    if field.feature_dim != superresolution.feature_dim:
        raise UserError(
            f"The field renders {field.feature_dim} features, but the superresolution takes "
            f"{superresolution.feature_dim}: give both the same feature_dim."
        )
    if planes.w_dim != superresolution.first.rgb.style.weight.shape[1]:
        raise UserError(f"The plane network's w_dim is {planes.w_dim}: give the superresolution the same.")
