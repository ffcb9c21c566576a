"""FID and KID against closed forms and torch-fidelity; the protocol, the cache, and the callbacks that only watch."""

import functools
import json
import math
import subprocess

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.checkpoint import RegularCheckpoint
from callbacks.diagnostics import Diagnostics
from callbacks.scores import Scores
from tests.analytic import Box, Sphere
from tests.systems import SYSTEMS
from zoo.cli.evaluate import add_rows
from zoo.draws import SampleDraws
from zoo.evaluate import extractors as features_module
from zoo.evaluate import measuring, protocol, real_statistics
from zoo.evaluate.extractors import Extractor, load_extractor
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.jackknife import standard_errors
from zoo.evaluate.metrics.density import density_metric
from zoo.evaluate.metrics.fid import fid, fid_metric, moments
from zoo.evaluate.metrics.kid import kid, kid_metric, squared_mmd
from zoo.evaluate.metrics.objects import ObjectMetric
from zoo.evaluate.metrics.precision_recall import precision_recall_metric
from zoo.evaluate.metrics.reprojection import reprojection_metric
from zoo.evaluate.metrics.surface import surface_metric
from zoo.evaluate.presets import PRESETS
from zoo.evaluate.protocol import score
from zoo.evaluate.samples import cameras_from, fakes
from zoo.generator import Generator, quantise, render_samples
from zoo.training.gan import GAN
from zoo.weights.bundle import build
from zoo.weights.fetch import sha256_of

pytestmark = pytest.mark.xdist_group("processes")


class Colours(nn.Module):
    """An extractor without weights: mean colour of each quarter of an image."""

    calls = 0

    def forward(self, images):
        Colours.calls += len(images)
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def colours(sha256: str = "0") -> Extractor:
    return Extractor("colours", "none", sha256, Colours())


class Data(pl.LightningDataModule):
    """Real images: spheres of random colours, or whatever is given."""

    name = "spheres"

    def __init__(self, images=None, count: int = 40) -> None:
        super().__init__()
        self.images = render_samples(Sphere(), range(count), seed=9).image.clamp(-1, 1) if images is None else images

    def digest(self):
        return str(self.images.double().sum().item())

    def val_dataloader(self):
        return DataLoader([{"image": image, "index": i} for i, image in enumerate(self.images)], batch_size=8)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.images), batch_size=8, shuffle=True)  # draws from the global stream


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---------------------------------------------------------------------------------------------------- the distances


