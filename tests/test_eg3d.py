"""EG3D: what its options do, each in both ways, and what training it refuses."""

import copy
import math

import pytest
import torch

from tests.parity.harness import CASES
from tests.parity.replay import Replay
from tests.same_runs import train, write
from tests.systems import SYSTEMS, NoiseData
from zoo.cli.command import main
from zoo.draws import SampleDraws, TrainingDraws
from zoo.eg3d import convert
from zoo.eg3d.cameras import camera_of, centred, label_of, published_focal
from zoo.eg3d.discriminator import DualDiscriminator
from zoo.eg3d.extras import published_depth
from zoo.eg3d.field import BoxLimits, FixedLimits, SmoothedImportance, TriPlaneField, interval_weights
from zoo.eg3d.model import Generator
from zoo.eg3d.synthesis import Superresolution
from zoo.eg3d.training import EG3D, DensityTV, Monotonic, RampedDecay, blurred
from zoo.generator import render_samples, take
from zoo.render import (
    Camera,
    DatasetPoses,
    MidpointQuadrature,
    Quadrature,
    Rays,
    Samples,
    VolumeRenderer,
    look_at,
    orbit_cameras,
    pixel_centres,
    shifted_softplus,
    through,
)
from zoo.training.schedules import LinearSchedule, PiecewiseLinearSchedule
from zoo.utils.errors import UserError
from zoo.utils.paths import read_experiment
from zoo.weights.bundle import build


def tiny(**changed) -> Generator:
    config = SYSTEMS["eg3d"]()["model"]["init_args"]["generator"]
    return build(config | {"init_args": config["init_args"] | changed}, Generator)


def gan(**changed) -> EG3D:
    """With a batch of real images and cameras that its step would take."""
    config = copy.deepcopy(SYSTEMS["eg3d"]()["model"])
    return build(config | {"init_args": config["init_args"] | changed}, EG3D)


def some_cameras(n: int) -> Camera:
    return orbit_cameras(1.2 + 0.1 * torch.rand(n, 1), 1.4 + 0.2 * torch.rand(n, 1), 2.7, 0.3)


# Cameras


def test_numbers_and_cameras_are_the_same_thing():
    camera = some_cameras(3)
    label = label_of(camera)
    assert label.shape == (3, 25) and all(map(torch.equal, camera_of(label), camera))
    ahead = label[:, :16].unflatten(1, (4, 4))[:, :3, 2]  # OpenCV's third axis
    assert torch.allclose(ahead, -torch.nn.functional.normalize(camera.origins, dim=1), atol=1e-6)


def test_the_published_field_of_view_is_another():
    focal = published_focal(18.837)
    assert focal == pytest.approx(4.2634, abs=1e-4)
    assert math.degrees(2 * math.atan(0.5 / focal)) == pytest.approx(13.4, abs=0.03)


def test_rays_take_skew():
    intrinsics = torch.tensor([[[1.5, 0.2, 0.4], [0.0, 1.7, 0.6], [0.0, 0.0, 1.0]]])
    camera = Camera(look_at(torch.tensor([[0.3, 0.4, 2.0]])), intrinsics)
    rays = through(camera, pixel_centres(5))
    ahead = rays.directions @ camera.pose[0, :3, :3]  # to the camera's axes
    seen = torch.stack([ahead[..., 0], -ahead[..., 1], -ahead[..., 2]], dim=-1) @ intrinsics[0].T
    place = (torch.arange(5) + 0.5) / 5
    expected = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1).view(1, 25, 2)
    assert torch.allclose(seen[..., :2] / seen[..., 2:], expected, atol=1e-6)


