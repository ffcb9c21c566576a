"""The pluggable renderer: cameras, rays, depths, composite, and the module that wires them."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    cameras=(
        "Camera FixedPoses GaussianPoses HybridPoses Orbit Poses SpherePoses "
        "TruncatedGaussianPoses UniformPoses look_at off_the_poles orbit_cameras orbited"
    ),
    rays="Rays pixel_centres pixel_corners through",
    depths=(
        "Depths FineDepths Importance InsideBox InsideSphere JitteredUniform Samples Stratified inverse_cdf jittered"
    ),
    query="Field raw_at",
    composite=(
        "Background BoundedRelu BoxedRelu ByMode Density Intervals MidpointQuadrature Quadrature RayWeights black "
        "composited infinite_last_interval last_sample noisy relu softplus transmission_weights white "
        "zero_last_interval"
    ),
    volume="Integrated Rendered Renderer Volume expected_depth integrate to_map with_samples",
)
