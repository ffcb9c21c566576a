"""Neighbours of features, FID's extrapolation and standard errors against brute force and known answers."""

import numpy as np
import pytest
import torch

from zoo.evaluate.jackknife import FOLDS, fold_of_each, standard_errors
from zoo.evaluate.metrics import extrapolation
from zoo.evaluate.metrics import precision_recall as module
from zoo.evaluate.metrics.extrapolation import fid_infinity
from zoo.evaluate.metrics.fid import Moments, fid, moments
from zoo.evaluate.metrics.kid import kid_standard_error, squared_mmd
from zoo.evaluate.metrics.precision_recall import precision_recall


def normal(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ nearest neighbours


def brute_force(real: torch.Tensor, fake: torch.Tensor, k: int, k_density: int) -> dict[str, float]:
    """The definitions, pair by pair."""

    def radius(x: torch.Tensor, i: int, k: int) -> float:
        return sorted(float((x[i] - x[j]).norm()) for j in range(len(x)) if j != i)[k - 1]

    reach = [radius(real, i, k) for i in range(len(real))]
    wide = [radius(real, i, k_density) for i in range(len(real))]
    own = [radius(fake, j, k) for j in range(len(fake))]
    d = [[float((x - y).norm()) for y in fake] for x in real]
    n, m = len(real), len(fake)
    return {
        "precision": sum(any(d[i][j] <= reach[i] for i in range(n)) for j in range(m)) / m,
        "recall": sum(any(d[i][j] <= own[j] for j in range(m)) for i in range(n)) / n,
        "density": sum(d[i][j] <= wide[i] for i in range(n) for j in range(m)) / (k_density * m),
        "coverage": sum(any(d[i][j] <= wide[i] for j in range(m)) for i in range(n)) / n,
    }


@pytest.mark.parametrize("chunk", [7, 2048])
@pytest.mark.parametrize(("k", "k_density"), [(3, 5), (1, 2), (4, 1)])
def test_four_numbers_are_those_of_the_definitions(chunk, k, k_density, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    real, fake = normal(40, 3).double(), normal(25, 3, 1).double() * 0.8 + 0.5
    found = precision_recall(real, fake, k, k_density)
    assert found == pytest.approx(brute_force(real, fake, k, k_density))
    assert list(found) == list(module.BETTER) and min(found.values()) > 0.2 and found["recall"] < 1


@pytest.mark.parametrize("shift", [0, 1e4])  # far from the origin rounding errors are larger
def test_the_same_set_has_everything_and_disjoint_ones_nothing(shift):
    real = normal(60, 8) + shift
    same = precision_recall(real, real.flip(0))
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    assert same["density"] == pytest.approx(6 / 5)  # each image is in its own ball and, on average, in five others
    apart = precision_recall(real, real + 100)
    assert set(apart.values()) == {0}


def test_one_mode_of_two_is_precise_and_covers_half():
    real = torch.cat([normal(300, 4), normal(300, 4, 1) + 50])
    found = precision_recall(real, normal(600, 4, 2))
    assert found["precision"] > 0.9 and found["density"] > 0.9
    assert 0.4 < found["recall"] <= 0.5 and 0.4 < found["coverage"] <= 0.5
    outlier = torch.cat([normal(599, 4, 2), torch.full((1, 4), 1e8)])  # changes nothing for the others
    assert precision_recall(real, outlier)["coverage"] == pytest.approx(found["coverage"], abs=0.01)


def test_precision_and_recall_are_those_of_torch_fidelity():
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = normal(400, 16), normal(300, 16, 1) * 0.9 + 0.2
    theirs = prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=True, verbose=False
    )
    found = precision_recall(real, fake)
    assert found["precision"] == pytest.approx(theirs["precision"]) and 0 < found["precision"] < 1
    assert found["recall"] == pytest.approx(theirs["recall"]) and 0 < found["recall"] < 1


def test_copies_of_one_image_are_no_variety():
    real = normal(50, 4)
    found = precision_recall(real, real[:1].expand(50, -1))
    assert found["precision"] == 1 and found["recall"] == pytest.approx(1 / 50) and found["coverage"] < 0.3


def test_balls_need_more_images_than_neighbours():
    with pytest.raises(ValueError, match="more than 5 images on each side; there are 5 generated and 9 real"):
        precision_recall(normal(9, 2), normal(5, 2))


# ----------------------------------------------------------------------------------------------------- extrapolation

SPREAD = torch.linspace(0.5, 1.5, 32).double()
POPULATION = Moments(torch.zeros(32).double(), torch.eye(32).double())


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_fid_of_gaussians_is_extrapolated_to_the_closed_form(shift):
    """2,000 samples; the bias of their FID is many times what is left of it."""
    exact = float((SPREAD - 1).square().sum()) + 32 * shift**2
    off, biased = [], []
    for seed in range(8):
        fake = normal(2000, 32, seed).double() * SPREAD + shift
        off.append(fid_infinity(fake, POPULATION) - exact)
        biased.append(fid(moments(fake), POPULATION) - exact)
    assert np.mean(biased) > 0.1
    assert abs(np.mean(off)) < 0.03


def test_extrapolation_is_deterministic_and_knows_its_line(monkeypatch):
    fake = normal(400, 8)
    assert fid_infinity(fake, moments(normal(300, 8, 1))) == fid_infinity(fake.clone(), moments(normal(300, 8, 1)))
    assert extrapolation.sizes(1000) == [500, 571, 667, 800, 1000]
    monkeypatch.setattr(extrapolation, "moments", len)
    monkeypatch.setattr(extrapolation, "fid", lambda count, real: 3 + 70 / count)
    assert fid_infinity(fake, POPULATION) == pytest.approx(3, abs=0.01)
    with pytest.raises(ValueError, match=r"needs at least 160 generated images .* has 32 features; there are 159"):
        fid_infinity(normal(159, 32), POPULATION)


# --------------------------------------------------------------------------------------------------- standard errors


def standard_error(statistic, features: torch.Tensor, folds: int = FOLDS) -> float:
    """Of one number of features alone."""
    return standard_errors(features, None, lambda part, _: {"it": statistic(part)}, folds)["it"]


def test_the_standard_error_of_a_mean_is_that_of_the_textbook():
    x = normal(5000, 1).double()
    assert standard_error(lambda part: float(part.mean()), x, folds=1000) == pytest.approx(5000**-0.5, rel=0.1)
    fold = fold_of_each(25)
    assert sorted(torch.bincount(fold).tolist()) == [2] * 5 + [3] * 5 and torch.equal(fold, fold_of_each(25))
    with pytest.raises(ValueError, match="needs at least 20 images; there are 19"):
        fold_of_each(19)


def test_standard_errors_are_the_spread_of_other_samples():
    """Of 60 sets of samples; ten folds know it to about a quarter, their mean to much less."""
    real = normal(500, 6, 99).double()
    known = moments(real)

    def errors(statistic, error) -> tuple[float, float]:
        sets = [normal(400, 6, seed).double() * 1.2 + 0.3 for seed in range(60)]
        return float(np.std([statistic(x) for x in sets])), float(np.mean([error(x) for x in sets[:20]]))

    spread, estimated = errors(
        lambda x: fid(moments(x), known), lambda x: standard_error(lambda part: fid(moments(part), known), x)
    )
    assert estimated == pytest.approx(spread, rel=0.3)
    spread, estimated = errors(lambda x: squared_mmd(x, real), lambda x: kid_standard_error(x, real))
    assert estimated == pytest.approx(spread, rel=0.3)


def test_the_standard_error_of_kid_is_that_of_leaving_folds_out():
    fake, real = normal(57, 5).double(), normal(40, 5, 1).double() + 0.3
    slow = standard_error(lambda part: squared_mmd(part, real), fake)
    assert kid_standard_error(fake, real) == pytest.approx(slow, rel=1e-9) and slow > 0
    assert kid_standard_error(fake, real) == kid_standard_error(fake.clone(), real)
