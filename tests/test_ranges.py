"""Ranges of numbers: what is refused, and what the sentence says."""

import math
from collections.abc import Iterator
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints
from unittest.mock import Mock

import pytest
import torch

from callbacks.scores import Scores
from datamodules import Cars, ImageFolder
from zoo import cips3d, giraffe, graf, pigan, render, stylenerf, volumegan
from zoo.layers.ada import Augmentation
from zoo.training import EMA
from zoo.utils.errors import UserError
from zoo.utils.protocols import check_call, check_made
from zoo.utils.ranges import above, at_least, between, given, one_of


@pytest.mark.parametrize(
    ("check", "value", "sentence"),
    [
        (lambda x: at_least(1, views=x), 0, "views is 0: give a number of at least 1."),
        (lambda x: at_least(1, views=x), -3, "views is -3: give a number of at least 1."),
        (lambda x: at_least(0, views=x), math.inf, "views is inf: give a number of at least 0."),
        (lambda x: at_least(1, channels=x), [64, 0], "channels holds 0: give numbers of at least 1."),
        (lambda x: at_least(1, channels=x), {8: 64, 16: -1}, "channels holds -1: give numbers of at least 1."),
        (lambda x: at_least(1, views=x), None, "views is null: give a number of at least 1."),
        (lambda x: at_least(1, views=x), "many", "views is many: give a number of at least 1."),
        (lambda x: above(0, seconds=x), 0.0, "seconds is 0.0: give a number above 0."),
        (lambda x: above(0, seconds=x), math.nan, "seconds is nan: give a number above 0."),
        (lambda x: between(0, 1, decay=x), 2, "decay is 2: give a number from 0 to 1."),
        (lambda x: at_least(1, {}, views=x), 0, "views of dict is 0: give a number of at least 1."),
        (lambda x: between(0, 1, decay=x), math.nan, "decay is nan: give a number from 0 to 1."),
        (lambda x: one_of(Literal["a", "b"], order=x), None, "order is null: give one of a, b."),
        (lambda x: one_of(Literal["a", "b"], order=x), "c", "order is 'c': give one of a, b."),
    ],
)
def test_numbers_outside_are_refused_by_name(check, value, sentence):
    with pytest.raises(UserError) as error:
        check(value)
    assert str(error.value) == sentence


def test_numbers_inside_pass():
    at_least(1, views=1, frames=1.5, channels=[1, (2, 3)], **given(resolution=None))
    above(0, seconds=1e-9)
    between(0, 1, decay=0, share=1.0)
    between(0, math.inf, clip_norm=math.inf)
    at_least(1, views=torch.tensor(3).item())


ROOT = Path(__file__).parent.parent
FOLDERS = ["callbacks", "datamodules", "zoo/render", "zoo/layers", "zoo/training"]
FOLDERS += [str(path.parent.relative_to(ROOT)) for path in ROOT.glob("zoo/*/model.py")]
MODULES = [
    import_module(f"{folder.replace('/', '.')}.{p.stem}")
    for folder in FOLDERS
    for p in (ROOT / folder).glob("[a-z]*.py")
]
# Made by other classes, which have checked these numbers, or from data.
INNER = {
    *("Adapter", "Block", "Convolution", "Dense", "FilmLayer", "InrBlock", "LocalEnsemble", "ModulatedConvolution"),
    *("ModulatedLinear", "NearestConcat", "Noise", "PixelShuffle", "StyledLayer", "SynthesisBlock"),
    *("CoordBlock", "CoordConv"),
    *(
        "NonFiniteGuard",
        "CarImages",
        "CroppedImages",
        "EndlessBatches",
        "ImageDataset",
        "zoo.pigan.model.MappingNetwork",
    ),
}
WITHOUT_RANGE = {"seed", "car_seed", "stages"}
SIGNED = {"azimuth", "azimuth_deg", "background_rotation", "bounds", "image_min", "level", "place_max", "place_min"}
SIGNED |= {"down", "pitch_mean", "pivot", "right", "rotation", "scale", "shift", "target", "truncation", "yaw_mean"}


