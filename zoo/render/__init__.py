"""The pluggable renderer: cameras, rays, depths, composite, and the module that wires them."""

from zoo.render.cameras import (
    Camera,
    FixedPoses,
    GaussianPoses,
    HybridPoses,
    Orbit,
    Poses,
    SpherePoses,
    TruncatedGaussianPoses,
    UniformPoses,
    look_at,
    off_the_poles,
    orbit_cameras,
    orbited,
)
from zoo.render.composite import (
    Background,
    BoundedRelu,
    BoxedRelu,
    ByMode,
    Density,
    Intervals,
    black,
    closed,
    last_sample,
    open_ended,
    relu,
    softplus,
    transmission_weights,
    white,
)
from zoo.render.depths import (
    Depths,
    FineDepths,
    Importance,
    InsideBox,
    InsideSphere,
    Samples,
    Shifted,
    Stratified,
    inverse_cdf,
)
from zoo.render.query import Field, query
from zoo.render.rays import Rays, pixel_centres, pixel_corners, through
from zoo.render.volume import Integrated, Rendered, Renderer, Volume, expected_depth, to_map, with_samples