def gaussian_features(n: int, mean: torch.Tensor, covariance_root: torch.Tensor) -> torch.Tensor:
    """Features whose sample mean and covariance are exactly these."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.mT @ x / (n - 1))).mT
    return white @ covariance_root.mT + mean


def test_fid_of_diagonal_gaussians():
    a, b = torch.rand(8).double() + 0.5, torch.rand(8).double() + 0.5
    shift = torch.randn(8).double()
    x = gaussian_features(50, torch.zeros(8).double(), a.diag())
    y = gaussian_features(70, shift, b.diag())
    assert fid(moments(x), moments(y)) == pytest.approx((shift.square().sum() + (a - b).square().sum()).item())


@pytest.mark.parametrize(("n", "m"), [(200, 150), (10, 150), (10, 12)])
def test_fid_and_kid_of_features_are_those_of_torch_fidelity(n, m):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = torch.randn(n, 24) * torch.rand(24) + 1, torch.randn(m, 24) @ torch.rand(24, 24) / 5
    theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    assert fid(moments(x), moments(y)) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    theirs = kid_features_to_metric(x, y, kid_subsets=5, kid_subset_size=8, verbose=False)
    ours = kid(x, y, subsets=5, subset_size=8)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)


def test_kid_of_all_pairs(monkeypatch):
    monkeypatch.setattr("zoo.evaluate.metrics.kid.CHUNK", 3)
    x, y = torch.randn(7, 5).double(), torch.randn(10, 5).double() + 0.5

    def mean_kernel(a, b, same):
        pairs = [(u, v) for i, u in enumerate(a) for j, v in enumerate(b) if not (same and i == j)]
        return sum((u @ v / 5 + 1) ** 3 for u, v in pairs) / len(pairs)

    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert squared_mmd(x, y) == pytest.approx(expected.item())


def test_too_few_images_are_said_so():
    with pytest.raises(ValueError, match="at least 2"):
        moments(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="there are 5 generated and 30 real ones"):
        kid(torch.zeros(5, 4), torch.zeros(30, 4), subset_size=10)
    with pytest.raises(ValueError, match="at least 2"):
        score(Sphere(), Data(), colours(), n_fake=1)
    with pytest.raises(ValueError, match="take at least 2 real images, not 0"):
        score(Sphere(), Data(), colours(), n_fake=8, n_real=0)
    with pytest.raises(ValueError, match="take at least 2 images to score, not 0"):
        score(Sphere(), Data(), colours(), n_fake=0)
    with pytest.raises(ValueError, match=r"41 images of .* are requested, but it holds 40: take fewer"):
        score(Sphere(), Data(), colours(), n_fake=8, n_real=41)


@pytest.mark.slow
def test_fid_and_kid_of_folders_are_those_of_torch_fidelity(tmp_path):
    """The whole way, from files through a randomly initialised Inception of the published layout."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            for module in self.modules():
                if isinstance(module, nn.Conv2d):  # features of order one, not vanishing
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    weights = tmp_path / "random.pth"
    torch.save({}, weights)
    torch.save(Untrained("x", ["2048"], feature_extractor_weights_path=weights).state_dict(), weights)
    for name, generator, count in (("fake", Sphere(), 10), ("real", Box(half=0.9), 12)):
        (tmp_path / name).mkdir()
        write_images(tmp_path / name, generator, count)

    state = torch.load(weights, weights_only=True)
    own = Extractor("inception-random", "tf1", sha256_of(weights), features_module.inception_network(state))
    scores = score(ImagePathDataset(tmp_path / "fake"), ImagePathDataset(tmp_path / "real"), own)
    assert list(scores.values) == ["fid-inception-random-tf1-10", "kid-inception-random-tf1-10"]
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        feature_extractor_weights_path=str(weights),
        fid=True,
        kid=True,
        kid_subset_size=10,
        batch_size=12,
        cuda=False,
        cache=False,
        verbose=False,
    )
    ours = list(scores.values.values())
    assert min(ours) > 1e-3  # or there would be nothing to compare
    assert ours[0] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours[1] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def write_images(folder, generator, count: int) -> None:
    images = quantise(render_samples(generator, range(count)).image)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:05d}.png")


# --------------------------------------------------------------------------------------------------- the extractors


def test_images_are_rounded_once():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantise(every / 127.5 - 1), every)
    assert quantise(torch.tensor([-1.2, 1.2, 0.0, 0.999])).tolist() == [0, 255, 128, 255]


