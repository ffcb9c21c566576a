"""GRAF (Schwarz et al., NeurIPS 2020): a conditional radiance field, trained on patches of pixels."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    model="gaussian uniform RadianceField HierarchicalRenderer Generator Discriminator",
    rays="OnSphere perspective through_centres Orthographic AlongAxis Patches",
    training="GRAF",
)
