"""The camera error: what reads cameras off procedural cars, and generators whose cameras are right or wrong."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from callbacks.scores import Scores
from datamodules import Cars, ImageFolder
from datamodules.car_renderer import POSES, car_attributes, car_camera, render_cars
from tests.analytic import Sphere
from zoo.cli.command import main
from zoo.evaluate import extractors
from zoo.evaluate.cars_network import rotations_from
from zoo.evaluate.extractors import Extractor, cars_camera, cars_network
from zoo.evaluate.metrics.camera_error import camera_errors, camera_metric, rotation_angles, vertical_turn
from zoo.evaluate.presets import PRESETS
from zoo.evaluate.protocol import score
from zoo.evaluate.train_cars_camera import CarsCamera, directions_of, report, train
from zoo.evaluate.train_cars_features import labelled_images
from zoo.leaderboard import read
from zoo.render.cameras import orbit_camera, rotations
from zoo.utils.errors import UserError

VIEWS, OBJECTS = 12, 4
NAMES = ("camera_error_deg", "camera_error_aligned_deg", "camera_floor_deg")
SPEC = {"class_path": "zoo.evaluate.metrics.camera_error.camera_metric", "init_args": {"views": VIEWS}}


class TrueCars(Sphere):
    """The procedural cars of the test split themselves, seen from ``yaw`` and ``elevation`` [rad] beside the camera."""

    def __init__(self, yaw: float = 0.0, elevation: float = 0.0, mirrored: bool = False) -> None:
        super().__init__(32)
        self.poses, self.off, self.is_mirrored = POSES, (yaw, elevation), mirrored

    def render(self, styles, camera, *, resolution=None, draws=None):
        yaw, elevation = (torch.full((len(camera.pose), 1), angle) for angle in self.off)
        index = 200 + int(1e4 * styles.z[0, 0].abs()) % 4000  # none of the real images below
        seen = render_cars([car_attributes(0, "test", index)] * len(yaw), orbit_camera(camera, yaw, elevation), 32)
        shown = super().render(styles, camera)
        image = seen.image.flip(-1) if self.is_mirrored else seen.image
        return shown._replace(image=image * 2 - 1)


@pytest.fixture(scope="module")
def cars(tmp_path_factory) -> Cars:
    return Cars(32, test_count=100, root=str(tmp_path_factory.mktemp("cars")))


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("metrics") / "camera.yaml"
    path.write_text(json.dumps([SPEC]))
    return str(path)


def numbers(generator: Sphere, real: Cars, metrics: str) -> tuple[float, ...]:
    found = score(generator, real, None, metrics, n_objects=OBJECTS).values
    assert list(found) == [f"{name}-{OBJECTS}objects-{VIEWS}views" for name in NAMES]
    return tuple(found.values())


# Rotations


def test_angles_between_cameras_are_geodesic_and_exact_when_small() -> None:
    for angle in (1e-5, 0.3, 3.0):
        turned = rotations(torch.tensor([[0.6, 0.0, 0.8]]) * angle)
        assert rotation_angles(turned, torch.eye(3)[None]).item() == pytest.approx(angle, rel=1e-2)


def test_rotations_of_what_is_learnt_are_those_of_the_cameras(cars) -> None:
    _, attributes, _ = labelled_images(cars.test_cars.root, "test", 50, 32)
    camera = torch.cat([car_camera(0, "test", i).pose for i in range(50)])
    assert directions_of(attributes).norm(dim=1) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(rotations_from(directions_of(attributes)), camera[:, :3, :3], atol=2e-6)
    exact = camera[:, :3, 3].double()
    assert torch.allclose(rotations_from(3 * exact), camera[:, :3, :3].double(), atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0, -3.0])
def test_the_best_turn_about_the_vertical_is_found(angle) -> None:
    camera = POSES.turntable(7).to(torch.float64)
    turn = rotations(torch.tensor([[0.0, angle, 0.0]], dtype=torch.float64))
    turned = turn @ camera.pose[:, :3, :3]
    assert torch.allclose(vertical_turn(turned, camera.pose[:, :3, :3]), turn[0], atol=1e-6)
    plain, aligned = camera_errors(turned, camera)
    assert plain == pytest.approx(math.degrees(abs(angle)), abs=1e-3) and aligned < 1e-3
    tilted = turned @ rotations(torch.tensor([[0.2, 0.0, 0.0]], dtype=torch.float64))
    assert camera_errors(tilted, camera)[1] == pytest.approx(math.degrees(0.2), abs=1e-3)


def test_a_regressor_of_ones_own_and_its_floor(cars) -> None:
    class Told(torch.nn.Module):
        """Answers with the cameras of the turntable, and after them with one that is ten degrees off the real one."""

        def forward(self, images):
            return self.answers.pop(0)

    told, real = Told(), cars.val_dataloader().dataset[0]["camera"].pose[None, :3, :3]
    told.answers = [POSES.turntable(2).pose[:, :3, :3], real @ rotations(torch.tensor([[0.0, 0.0, math.pi / 18]]))]
    metric = camera_metric(Extractor("told", "none", "0", told), views=2)
    single = Cars(32, test_count=1, root=str(cars.test_cars.root))
    told.answers[1] = told.answers[1].expand(2, 3, 3)
    error, aligned, floor = score(TrueCars(), single, None, [metric], n_objects=1).values.values()
    assert (error, aligned) == pytest.approx((0, 0), abs=1e-3) and floor == pytest.approx(10, abs=1e-3)


# Generators


def test_true_cars_are_as_good_as_the_floor(cars, listed) -> None:
    error, aligned, floor = numbers(TrueCars(), cars, listed)
    assert 1 < floor < 7 and abs(error - floor) < 2.5 and aligned <= error + 0.1


def test_cameras_that_are_off_are_seen(cars, listed) -> None:
    angle = math.radians(20)
    error, aligned, floor = numbers(TrueCars(yaw=angle), cars, listed)
    assert error == pytest.approx(20, abs=4) and aligned < floor + 2.5
    error, aligned, floor = numbers(TrueCars(elevation=angle), cars, listed)
    assert error == pytest.approx(20, abs=4) and aligned == pytest.approx(20, abs=4)


def test_mirrored_cars_are_seen(cars, listed) -> None:
    error, aligned, floor = numbers(TrueCars(mirrored=True), cars, listed)
    assert min(error, aligned) > 8 * floor


def test_a_row_says_what_it_was_compared_with(cars, listed) -> None:
    rows = score(TrueCars(), cars, None, listed, n_objects=2).rows()
    assert [row["record"] for row in rows] == [{"metric": SPEC, "number": name} for name in NAMES]
    for row in rows:
        assert row["extractor_sha256"] == extractors.CAMERA_SHA256 and row["dataset_digest"] == cars.digest()
        assert row["n_real"] == 2 * VIEWS and row["n_fake"] == 2 and row["better"] == "less"
        assert row["standard_error"] > 0
    again = score(TrueCars(), cars, None, listed, n_objects=1).rows()
    assert again[2]["value"] != rows[2]["value"]  # real images of the second object are others


# Which data


def test_presets_hold_it_for_procedural_cars_alone(tmp_path) -> None:
    photos = ImageFolder(str(tmp_path / "holiday"), resolution=32)
    for name in ("3d", "all"):
        more = PRESETS[name].specs(1000, Cars(64))
        assert more[-1]["class_path"] == SPEC["class_path"]
        assert PRESETS[name].specs(1000, photos) == PRESETS[name].specs(1000, None) == more[:-1]
        assert PRESETS[name].specs(1000, Cars(16)) == more[:-1]
    assert PRESETS["image"].specs(1000, Cars()) == PRESETS["image"].specs(1000, photos)


def test_other_images_are_refused_in_one_sentence(tmp_path, listed) -> None:
    photos = ImageFolder(str(tmp_path / "holiday"), resolution=48)
    with pytest.raises(UserError, match=r"camera_error reads cameras.*not off 'holiday' of 48x48: leave it") as error:
        score(Sphere(), photos, None, listed)
    assert str(error.value).count(". ") == 0
    with pytest.raises(UserError, match="not off 'cars' of 16x16"):
        score(Sphere(), Cars(16), None, listed)
    with pytest.raises(UserError, match="camera_error compares images with real ones: name some"):
        score(Sphere(), None, None, listed)
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match="reads cameras off procedural cars"):
        callback = Scores(metrics=listed, extractor="efficientnetlite0", at_start=False)
        callback.on_train_start(SimpleNamespace(datamodule=photos), SimpleNamespace(iterations=1))
    assert main(["evaluate", "pigan-cars32", "--real", str(tmp_path / "holiday"), "--metrics", listed]) == 2


def test_it_is_evaluated_listed_and_measured_again(cars, listed, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"test_count": 100, "root": str(cars.test_cars.root)}
    (tmp_path / "cars.yaml").write_text(json.dumps({"class_path": "datamodules.Cars", "init_args": few}))
    words = ["evaluate", "giraffe-cars32", "--real", "cars.yaml", "--metrics", listed, "--objects", "2"]
    assert main([*words, "--results", "mine.csv"]) == 0
    rows = read("mine.csv")
    assert [row["metric"] for row in rows] == [f"{name}-2objects-{VIEWS}views" for name in NAMES]
    assert {json.loads(row["record"])["extractor"] for row in rows} == {None}
    assert 0 < rows[1]["value"] < 30
    capsys.readouterr()
    assert main(["leaderboard", "--results", "mine.csv", "--metric", "camera"]) == 0
    shown = capsys.readouterr().out
    assert f"camera_error_deg-2objects-{VIEWS}views, less is better (24 real images" in shown
    assert f"camera_floor_deg-2objects-{VIEWS}views" in shown
    from zoo.leaderboard.table import row_id

    assert main(["evaluate", "--row", row_id(rows[0]), "--results", "mine.csv"]) == 0
    assert "camera_error_deg" in capsys.readouterr().out


# The weights


def test_the_weights_are_those_of_the_repository_and_no_mirror_changes_them(cars, tmp_path, monkeypatch) -> None:
    regressor = cars_camera()
    images = torch.stack([cars.test_cars.item(i, 32)["image"] for i in range(6)])
    flip = torch.tensor([-1.0, 1.0, 1.0])
    found, other = regressor(images), regressor(images.flip(-1))
    assert torch.allclose(flip[:, None] * other * flip, found, atol=1e-5)
    assert torch.allclose(found @ found.mT, torch.eye(3).expand(6, 3, 3), atol=1e-5)
    assert extractors.CAMERA_WEIGHTS.stat().st_size < 2e5
    (tmp_path / "changed.safetensors").write_bytes(extractors.CAMERA_WEIGHTS.read_bytes() + b" ")
    monkeypatch.setattr(extractors, "CAMERA_WEIGHTS", tmp_path / "changed.safetensors")
    with pytest.raises(UserError, match="restore the file"):
        cars_camera()


def test_the_script_trains_a_head_that_reads_cameras(cars, capsys) -> None:
    torch.manual_seed(0)
    camera, known = CarsCamera(cars_network()), labelled_images(cars.test_cars.root, "test", 100, 32)
    before = {name: tensor.clone() for name, tensor in camera.network.state_dict().items()}
    train(camera, [known], 30, batch=50)
    report(camera, known)
    assert float(capsys.readouterr().out.split("mean ")[-1].split()[0]) < 20
    assert all(torch.equal(before[name], tensor) for name, tensor in camera.network.state_dict().items())
