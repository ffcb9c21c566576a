"""The renderer against closed forms and hand-computed numbers."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from zoo.draws import SampleDraws, TrainingDraws
from zoo.render import (
    BoundedRelu,
    BoxedRelu,
    ByMode,
    GaussianPoses,
    HybridPoses,
    Importance,
    InsideBox,
    InsideSphere,
    JitteredUniform,
    MidpointQuadrature,
    Quadrature,
    Rays,
    Samples,
    SpherePoses,
    Stratified,
    TruncatedGaussianPoses,
    VolumeRenderer,
    black,
    expected_depth,
    infinite_last_interval,
    inverse_cdf,
    last_sample,
    orbit_cameras,
    pixel_centres,
    pixel_corners,
    softplus,
    through,
    to_map,
    transmission_weights,
    white,
    zero_last_interval,
)


def ball(radius: float, density: float, colour: float = 0.25):
    """A field: a homogeneous ball around the origin."""

    def field(samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
        inside = (samples.points.norm(dim=-1, keepdim=True) < radius).to(samples.t.dtype)
        return density * inside, torch.full_like(samples.points, colour)

    return field


def slab(near: float, far: float, density: float):
    """A field: a homogeneous slab between two planes z."""

    def field(samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
        z = samples.points[..., 2:]
        return density * ((z > near) & (z < far)).to(z.dtype), samples.points

    return field


def axis_rays(heights: list[float]) -> Rays:
    """Rays from z = 2 towards -z at these heights y."""
    origins = torch.tensor([[[0.0, y, 2.0] for y in heights]], dtype=torch.float64)
    return Rays(origins, torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).expand_as(origins))


def test_homogeneous_ball_has_the_opacity_of_its_chord() -> None:
    heights = [0.0, 0.3, 0.6, 0.79, 0.81]
    renderer = VolumeRenderer(
        Stratified(1.0, 3.0, 4001), Quadrature(intervals=zero_last_interval, background=white), chunk=None
    )
    result = renderer(ball(0.8, 1.7), axis_rays(heights), None)
    chords = torch.tensor([2 * math.sqrt(max(0.0, 0.64 - y * y)) for y in heights], dtype=torch.float64)
    opacity = 1 - torch.exp(-1.7 * chords)
    torch.testing.assert_close(result.opacity[0, :, 0], opacity, atol=2e-3, rtol=0)
    torch.testing.assert_close(result.features[0, :, 0], 0.25 * opacity + 1 - opacity, atol=2e-3, rtol=0)
    assert expected_depth(result)[0, -1].isnan().all()


def test_slab_seen_at_an_angle_counts_its_longer_way() -> None:
    rays = axis_rays([0.0])
    oblique = rays._replace(directions=torch.tensor([[[0.0, 0.6, -0.8]]], dtype=torch.float64))
    renderer = VolumeRenderer(Stratified(0.5, 5.0, 9001), Quadrature(intervals=zero_last_interval))
    straight, slanted = (renderer(slab(-0.5, 0.5, 0.9), r, None).opacity.item() for r in (rays, oblique))
    assert straight == pytest.approx(1 - math.exp(-0.9), abs=1e-3)
    assert slanted == pytest.approx(1 - math.exp(-0.9 / 0.8), abs=1e-3)


def test_lengths_count_in_the_world_whatever_the_length_of_directions() -> None:
    rays = axis_rays([0.1])
    double = rays._replace(directions=2 * rays.directions)
    one = VolumeRenderer(Stratified(1.0, 3.0, 2001), Quadrature(intervals=zero_last_interval))(
        ball(0.8, 1.0), rays, None
    )
    two = VolumeRenderer(Stratified(0.5, 1.5, 2001), Quadrature(intervals=zero_last_interval))(
        ball(0.8, 1.0), double, None
    )
    torch.testing.assert_close(one.opacity, two.opacity)


def test_weights_computed_by_hand() -> None:
    alpha = torch.tensor([0.4, 0.3, 0.8, 0.8, 0.5], dtype=torch.float64)
    density = -torch.log(1 - alpha)
    weights = transmission_weights(density, torch.ones_like(density))
    by_hand = torch.tensor([0.4, 0.6 * 0.3, 0.42 * 0.8, 0.084 * 0.8, 0.0168 * 0.5], dtype=torch.float64)
    torch.testing.assert_close(weights, by_hand, atol=1e-9, rtol=0)
    assert 1 - weights.sum() == pytest.approx(0.0084, abs=1e-8)


def test_open_and_closed_ends() -> None:
    t, directions = torch.tensor([[[1.0, 1.5, 2.5]]]), torch.tensor([[[0.0, 0.0, -2.0]]])
    assert infinite_last_interval(t, directions).tolist() == [[[1.0, 2.0, 2e10]]]
    assert zero_last_interval(t, directions).tolist() == [[[1.0, 2.0, 0.0]]]


def test_backgrounds() -> None:
    weights = torch.tensor([[[0.2, 0.3]]])
    assert black(weights)[1] is last_sample(weights)[1] is None
    assert white(weights)[1].item() == pytest.approx(0.5)
    assert last_sample(weights)[0].flatten().tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize("background", [black, white])
def test_midpoints_are_means_of_neighbours(background) -> None:
    rays = axis_rays([0.0, 0.4])
    samples = Samples(*rays[:2], torch.rand(1, 2, 7, dtype=torch.float64).cumsum(-1))
    raw, features = torch.randn(1, 2, 7, 1, dtype=torch.float64), torch.rand(1, 2, 7, 3, dtype=torch.float64)
    renderer = VolumeRenderer(lambda *_: samples, MidpointQuadrature(softplus, background=background))
    found = renderer(lambda *_: (raw, features), rays, None)

    raws, colours, t = ((x[:, :, 1:] + x[:, :, :-1]) / 2 for x in (raw, features, samples.t[..., None]))
    weights = transmission_weights(softplus(raws, t)[..., 0], samples.t.diff(dim=-1))[..., None]
    left = (1 - weights.sum(2)) * (background is white)
    torch.testing.assert_close(found.features, (weights * colours).sum(2) + left)
    torch.testing.assert_close(found.depth, (weights * t).sum(2))
    torch.testing.assert_close(found.opacity, weights.sum(2))


def test_a_loss_can_differentiate_the_field_at_the_samples() -> None:
    depths, rays = Stratified(1.0, 3.0, 6), axis_rays([0.0, 0.3])

    def positions(rays: Rays, draws: None) -> Samples:
        samples = depths(rays, draws)
        return samples._replace(positions=samples.points.requires_grad_())

    found = VolumeRenderer(positions)(
        lambda samples, _: (samples.points.square().sum(-1, keepdim=True), samples.points), rays, 0
    )
    (gradient,) = torch.autograd.grad(found.raw.sum(), found.samples.points, create_graph=True)
    torch.testing.assert_close(gradient, 2 * found.samples.points)


def test_expected_depth_of_a_wall_is_its_distance() -> None:
    renderer = VolumeRenderer(JitteredUniform(1.0, 3.0, 201))
    result = renderer(slab(-9.0, 0.25, 1e4), axis_rays([0.0, 0.5]), None)
    torch.testing.assert_close(
        expected_depth(result)[0, :, 0], torch.full((2,), 1.75, dtype=torch.float64), atol=0.011, rtol=0
    )


def test_importance_samples_follow_a_known_distribution() -> None:
    edges = torch.tensor([0.0, 1.0, 2.0, 4.0])
    u = torch.rand(200_000)
    samples = inverse_cdf(edges, torch.tensor([1.0, 6.0, 3.0]), u)
    counts = torch.histogram(samples, bins=torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])).hist / len(u)
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.6, 0.15, 0.15]), atol=5e-3, rtol=0)


def test_importance_samples_go_to_the_surface() -> None:
    renderer = VolumeRenderer(JitteredUniform(1.0, 3.0, 17), fine=Importance(64))
    draws = TrainingDraws(0, 0)
    result = renderer(slab(-9.0, 0.0, 50.0), Rays(*(x.float() for x in axis_rays([0.0])[:2])), None, draws)
    assert result.samples.t.shape == (1, 1, 17 + 64)
    assert (result.samples.t.diff(dim=-1) >= 0).all()
    near_surface = ((result.samples.t - 2.0).abs() < 0.2).sum().item()
    assert near_surface >= 60


def test_smooth_importance_finds_a_surface_before_the_first_sample_behind_it() -> None:
    """All weight is that of the sample at 2, and the surface may lie anywhere between 1 and 2."""
    t, weights = torch.arange(5.0)[None, None], torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]])
    plain, smooth = (Importance(1001, smooth=smooth)(t, weights, None) for smooth in (False, True))
    assert plain[0, 0, 1:-1].min() > 1.49
    shares = torch.histogram(smooth, bins=torch.tensor([0.5, 1.5, 2.5, 3.5])).hist / 1001
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25]), atol=2e-3, rtol=0)


def test_stratified_and_shifted_stay_in_their_cells() -> None:
    rays, draws = Rays(torch.zeros(2, 3, 3), torch.ones(2, 3, 3)), TrainingDraws(1, 0)
    even = torch.linspace(1, 2, 5)
    shifted = JitteredUniform(1.0, 2.0, 5)(rays, draws).t
    stratified = Stratified(1.0, 2.0, 5)(rays, draws).t
    assert (shifted - even).abs().max() <= 0.125 and not torch.equal(shifted[0], shifted[1])
    assert (stratified - even).abs().max() <= 0.125 and stratified.min() >= 1 and stratified.max() <= 2
    assert torch.equal(JitteredUniform(1.0, 2.0, 5)(rays, None).t, even.expand(2, 3, 5))


def test_depths_inside_a_sphere() -> None:
    rays = axis_rays([0.0, 0.5, 1.2])
    samples = InsideSphere(1.0, 8)(rays, TrainingDraws(0, 0))
    radii = samples.points.norm(dim=-1)[0]
    assert (radii[:2] <= 1).all()
    assert samples.t[0, 0].min() < 1.25 and samples.t[0, 0].max() > 2.75  # the first and last eighth of the chord
    assert (samples.t[0, 2] == 2.0).all()  # a ray that misses: all at its nearest point


def test_depths_inside_a_box() -> None:
    rays = axis_rays([0.0, 0.4, 0.6])  # the last one misses; all run along one axis, parallel to four of the faces
    inward = rays.directions[0, 0]
    half = torch.where(inward == 0, 0.5, 0.25)
    samples = InsideBox(tuple(half.tolist()), 8)(rays, TrainingDraws(0, 0))
    assert (samples.points[0, :2].abs() <= half).all()
    assert samples.t[0, 0].min() < 1.8125 and samples.t[0, 0].max() > 2.1875  # the first and last eighth of the half
    assert (samples.t[0, 2] == 2.0).all()


def test_depths_inside_a_box_along_slanted_rays() -> None:
    rays = Rays(
        torch.tensor([[[-3.0, -3.0, 0.0], [-3.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 0.0], [2.0, 1.0, 0.0]]])
    )
    t = InsideBox((1.0, 2.0, 1.0), 2)(rays, None).t[0]
    torch.testing.assert_close(t, torch.tensor([[2.5, 3.5], [1.25, 1.75]]))  # from 2 to 4, and from 1 to 2


def test_each_image_has_its_own_rays_without_length() -> None:
    asked = []

    def field(samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
        asked.append(samples.t.shape[1])
        return ball(0.8, 1.7)(samples, condition)

    one, two, three = ([0.0, 3.0, 3.0, 0.5], [1.2, 0.1, 3.0, 3.0], [3.0] * 4)
    apart = [axis_rays(places) for places in (one, two, three)]
    together = Rays(*(torch.cat(x) for x in list(zip(*apart, strict=True))[:2]))
    renderer = VolumeRenderer(
        InsideSphere(1.0, 8), Quadrature(intervals=zero_last_interval, background=white), Importance(4)
    )
    result = renderer(field, together, None)
    assert asked == [2, 2]
    for i, rays in enumerate(apart):
        torch.testing.assert_close(result.features[i : i + 1], renderer(field, rays, None).features)


def test_rays_without_length_are_not_asked_of_the_field() -> None:
    asked = []

    def field(samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
        asked.append(samples.t.shape[1])
        return ball(0.8, 1.7)(samples, condition)

    rays = axis_rays([0.0, 1.2, 0.5, 3.0])
    result = VolumeRenderer(
        InsideSphere(1.0, 8), Quadrature(intervals=zero_last_interval, background=white), Importance(4)
    )(field, rays, None)
    assert asked == [2, 2]
    assert result.opacity[0, :, 0].gt(0).tolist() == [True, False, True, False]
    assert (result.features[0, [1, 3]] == 1).all()


def test_bounded_density_is_nothing_outside() -> None:
    density = BoundedRelu(scale=15.0, shift=-1.0, radius=1.0, margin=0.5)
    points = torch.tensor([[[[0.0, 0.0, 0.2], [0.0, 0.75, 0.0], [1.1, 0.0, 0.0]]]])
    raw = torch.full((1, 1, 3, 1), 1.0)
    assert density(raw, points).flatten().tolist() == pytest.approx([14.0, 7.0, 0.0])


def test_boxed_density_is_nothing_outside() -> None:
    density = BoxedRelu(scale=15.0, shift=-1.0, half=(1.0, 0.5, 2.0), margin=0.25)
    points = torch.tensor([[[[0.0, 0.0, 1.7], [0.0, -0.375, 0.0], [1.1, 0.0, 0.0], [0.0, 0.6, 0.0]]]])
    raw = torch.full((1, 1, 4, 1), 1.0)
    assert density(raw, points).flatten().tolist() == pytest.approx([14.0, 7.0, 0.0, 0.0])


def test_rays_do_not_see_each_other() -> None:
    rays = through(orbit_cameras(torch.tensor([[1.0]]), torch.tensor([[1.2]]), 2.0, 0.8), pixel_centres(6))
    renderer = VolumeRenderer(JitteredUniform(1.0, 3.0, 9), Quadrature(background=white), Importance(5))
    order = torch.randperm(36)
    shuffled = Rays(*(x[:, order] for x in rays[:3]), rays.pose)
    one, two = renderer(ball(0.7, 3.0), rays, None), renderer(ball(0.7, 3.0), shuffled, None)
    torch.testing.assert_close(one.features[:, order], two.features)
    torch.testing.assert_close(one.depth[:, order], two.depth)


@pytest.mark.parametrize("draws", [None, TrainingDraws(3, 1)])
def test_chunked_equals_whole(draws) -> None:
    camera = GaussianPoses(yaw_spread=0.3, radius=2.0, fov_deg=40)(2, TrainingDraws(0, 0))
    rays = through(camera, pixel_corners(7))
    weight = torch.randn(3, 4, requires_grad=True)

    def field(samples: Samples, scale: Tensor) -> tuple[Tensor, Tensor]:
        out = (samples.points @ weight).sin() * scale
        return 3 * out[..., :1], out[..., 1:]

    results, gradients = [], []
    for chunk in (None, 40):
        again = None if draws is None else TrainingDraws(3, 1)
        renderer = VolumeRenderer(JitteredUniform(1.0, 3.0, 6), fine=Importance(4), chunk=chunk)
        result = renderer(field, rays, torch.tensor(1.5), again, density_noise=0.5)
        gradients.append(torch.autograd.grad(result.features.sum() + result.depth.sum(), weight)[0])
        results.append(result)
    torch.testing.assert_close(results[0].features, results[1].features)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_gradients() -> None:
    raw = torch.rand(1, 2, 5, 1, dtype=torch.float64, requires_grad=True)
    colour = torch.rand(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    renderer = VolumeRenderer(
        Stratified(1.0, 2.0, 5), Quadrature(intervals=zero_last_interval, background=white), chunk=None
    )
    rays = axis_rays([0.0, 0.2])
    assert gradcheck(lambda r, c: renderer(lambda *_: (r, c), rays, None)[:3], (raw, colour))


def test_gradients_reach_the_camera() -> None:
    yaw = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    pitch = torch.tensor([[1.2]], dtype=torch.float64, requires_grad=True)

    def opacity(yaw: Tensor, pitch: Tensor) -> Tensor:
        rays = through(orbit_cameras(yaw, pitch, 2.0, 0.6), pixel_centres(3).double())

        def field(samples: Samples, _: None) -> tuple[Tensor, Tensor]:
            points = samples.points - torch.tensor([0.1, 0.2, 0.0])
            return torch.exp(-4 * points.square().sum(-1, keepdim=True)), samples.points

        return VolumeRenderer(Stratified(1.0, 3.0, 8), chunk=None)(field, rays, None).features

    assert gradcheck(opacity, (yaw, pitch))


def test_a_known_sphere_is_at_the_right_pixels() -> None:
    size, where = 64, torch.tensor([0.3, 0.25, 0.1])
    camera = orbit_cameras(torch.tensor([[2.0]]), torch.tensor([[1.1]]), 3.0, math.radians(40))

    def field(samples: Samples, _: None) -> tuple[Tensor, Tensor]:
        inside = (samples.points - where).norm(dim=-1, keepdim=True) < 0.2
        return 1e3 * inside.float(), samples.points

    result = VolumeRenderer(Stratified(2.0, 4.0, 400))(field, through(camera, pixel_centres(size)), None)
    mask = to_map(result.opacity)[0, 0] > 0.5
    rows, columns = mask.nonzero().float().add(0.5).div(size).T

    in_camera = torch.linalg.inv(camera.pose[0]) @ torch.cat([where, torch.ones(1)])
    x, y, z = in_camera[:3].tolist()
    focal = camera.intrinsics[0, 0, 0].item()
    assert z < 0
    assert columns.mean().item() == pytest.approx(0.5 + focal * x / -z, abs=1 / size)
    assert rows.mean().item() == pytest.approx(0.5 - focal * y / -z, abs=1 / size)
    depth = expected_depth(result)[0, mask.flatten()].min().item()
    assert depth == pytest.approx((where - camera.origins[0]).norm().item() - 0.2, abs=0.02)


def test_camera_directions() -> None:
    front = orbit_cameras(torch.full((1, 1), math.pi / 2), torch.full((1, 1), math.pi / 2), 2.0, 1.0)
    torch.testing.assert_close(front.origins, torch.tensor([[0.0, 0.0, 2.0]]), atol=1e-6, rtol=0)
    rays = through(front, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), unit=False)
    right, up, ahead = rays.directions[0]
    half = math.tan(0.5)
    torch.testing.assert_close(right, torch.tensor([half, 0.0, -1.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(up, torch.tensor([0.0, half, -1.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(ahead, torch.tensor([0.0, 0.0, -1.0]), atol=1e-6, rtol=0)


def test_sphere_poses_cover_a_band_evenly() -> None:
    poses = SpherePoses(yaw_spread=math.pi, pitch_mean=math.pi / 4, pitch_spread=math.pi / 4, radius=2.0)
    origins = poses(20_000, TrainingDraws(0, 0)).origins
    torch.testing.assert_close(origins.norm(dim=-1), torch.full((20_000,), 2.0))
    heights = torch.histogram(origins[:, 1], 4, range=(0.0, 2.0)).hist / 20_000  # equal heights, equal areas
    torch.testing.assert_close(heights, torch.full((4,), 0.25), atol=0.02, rtol=0)
    table = poses.turntable(4).origins
    torch.testing.assert_close(table[0, [0, 2]], -table[2, [0, 2]], atol=1e-5, rtol=0)


def test_samples_do_not_depend_on_their_batch() -> None:
    one = SampleDraws(5, [3]).normal("z", (1, 7))
    many = SampleDraws(5, [9, 3, 1]).normal("z", (3, 7))
    assert torch.equal(one[0], many[1])
    assert not torch.equal(many[0], many[1])
    assert not torch.equal(one, SampleDraws(6, [3]).normal("z", (1, 7)))
    assert not torch.equal(one, SampleDraws(5, [3]).normal("y", (1, 7)))
    with pytest.raises(ValueError, match="2 samples"):
        SampleDraws(5, [3]).normal("z", (2, 7))


def test_training_draws_are_a_function_of_seed_iteration_and_rank() -> None:
    first = TrainingDraws(0, 7, rank=1).uniform("x", (4,))
    assert torch.equal(first, TrainingDraws(0, 7, rank=1).uniform("x", (4,)))
    for other in (TrainingDraws(1, 7, rank=1), TrainingDraws(0, 8, rank=1), TrainingDraws(0, 7, rank=0)):
        assert not torch.equal(first, other.uniform("x", (4,)))
    shared = [TrainingDraws(0, 7, rank=rank).shared("x", (4,)) for rank in (0, 1)]
    assert torch.equal(*shared)


def test_a_background_can_differ_outside_training() -> None:
    weights = torch.tensor([[[0.1, 0.2]]])
    renderer = VolumeRenderer(JitteredUniform(0.8, 1.2, 2), Quadrature(background=ByMode(black, last_sample)))
    torch.testing.assert_close(renderer.train().quadrature.background(weights)[0], weights)
    torch.testing.assert_close(renderer.eval().quadrature.background(weights)[0], torch.tensor([[[0.1, 0.9]]]))


def test_hybrid_poses_toss_one_coin_for_a_batch() -> None:
    poses = HybridPoses(yaw_spread=0.3, pitch_spread=0.1)
    widest = {}
    for iteration in range(60):
        draws = TrainingDraws(0, iteration)
        uniform = TrainingDraws(0, iteration).shared("pose_kind", ()) < 0.5
        yaw, _ = poses.angles(500, draws)
        reach = (yaw - math.pi / 2).abs().max().item()
        widest[bool(uniform)] = max(widest.get(bool(uniform), 0), reach)
    assert 0.58 < widest[True] <= 0.6 < 0.9 < widest[False]


def test_truncated_gaussian_poses_stay_within_two_deviations() -> None:
    poses = TruncatedGaussianPoses(yaw_spread=0.3, pitch_spread=0.1)
    yaw, pitch = poses.angles(20_000, TrainingDraws(0, 0))
    share = ((yaw - math.pi / 2).abs() > 0.6).float().mean().item()
    assert share < 1e-4  # four numbers beyond two deviations at once: 4e-6
    assert abs((pitch - math.pi / 2).std().item() / 0.1 - 0.8796) < 0.02  # deviation of a gaussian cut at two