def test_the_cars_extractor_is_the_one_in_the_repository():
    extractor = load_extractor("cars")
    images = quantise(render_samples(Sphere(), range(5)).image)
    together = extractor(images)
    assert together.shape == (5, 64) and together.std(0).min() >= 0 and together.std() > 0.01
    assert torch.allclose(extractor(images[3:4]), together[3:4], atol=1e-5)
    assert extractor(quantise(render_samples(Sphere(64), range(1)).image)).shape == (1, 64)
    with pytest.raises(ValueError, match="32x32 or 64x64 pixels, not 48x48"):
        extractor(torch.zeros(1, 3, 48, 48, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        extractor(torch.zeros(1, 3, 32, 32))
    assert features_module.CARS_WEIGHTS.stat().st_size < 2e6


def test_cars_weights_that_changed_are_refused(tmp_path, monkeypatch):
    changed = tmp_path / "cars.safetensors"
    changed.write_bytes(features_module.CARS_WEIGHTS.read_bytes() + b" ")
    monkeypatch.setattr(features_module, "CARS_WEIGHTS", changed)
    with pytest.raises(ValueError, match="restore the file"):
        load_extractor("cars")


def test_unknown_extractors_are_refused():
    with pytest.raises(ValueError, match="no extractor 'inception'"):
        load_extractor("inception")


# ----------------------------------------------------------------------------------------------------- the protocol


def test_the_same_score_in_any_batch_size_and_from_the_written_images(tmp_path):
    a = score(Sphere(), Data(), colours(), n_fake=20, batch_size=20)
    b = score(Sphere(), Data(), colours(), n_fake=20, batch_size=3)
    write_images(tmp_path, Sphere(), 20)
    c = score(ImagePathDataset(tmp_path), Data(), colours())
    assert list(a.values) == ["fid-colours-none-20", "kid-colours-none-20"]
    for name, value in a.values.items():
        assert b.values[name] == pytest.approx(value, rel=1e-6)
        assert c.values[name] == pytest.approx(value, rel=1e-6)
    assert score(Sphere(), Data(), colours(), n_fake=20, seed=1).values != a.values
    assert score(Sphere(), Data(), colours(), n_fake=20, draws="none").values != a.values
    assert score(Sphere(), Data(), colours(), n_fake=20, truncation=0.5).values != a.values


def everything() -> list:
    return [fid_metric(), fid_metric(5), kid_metric(), precision_recall_metric(), surface_metric(), density_metric(8)]


def two_processes(rank: int, folder: str, values: dict) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    values[rank] = score(Sphere(), Data(count=21), colours(), everything(), n_fake=13, n_objects=3, batch_size=4).values
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_same_score_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    alone = score(Sphere(), Data(count=21), colours(), everything(), n_fake=13, n_objects=3, batch_size=4).values
    assert len(alone) == 12 and all(math.isfinite(value) for value in alone.values())
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "another"))
    with torch.multiprocessing.get_context("fork").Manager() as manager:
        values = manager.dict()
        torch.multiprocessing.start_processes(two_processes, (str(tmp_path), values), nprocs=2, start_method="fork")
        assert values[0] == values[1] == alone


def test_a_set_and_itself_are_no_distance_apart_and_nothing_below():
    for n in (20, 300):
        features = torch.randn(n, 64) * torch.rand(64) * 10
        assert 0 <= fid(moments(features), moments(features)) < 1e-6


def test_metrics_are_measured_in_one_pass_and_alone_as_together():
    Colours.calls = 0
    together = score(Sphere(), Data(), colours(), everything(), n_fake=12, n_objects=2)
    assert Colours.calls == 12 + 40  # features of each image once
    assert list(together.values) == [
        *("fid-colours-none-12", "fid-colours-none-5", "kid-colours-none-12"),
        *(f"{name}-colours-none-12" for name in ("precision", "recall", "density", "coverage")),
        *(f"{name}-2objects-8views" for name in ("silhouettes", "surface", "flatness", "parallax")),
        "outside-2objects",
    ]
    for metric in everything():
        alone = score(Sphere(), Data(), colours(), [metric], n_fake=12, n_objects=2)
        assert alone.values == pytest.approx({name: together.values[name] for name in alone.values}, rel=1e-6, abs=1e-9)
    few = score(Sphere(), Data(), colours(), n_fake=5).values
    assert few["fid-colours-none-5"] == pytest.approx(together.values["fid-colours-none-5"], rel=1e-6)
    assert "fid-colours-none-12" not in few
    rows = together.rows()
    assert [row["n_fake"] for row in rows] == [12, 5, 12, 12, 12, 12, 12, 2, 2, 2, 2, 2]
    assert {row["cameras"] for row in rows[:7]} == {"prior"} and {row["cameras"] for row in rows[7:]} == {"uniform"}
    assert "extractor_sha256" not in rows[7] and rows[7]["better"] == "more" and rows[7]["standard_error"] is not None
    assert score(Sphere(), metrics=[density_metric(8)], n_objects=1).fields["dataset"] == ""  # without real images


