"""Views of one object without what is in empty space, against plain ones; and what is computed once for all views."""

import json
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import zoo
from tests.analytic import Sphere
from tests.systems import SYSTEMS
from zoo.cli import speed
from zoo.cli.command import main
from zoo.evaluate.metrics.consistency import consistency
from zoo.evaluate.metrics.objects import turntable_images
from zoo.evaluate.metrics.reprojection import psnr
from zoo.export.mesh import mesh_of
from zoo.export.views import interpolated_views, turntable_views
from zoo.generator import Generator, WithoutEmptySpace, draws_for, evaluating
from zoo.render import (
    EmptySpace,
    Importance,
    InsideBox,
    Integrated,
    MidpointQuadrature,
    OccupancyGrid,
    Quadrature,
    Rays,
    Samples,
    Stratified,
    UniformPoses,
    VolumeRenderer,
    infinite_last_interval,
    last_sample,
    occupancy,
    pixel_centres,
    relu,
    shifted_softplus,
    softplus,
    through,
    white,
    zero_last_interval,
)
from zoo.stylesdf import SigmoidDensity
from zoo.utils.paths import bundled_names
from zoo.weights.bundle import build

BOUNDS = torch.tensor([[-1.0] * 3, [1.0] * 3])
CELL = 2 / 32


USUAL = {name: getattr(occupancy, name) for name in ("LEAST_SAMPLES", "MOST_OCCUPIED")}


