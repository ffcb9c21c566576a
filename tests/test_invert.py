"""Inversion finds what drew an image, latent, styles, camera and weights, for every system; and what it writes."""

import json
import math

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.systems import SYSTEMS
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.draws import SampleDraws
from zoo.export.images import to_pil_image
from zoo.export.inversion import load_inversion, ssim_of
from zoo.generator import evaluating, quantise, render_samples
from zoo.inversion.search import (
    STAGES,
    Search,
    Stage,
    camera_angles,
    camera_at,
    distance,
    initial_candidates,
    invert,
)
from zoo.render import Camera, orbit_camera, orbit_cameras
from zoo.weights.bundle import build, load, load_bundle, save_bundle

# By system: noise on new weights, so that images differ at all; learning rate; by how much the distance must fall.
TINY = {
    "cips3d": (0.02, 0.1, 10),
    "eg3d": (0.0, 0.05, 20),
    "giraffe": (0.3, 0.3, 4),  # two objects of random octaves: images change abruptly with every code
    "graf": (0.0, 0.1, 20),
    "pigan": (0.02, 0.1, 20),
    "stylenerf": (0.0, 0.1, 10),
    "stylesdf": (0.0, 0.01, 10),
    "volumegan": (0.0, 0.1, 20),
}


def tiny(system: str, noise: float) -> nn.Module:
    torch.manual_seed(0)
    generator = build(SYSTEMS[system]()["model"]["init_args"]["generator"], nn.Module).eval()
    with torch.no_grad():
        for weights in generator.parameters():
            weights += noise * torch.randn_like(weights)
    return generator


def steps(latent: int = 0, styles: int = 0, weights: int = 0) -> list[Stage]:
    return [stage._replace(steps=n) for stage, n in zip(STAGES, (latent, styles, weights), strict=True)]


def drawn(generator: nn.Module, indices: list[int], camera: Camera) -> Tensor:
    """Images of these samples from one camera."""
    with evaluating(generator):
        styles = generator.map(generator.latents(len(indices), SampleDraws(0, indices)))
        return generator.render(styles, Camera(*(x.repeat(len(indices), 1, 1) for x in camera))).image


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_finds_what_it_drew_itself(system):
    noise, rate, factor = TINY[system]
    generator = tiny(system, noise)
    camera = generator.cameras(1, SampleDraws(0, [1000]))
    target = drawn(generator, [1000], camera)
    stages = [stage._replace(learning_rate=rate) for stage in steps(60, 60)]
    found = invert(generator, target[0], camera=camera, find_camera=False, samples=16, stages=stages)
    start, latent, styles = (found.losses[name][-1] for name in ("start", "latent", "styles"))
    assert start > factor * styles and styles <= 1.001 * latent
    assert system == "giraffe" or latent > 1.5 * styles  # whose styles are latents
    assert torch.equal(found.camera.pose, camera.pose)
    others = drawn(generator, list(range(100)), camera)
    assert distance(others, target).min() > 2 * distance(found.rendered.image, target)


def degrees_apart(one: Camera, other: Camera) -> float:
    a, b = (torch.nn.functional.normalize(camera.origins[0], dim=0) for camera in (one, other))
    return math.degrees(math.acos(min(1.0, float(a @ b))))


def test_camera_is_found_from_a_start_beside_it():
    generator = load("pigan-cars32")
    true = camera_at(generator, math.radians(40), math.radians(30))
    target = drawn(generator, [3], true)[0]
    beside = camera_at(generator, math.radians(52), math.radians(24))
    assert degrees_apart(true, beside) > 10
    stages = [steps(60)[0]._replace(candidates=2)]
    found = invert(generator, target, camera=beside, samples=48, stages=stages)
    assert degrees_apart(true, found.camera) < 3
    assert degrees_apart(true, found.camera) < 0.3 * degrees_apart(true, beside)
    assert math.degrees(camera_angles(found.camera)[0]) == pytest.approx(40, abs=3)


def test_cameras_move_round_the_origin():
    yaw, pitch = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.2], [0.9]])
    camera = orbit_cameras(yaw, pitch, 3.0, 0.5)
    more = torch.tensor([[0.2], [-0.3]])
    torch.testing.assert_close(orbit_camera(camera, more, 0 * more), orbit_cameras(yaw - more, pitch, 3.0, 0.5))
    torch.testing.assert_close(orbit_camera(camera, 0 * more, more), orbit_cameras(yaw, pitch - more, 3.0, 0.5))


def test_distance_is_zero_for_itself_grows_and_knows_masks():
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    other = image.clone()
    other[..., :8] += 0.5
    mask = torch.ones(1, 1, 16, 16)
    mask[..., :8] = 0
    assert distance(image, image) == 0 and distance(other, image, mask) == 0
    assert distance(other, image, 1 - mask) > distance(other, image) > distance((image + other) / 2, image) > 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A bundle of a tiny pi-GAN."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    torch.manual_seed(0)
    config = CONFIG["model"]["init_args"]["generator"]
    save_bundle(folder, build(config, nn.Module), config, system="PiGAN", license="MIT")
    return str(folder)


