"""GIRAFFE's cameras and edits: where objects are seen, what goes round, what each edit changes."""

import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.test_giraffe import tiny_generator
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.draws import SampleDraws, TrainingDraws
from zoo.evaluate.metrics.consistency import consistency
from zoo.export.views import find_edit, turntable_views
from zoo.giraffe.edits import EDITS
from zoo.giraffe.extras import object_masks
from zoo.giraffe.model import Generator
from zoo.giraffe.rendering import SceneRenderer, StratifiedDepths
from zoo.giraffe.scenes import BoxPrior, Latent, ScenePoses, vertical_rotation
from zoo.render import Camera
from zoo.utils.errors import UserError
from zoo.utils.paths import CONFIGS
from zoo.weights.bundle import build, save_bundle

# Cameras


def solid(generator: Generator) -> Generator:
    """Objects that are dense wherever their boxes are."""
    with torch.no_grad():
        generator.scene.objects.density.weight.zero_()
        generator.scene.objects.density.bias.fill_(100.0)
    return generator


def at(place: tuple[float, float, float]) -> Latent:
    codes = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), torch.zeros(1, 4), torch.zeros(1, 4)
    there = torch.ones(1, 2, dtype=torch.bool)
    scale = torch.full((1, 1, 3), 0.3)
    return Latent(*codes, scale, torch.tensor([[place]]), torch.eye(3)[None, None], torch.eye(3)[None], there)


def test_where_objects_are_seen() -> None:
    poses = ScenePoses(polar=(0.5, 0.5), fov_deg=60.0)
    generator = solid(
        tiny_generator(boxes=BoxPrior(1), poses=poses, renderer=SceneRenderer(StratifiedDepths(1, 4, 60)))
    )
    camera = generator.cameras(1, None)
    torch.testing.assert_close(camera.origins, torch.tensor([[0.0, 0.0, 2.732]]))

    def seen(*place: float) -> Tensor:
        with torch.no_grad():
            return object_masks(generator, at(place), camera, resolution=32)[0, 0] > 0.5

    rows, columns = seen(0.0, 0.8, 0.0).nonzero().T  # to the right
    assert columns.min() > 8 and (rows.float().mean() - 7.5).abs() < 1
    rows, columns = seen(0.0, 0.0, 0.8).nonzero().T  # upwards
    assert rows.max() < 8 and (columns.float().mean() - 7.5).abs() < 1
    assert seen(0.8, 0.0, 0.0).sum() > 1.5 * seen(-0.8, 0.0, 0.0).sum()  # towards the camera
    alone = at((0.8, 0.0, 0.0))
    alone.present[:, 1] = False
    with torch.no_grad():
        depth = generator.render(alone, camera, resolution=30).depth[0, 0, 7, 7]
    assert depth.item() == pytest.approx(2.732 - 0.8 - 1.1 * 0.3, abs=0.1)


def test_cameras_from_above_are_zoomed_in_as_in_published_batches() -> None:
    poses = ScenePoses(polar=(0.05, 0.5))
    share = torch.tensor([0.0, 0.5, 1.0])

    class Fixed:
        def uniform(self, name: str, shape) -> Tensor:
            return share[: shape[0]] if name == "polar" else torch.zeros(shape)

    sine = (1 - (1 - 2 * (0.05 + 0.45 * share)) ** 2).sqrt()
    plain = poses.at(torch.zeros(3), share, torch.zeros(3)).intrinsics[:, 0, 0]
    torch.testing.assert_close(plain, plain[:1].expand(3))
    for camera, steepest in ((poses(3, Fixed()), 1.0), (poses.together(2, Fixed()), float(sine[1]))):
        n = len(camera.pose)
        torch.testing.assert_close(camera.intrinsics[:, 0, 0].float(), plain[:n] / sine[:n] * steepest)
        torch.testing.assert_close(camera.intrinsics[:, 1, 1], camera.intrinsics[:, 0, 0])
    unzoomed = ScenePoses(polar=(0.05, 0.5), zoom=False)
    torch.testing.assert_close(unzoomed(3, Fixed()).intrinsics[:, 0, 0], plain)
    rotation = poses(3, Fixed()).pose[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3))


