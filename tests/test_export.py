"""Grids, depth colours, videos."""

import math

import pytest
import torch
from imageio_ffmpeg import read_frames
from PIL import Image
from torch import nn

from tests.systems import SYSTEMS
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.cli.options import SampleOptions
from zoo.cli.sample import side_by_side
from zoo.draws import MixedDraws, SampleDraws
from zoo.export import orbit
from zoo.export.camera_paths import PATHS, frames_along_path
from zoo.export.cameras import GAP, HEAD, Block, sheet
from zoo.export.images import DEPTH_COLOURS, depth_to_bytes, grid, with_depth_rows
from zoo.export.orbit import orbit_frames, save_orbit
from zoo.export.views import Views, interpolated_views, loop_weights, turntable_views
from zoo.generator import quantise
from zoo.render import GaussianPoses, UniformPoses
from zoo.weights.bundle import build


def test_depth_colours_share_a_scale_over_the_views_of_a_latent_only():
    depth = torch.tensor([[[1.0, 2.0], [3.0, torch.nan]], [[10.0, 20.0], [30.0, 30.0]]]).view(2, 2, 1, 1, 2)
    colours = depth_to_bytes(depth)
    pixel = lambda i, v, x: tuple(colours[i, v, :, 0, x].tolist())  # noqa: E731
    assert pixel(0, 0, 0) == DEPTH_COLOURS[0] == pixel(1, 0, 0)
    assert pixel(0, 1, 0) == DEPTH_COLOURS[-1] == pixel(1, 1, 1)
    assert pixel(0, 1, 1) == (255, 255, 255)
    assert pixel(0, 0, 1) not in (pixel(0, 0, 0), pixel(0, 1, 0))


def test_a_latent_without_anything_is_white():
    assert (depth_to_bytes(torch.full((1, 2, 1, 3, 3), torch.nan)) == 255).all()


def test_rows_are_images_and_below_them_depths():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 3, 3, 4, 4)
    rows = with_depth_rows(images, torch.full((2, 3, 1, 2, 2), torch.nan))
    assert rows.shape == (4, 3, 3, 4, 4)
    assert rows[:, 0, 0, 0, 0].tolist() == [0, 255, 255, 255]
    image = grid(rows, gap=1, min_width=8)
    assert image.size == (3 * 9 - 1, 4 * 9 - 1)
    assert image.getpixel((0, 0)) == (0, 0, 0) and image.getpixel((8, 0)) == (255, 255, 255)
    assert image.getpixel((9, 7)) == (0, 0, 0) and image.getpixel((9, 9)) == (255, 255, 255)


def shades(side: int = 64) -> Views:
    """Two objects from five sides, ever brighter."""
    images = torch.linspace(0, 255, 5).byte().view(1, 5, 1, 1, 1).expand(2, 5, 3, side, side)
    return Views(images, torch.ones(2, 5, 1, 32, 32))


def test_orbit_has_a_frame_a_view(tmp_path):
    for name in ("o.gif", "o.webp"):
        save_orbit(tmp_path / name, orbit_frames(shades()), rate=5.0)
        video = Image.open(tmp_path / name)
        assert video.n_frames == 5 and video.size == (130, 130) and video.info["loop"] == 0
        video.seek(4)
        assert video.convert("RGB").getpixel((10, 10)) == (255, 255, 255)
        video.seek(0)
        assert max(video.convert("RGB").getpixel((10, 10))) < 8 and video.info["duration"] == 200
    with pytest.raises(ValueError, match=r"not as 'o\.avi'"):
        save_orbit(tmp_path / "o.avi", orbit_frames(shades()))


def test_orbits_of_small_images_are_enlarged(tmp_path):
    assert main(["orbit", "pigan-cars32", "--seeds", "0", "--frames", "1", "--out", str(tmp_path / "o.gif")]) == 0
    assert Image.open(tmp_path / "o.gif").size == (258, 128)


def test_a_rate_that_a_format_does_not_have_is_said(tmp_path, caplog):
    for name, rate, milliseconds in (
        ("a.gif", 80.0, 20),
        ("a.webp", 80.0, 20),
        ("b.gif", 50.0, 20),
        ("c.gif", 10.0, 100),
    ):
        save_orbit(tmp_path / name, orbit_frames(shades()), rate)
        video = Image.open(tmp_path / name)
        video.seek(0)
        video.load()
        assert video.info["duration"] == milliseconds
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "shows 50 frames in a second, not 80: no .gif is faster." in said[0]
    with pytest.raises(ValueError, match="not 1e-12: change --frames or --seconds"):
        save_orbit(tmp_path / "d.gif", orbit_frames(shades()), rate=1e-12)
    assert not (tmp_path / "d.gif").exists()


