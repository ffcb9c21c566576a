"""FID and KID against closed forms and torch-fidelity, the extractors, and many metrics in one pass."""

import json
import math

import pytest
import torch
from torch import nn

from callbacks.scores import Scores
from tests.analytic import Box, Sphere
from tests.test_scores import Colours, Data, colours, write_images
from zoo.evaluate import extractors as features_module
from zoo.evaluate import measuring
from zoo.evaluate.extractors import Extractor, load_extractor
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.jackknife import standard_errors
from zoo.evaluate.metrics.density import density_metric
from zoo.evaluate.metrics.fid import fid, fid_metric, moments
from zoo.evaluate.metrics.kid import kid, kid_metric, squared_mmd
from zoo.evaluate.metrics.objects import ObjectMetric
from zoo.evaluate.metrics.precision_recall import precision_recall_metric
from zoo.evaluate.metrics.surface import surface_metric
from zoo.evaluate.presets import PRESETS
from zoo.evaluate.protocol import score
from zoo.evaluate.samples import fakes
from zoo.generator import quantise, render_samples
from zoo.weights.fetch import sha256_of

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.usefixtures("cache")]


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


def test_a_set_and_itself_are_no_distance_apart_and_nothing_below():
    for n in (20, 300):
        features = torch.randn(n, 64) * torch.rand(64) * 10
        assert 0 <= fid(moments(features), moments(features)) < 1e-6


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


# -------------------------------------------------------------------------------------------------- several metrics


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
