"""GIRAFFE (Niemeyer and Geiger, CVPR 2021): scenes composed of feature fields, and a small 2D network."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    field="Octaves Field",
    model="SmoothUp NearestUp NeuralRenderer Generator Discriminator",
    scenes="BoxPrior Counts ScenePoses",
    rendering="StratifiedDepths SceneRenderer weighted densest",
    training="GIRAFFE",
    extras="GaussianFeatures ResidualDiscriminator PlainGenerator",
)