def test_what_an_object_is_conditioned_on_is_not_where_it_is_seen_from():
    generator, camera = tiny().eval(), some_cameras(2)
    latents = generator.latents(2, SampleDraws(0, [0, 1]))
    told, untold = generator.map(latents, condition=camera), generator.map(latents)
    assert not torch.equal(told.w, untold.w)
    middle = generator.map(latents, condition=generator.cameras(2, None))
    assert torch.equal(middle.w, untold.w)
    views = [generator.render(told, x).image for x in (camera, some_cameras(2))]
    assert not torch.equal(*views) and torch.equal(views[0], generator.render(told, camera).image)
    deaf = tiny(condition_scale=0.0, poses={"class_path": "zoo.render.DatasetPoses"})
    assert torch.equal(deaf.map(latents, condition=camera).w, deaf.map(latents).w)  # and it needs no cameras


def test_a_sample_is_seen_from_the_camera_it_is_conditioned_on():
    generator, draws = tiny().eval(), SampleDraws(0, [3])
    latents, camera = generator.sample(1, draws)
    expected = generator.render(generator.map(latents, condition=camera), camera, draws=draws)
    assert torch.equal(render_samples(generator, [3]).image, expected.image)


def test_faces_are_centred():
    camera = some_cameras(2)
    camera.pose[:, :3, 3] *= torch.tensor([[1.3], [0.8]])
    moved = centred(camera, centre=(0.0, 0.0, 0.175), facing=True)
    away = moved.origins - torch.tensor([0.0, 0.0, 0.175])
    assert torch.allclose(away.norm(dim=1), torch.tensor(2.7)) and torch.equal(
        centred(camera).pose[:, :3, :3], camera.pose[:, :3, :3]
    )
    assert torch.allclose(moved.pose[:, :3, 2], away / 2.7, atol=1e-6)


# Planes and samples


def test_the_fixed_planes_see_y_and_z_together():
    planes = torch.randn(1, 3, 4, 8, 8)
    official, fixed = (TriPlaneField(4, plane_axes=axes) for axes in ("official", "fixed"))
    points = 0.4 * torch.randn(1, 6, 3)
    turned = points * torch.tensor([-1.0, 1.0, 1.0])  # another x
    moved = points * torch.tensor([1.0, -1.0, 1.0])  # another y
    third = [field.look_up(p, planes)[:, 2] for field in (official, fixed) for p in (points, turned, moved)]
    assert not torch.equal(third[0], third[1]) and torch.equal(third[0], third[2])  # zx, without y
    assert torch.equal(third[3], third[4]) and not torch.equal(third[3], third[5])  # zy, without x
    assert torch.equal(official.look_up(points, planes)[:, :2], fixed.look_up(points, planes)[:, :2])


def rays(n: int = 1) -> Rays:
    return through(some_cameras(n), pixel_centres(6))


def test_without_draws_samples_lie_in_the_middle_of_their_way():
    line = FixedLimits(1.0, 3.0, 5)
    assert torch.allclose(line(rays(), None).t[0, 0], torch.tensor([1.25, 1.75, 2.25, 2.75, 3.25]))
    drawn = line(rays(), SampleDraws(0, [0])).t
    assert (drawn.diff(dim=-1) > 0).all() and drawn.min() >= 1 and 3 < drawn.max() < 3.5


@pytest.mark.parametrize("published_far", [True, False])
def test_rays_that_miss_the_cube(published_far):
    camera = Camera(look_at(torch.tensor([[0.2, 0.3, 2.0]])), torch.tensor([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]]))
    seen = through(camera, pixel_centres(8))
    box = BoxLimits(0.8, 4, published_far)
    (near, far), (enter, leave) = box.limits(seen), box.hits(seen)
    hit = leave > enter
    assert 0 < hit.sum() < hit.numel() and torch.equal(near[hit], enter[hit]) and torch.equal(far[hit], leave[hit])
    assert (near[~hit] == enter[hit].min()).all()
    assert (far[~hit] == (enter if published_far else leave)[hit].max()).all()
    ends = seen.origins + leave * seen.directions
    assert torch.allclose(ends.abs().amax(-1)[hit[..., 0]], torch.tensor(0.4), atol=1e-5)
    away = Rays(seen.origins, -seen.directions)
    assert torch.equal(
        BoxLimits(0.8, 4)(away._replace(origins=away.origins + 9), None).t,
        box(away._replace(origins=away.origins + 9), None).t,
    )


