"""The pluggable renderer: cameras, rays, depths, composite, and the module that wires them."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    cameras=(
        "Camera FixedPoses GaussianPoses HybridPoses Orbit Poses SpherePoses "
        "TruncatedGaussianPoses UniformPoses look_at clamp_pitch orbit_cameras orbit_camera"
    ),
    dataset_poses="DatasetPoses orbit_around",
    rays="Rays pixel_centres pixel_corners through",
    depths=(
        "Depths FineDepths Importance InsideBox InsideSphere JitteredUniform Samples Stratified inverse_cdf stratify"
    ),
    query="Field raw_density",
    occupancy="EmptySpace OccupancyGrid",
    composite=(
        "Background BoundedRelu BoxedRelu ByMode Density Intervals MidpointQuadrature Quadrature RayWeights black "
        "accumulate_along_rays add_density_noise infinite_last_interval last_sample relu shifted_softplus softplus "
        "transmission_weights white zero_last_interval"
    ),
    renderer="Integrated Rendered Renderer VolumeRenderer expected_depth integrate to_map with_sample_count",
)
