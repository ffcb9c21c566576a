"""Cameras of a data set as a distribution, and what they all look at.

N cameras of the data set, n that are drawn, T places of a turntable
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.draws import Draws
from zoo.render.cameras import Camera, Orbit
from zoo.utils.constants import constant
from zoo.utils.errors import UserError

ENOUGH = 4096  # cameras, to see what they have in common


class DatasetPoses(nn.Module):
    """The cameras of the training images, each as likely as any other (EG3D, section 5).

    They are taken from the datamodule when training starts, mirrored ones too where it mirrors images, and belong to
    the weights: bundles and checkpoints hold them.

    Args:
        around: the orbit that turntables show; by default as ``orbit_around`` finds it.
    """

    constant_buffers = ("pose", "intrinsics")  # of training: no process sends them to others
    pose: Tensor
    intrinsics: Tensor

    def __init__(self, around: Orbit | None = None) -> None:
        super().__init__()
        self.around = around
        self.register_buffer("pose", torch.empty(0, 4, 4))  # the state of any data set fits
        self.register_buffer("intrinsics", torch.empty(0, 3, 3))

    def fill(self, camera: Camera) -> None:
        """Draw from these N cameras from now on."""
        self.pose, self.intrinsics = camera.to(self.pose)

    def known(self) -> Camera:
        """All N cameras.

        Raises:
            UserError: there are none yet.
        """
        if not len(self.pose):
            raise UserError(
                "DatasetPoses has no cameras yet: they come with weights, or with images that are trained on."
            )
        return Camera(self.pose, self.intrinsics)

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        """n cameras; with ``draws=None`` n times the middle one."""
        if draws is None:
            return self.orbit(n, None)
        known = self.known()
        index = (draws.uniform("camera", (n,)) * len(known.pose)).long().clamp(max=len(known.pose) - 1)
        return known.take(index.to(known.pose.device))

    def with_angles(self, n: int, draws: Draws | None) -> tuple[Camera, Tensor, Tensor]:
        """n cameras, and their yaw and pitch round the pivot [n, 1] [rad]."""
        camera = self(n, draws)
        return camera, *angles_around(camera.origins, constant(self.pivot, camera.pose))

    def turntable(self, n: int) -> Camera:
        """As of the orbit."""
        return self.orbit.turntable(n)

    def orbit_at(self, turn: Tensor) -> Camera:
        """As of the orbit, at these places [T]."""
        return self.orbit.orbit_at(turn)

    @property
    def orbit(self) -> Orbit:
        """Round what the cameras look at, as far as they go."""
        return self.around or orbit_around(self.known())

    @property
    def pivot(self) -> tuple[float, float, float]:
        """The point that the orbit goes round."""
        return self.orbit.pivot

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("pose", "intrinsics"):
            if isinstance(state := state_dict.get(prefix + name), Tensor):
                setattr(self, name, getattr(self, name).new_empty(state.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def orbit_around(camera: Camera) -> Orbit:
    """Round the point that N cameras look at, as high as they are on average, and two deviations to either side."""
    camera = camera.take(slice(None, None, -(-len(camera.pose) // ENOUGH))).to("cpu").to(torch.float64)
    pivot = focus(camera)
    yaw, pitch = angles_around(camera.origins, pivot)
    middle = torch.stack([yaw.cos().mean(), yaw.sin().mean()])
    spread = (-2 * middle.norm().clamp(1e-9, 1).log()).sqrt()  # circular standard deviation; inf for a full circle
    return Orbit(
        yaw_mean=torch.atan2(middle[1], middle[0]).item(),
        yaw_spread=spread.item(),
        pitch_mean=pitch.mean().item(),
        pitch_spread=pitch.std(correction=0).item(),
        radius=(camera.origins - pivot).norm(dim=-1).mean().item(),
        fov_deg=math.degrees(2 * math.atan(0.5 / camera.intrinsics[:, 0, 0].median().item())),
        pivot=tuple(pivot.tolist()),
    )


def focus(camera: Camera) -> Tensor:
    """The point nearest to the optical axes of N cameras, by least squares, [3].

    Of those that are as near, as along the one axis of parallel ones, the point nearest to the origin.
    """
    axis = camera.pose[:, :3, 2]
    across = torch.eye(3).to(axis) - axis[:, :, None] * axis[:, None]  # what of a vector is across an axis
    target = (across @ camera.origins[..., None]).mean(0)
    return (torch.linalg.pinv(across.mean(0), rtol=1e-6, hermitian=True) @ target)[:, 0]


def angles_around(places: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch [B, 1] of places [B, 3] round a point [3], as in ``zoo.render.cameras.sphere_points`` [rad]."""
    x, y, z = torch.nn.functional.normalize(places - pivot, dim=-1)[..., None].unbind(-2)
    return torch.atan2(z, x), y.clamp(-1, 1).arccos()