def test_views_of_an_object_are_rendered_once_for_all_metrics_of_as_many(monkeypatch):
    seen = []
    views = measuring.turning_views
    monkeypatch.setattr(
        measuring,
        "turning_views",
        lambda g, index, count, *how: seen.append((index, count)) or views(g, index, count, *how),
    )
    few = ObjectMetric(
        "few", lambda views: {"few": float(len(views.depth))}, {"few": "more"}, frozenset(), {"views": 8}, 2
    )
    scores = score(Sphere(), metrics=[few, surface_metric(), density_metric(8)], n_objects=4)
    assert sorted(seen) == [(index, count) for index in range(4) for count in (8, 32)]
    assert scores.values["few-2objects-8views"] == 8 and "surface-4objects-8views" in scores.values


def test_quality_has_standard_errors_where_there_are_enough_images():
    names = ["fid", "kid", "fid_inf", "precision", "recall", "density", "coverage"]
    scores = score(Sphere(), Data(), colours(), "image", n_fake=70)
    assert list(scores.values) == [f"{name}-colours-none-70" for name in names]
    rows = {row["metric"].split("-")[0]: row for row in scores.rows()}
    assert list(rows) == names and all(row["standard_error"] >= 0 for row in rows.values())
    features = colours()(fakes(Sphere(), torch.arange(70), 0, 1.0, "per-sample"))
    real = moments(colours()(quantise(Data().images)))
    assert rows["fid"]["standard_error"] == pytest.approx(
        standard_errors(features, None, lambda x, _: {"fid": fid(moments(x), real)})["fid"]
    )
    few = score(Sphere(), Data(), colours(), "image", n_fake=4)
    assert [row["metric"] for row in few.rows()] == ["fid-colours-none-4", "kid-colours-none-4"]
    assert len(few.values) == 7 and {row["standard_error"] for row in few.rows()} == {None}
    assert [line["value"] for line in few.lines()][2:] == ["nan"] * 5


def test_metrics_say_what_they_need(tmp_path):
    write_images(tmp_path, Sphere(), 3)
    with pytest.raises(ValueError, match="surface is of objects, which a folder of images does not have"):
        score(ImagePathDataset(tmp_path), Data(), colours(), [surface_metric()])
    with pytest.raises(ValueError, match="fid compares images with real ones"):
        score(Sphere(), None, colours(), [fid_metric()])
    with pytest.raises(ValueError, match="fid of 30 images needs as many; there are 20"):
        score(Sphere(), Data(), colours(), [fid_metric(30)], n_fake=20)
    with pytest.raises(ValueError, match=r"no metrics 'imgae'.*Did you mean 'image'"):
        score(Sphere(), Data(), colours(), "imgae")


def test_papers_take_their_numbers_of_images(tmp_path):
    def counts(name: str, real: int) -> tuple[int, int]:
        data = Data(torch.zeros(1, 3, 2, 2).expand(real, -1, -1, -1))
        return PRESETS[name].generated(Sphere()), PRESETS[name].real(data)

    assert counts("graf_1k", 30_000) == (1000, 20_000) and counts("graf_1k", 7) == (1000, 7)
    assert counts("pigan_8k2k", 30_000) == (2048, 8000) and counts("cips_2k", 30_000) == (2048, 2048)
    assert counts("giraffe_20k", 30_000) == (20_000, 30_000) and counts("nvidia_50k_full", 9) == (50_000, 9)
    assert {PRESETS[name].extractor for name in ("graf_1k", "cips_2k", "nvidia_50k_full")} == {"inception2015"}
    assert [m["class_path"].split(".")[-1] for m in PRESETS["giraffe_20k"].metrics(9)] == ["fid_metric"]
    during_training = Scores(metrics="giraffe_20k")
    assert during_training.extractor == "inception2015" and during_training.protocol["n_fake"] is None
    assert Scores(metrics="giraffe_20k", extractor="dinov2").extractor == "dinov2" and Scores().extractor is None