def test_intervals_have_the_weights_that_their_ends_share():
    t = torch.rand(1, 2, 7).sort().values
    samples = Samples(torch.zeros(1, 2, 3), torch.tensor([0.0, 0, 1]).expand(1, 2, 3), t)
    raw = 3 * torch.randn(1, 2, 7, 1)
    weights = MidpointQuadrature(density=shifted_softplus).weigh(raw, samples)
    density = torch.nn.functional.softplus((raw[:, :, 1:] + raw[:, :, :-1])[..., 0] / 2 - 1)
    alpha = 1 - torch.exp(-density * t.diff(dim=-1))
    passed = torch.cat([torch.ones(1, 2, 1), (1 - alpha).cumprod(-1)[..., :-1]], -1)
    assert torch.allclose(interval_weights(weights), alpha * passed, atol=1e-5)


def test_a_few_coarse_samples_are_too_few():
    with pytest.raises(UserError, match="needs at least 4 samples of the coarse pass, not 3"):
        SmoothedImportance(2)(torch.rand(1, 1, 3), torch.rand(1, 1, 3), None)


def test_light_behind_the_last_sample_is_background_unless_the_last_interval_has_no_end():
    solid = lambda samples, _: (torch.full((*samples.t.shape, 1), 3.0), torch.ones(*samples.t.shape, 3))  # noqa: E731
    opacity = [
        VolumeRenderer(FixedLimits(1.0, 1.2, 4), kind(density=shifted_softplus))(solid, rays(), None).opacity
        for kind in (MidpointQuadrature, Quadrature)
    ]
    assert opacity[0].max() < 0.5 and torch.allclose(opacity[1], torch.ones(1, 36, 1))


def test_the_depth_of_empty_rays():
    generator, camera = tiny().eval(), some_cameras(2)
    styles = generator.map(generator.latents(2, SampleDraws(0, [0, 1])))
    near, far = generator.renderer.depths.near, generator.renderer.depths.far
    rendered = generator.renderer(generator.field, generator.rays(camera, 4), styles.planes)
    alone = generator.renderer(generator.field, generator.rays(camera.take(slice(1)), 4), styles.planes[:1])
    assert published_depth(rendered).isfinite().all() and published_depth(alone).min() >= near
    rendered.samples.t[1] += 7  # a batch mate that is further away
    empty = rendered._replace(weights=torch.zeros_like(rendered.weights), depth=torch.zeros_like(rendered.depth))
    assert (published_depth(empty) > far + 6).all()


def test_noise_on_densities_stays_with_a_sample_or_not():
    seen = {}
    for once in (True, False):
        renderer = VolumeRenderer(
            FixedLimits(2.0, 3.0, 5), MidpointQuadrature(), SmoothedImportance(3), chunk=None, noise_once=once
        )
        flat = lambda samples, _: (torch.zeros(*samples.t.shape, 1), torch.ones(*samples.t.shape, 3))  # noqa: E731
        found = renderer(flat, rays(), None, TrainingDraws(0, 0), 1.0)
        seen[once] = found.raw
    assert seen[True].std() > 0.5 and seen[False].std() == 0  # what the composite got is not kept


# The final image


def test_the_raw_image_has_what_the_first_block_adds_or_not():
    features = torch.randn(2, 8, 4, 4)
    w = torch.randn(2, 8)
    for doubles, side in ((False, 4), (False, 6), (True, 4)):
        networks = [
            Superresolution(4, doubles, (8, 4), feature_dim=8, w_dim=8, adds_to_raw=adds) for adds in (True, False)
        ]
        networks[1].load_state_dict(networks[0].state_dict())
        inputs = features if side == 4 else torch.randn(2, 8, side, side)
        (image, raw), (same, clean) = (network(inputs, w) for network in networks)
        assert torch.equal(image, same) and torch.equal(clean, inputs[:, :3])
        assert torch.equal(raw, clean) == (doubles or side != 4)


