"""The pluggable renderer: cameras, rays, depths, composite, and the module that wires them."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    cameras=(
        "Camera FixedPoses GaussianPoses HybridPoses Orbit Poses SpherePoses "
        "TruncatedGaussianPoses UniformPoses look_at off_the_poles orbit_cameras orbited"
    ),
    rays="Rays pixel_centres pixel_corners through",
    depths="Depths FineDepths Importance InsideBox InsideSphere Samples Shifted Stratified inverse_cdf jittered",
    query="Field raw_at",
    composite=(
        "Background BoundedRelu BoxedRelu ByMode Density Intervals MidpointQuadrature Quadrature RayWeights black "
        "closed composited last_sample noisy open_ended relu softplus transmission_weights white"
    ),
    volume="Integrated Rendered Renderer Volume expected_depth integrate to_map with_samples",
)