def test_mp4_has_a_frame_a_view(tmp_path):
    save_orbit(tmp_path / "o.mp4", orbit_frames(shades(side=65)), rate=5.0)
    reader = read_frames(tmp_path / "o.mp4")
    facts = next(reader)
    assert facts["size"] == (132, 132) and facts["fps"] == 5  # 65 + 2 + 65 pixels
    frames = [torch.frombuffer(bytearray(frame), dtype=torch.uint8).view(132, 132, 3) for frame in reader]
    assert len(frames) == 5 and frames[0][10, 10].max() < 8 and frames[4][10, 10].min() > 247
    save_orbit(tmp_path / "odd.mp4", orbit_frames(Views(*(x[:1] for x in shades(side=65))), depth=False), rate=5.0)
    assert next(read_frames(tmp_path / "odd.mp4"))["size"] == (66, 66)


def test_mp4_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(orbit, "find_spec", lambda name: None)
    assert orbit.check_target("a.gif").suffix == ".gif"
    with pytest.raises(ValueError, match=r"pip install 'gan3d-zoo\[video\]'"):
        orbit.check_target("a.mp4")


def tiny() -> nn.Module:
    return build(CONFIG["model"]["init_args"]["generator"], nn.Module)


def test_the_turntable_as_a_path_is_the_turntable():
    for poses in (UniformPoses(yaw_spread=math.pi), UniformPoses(yaw_spread=0.3)):
        generator = tiny()
        generator.poses = poses
        latent = generator.latents(1, SampleDraws(0, [0]))
        for ours, theirs in zip(
            frames_along_path(generator, latent, "turntable", 5)[1], generator.turntable(latent, 5)[1], strict=True
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_stays_within_the_poses_and_looks_at_the_origin(name):
    generator = tiny()
    generator.poses = GaussianPoses(yaw_spread=0.3, pitch_spread=0.15, pitch_mean=1.4)
    latent = generator.latents(1, SampleDraws(0, [0]))
    _, camera = frames_along_path(generator, latent, name, 16)
    x, y, z = camera.origins.unbind(-1)
    yaw, up = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
    assert yaw.abs().max() < 0.61 and ((up > math.pi / 2 - 1.4 - 0.35) & (up < math.pi / 2 - 1.4 + 0.35)).all()
    torch.testing.assert_close(camera.origins.norm(dim=-1), torch.ones(16))
    torch.testing.assert_close(camera.pose[:, :3, 2], camera.origins, atol=1e-5, rtol=0)
    torch.testing.assert_close(camera.pose[:, 1, 0], torch.zeros(16), atol=1e-6, rtol=0)  # no roll
    torch.testing.assert_close(torch.linalg.det(camera.pose), torch.ones(16))
    moves = {"turntable": (1, 0, 0), "wobble": (1, 1, 0), "rise": (0, 1, 0), "spiral": (1, 1, 0), "zoom": (0, 0, 1)}
    focal = camera.intrinsics[:, 0, 0]
    moved = (yaw.std() > 0.1, up.std() > 0.05, focal.max() / focal.min() > 1.9)
    assert tuple(map(int, moved)) == moves.get(name, (0, 0, 0))
    if name == "rise":
        assert up[0] == up.min() and up[8] == up.max()


def test_mixtures_of_draws_are_draws():
    torch.manual_seed(0)
    draws = MixedDraws(SampleDraws(0, range(3)), torch.rand(2, 3))
    for numbers, mean, spread in (
        (draws.normal("a", (2, 40000)), 0, 1),
        (draws.uniform("b", (2, 40000)), 0.5, 12**-0.5),
    ):
        assert numbers.shape == (2, 40000) and numbers.dtype == torch.float32
        torch.testing.assert_close(numbers.mean(1), torch.full((2,), float(mean)), atol=0.02, rtol=0)
        torch.testing.assert_close(numbers.std(1), torch.full((2,), float(spread)), atol=0.02, rtol=0)
    assert draws.uniform("b", (2, 40000)).min() >= 0 and draws.uniform("b", (2, 40000)).max() < 1
    alone = MixedDraws(SampleDraws(0, range(3)), torch.eye(3))
    for ask in ("normal", "uniform"):
        torch.testing.assert_close(
            getattr(alone, ask)("z", (3, 5)), getattr(SampleDraws(0, range(3)), ask)("z", (3, 5))
        )


@pytest.mark.parametrize("keyframes", [2, 3, 5])
def test_a_loop_is_smooth_and_passes_its_keyframes(keyframes):
    weights = loop_weights(keyframes, 100 * keyframes)
    torch.testing.assert_close(weights[::100], torch.eye(keyframes), atol=1e-6, rtol=0)
    torch.testing.assert_close(weights.sum(1), torch.ones(100 * keyframes))
    steps = torch.cat([weights, weights[:2]]).diff(dim=0)
    assert steps.diff(dim=0).abs().max() < 0.1 * steps.abs().max()  # no sudden turn, not at the end either


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_filmed(system):
    generator = build(SYSTEMS[system]()["model"]["init_args"]["generator"], nn.Module)
    loop = interpolated_views(generator, [0, 3], 4, path="wobble")
    assert loop.image.shape[:3] == (1, 4, 3) and loop.depth.shape[:3] == (1, 4, 1)
    mixed = generator.latents(4, MixedDraws(SampleDraws(0, [0, 3]), loop_weights(2, 4)))
    assert (mixed[0][0] - mixed[0][2]).abs().max() > 0.1
    first = turntable_views(generator, [0], 4, path="wobble")
    assert (first.image[0, 0].int() - loop.image[0, 0].int()).abs().max() <= 1  # it begins with the first sample
    latent = generator.latents(1, SampleDraws(0, [0]))
    _, camera = frames_along_path(generator, latent, "rise", 2)
    assert camera.origins[1, 1] > camera.origins[0, 1]
    frames = [*orbit_frames(loop)]
    assert len(frames) == 4 and frames[0].width > frames[0].height


def test_views_do_not_depend_on_their_neighbours_and_leave_the_generator_and_the_random_state_alone():
    generator = build(CONFIG["model"]["init_args"]["generator"], nn.Module).train()
    generator.field.eval()
    state = torch.random.get_rng_state()
    both = turntable_views(generator, [2, 5], 3)
    alone = turntable_views(generator, [5], 3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert generator.training and generator.mapping.training and not generator.field.training
    assert (both.image[1:].int() - alone.image.int()).abs().max() <= 1
    assert (both.image[0].int() - both.image[1].int()).abs().max() > 1
    assert (both.image[0, 0].int() - both.image[0, 2].int()).abs().max() > 1


def test_several_weights_are_drawn_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sample", "--seeds", "0,2", "--views", "3", "--out"]
    assert main([*words, "both.png", "--source", "pigan-cars32, graf-cars64"]) == 0
    assert capsys.readouterr().err == "Running on cpu.\n"
    assert main([*words, "one.png", "--source", "graf-cars64", "--depth", "false"]) == 0
    both, one = Image.open("both.png"), Image.open("one.png")
    block = 4 * (64 + GAP) - GAP  # two samples and their depths
    assert both.size == (2 * block + 4 * GAP, HEAD + 3 * (64 + GAP))
    for view, sample in ((0, 0), (2, 1)):
        left, top = block + 4 * GAP + 2 * sample * (64 + GAP), HEAD + view * (64 + GAP)
        cell = one.crop((view * 66, sample * 66, view * 66 + 64, sample * 66 + 64))
        assert both.crop((left, top, left + 64, top + 64)).tobytes() == cell.tobytes()
    assert main(["sample", "pigan-cars32,graf-cars64", "--images", "x"]) == 2
    assert "Single images are of one set of weights" in capsys.readouterr().err
    assert main([*words, "x.png", "--source", "pigan-cars32,graf-cars46"]) == 2
    said = capsys.readouterr().err
    assert "no weights named 'graf-cars46'" in said and "Running" not in said  # before anything is drawn
    assert main(["sample", ",", "--out", "x.png"]) == 2 and "no weights named ','" in capsys.readouterr().err


def test_weights_of_one_system_are_told_apart_side_by_side(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "zoo.export.cameras.sheet", lambda blocks, columns: drawn.extend(blocks) or Image.new("L", (1, 1))
    )
    both = [SampleOptions(name) for name in ("pigan-cars32", "graf-cars64", "pigan-25min-seed0")]
    side_by_side(both, [0], views=1, depth=False, edit=None, exact=True)
    assert [block.title for block in drawn] == ["pigan-cars32", "GRAF", "pigan-25min-seed0"]


def test_a_title_that_is_wider_than_its_cells_is_whole():
    narrow, wide = (sheet([Block("a title of some words", [Image.new("RGB", (side, 8))])]) for side in (8, 200))
    title, rest = wide.crop((0, 0, narrow.width, HEAD)), wide.crop((narrow.width, 0, 200, HEAD))
    assert narrow.crop((0, 0, narrow.width, HEAD)).tobytes() == title.tobytes()
    assert title.getextrema()[0][0] < 100 and rest.getextrema() == ((255, 255),) * 3


def test_depth_in_grids_is_that_of_the_objects_alone():
    generator = build(SYSTEMS["giraffe"]()["model"]["init_args"]["generator"], nn.Module)
    views = turntable_views(generator, [0], 2)
    with torch.no_grad():
        latent, _ = generator.sample(1, SampleDraws(0, [0]))
        styles, camera = generator.turntable(generator.map(latent), 2)
        assert torch.equal(views.image[0], quantise(generator.render(styles, camera).image))
        alone = generator.render(generator.foreground_only(styles), camera).depth
    assert torch.allclose(views.depth[0], alone, equal_nan=True)