def test_gradients_reach_the_altered_raw_image():
    """Where the published program's fail in float32."""
    network = Superresolution(4, False, (8, 4), feature_dim=8, w_dim=8)
    features = torch.randn(2, 8, 4, 4, requires_grad=True)
    image, raw = network(features, torch.randn(2, 8))
    (image.sum() + raw.sum()).backward()
    assert features.grad.abs().min() > 0 and network.first.rgb.weight.grad.abs().min() > 0


def test_a_module_that_only_enlarges_refuses_more_pixels():
    network = Superresolution(4, False, (8, 4), shrinks=False, feature_dim=8, w_dim=8)
    with pytest.raises(UserError, match="at most 4 rendered pixels a side, not 6"):
        network(torch.randn(1, 8, 6, 6), torch.randn(1, 8))


def test_the_side_of_a_call_is_not_remembered():
    generator, camera = tiny().eval(), some_cameras(1)
    styles = generator.map(generator.latents(1, SampleDraws(0, [0])))
    assert generator.render(styles, camera, render_side=3).raw.shape[-1] == 3
    assert generator.render(styles, camera).raw.shape[-1] == generator.render_side == 4
    with pytest.raises(UserError, match="EG3D makes images of side 8, not 16"):
        generator.render(styles, camera, resolution=16)


# Training


def test_cameras_are_swapped_one_by_one_or_all_together():
    model, camera = (
        gan(swap={"class_path": "zoo.training.LinearSchedule", "init_args": {"start": 0.5, "end": 0.5, "images": 0}}),
        some_cameras(3),
    )
    u = torch.tensor([0.1, 0.9, 0.4])
    one = model.condition(camera, Replay([("swap", u)]))
    assert torch.equal(one.pose, camera.pose[[2, 1, 1]])
    both = [model.condition(camera, Replay([("swap_all", torch.tensor(x))]), together=True).pose for x in (0.4, 0.6)]
    assert torch.equal(both[0], camera.pose.roll(1, 0)) and torch.equal(both[1], camera.pose)
    model.generator.condition_scale = 0.0
    assert model.condition(camera, Replay([])) is camera


def test_parts_of_a_batch_are_summed():
    """As published; each part's losses are those of a batch of its own."""
    whole, halves = gan(augment=None, blur=None), gan(augment=None, blur=None, at_once=2)
    images, camera = torch.randn(4, 3, 8, 8), some_cameras(4)
    parts = halves.reals(images, camera)
    assert [len(part.image) for part in parts] == [2, 2] and len(whole.reals(images, camera)) == 1
    assert torch.equal(torch.cat([part.raw for part in parts]), whole.reals(images, camera)[0].raw)
    summed = []
    halves.accumulate = lambda prefix, terms: summed.append(terms["r1"])
    total = halves.accumulate_all(
        "loss_d", [lambda part=part: halves.loss_r1(part, TrainingDraws(0, 0)) for part in parts]
    )
    alone = [halves.loss_r1(part, TrainingDraws(0, 0))["r1"] for part in parts]
    assert len(summed) == 2 and total == pytest.approx(sum(alone).item(), rel=1e-6)


def test_schedules_go_from_one_number_to_another():
    line = LinearSchedule(10.0, 0.0, 200)
    assert [line(seen) for seen in (0, 50, 200, 300)] == [10.0, 7.5, 0.0, 0.0]
    assert LinearSchedule(1.0, 0.5, 0)(0) == 0.5
    pieces = PiecewiseLinearSchedule([0, 100, 200], [1.0, 0.5, 0.1])
    assert [pieces(seen) for seen in (0, 50, 100, 300)] == [1.0, 0.75, 0.5, 0.1]
    for images, values, message in (([1], [1], "begin with 0"), ([0, 0], [1, 2], "rise"), ([0, 1], [1], "a value")):
        with pytest.raises(UserError, match=message):
            PiecewiseLinearSchedule(images, values)
    decay = RampedDecay(10_000, 32)
    assert decay(1) == 0 and decay(101) == 0.5 ** (32 / 160) and decay(10**6) == 0.5 ** (32 / 10_000)
    assert RampedDecay(10_000, 32, None)(1) == 0.5 ** (32 / 10_000)