@pytest.fixture(autouse=True)
def everything_pays(monkeypatch):
    """Empty space is left out of few samples, too, and however little there is."""
    monkeypatch.setattr(occupancy, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(occupancy, "MOST_OCCUPIED", 1.0)


class Solid(nn.Module):
    """A field whose raw density is a function of points; it counts where it is queried."""

    def __init__(self, raw, sign: float = 1.0) -> None:
        super().__init__()
        self.raw, self.sign, self.queried = raw, sign, 0

    def forward(self, samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
        self.queried += samples.t.numel()
        return self.sign * self.raw(samples.points)[..., None], (3 * samples.points).sin() / 2 + 0.5


def ball(points: Tensor, radius: float = 0.5, slope: float = 100.0) -> Tensor:
    return slope * (radius - points.norm(dim=-1))


def views(count: int = 3, side: int = 24) -> Rays:
    """Rays of several cameras around the box, with some that pass it."""
    poses = UniformPoses(yaw_spread=torch.pi, pitch_mean=1.3, radius=4.0, fov_deg=40)
    return through(poses.turntable(count), pixel_centres(side))


def both(
    renderer: VolumeRenderer, field: Solid, rays: Rays, cells: int = 32, bounds: Tensor = BOUNDS
) -> tuple[Integrated, Integrated, EmptySpace]:
    """What is rendered plainly and without empty space; the field has counted the samples of the second."""
    plain = renderer(field, rays, None)
    renderer.empty_space = EmptySpace(bounds, cells)
    renderer(field, Rays(*(x[:, :1] for x in rays[:2])), None)  # builds the grid
    renderer.empty_space.samples = renderer.empty_space.queried = field.queried = 0
    return plain, renderer(field, rays, None), renderer.empty_space


BOX = InsideBox((1.0, 1.0, 1.0), 24)


def box_renderer() -> VolumeRenderer:
    return VolumeRenderer(BOX, Quadrature(intervals=zero_last_interval, background=white))


@torch.no_grad()
@pytest.mark.parametrize("name", bundled_names())
def test_bundled_weights_look_the_same(name):
    generator = zoo.load(name)
    for index in (0, 1):
        latent, _ = generator.sample(1, draws_for(generator, 0, [index]))
        styles, camera = generator.turntable(generator.map(latent), 6)
        without = WithoutEmptySpace(generator, styles, pixels=32**3)
        plain = generator.render(styles, camera)
        with without:
            image, _, depth, opacity = generator.render(styles, camera)
        if not isinstance(getattr(generator, "renderer", None), VolumeRenderer):
            assert without.spaces == [] and torch.equal(image, plain.image)
            continue
        (space,) = without.spaces
        assert 0.1 < space.queried / space.samples < 0.9
        errors = ((image - plain.image) / 2).square().flatten(1).mean(1)
        assert psnr(float(errors.max())) > 40  # measured: more than 70
        assert (opacity - plain.opacity).abs().max() < 0.1 and depth.shape == plain.depth.shape
        assert torch.equal(generator.render(styles, camera).image, plain.image)  # outside, plain ones again


def test_all_is_queried_where_all_is_occupied():
    field = Solid(lambda points: points[..., 0] + 2)
    for renderer in (
        box_renderer(),
        VolumeRenderer(Stratified(3, 5, 16), Quadrature(background=last_sample), Importance(8), chunk=100),
    ):
        plain, found, space = both(renderer, field, views())
        assert space.queried == space.samples > 0
        for name in ("features", "depth", "opacity", "weights"):
            assert torch.equal(getattr(found, name), getattr(plain, name)), name
        hits = plain.samples.t[..., -1] > plain.samples.t[..., 0]
        assert torch.equal(found.raw[hits], plain.raw[hits]) and torch.equal(found.samples.t, plain.samples.t)
        assert (found.background is None) == (plain.background is None)


def test_fine_samples_in_any_order_and_rays_of_one_sample_are_rendered():
    importance = Importance(8)

    def fine(t: Tensor, weights: Tensor, draws: None) -> Tensor:
        return importance(t, weights, draws)[..., torch.randperm(8, generator=torch.Generator().manual_seed(0))]

    for renderer in (VolumeRenderer(BOX, fine=fine), VolumeRenderer(Stratified(3.6, 4.4, 1))):
        plain, found, _ = both(renderer, Solid(ball), views())
        torch.testing.assert_close(found.features, plain.features)
        assert plain.opacity.max() > 0.9


def test_nothing_is_queried_where_nothing_is():
    field = Solid(lambda points: -1 - points.square().sum(-1))
    plain, found, space = both(box_renderer(), field, views())
    assert space.queried == 0 < space.samples
    assert field.queried <= 3  # one of each image says how many features there are
    assert torch.equal(found.features, plain.features) and (found.features == 1).all() and (found.opacity == 0).all()


def test_a_sphere_is_queried_within_two_cells_around_it():
    line = (torch.arange(40) + 0.5) / 20 - 1
    origins = torch.stack(torch.meshgrid(line, line, torch.tensor(4.0), indexing="ij"), dim=-1).view(1, -1, 3)
    rays = Rays(origins, torch.tensor([0.0, 0.0, -1.0]).expand_as(origins))
    renderer = VolumeRenderer(InsideBox((1.0, 1.0, 1.0), 40), Quadrature(intervals=zero_last_interval))
    field = Solid(ball)
    plain, found, space = both(renderer, field, rays)
    volume = torch.pi * 4 / 3 / 8
    share = space.queried / space.samples
    assert space.samples == 40**3 and field.queried == space.queried
    assert volume * 0.5**3 < volume * (0.5 + CELL) ** 3 < share < volume * (0.5 + 2 * CELL) ** 3
    torch.testing.assert_close(found.features, plain.features)


QUADRATURES = {
    "relu": Quadrature(relu, zero_last_interval),
    "relu, no end": Quadrature(relu, infinite_last_interval, white),
    "softplus, no end": Quadrature(softplus, infinite_last_interval),
    "the last sample behind": Quadrature(softplus, zero_last_interval, last_sample),
    "means of both ends": MidpointQuadrature(shifted_softplus),
    "distances": Quadrature(SigmoidDensity(0.01), infinite_last_interval),
}


@torch.no_grad()
@pytest.mark.parametrize("name", QUADRATURES)
@pytest.mark.parametrize("fine", [None, Importance(16)], ids=["coarse", "fine"])
def test_every_quadrature_makes_nearly_the_same_of_it(name, fine):
    slope, sign = (1.0, -1.0) if name == "distances" else (60.0, 1.0)
    field = Solid(partial(ball, slope=slope), sign)
    renderer = VolumeRenderer(Stratified(2.5, 5.5, 32), QUADRATURES[name], fine)
    plain, found, space = both(renderer, field, views(), cells=48, bounds=2 * BOUNDS)
    assert 0.03 < space.queried / space.samples < 0.4
    for one, other in ((found.features, plain.features), (found.opacity, plain.opacity)):
        assert psnr(float((one - other).square().mean())) > 40


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, 0.7])
def test_a_board_as_thick_as_a_cell_is_never_lost(shift):
    def board(points: Tensor) -> Tensor:
        return 50 * ((points[..., 2] - (0.3 + shift) * CELL).abs() < 0.51 * CELL).float()

    plain, found, space = both(box_renderer(), Solid(board), views())
    torch.testing.assert_close(found.features, plain.features)
    assert space.queried < 0.2 * space.samples and plain.opacity.max() > 0.9


