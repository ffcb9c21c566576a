"""The contract: what every generator has, what only some have, and that callers go by it."""

from inspect import Parameter, signature

import pytest
import torch

from tests.analytic import Sphere
from tests.systems import SYSTEMS
from zoo.draws import SampleDraws
from zoo.evaluate.metrics.consistency import consistency
from zoo.export.inversion import comparison
from zoo.export.mesh import mesh_of
from zoo.export.views import interpolated_views, turntable_views
from zoo.generator import (
    Generator,
    HasDensity,
    HasEdits,
    HasForeground,
    HasRays,
    HasSurface,
    render_samples,
    require,
)
from zoo.giraffe import PlainGenerator
from zoo.inversion import invert
from zoo.inversion.search import STAGES
from zoo.weights.bundle import build


def tiny(system: str) -> Generator:
    return build(SYSTEMS[system]()["model"]["init_args"]["generator"], Generator)


@pytest.mark.parametrize("system", SYSTEMS)
def test_capabilities_are_those_of_the_paper(system):
    generator = tiny(system)
    has = {kind for kind in (HasRays, HasDensity, HasSurface, HasForeground, HasEdits) if isinstance(generator, kind)}
    more = {"giraffe": {HasForeground, HasEdits}, "stylesdf": {HasSurface}}
    assert has == {HasRays, HasDensity} | more.get(system, set())


@pytest.mark.parametrize("system", SYSTEMS)
def test_arguments_have_the_names_of_the_contract(system):
    """So that all generators are called alike, by keyword too; what only one knows comes after, with a default."""
    for method in ("latents", "sample", "map", "render"):
        ours, contract = (signature(getattr(kind, method)).parameters for kind in (type(tiny(system)), Generator))
        assert list(ours)[: len(contract)] == list(contract), method
        assert all(ours[name].default is not Parameter.empty for name in [*ours][len(contract) :]), method


def test_a_2d_network_has_no_capability():
    with pytest.raises(ValueError, match=r"A mesh needs density and rays, which zoo.*PlainGenerator does not have\.$"):
        require(PlainGenerator(4, 16, 4, 8), "A mesh", HasDensity, HasRays)


def test_what_every_generator_needs_cannot_be_left_out():
    class Half(Generator):
        def latents(self, n, draws): ...

    with pytest.raises(TypeError, match="abstract methods"):
        Half(None, 8, [[-1.0] * 3, [1.0] * 3])


def test_a_sample_is_conditioned_on_its_own_camera_and_views_are_not():
    class Told(Sphere):
        """Draws cameras first, and is told of one."""

        def sample(self, n, draws):
            cameras = self.cameras(n, draws)
            return self.latents(n, draws), cameras

        def map(self, latents, *, truncation=1.0, condition=None):
            self.told.append(condition)
            return super().map(latents, truncation=truncation)

    generator = Told()
    generator.told = []
    render_samples(generator, [3, 5])
    torch.testing.assert_close(generator.told, [generator.cameras(2, SampleDraws(0, [3, 5]))])
    generator.told.clear()
    turntable_views(generator, [3], 2)
    assert generator.told == [None]


@pytest.mark.parametrize("system", SYSTEMS)
def test_callers_compute_in_the_generators_precision(system):
    generator = tiny(system).double()
    assert render_samples(generator, [0]).image.dtype == torch.float64
    assert turntable_views(generator, [0], 2).depth.dtype == torch.float64
    assert interpolated_views(generator, [0, 1], 2, path="rise").depth.dtype == torch.float64
    assert consistency(generator, 1, views=3, grid=8)["nonfinite"] == 0
    target = torch.zeros(3, generator.resolution, generator.resolution)
    found = invert(generator, target, samples=4, stages=[stage._replace(steps=1) for stage in STAGES])
    assert {x.dtype for x in (*found.latent, *found.camera, found.rendered.image)} <= {torch.float64, torch.bool}
    assert comparison(found, target).height > 0


def test_a_mesh_can_be_made_of_a_generator_in_float64():
    exact, usual = (mesh_of(solid, 0, cells=8, views=4) for solid in (Sphere(half=0.8).double(), Sphere(half=0.8)))
    assert (exact.faces == usual.faces).all() and exact.vertices == pytest.approx(usual.vertices, abs=1e-5)