def test_blur_keeps_flat_images_and_sees_nothing_beyond_the_border():
    images = torch.ones(1, 3, 32, 32)
    blurry = blurred(images, 2.0)
    assert torch.allclose(blurry[..., 6:-6, 6:-6], torch.ones(20, 20)) and blurry[0, 0, 0, 0] < 0.5
    assert blurred(images, 0.3) is images  # not a pixel wide


@pytest.mark.parametrize("of_seen", [True, False])
def test_r1_differentiates_by_what_is_seen_or_what_is_given(of_seen):
    model = gan(r1_of_seen=of_seen, augment=None).double()
    real, camera = torch.randn(2, 3, 8, 8).double(), some_cameras(2).to(torch.float64)
    (reals,), draws = model.reals(real, camera), TrainingDraws(0, 0)
    raw, plain = reals.raw, model.loss_r1(reals, draws)["r1"].item()
    assert model.sigma == 2.0
    inputs = [x.clone().requires_grad_() for x in (blurred(real, 2.0) if of_seen else real, raw)]
    shown = (inputs[0] if of_seen else blurred(inputs[0], 2.0), inputs[1])
    gradients = torch.autograd.grad(model.score(*shown, camera, draws).sum(), inputs)
    expected = sum(x.square().flatten(1).sum(1) for x in gradients).mean().item()
    assert plain == pytest.approx(0.5 * model.r1_weight * model.r1_every * expected, rel=1e-9)


@pytest.mark.parametrize("kind", [DensityTV, Monotonic])
def test_points_of_the_regulariser_come_from_the_planes_or_from_everywhere(kind):
    generator = tiny()
    generator.field.extent = 0.5
    styles = generator.map(generator.latents(3, SampleDraws(0, range(3))))
    asked = []
    generator.field.register_forward_pre_hook(lambda _, args: asked.append(args[0].points))
    for side, reach in ((2.0, 1.0), (None, 0.25)):
        terms = kind(points=200, side=side)(lambda: styles.planes, generator.field, 3, TrainingDraws(0, 0))
        assert all(term > 0 for term in terms.values())
        assert asked[-2 if kind is Monotonic else -1].abs().max() == pytest.approx(reach, rel=0.05)


def test_only_the_density_behind_is_moved_where_the_other_is_detached():
    field, moved = TriPlaneField(4, 8, 4), {}
    for detached in (True, False):
        planes = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = Monotonic(detached=detached, points=50)(lambda p=planes: p, field, 1, TrainingDraws(0, 0))["monotonic"]
        (moved[detached],) = torch.autograd.grad(loss, planes)
    assert moved[True].norm() > 2 * moved[False].norm()  # else the two nearly cancel


def test_noise_on_cameras_leaves_the_camera_alone():
    network, camera = DualDiscriminator(8, 64, 8, None, mapping_layers=2, camera_noise=0.3), some_cameras(4)
    before, draws = label_of(camera), TrainingDraws(0, 0)
    images = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 4, 4)
    assert not torch.equal(network(*images, camera, draws).scores, network(*images, camera).scores)
    assert torch.equal(label_of(camera), before)


def test_augmentation_changes_both_images_alike():
    model = gan(
        augment={
            "class_path": "zoo.layers.ada.Augmentation",
            "init_args": {"weights": {"xflip": 1.0, "brightness": 1.0}, "probability": 1.0},
        },
        blur=None,
    )
    images = torch.rand(3, 3, 8, 8)
    image, raw = model.seen(images, images, TrainingDraws(0, 0))
    assert torch.allclose(image, raw, atol=1e-5) and not torch.allclose(image, images, atol=1e-2)