def test_weights_are_tuned_in_a_copy_and_others_stay_where_asked(weights):
    generator = load(weights)
    before = {name: x.clone() for name, x in generator.state_dict().items()}
    target = torch.full((3, 8, 8), 0.3)
    stages = [stage._replace(learning_rate=10 * stage.learning_rate) for stage in steps(2, 2, 30)]
    same = {"samples": 8, "stages": stages}
    free, again, local = (invert(generator, target, **same, locality=x) for x in (0.0, 0.0, 3.0))
    assert all(torch.equal(x, before[name]) for name, x in generator.state_dict().items())
    assert free.losses["styles"][-1] > 1.2 * free.losses["weights"][-1]
    assert torch.equal(free.rendered.image, again.rendered.image) and free.losses == again.losses
    old, gone, kept = (render_samples(g, range(8, 16), draws="none").image for g in (generator, free[0], local[0]))
    assert 0 < 2 * (kept - old).abs().mean() < (gone - old).abs().mean()


def command(weights, tmp_path, *words: str) -> list[str]:
    path = tmp_path / "image.jpg"
    Image.new("RGB", (30, 24), (200, 90, 40)).save(path)
    few = ["--samples", "4", "--latent_steps", "2", "--style_steps", "2", "--weight_steps", "2"]
    return ["invert", str(path), weights, "--out", str(tmp_path / "out"), *few, *words]


@pytest.mark.parametrize("tuned", [True, False])
def test_what_was_written_draws_the_same_image(weights, tmp_path, tuned, capsys):
    assert main(command(weights, tmp_path, *(() if tuned else ("--weight_steps", "0")))) == 0
    assert "dB" in capsys.readouterr().out
    out = tmp_path / "out"
    generator, styles, camera, resolution = load_inversion(out)
    with torch.no_grad():
        image = generator.render(styles, camera, resolution=resolution).image
    to_pil_image(quantise(image[0])).save(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (out / "reconstruction.png").read_bytes()
    about = json.loads((out / "found.json").read_text())
    stages = {"start": 1, "latent": 3, "styles": 3, "weights": 3}
    assert {name: len(x) for name, x in about["losses"].items()} == {n: stages[n] for n in list(stages)[: 3 + tuned]}
    target = torch.tensor([200, 90, 40]).view(1, 3, 1, 1) / 127.5 - 1
    assert about["ssim"] == pytest.approx(ssim_of(image, target.expand_as(image)), abs=1e-3)
    assert float(distance(image, target.expand_as(image))) == pytest.approx(
        [*about["losses"].values()][-1][-1], rel=0.1
    )
    assert Image.open(out / "comparison.png").size == (4 * 66 - 2, 5 * 66 - 2)
    assert (out / "bundle").exists() == tuned
    if tuned:
        assert main(["sample", str(out / "bundle"), "--out", str(tmp_path / "grid.png"), "--seeds", "0"]) == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_reloads_exactly(system, tmp_path):
    from zoo.export.inversion import save_inversion
    from zoo.weights.bundle import load_bundle

    config = SYSTEMS[system]()["model"]["init_args"]["generator"]
    save_bundle(tmp_path / "b", tiny(system, 0.0), config)
    generator, info = load_bundle(tmp_path / "b")
    target = torch.zeros(3, generator.resolution, generator.resolution)
    inverted = invert(generator, target, samples=4, stages=steps(1, 1, 1))
    save_inversion(tmp_path / "out", inverted, target, str(tmp_path / "b"), info, tuned=True)
    generator, styles, camera, resolution = load_inversion(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(generator.render(styles, camera, resolution=resolution).image, inverted.rendered.image)


def test_camera_that_was_asked_for_is_kept(weights, tmp_path):
    assert main(command(weights, tmp_path, "--yaw", "30", "--elevation", "-10", "--keep_camera")) == 0
    camera = json.loads((tmp_path / "out" / "found.json").read_text())["camera"]
    assert camera == pytest.approx({"yaw_deg": 30, "elevation_deg": -10}, abs=1e-2)


def test_mistakes_end_in_one_sentence(weights, tmp_path, capsys):
    words = command(weights, tmp_path)
    (tmp_path / "image.jpg").write_bytes(b"no image")
    for change, message in [
        ([], "image.jpg' is no usable image: it is in no format that is read here"),
        (["--latent_steps", "-1"], "latent_steps is -1: give a number from 0 to 100000."),
        (["--mask", str(tmp_path / "mask.png")], "There is no file"),
        (["--samples", "2"], "take at least so many, not 2"),
        (["--mask", str(tmp_path / "square.png")], "is of another shape than the image, 24x24 instead of 30x24"),
    ]:
        if change:
            Image.new("L", (24, 24)).save(tmp_path / "square.png")
            Image.new("RGB", (30, 24)).save(tmp_path / "image.jpg")
        assert main([*words, *change]) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    with pytest.raises(ValueError, match="no result of 'zoo invert'"):
        load_inversion(tmp_path)


@pytest.mark.filterwarnings("error:std")
def test_a_system_without_a_background_has_no_spread_of_one():
    generator, _ = load_bundle("stylenerf-cars32")
    search = Search(generator, torch.zeros(1, 3, 32, 32), None, True)
    initial_candidates(search, None, 2, 1, 0)
    assert search.stds["background"].shape == (0,) and (search.stds["w"] > 0).any()
