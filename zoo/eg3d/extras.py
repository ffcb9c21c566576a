"""What the published EG3D returns beside its images, in its own way.

B batch, R rays
"""

from torch import Tensor

from zoo.render import Integrated


def published_depth(integrated: Integrated) -> Tensor:
    """Mean depth of each ray [B, R, 1] as the published program returns it: a number also where nothing was hit.

    It is the largest depth of any sample of the batch there, so it depends on the others of the batch; that of
    ``zoo.render.expected_depth`` is NaN.
    """
    depth = integrated.depth / integrated.weights.sum(-1, keepdim=True)
    t = integrated.samples.t
    return depth.nan_to_num(float("inf")).clamp(t.min(), t.max())