def test_images_without_cameras_are_refused(tmp_path, capsys):
    config = SYSTEMS["eg3d"]()
    config["data"]["init_args"]["posed"] = False
    assert main(["fit", "-c", write(config, tmp_path), "--trainer.max_steps", "1"]) == 2
    assert "EG3D trains on images with cameras, but these have none" in capsys.readouterr().err


def test_cameras_of_fakes_come_from_the_data_set(tmp_path):
    config = SYSTEMS["eg3d"]()
    config["model"]["init_args"]["generator"]["init_args"]["poses"] = {"class_path": "zoo.render.DatasetPoses"}
    train(["fit", "-c", write(config, tmp_path), "--trainer.max_steps", "2"])
    main(["bundle", str(tmp_path / "checkpoints" / "last.ckpt"), str(tmp_path / "bundle")])
    from zoo import load

    generator = load(tmp_path / "bundle")
    assert isinstance(generator.poses, DatasetPoses)
    assert torch.equal(generator.poses.pose, NoiseData(posed=True).cameras().pose)
    assert (
        generator.render_side == 3
        and take(generator.map(generator.latents(2, SampleDraws(0, [0, 1]))), slice(1)).w.shape[0] == 1
    )


# Published files


def test_published_axes_are_read_from_the_file():
    published = torch.tensor(
        [[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
    )
    fixed = published.clone()
    fixed[2] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    assert (convert.axes_of(published), convert.axes_of(fixed), convert.axes_of(None)) == (
        "official",
        "fixed",
        "official",
    )
    for wrong in (published.flip(0), torch.ones(3, 3, 3), torch.zeros(2), "x"):
        with pytest.raises(UserError, match="axes that have no counterpart"):
            convert.axes_of(wrong)


def test_what_a_file_does_not_state_is_named():
    config = __import__("json").loads((CASES / "eg3d" / "render_cars" / "case.json").read_text())["config"]
    given = config["generator"]
    marching, geometry = given["rendering_kwargs"], config["geometry"]
    made = convert.generator_config(given, marching, geometry)["init_args"]
    assert made["condition_scale"] == 0.0 and made["superresolution"]["init_args"]["doubles_first"] is False
    for block, name in ((given, "z_dim"), (marching, "box_warp"), (geometry, "sr_input_resolution")):
        blocks = [{k: v for k, v in b.items() if b is not block or k != name} for b in (given, marching, geometry)]
        with pytest.raises(UserError, match=f"The file's '{name}' is null, which is no number"):
            convert.generator_config(*blocks)
    with pytest.raises(UserError, match="The published superresolution '9X' has no counterpart"):
        convert.generator_config(given, marching, geometry | {"sr_module": "9X"})
    with pytest.raises(UserError, match="The published 'clamp_mode' 'relu' has no counterpart"):
        convert.generator_config(given, marching | {"clamp_mode": "relu"}, geometry)
    auto = convert.renderer_config(
        marching | {"ray_start": "auto", "ray_end": "auto", "depth_resolution_importance": 0}
    )
    assert auto["init_args"]["depths"]["class_path"] == "zoo.eg3d.BoxLimits" and "fine" not in auto["init_args"]


@pytest.mark.parametrize(
    ("experiment", "sizes"),
    [
        ("ffhq512_64", (29_008_301, 1_649_578, 4_257, 31_359_744)),
        ("ffhq256", (29_008_301, 574_954, 4_257, 31_241_216)),
        ("shapenetcars128", (29_008_301, 574_954, 4_257, 30_766_592)),
    ],
)
def test_the_published_experiments_have_the_published_sizes(experiment, sizes):
    """The published superresolution also has four strengths of a noise that it is never given."""
    with torch.device("meta"):
        model = build(read_experiment(f"eg3d/{experiment}")["model"], EG3D)
    generator = model.generator
    parts = [
        (generator.plane_network, generator.mapping),
        (generator.superresolution,),
        (generator.field,),
        (model.discriminator,),
    ]
    counts = [sum(p.numel() for part in of for p in part.parameters()) for of in parts]
    assert [*counts[:1], counts[1] + 4, *counts[2:]] == [*sizes]