def test_near_cameras_have_shorter_rays_in_the_limit_of_large_batches() -> None:
    generator = tiny_generator(poses=ScenePoses(radius=(2.0, 4.0)))
    camera = generator.poses.at(torch.zeros(2), torch.full((2,), 0.5), torch.tensor([0.0, 1.0]))
    rays = generator.rays(camera, 5)
    along = -(rays.directions * camera.pose[:, None, :3, 2]).sum(-1)
    torch.testing.assert_close(along, torch.tensor([[0.5], [1.0]]).expand(2, 25))


@pytest.mark.parametrize("rotation", [(0.0, 1.0), (0.4, 0.6)])
def test_a_camera_round_still_boxes_sees_what_a_still_one_sees_of_turning_boxes(rotation) -> None:
    generator = tiny_generator(boxes=BoxPrior(1, rotation=rotation), background_rotation=(0.0, 0.5))
    latent = generator.latents(2, TrainingDraws(0, 0))
    scenes, cameras = generator.turntable(latent, 4)
    assert (scenes.rotation == scenes.rotation[0]).all() and cameras.origins.unique(dim=0).shape == (4, 3)
    turns = torch.arange(4) / 4 if rotation == (0.0, 1.0) else torch.linspace(0.4, 0.6, 4)
    still = Latent(*(x.repeat_interleave(4, 0) for x in latent))
    still = still._replace(rotation=vertical_rotation(turns)[:, None].repeat(2, 1, 1, 1), place=scenes.place)
    middle = generator.cameras(1, None)
    with torch.no_grad():
        expected = generator.render(still, Camera(*(x.expand(8, -1, -1) for x in middle)))
        rendered = generator.render(scenes, cameras)
    assert (expected.image[0] - expected.image[1]).abs().max() > 1e-4
    for ours, theirs in zip(rendered, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True)


def test_a_background_goes_with_a_camera_of_any_place() -> None:
    generator = tiny_generator(background_rotation=(0.0, 0.5))
    latent = generator.latents(1, TrainingDraws(0, 0))
    scenes, camera = generator.orbit_at(latent, torch.tensor([0.0, 0.3, 0.8]))
    still = scenes._replace(background_rotation=latent.background_rotation.expand(3, -1, -1))
    torch.testing.assert_close(generator.with_backdrop(still, camera).background_rotation, scenes.background_rotation)
    generator.poses = ScenePoses(azimuth=(0.35, 0.0))  # cameras went so far round in training
    left = generator.with_backdrop(still, camera).background_rotation
    torch.testing.assert_close(left[:2], still.background_rotation[:2])


def test_several_objects_go_round_together() -> None:
    generator = tiny_generator()
    latent = generator.latents(2, TrainingDraws(0, 0))
    latent.present[1, 1] = False
    scenes, _ = generator.turntable(latent, 3)
    place = scenes.place[::3]
    torch.testing.assert_close(place[0].diff(dim=0), latent.place[0].diff(dim=0))
    torch.testing.assert_close(place[0, :, :2].mean(0), torch.zeros(2))
    torch.testing.assert_close(place[1, 0, :2], torch.zeros(2))
    assert torch.equal(place[..., 2], latent.place[..., 2])


def test_a_solid_box_holds_together_in_3d() -> None:
    boxes = BoxPrior(1, (0.6, 0.35, 0.3), (0.6, 0.35, 0.3), (-0.2, -0.2, 0.0), (0.2, 0.2, 0.0))
    renderer, poses = SceneRenderer(StratifiedDepths(1, 4, 60)), ScenePoses(polar=(0.3, 0.4))
    generator = solid(tiny_generator(boxes=boxes, poses=poses, renderer=renderer, feature_resolution=24))
    numbers = consistency(generator, 1)
    assert numbers["silhouettes"] > 0.9 and numbers["surface"] > 0.98
    assert numbers["outside"] == numbers["nonfinite"] == 0 and 0.05 < numbers["opacity"] < 0.5