def test_metrics_may_come_from_a_yaml(tmp_path):
    listed = [f"{fid_metric.__module__}.fid_metric", {"class_path": density_metric.__module__ + ".density_metric"}]
    (tmp_path / "mine.yaml").write_text(json.dumps([listed[0], listed[1] | {"init_args": {"grid": 8}}]))
    scores = score(Sphere(), Data(), colours(), str(tmp_path / "mine.yaml"), n_fake=8, n_objects=1)
    assert list(scores.values) == ["fid-colours-none-8", "outside-1objects"]
    assert scores.rows()[1]["record"] == {"metric": listed[1] | {"init_args": {"grid": 8}}, "number": "outside"}
    for text in ("3", "[]", "{a: 1}", "[[1]]"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(ValueError, match="lists no metrics"):
            score(Sphere(), Data(), colours(), str(tmp_path / "mine.yaml"))


# -------------------------------------------------------------------------------------------- conditions and cameras


class Tinted(Sphere):
    """Its colour is that of the camera it is conditioned on: another one on the right."""

    is_conditioned = True

    def map(self, latents, *, truncation=1.0, condition=None):
        condition = self.cameras(len(latents.z), None) if condition is None else condition
        return super().map(latents)._replace(z=condition.origins.sign())


def test_a_condition_may_be_each_images_own_or_the_same_for_all():
    own, fixed = (score(Tinted(), Data(), colours(), n_fake=16, condition=kind) for kind in ("own", "fixed"))
    assert list(own.values) == ["fid-colours-none-16", "kid-colours-none-16"]
    assert list(fixed.values) == ["fid-colours-none-16-fixed", "kid-colours-none-16-fixed"]
    assert own.values["fid-colours-none-16"] != fixed.values["fid-colours-none-16-fixed"]
    assert [scores.rows()[0]["condition"] for scores in (own, fixed)] == ["own", "fixed"]
    assert fixed.rows()[0]["metric"] == "fid-colours-none-16"  # a column says which
    alike = [score(Sphere(), Data(), colours(), n_fake=16, condition=kind) for kind in ("own", "fixed")]
    assert alike[0].values == alike[1].values and alike[1].fields["condition"] == "none"


@pytest.mark.parametrize("told", [1.0, 0.0])
def test_eg3d_is_conditioned_where_it_is_told_a_camera(told):
    config = SYSTEMS["eg3d"]()["model"]["init_args"]["generator"]
    config["init_args"]["condition_scale"] = told
    eg3d = build(config, Generator)
    assert eg3d.is_conditioned == bool(told)
    images = [render_samples(eg3d, range(3), draws="none", condition=kind).image for kind in ("own", "fixed")]
    assert torch.equal(*images) == (not told)


def test_views_are_of_one_object_or_each_conditioned_on_its_own_camera():
    metrics = [reprojection_metric()]
    one, many = (score(Tinted(), metrics=metrics, n_objects=1, condition=kind) for kind in ("fixed", "own"))
    assert one.values["psnr-1objects-32views-fixed"] > many.values["psnr-1objects-32views"] + 10


def test_cameras_are_the_priors_the_data_sets_or_uniform():
    class Seen(Data):
        """All from one camera."""

        def val_dataloader(self):
            camera = Sphere().cameras(1, None).take(0)
            return DataLoader([{"image": x, "camera": camera} for x in self.images], batch_size=8)

    sphere, draws = Tinted(), SampleDraws(0, range(50))
    latents, camera = sphere.sample(50, draws)
    for name, azimuths in (("dataset", 1), ("uniform", 50)):
        same, seen = cameras_from(name, Seen())(sphere, latents, camera, draws)
        assert torch.equal(same.z, latents.z) and not torch.equal(seen.pose, camera.pose)
        assert len(seen.pose) == 50 and len(seen.pose.unique(dim=0)) == azimuths
    assert seen.origins[:, 1].std() < 1e-5 < camera.origins[:, 1].std()  # on the turntable's way, all around
    assert seen.origins[:, 0].min() < -3 and seen.origins[:, 0].max() > 3
    few = latents._replace(z=latents.z[:9])
    again = cameras_from("uniform", None)(sphere, few, camera, SampleDraws(0, range(9)))[1]
    assert torch.allclose(again.pose, seen.pose[:9])  # whatever else is in the batch

    scores = score(Tinted(), Seen(), colours(), n_fake=16, cameras="uniform")
    assert next(iter(scores.values)) == "fid-colours-none-16-uniform" and scores.rows()[0]["cameras"] == "uniform"
    with pytest.raises(ValueError, match="'spheres' have no cameras"):
        score(Sphere(), Data(), colours(), n_fake=4, cameras="dataset")


def test_real_features_are_kept_until_anything_changes(cache, monkeypatch):
    data = Data()

    def calls(**change) -> int:
        Colours.calls = 0
        settings = {"real": data, "extractor": colours(), "n_real": None, **change}
        score(Sphere(settings.pop("resolution", 32)), n_fake=4, **settings)
        return Colours.calls - 4

    assert calls() == 40
    assert calls() == 0
    assert calls(real=Data(data.images.flip(0) * 0.9)) == 40
    assert calls(extractor=colours("1")) == 40
    assert calls(n_real=30) == 30
    big = Data(nn.functional.interpolate(data.images, scale_factor=2))
    monkeypatch.setattr(big, "digest", data.digest)  # even if a digest forgot the resolution
    assert calls(real=big, resolution=64) == 40
    assert calls() == 0
    monkeypatch.setattr(real_statistics, "QUANTISATION", "floor-1")
    assert calls() == 40
    for file in (cache / "reals").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert calls() == 40  # broken files are made again
    assert not list(cache.rglob(".saving-*"))


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="32 pixels wide and the generated ones 64"):
        score(Sphere(64), Data(), colours(), n_fake=4)