def test_nothing_outside_of_the_bounds_is_left_out():
    field = Solid(lambda points: ball(points - torch.tensor([0.7, 0.0, 0.0]), 0.2))
    plain, found, space = both(box_renderer(), field, views(), bounds=BOUNDS / 2)
    torch.testing.assert_close(found.features, plain.features)
    assert space.queried < space.samples and plain.opacity.max() > 0.9


def test_another_field_is_queried_everywhere():
    other = Solid(lambda points: ball(points, 0.9))
    renderer, rays = box_renderer(), views()
    plain = renderer(other, rays, None)
    _, _, space = both(renderer, Solid(lambda points: ball(points, 0.2)), rays)
    assert torch.equal(renderer(other, rays, None).features, plain.features) and space.samples > 0


def test_what_is_not_a_number_is_seen():
    field = Solid(lambda points: ball(points).where(points.norm(dim=-1) > 0.3, torch.nan))
    plain, found, _ = both(box_renderer(), field, views())
    assert torch.equal(found.features.isnan(), plain.features.isnan()) and plain.features.isnan().any()


@pytest.mark.parametrize("sign", [1, -1])
def test_empty_cells_have_the_emptiest_raw_density_around(sign):
    """A density that fades out would else be visible again, where a sample is nearer to the object than the middle."""
    grid = OccupancyGrid.build(lambda points: points[:, 0], lambda raw, points: (sign * raw - 5).relu(), BOUNDS, 8)
    x = (torch.arange(8) + 0.5) / 4 - 1
    found = grid.raw_at(x, torch.zeros(8), torch.zeros(8))
    torch.testing.assert_close(found, (x - sign * 0.25).clamp(x[0], x[-1]))


def test_where_there_can_be_no_density_no_field_is_asked():
    asked = []

    def density(raw: Tensor, points: Tensor) -> Tensor:
        return raw.relu() * (points.norm(dim=-1, keepdim=True) < 0.5)

    grid = OccupancyGrid.build(lambda points: asked.append(points) or torch.ones(len(points)), density, BOUNDS, 16)
    assert len(asked[0]) == pytest.approx(16**3 * torch.pi / 6 / 8, rel=0.1) and (asked[0].norm(dim=-1) < 0.5).all()
    assert grid.raw_at(*torch.zeros(3, 1)).isnan() and grid.raw_at(*torch.full((3, 1), 0.9)) == -1e10


# ---------------------------------------------------------------------------------------------- who leaves it out


def bundled(name: str = "pigan-cars32") -> tuple[Generator, list[int]]:
    """A generator, and a list that notes how many points its field is queried at."""
    generator, queried = zoo.load(name), []
    generator.field.register_forward_pre_hook(lambda _, inputs: queried.append(inputs[0].t.numel()))
    return generator, queried


def test_orbits_query_less_and_look_the_same():
    generator, queried = bundled()
    found = turntable_views(generator, [3], 36)
    fewer = sum(queried)
    queried.clear()
    plain = turntable_views(generator, [3], 36, exact=True)
    assert sum(queried) > 36 * 32**2 * 8 * 0.6 and fewer < 0.5 * sum(queried)
    assert (found.image.int() - plain.image.int()).abs().max() <= 2
    queried.clear()
    turntable_views(generator, [3], 8)  # too few to pay
    assert sum(queried) == pytest.approx(8 * 32**2 * 8 * 0.7, rel=0.03)
    assert generator.renderer.empty_space is None


def test_meshes_query_less_and_are_the_same():
    generator, queried = bundled("graf-cars64")
    found = mesh_of(generator, 0, cells=64, views=4)
    fewer = sum(queried)
    queried.clear()
    plain = mesh_of(generator, 0, cells=64, views=4, exact=True)
    assert fewer < 0.6 * sum(queried)
    assert (found.faces == plain.faces).all() and found.vertices == pytest.approx(plain.vertices, abs=1e-3)