# Edits


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_gives_its_frames(name) -> None:
    generator = tiny_generator()
    latent = generator.latents(2, SampleDraws(0, [0, 1]))
    scenes, camera = EDITS[name](generator, latent, 7, SampleDraws(0, [0, 1]))
    assert {len(x) for x in (*scenes, *camera)} == {14}
    assert scenes.shape_code.shape[1] == scenes.place.shape[1] == scenes.present.shape[1] - 1
    with torch.no_grad():
        image = generator.render(scenes, camera, resolution=40).image.unflatten(0, (2, 7))
    assert image.isfinite().all() and image.diff(dim=1).abs().max() > 1e-5
    again, _ = EDITS[name](generator, Latent(*(x[1:] for x in latent)), 7, SampleDraws(0, [1]))
    torch.testing.assert_close(Latent(*(x[7:] for x in scenes)), again)  # scenes do not depend on their neighbours


def test_what_edits_change_and_what_they_leave() -> None:
    generator = tiny_generator()
    draws = SampleDraws(0, [0])
    latent = generator.latents(1, draws)
    added = EDITS["add-cars"](generator, latent, 12, draws)[0].present
    assert added.sum(1).tolist() == [1 + stage for stage in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6)]
    assert EDITS["add-clevr10"](generator, latent, 6, draws)[0].present.sum(1).tolist() == [3, 5, 7, 9, 11, 13]
    swapped = EDITS["swap-shape"](generator, latent, 3, draws)[0]
    assert torch.equal(swapped.shape_code[0], latent.shape_code[0]) and not torch.equal(
        swapped.shape_code[1], latent.shape_code[0]
    )
    assert torch.equal(swapped.appearance_code, latent.appearance_code.expand(3, -1, -1))
    assert torch.equal(swapped.place, latent.place.expand(3, -1, -1))
    wandered = EDITS["interpolate-appearance"](generator, latent, 12, draws)[0].appearance_code
    assert torch.equal(wandered[1], wandered[2]) and torch.equal(
        wandered[11], wandered[0]
    )  # legs meet, the loop closes
    depth = EDITS["depth"](generator, latent, 5, draws)[0].place
    assert (depth[:, -1, 0].diff() > 0).all() and (depth[:, 0].diff(dim=0) == 0).all()


def test_edits_from_the_command_line(tmp_path, capsys) -> None:
    config = {
        "class_path": "zoo.giraffe.Generator",
        "init_args": yaml.safe_load((CONFIGS / "giraffe" / "cars32.yaml").read_text())["model"]["init_args"][
            "generator"
        ]["init_args"],
    }
    save_bundle(tmp_path / "bundle", build(config, nn.Module), config)
    out = ["--out", str(tmp_path / "grid.png"), "--seeds", "0", "--views", "2"]
    assert main(["sample", str(tmp_path / "bundle"), *out, "--edit", "elevation"]) == 0
    assert (tmp_path / "grid.png").is_file()
    assert main(["sample", str(tmp_path / "bundle"), *out, "--edit", "elevatoin"]) == 2
    assert "Did you mean 'elevation'?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs edits, which"):
        find_edit(build(CONFIG["model"]["init_args"]["generator"], nn.Module), "rotate")


def test_an_edit_that_moves_nothing_is_refused() -> None:
    boxes = BoxPrior(1, place_min=(0.0, 0.0, 0.0), place_max=(0.0, 0.0, 0.0))
    with pytest.raises(UserError, match="--edit circle changes nothing"):
        turntable_views(tiny_generator(boxes=boxes), [3], 3, edit="circle")


def test_views_of_an_edit() -> None:
    generator = tiny_generator()
    edited, turned_round = turntable_views(generator, [3], 3, edit="elevation"), turntable_views(generator, [3], 3)
    assert edited.image.shape == turned_round.image.shape and not torch.equal(edited.image, turned_round.image)