def numbers(class_: type) -> Iterator[tuple[str, bool]]:
    """Parameters of a constructor that are numbers or hold some, and whether they can be left out by None."""
    hints = get_type_hints(class_.__init__)
    for name, parameter in signature(class_).parameters.items():
        hint = hints.get(name)
        if parameter.kind is not Parameter.VAR_KEYWORD and {int, float} & leaves(hint):
            yield name, NoneType in leaves(hint)


def leaves(hint: Any) -> set[type]:
    """The types that another one is made of."""
    return ({hint} if isinstance(hint, type) else set()).union(*(leaves(part) for part in get_args(hint)))


CLASSES = sorted(
    {
        value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and name[0] != "_"
        and not {name, f"{module.__name__}.{name}"} & INNER
        if not issubclass(value, tuple | Exception)
    },
    key=lambda class_: (class_.__module__, class_.__name__),
)
NUMBERS = [(class_, *number) for class_ in CLASSES for number in numbers(class_) if number[0] not in WITHOUT_RANGE]


def test_there_are_classes_of_all_rooms():
    assert {"Scores", "Cars", "VolumeRenderer", "Controller", "EMA", "PiGAN", "Patches", "Inr"} <= {
        class_.__name__ for class_, _, _ in NUMBERS
    }
    assert len(NUMBERS) > 300
    assert {name for m in MODULES for value in vars(m) for name in (value, f"{m.__name__}.{value}")} >= INNER


@pytest.mark.parametrize(
    ("class_", "name", "optional"),
    NUMBERS,
    ids=[f"{class_.__module__}.{class_.__name__}-{name}" for class_, name, _ in NUMBERS],
)
def test_no_number_without_sense_is_taken(class_, name, optional):
    """NaN, nothing where a number is needed, and less than nothing; before anything else of the class is looked at."""
    needed = {
        key: Mock(resolution=8, stages=1) for key, p in signature(class_).parameters.items() if p.default is p.empty
    }
    needed |= {key: {"near": 1, "far": 2, "shares": 1}.get(key, 4) for key, _ in numbers(class_) if key in needed}
    needed = {key: value for key, value in needed.items() if signature(class_).parameters[key].kind not in (2, 4)}
    for bad in [math.nan, *[None] * (not optional), *[-2] * (name not in SIGNED)]:
        with pytest.raises(UserError, match=rf"^{name} of \w+ (is|holds) .*: give (a number|numbers) "):
            class_(**needed | {name: bad})