def test_the_consistency_of_large_views_is_the_same():
    generator, queried = bundled("graf-cars64")
    found, plain = (consistency(generator, 1, grid=8, exact=exact) for exact in (False, True))
    assert sum(queried[: len(queried) // 2]) < 0.6 * sum(queried[len(queried) // 2 :])
    assert found == pytest.approx(plain, rel=1e-3, abs=1e-3)


def test_scenes_that_change_are_rendered_plainly():
    generator, _ = bundled()
    with torch.no_grad():
        styles = generator.map(generator.latents(4, draws_for(generator, 0, range(4))))
    assert WithoutEmptySpace(generator, styles, 10**6).spaces == []
    same = type(styles)(*(x[:1].expand_as(x).clone() for x in styles))
    assert [WithoutEmptySpace(generator, same, n).spaces[0].cells for n in (32**3, 500_000, 10**7)] == [32, 50, 64]
    assert WithoutEmptySpace(generator, same, 10**6, exact=True).spaces == []
    assert WithoutEmptySpace(generator, same, 1000).spaces == []
    interpolated_views(generator, [0, 1], 40)
    assert generator.renderer.empty_space is None


def test_little_is_rendered_plainly(monkeypatch):
    for name, value in USUAL.items():
        monkeypatch.setattr(occupancy, name, value)
    for field, rays, pays in (
        (Solid(ball), views(), [True, True]),
        (Solid(ball), views(1), [False, False]),  # few samples
        (Solid(lambda points: points[..., 0] + 2), views(), [True, False]),  # nothing to leave out, as is found then
    ):
        renderer, asked = box_renderer(), []
        for _ in range(2):
            renderer.empty_space = renderer.empty_space or EmptySpace(BOUNDS)
            asked.append(renderer(field, rays, None).queried == ())
        assert asked == pays


def test_a_generator_without_density_is_rendered_plainly():
    class Depths(Sphere):
        renderer = None
        density = None

    assert (
        WithoutEmptySpace(Depths(), Depths().map(Depths().latents(1, draws_for(Depths(), 0, [0]))), 10**6).spaces == []
    )


@pytest.mark.parametrize(("system", "part"), [("volumegan", "structure"), ("eg3d", "plane_network")])
def test_what_does_not_depend_on_the_camera_is_computed_once(system, part):
    generator = build(SYSTEMS[system]()["model"]["init_args"]["generator"], Generator)
    made = []
    getattr(generator, part).register_forward_pre_hook(lambda _, inputs: made.append(len(inputs[0])))
    turntable_views(generator, [0], 12)
    mesh_of(generator, 0, cells=6, level=float(level_of(generator)), views=10)
    turntable_images(generator, 0, 10, None, 0, 1.0)
    assert made == [1, 1, 1, 1]  # the second is ``level_of``


def level_of(generator: Generator) -> Tensor:
    """A density that the object's surface has somewhere."""
    with evaluating(generator):
        styles = generator.map(generator.latents(1, draws_for(generator, 0, [0])))
        low, high = generator.bounds
        density = generator.density(low + torch.rand(1, 500, 3) * (high - low), styles)
    return density.median()


def test_the_benchmark_compares_both(capsys, monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", partial(speed.matrix_rate, side=512))
    words = ["benchmark", "--work", "views", "--steps", "1", "--json"]
    assert main([*words, "pigan-cars32", "--resolution", "64", "--views", "9"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["speedup"] == pytest.approx(facts["plain_seconds_per_view"] / facts["seconds_per_view"], rel=1e-2)
    assert facts["reciprocal_of_share"] == pytest.approx(1 / facts["occupied_share"], rel=1e-3) and facts["views"] == 9
    assert facts["speedup_of_reciprocal"] == pytest.approx(facts["speedup"] * facts["occupied_share"], rel=1e-3)
    assert 0.1 < facts["occupied_share"] < 0.5 and facts["psnr"] > 40
    for source, more in (("giraffe-cars32", []), ("pigan-cars32", ["--views", "2"])):
        assert main([*words, source, *more]) == 2
        assert f"views of {source} leave no empty space out" in capsys.readouterr().err
    assert main(words) == 2
    assert "Views are of weights" in capsys.readouterr().err


def test_an_option_that_changes_nothing_is_refused(capsys):
    for words in (["orbit", "pigan-cars32", "--interpolate"], ["evaluate", "pigan-cars32"]):
        assert main([*words, "--exact"]) == 2
        assert "--exact True changes nothing" in capsys.readouterr().err