def test_images_that_are_not_finite_are_refused():
    broken = Sphere()
    nn.init.constant_(broken.tint, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        score(broken, Data(), colours(), n_fake=4)


def test_folders_of_several_sizes_are_refused(tmp_path):
    for i, size in enumerate((8, 16)):
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=r"1.png' is 16x16, but '.*0.png' is 8x8"):
        score(ImagePathDataset(tmp_path), ImagePathDataset(tmp_path), colours())
    with pytest.raises(ValueError, match="There is no folder or zip file"):
        score(ImagePathDataset(tmp_path / "none"), Data(), colours())


def test_rows_say_how_to_do_it_again(tmp_path):
    from zoo import leaderboard

    path = tmp_path / "runs" / "results.csv"
    about = {"system": "sphere", "weights": "none", "weights_sha256": "0", "images_seen": 5, "seconds": 1.5}
    scores = score(Sphere(), Data(), extractor=colours(), n_fake=8)
    rows = [row | {"record": json.dumps(row["record"])} for row in scores.rows(**about)]
    assert [json.loads(row["record"])["number"] for row in rows] == ["fid", "kid"]
    add_rows(rows, path)
    rows = leaderboard.read(path)
    assert {row["metric"]: row["value"] for row in rows} == scores.values
    assert rows[0]["parameters"] == 3 and rows[0]["seconds_per_image"] > 0 and rows[0]["peak_memory_mib"] > 100
    assert rows[0]["condition"] == "none" and rows[0]["cameras"] == "prior" and rows[0]["better"] == "less"
    assert rows[0]["n_real"] == 40 and rows[0]["dataset"] == "spheres" and rows[0]["draws"] == "per-sample"
    again = score(Sphere(), Data(), colours(), n_fake=rows[0]["n_fake"], seed=rows[0]["seed"])
    assert again.values == scores.values


def test_metric_names():
    assert [protocol.short_count(n) for n in (500, 1000, 1024, 50_000)] == ["500", "1k", "1024", "50k"]


# ---------------------------------------------------------------------------------------------------- the callbacks


class Toy(GAN):
    """Learns a tint, with dropout so that every step draws from the global stream."""

    def __init__(self) -> None:
        sgd = functools.partial(torch.optim.SGD, lr=0.1)
        discriminator = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 1))
        super().__init__(Sphere(), discriminator, sgd, sgd)
        self.losses = []

    def training_step(self, batch, batch_idx):
        optimizer_g, optimizer_d = self.optimizers()
        draws = self.draws()
        fake = self.generator.render(
            self.generator.map(self.generator.latents(8, draws)), self.generator.cameras(8, draws)
        )
        loss = self.discriminator(fake.image.detach()).mean() - self.discriminator(batch[0]).mean()
        self.minimise(optimizer_d, "loss_d", {"all": loss})
        self.losses.append(loss.item())
        self.minimise(optimizer_g, "loss_g", {"all": -self.discriminator(fake.image).mean()})
        self.count(8)