def made(class_: Any, **given: Any) -> Any:
    return lambda: class_(**given)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (made(EMA, decay=2.0), "decay of EMA is 2.0: give a number from 0 to 1."),
        (made(EMA, decay=lambda updates: updates / 1.5), f"decay of EMA is {2 / 1.5}: give a number from 0 to 1."),
        (made(EMA, decay=-1), "decay of EMA is -1: give a number from 0 to 1."),
        (
            made(render.GaussianPoses, fov_deg=200),
            "fov_deg of GaussianPoses is 200: give a number above 0 and",
        ),
        (
            made(render.SpherePoses, pitch_mean=4.0),
            "pitch_mean of SpherePoses is 4.0: give a number from 0 to 3.14",
        ),
        (made(graf.OnSphere, polar_deg=(0, 200)), "polar_deg of OnSphere holds 200: give numbers from 0 to 180."),
        (made(giraffe.ScenePoses, radius=(0, 1)), "radius of ScenePoses holds 0: give numbers above 0."),
        (made(render.Stratified, near=2.0, far=1.0, samples=4), "far of Stratified is 1.0: give a number above 2."),
        (
            made(render.JitteredUniform, near=1, far=2, samples=1),
            "samples of JitteredUniform is 1: give a number of a",
        ),
        (made(graf.Patches, min_scale=0.5, max_scale=0.4), "max_scale of Patches is 0.4: give a number from 0.5 to 1."),
        (made(pigan.Discriminator, channels=[0, 0]), "channels of Discriminator holds 0: give numbers of at least 1."),
        (made(pigan.Discriminator, channels=[]), "channels of Discriminator is empty: give at least one number."),
        (made(cips3d.Tower, channels=[8, 0]), "channels of Tower holds 0: give numbers of at least 1."),
        (made(giraffe.Discriminator, channels=4), "channels of Discriminator is 4: give a number of at least 8."),
        (made(giraffe.ResidualDiscriminator, resolution=48), "A side must be 4, doubled any number of times, not 48."),
        (made(giraffe.GaussianFeatures, features=31), "features of GaussianFeatures is 31: give a multiple of 3."),
        (
            made(volumegan.Discriminator, base_channels=8),
            "base_channels of Discriminator is 8: give a number of a",
        ),
        (made(stylenerf.Growth, begin=5, end=5), "end of Growth is 5: give a number above 5."),
        (made(volumegan.Growth, hold=0, fade=0), "fade of Growth is 0: give a number of at least 1."),
        (made(Augmentation, probability=1.5), "probability of Augmentation is 1.5: give a number from 0 to 1."),
        (made(Scores, n_fake=1), "n_fake of Scores is 1: give a number of at least 2."),
        (made(Cars, train_count=20_001), "train_count of Cars is 20001: give a number from 1 to 20000."),
        (
            made(Cars, stages={0: {}, 5: {"batch_size": 0}}),
            "batch_size of the stage from batch 5 is 0: give",
        ),
        (made(ImageFolder, path="x", num_workers=-1), "num_workers of ImageFolder is -1: give a number of at least 0."),
    ],
)
def test_a_class_says_which_number_of_it_is_wrong(make, sentence):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(sentence)


class Made:
    """Whose parts are looked at."""


def test_parts_take_what_their_role_is_called_with():
    for part in (print, math.sqrt, torch.zeros, lambda x: x, torch.nn.ReLU(), render.relu, 5):
        with pytest.raises(UserError, match=r"^prior of Made is .+, which cannot be called with \(n, size, draws\)"):
            check_call("n, size, draws", Made(), prior=part)
    check_call("n, size, draws", Made(), prior=None)
    for part in (graf.gaussian, graf.uniform, lambda *parts: parts, lambda n, size, draws, std=1: std):
        check_call("n, size, draws", Made(), prior=part)
    check_call("camera, pixels, resolution", Made(), lens=graf.Orthographic(1.0))
    check_call("raw, points", Made(), density=render.BoundedRelu())
    check_call("channels", Made(), upsampler=torch.nn.ReLU)


def test_parts_make_what_their_role_makes():
    one, two = torch.Size([2, 3]), torch.Size([3])
    check_made((torch.ones(one), torch.ones(two)), [one, two], Made(), "compose")
    for made in (None, torch.ones(one), (torch.ones(two), torch.ones(one)), [torch.ones(one), torch.ones(two)]):
        with pytest.raises(UserError, match=r"^compose of Made makes .+ where \[2, 3\], \[3\] is needed: "):
            check_made(made, [one, two], Made(), "compose")
    with pytest.raises(UserError, match="density of Quadrature makes NoneType where "):
        render.Quadrature(density=lambda raw, points: None)(
            torch.ones(1, 1, 2, 1), render.Samples(*[torch.ones(1, 1, 2)] * 3)
        )


@pytest.mark.parametrize("weight", ["latent_weight", "angle_weight"])
def test_guesses_have_a_weight_only_where_the_discriminator_makes_them(weight):
    with pytest.raises(UserError, match="set its latent_dim, 0, to the generator's, 4"):
        pigan.PiGAN(Mock(latent_dim=4), Mock(latent_dim=0), Mock(), Mock(), **{weight: 1.0})


def test_numbers_of_a_training_have_both_ends():
    for name, value in (("top_k_least", 1.5), ("clip_norm", 0.0), ("r1_weight", -1.0)):
        with pytest.raises(UserError, match=f"^{name} of PiGAN is {value}: give a number "):
            pigan.PiGAN(Mock(), Mock(), Mock(), Mock(), **{name: value})