def fit(callbacks, folder, **settings):
    torch.manual_seed(3)
    model = Toy()
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "default_root_dir": folder, "max_steps": 6, "limit_val_batches": 0}
    trainer = pl.Trainer(callbacks=callbacks, **(options | settings))
    trainer.fit(model, datamodule=Data())
    return model, trainer


def test_callbacks_log_and_change_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    from pytorch_lightning.loggers import CSVLogger

    plain, _ = fit([], tmp_path)
    watchers = [Scores(every=2, n_fake=6, extractor=colours()), Diagnostics(every=3, n=1)]
    logger = CSVLogger(tmp_path)
    watched, trainer = fit(watchers, tmp_path, logger=logger, log_every_n_steps=100)
    assert plain.losses == watched.losses and len(plain.losses) == 6
    assert caplog.text.count("scoring before training, which may take minutes ...") == 1
    assert torch.equal(plain.generator.tint, watched.generator.tint)
    lines = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    head = lines[0].split(",")
    place, step = head.index("fid-colours-none-6"), head.index("step")
    scored = [row[step] for row in (line.split(",") for line in lines[1:]) if row[place]]
    assert scored == ["0", "2", "4", "6"]
    assert {"kid-colours-none-6", "diagnostics/opacity", "diagnostics/flatness", "diagnostics/nonfinite"} <= set(head)
    assert trainer.callback_metrics["fid-colours-none-6"] > 0

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(plain.state_dict())
    state = checkpoint["callbacks"].pop("Scores")  # and neither the extractor nor anything large
    assert state["scored_at"] == 6 and state["first"]["fid-colours-none-6"] > 0 and set(state) == {"scored_at", "first"}
    assert not checkpoint["callbacks"]


def test_validate_and_test_report_scores(tmp_path):
    model, trainer = fit([Scores(every=0, n_fake=6, extractor=colours(), at_start=False, at_end=False)], tmp_path)
    assert "fid-colours-none-6" not in trainer.callback_metrics
    data = Data()
    data.test_dataloader = data.val_dataloader
    trainer.limit_val_batches = 1.0
    expected = score(model.sampler, data, colours(), n_fake=6).values["fid-colours-none-6"]
    for verb in (trainer.validate, trainer.test):
        assert verb(model, datamodule=data, verbose=False)[0]["fid-colours-none-6"] == pytest.approx(expected)


def test_any_metrics_are_logged_and_the_best_is_of_those_of_which_less_is_better(tmp_path):
    def watcher() -> Scores:
        metrics = [surface_metric(), density_metric(8)]
        return Scores(every=0, n_fake=6, extractor=colours(), metrics=metrics, n_objects=1, at_end=False)

    _, trainer = fit([watcher()], tmp_path, max_steps=1)
    logged = {name for name in trainer.callback_metrics if "objects" in name}
    assert len(logged) == 5 and "outside-1objects" in logged and "fid-colours-none-6" not in trainer.callback_metrics
    with pytest.raises(ValueError, match="more is better of surface-1objects-8views: name another score"):
        fit([watcher(), RegularCheckpoint(best="surface")], tmp_path, max_steps=1, enable_checkpointing=True)
    with pytest.raises(ValueError, match="no metrics 'fidd'"):
        Scores(metrics="fidd")


def test_rows_of_results_alone_are_no_change_of_the_source(tmp_path, monkeypatch):
    for name in ("zoo/evaluate/protocol.py", "zoo/leaderboard/results.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(protocol, "__file__", str(tmp_path / "zoo/evaluate/protocol.py"))
    assert protocol.commit() == ""
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b.org commit -qm c"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    (tmp_path / "zoo/leaderboard/results.csv").write_text("after")
    assert len(protocol.commit()) == 12
    (tmp_path / "zoo/evaluate/protocol.py").write_text("after")
    assert protocol.commit().endswith("+")
