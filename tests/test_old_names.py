"""The table of old names: what it does to plain values, tensors and the moments of optimizers."""

import copy
from collections.abc import Iterable
from functools import partial
from pkgutil import resolve_name

import pytest
import torch
from torch import nn

from zoo.training import resume
from zoo.training.ema import EMA
from zoo.utils import old_names
from zoo.utils.old_names import arguments, renamed, renamed_own_tensors, renamed_tensors


def into_object(values: dict) -> dict:
    """Two init_args that have become an object of a class that has another name."""
    moved = {name: values[name] for name in ("density", "intervals") if name in values}
    rest = {name: value for name, value in values.items() if name not in moved}
    return rest | ({"quadrature": {"class_path": "zoo.render.Rule", "init_args": moved}} if moved else {})


@pytest.fixture
def table(monkeypatch) -> None:
    """Changes that a later version might have made."""
    monkeypatch.setattr(old_names, "MODULES", {"zoo.gan.": "zoo.training."})
    monkeypatch.setattr(
        old_names,
        "ARGUMENTS",
        {
            "zoo.render.Volume": into_object,
            "zoo.render.Twice": lambda values: {"times": 2} | values,
            "zoo.training.EMA": arguments(decay="keep"),
        },
    )
    monkeypatch.setattr(
        old_names,
        "CLASSES",
        {
            "zoo.training.Average": "zoo.training.EMA",
            "zoo.render.Rule": "zoo.render.Quadrature",
            "zoo.render.Twice": "zoo.render.Volume",
        },
    )
    monkeypatch.setattr(
        old_names,
        "TENSORS",
        {"tests.test_old_names.Inner": {r"w(\d)\.": r"layers.\1."}, "tests.test_old_names.Outer": {"old": "inner"}},
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zoo.gan.WarmUp", "zoo.training.WarmUp"),
        ("zoo.training.averages.Average", "zoo.training.EMA"),
        ("zoo.render.Twice", {"class_path": "zoo.render.Volume", "init_args": {"times": 2}}),
        ("a zoo.gan.WarmUp", "a zoo.gan.WarmUp"),
        (
            {"a": [{"class_path": "zoo.gan.Average", "init_args": {"decay": 0.5}}]},
            {"a": [{"class_path": "zoo.training.EMA", "init_args": {"keep": 0.5}}]},
        ),
        (
            {"class_path": "zoo.render.volume.Volume", "init_args": {"density": "zoo.gan.f", "chunk": 3}},
            {
                "class_path": "zoo.render.volume.Volume",
                "init_args": {
                    "chunk": 3,
                    "quadrature": {"class_path": "zoo.render.Quadrature", "init_args": {"density": "zoo.training.f"}},
                },
            },
        ),
        ({"class_path": "zoo.render.Volume"}, {"class_path": "zoo.render.Volume"}),
    ],
)
def test_plain_values_get_the_names_of_today(old, new, table) -> None:
    assert renamed(old) == new
    assert renamed(new) == new


class Inner(nn.Module):
    def __init__(self, backwards: bool = False) -> None:
        super().__init__()
        layers = [nn.Linear(1, 1, bias=False) for _ in range(2)]
        names = reversed("01") if backwards else "01"
        self.layers = nn.ModuleDict(dict(zip(names, layers, strict=True)))


class Outer(nn.Module):
    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.register_buffer("size", torch.zeros(()))
        self.inner = Inner(**kwargs)


def test_tensors_get_the_names_of_today_also_within_emas(table) -> None:
    gan = nn.ModuleDict({"generator": Outer(), "emas": nn.ModuleDict({"slow": EMA()})})
    gan["emas"]["slow"].init_from(gan["generator"])
    today = [name for name in gan.state_dict() if not name.endswith("extra_state")]
    then = [name.replace("inner.layers.", "old.w") for name in today]
    assert list(renamed_tensors(dict.fromkeys(then), gan)) == today
    assert list(renamed_tensors(dict.fromkeys(today), gan)) == today


@pytest.mark.parametrize("named", [True, False])
def test_moments_find_their_parameters(named, table) -> None:
    """Modules have another name and stand in another order than when the checkpoint was written."""

    def made(named: Iterable) -> torch.optim.Optimizer:
        return torch.optim.Adam([{"params": [*named]}], lr=0.1)

    def trained(net: nn.Module) -> torch.optim.Optimizer:
        return made(net.named_parameters())

    before, now = Outer(), Outer(backwards=True)
    optimizer = trained(before)
    for size, parameter in enumerate(before.parameters()):
        parameter.grad = torch.full_like(parameter, 1.0 + size)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    names = saved["param_groups"][0].pop("param_names")
    then = [name.replace("inner.layers.", "old.w") for name in names]
    if named:
        saved["param_groups"][0]["param_names"] = then
    order = list(renamed_tensors(dict.fromkeys(["size", *then]), now))
    restored = trained(now)
    restored.register_load_state_dict_pre_hook(partial(resume.by_name, order=order, model=now, make=made))
    restored.load_state_dict(saved)
    for name, parameter in now.named_parameters():
        theirs = optimizer.state[before.get_parameter(name)]
        assert restored.state[parameter]["exp_avg"].equal(theirs["exp_avg"]), name
    assert restored.param_groups[0]["param_names"] == names[::-1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zoo.render.Shifted", "zoo.render.JitteredUniform"),
        ("zoo.render.depths.Shifted", "zoo.render.JitteredUniform"),
        ("zoo.render.open_ended", "zoo.render.infinite_last_interval"),
        ("zoo.render.closed", "zoo.render.zero_last_interval"),
        ("zoo.stylenerf_fields.closed_lengths", "zoo.stylenerf.zero_last_interval"),
        ("zoo.volumegan_extras.late_softplus", "zoo.render.shifted_softplus"),
        ("zoo.volumegan.extras.shifted_softplus", "zoo.render.shifted_softplus"),
        ("zoo.volumegan_extras.equal", "zoo.volumegan.unit_intervals"),
        ("zoo.volumegan.extras.Until", "zoo.volumegan.FarLastInterval"),
        ("zoo.render.volume.Volume", "zoo.render.VolumeRenderer"),
        ("zoo.giraffe.SceneVolume", "zoo.giraffe.SceneRenderer"),
        ("zoo.graf.TwoNetworks", "zoo.graf.HierarchicalRenderer"),
        ("zoo.stylenerf_fields.OutsideVolume", "zoo.stylenerf.BackgroundRenderer"),
        ("zoo.stylenerf_fields.Straight", "zoo.stylenerf.LinearSpacing"),
        ("zoo.stylenerf_fields.Warped", "zoo.stylenerf.ContractedSpacing"),
        ("zoo.stylenerf_2d.Painter", "zoo.stylenerf.SynthesisNetwork"),
        ("zoo.volumegan.synthesis.Painter", "zoo.volumegan.SynthesisNetwork"),
        ("zoo.graf.rays.Parallel", "zoo.graf.Orthographic"),
        ("zoo.layers.upsampling.repeated", "zoo.layers.upsampling.upsample_nearest"),
        ("zoo.layers.upsampling.stretched", "zoo.layers.upsampling.upsample_aligned"),
        ("zoo.layers.upsampling.Interpolated", "zoo.layers.upsampling.Interpolate"),
        ("zoo.layers.stylegan2.doubled", "zoo.layers.stylegan2.upsample"),
        ("zoo.training.Average", "zoo.training.EMA"),
        ("zoo.training.averages.Average", "zoo.training.EMA"),
        ("zoo.gan.WarmUp", "zoo.training.WarmUpDecay"),
    ],
)
def test_old_class_paths_lead_to_what_exists(old: str, new: str) -> None:
    assert renamed(old) == new
    assert callable(resolve_name(new))


@pytest.mark.parametrize("path", ["zoo.CIPS3D", "zoo.cips3d.training.CIPS3D"])
def test_options_of_systems_get_the_names_of_today(path: str) -> None:
    old = {"averages": {"ema": {"class_path": "zoo.gan.Average"}}, "stages": [{"start": 0, "average_start": 7}]}
    assert renamed({"class_path": path, "init_args": old})["init_args"] == {
        "emas": {"ema": {"class_path": "zoo.training.EMA"}},
        "stages": [{"start": 0, "ema_start": 7}],
    }


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("zoo.pigan.Generator", {"volume": 1}, {"renderer": 1}),
        ("zoo.graf.model.Generator", {"volume": 1}, {"renderer": 1}),
        ("zoo.cips3d.Generator", {"volume": 1}, {"renderer": 1}),
        ("zoo.volumegan.Generator", {"volume": 1, "painter": 2}, {"renderer": 1, "synthesis": 2}),
        (
            "zoo.stylenerf.Generator",
            {"volume": 1, "painter": 2, "volume_start": 3},
            {"renderer": 1, "synthesis": 2, "feature_start": 3},
        ),
        (
            "zoo.giraffe.Generator",
            {"volume": 1, "renderer": 2, "volume_resolution": 3},
            {"renderer": 1, "neural_renderer": 2, "feature_resolution": 3},
        ),
    ],
)
def test_options_of_generators_get_the_names_of_today(path: str, old: dict, new: dict) -> None:
    assert renamed({"class_path": path, "init_args": old})["init_args"] == new
    assert renamed({"class_path": path, "init_args": new})["init_args"] == new


def test_a_renderer_that_takes_normalised_depths_gets_the_names_of_today() -> None:
    old = {"line": "zoo.stylenerf.Straight", "in_shares": True, "background": "zoo.render.white"}
    assert renamed({"class_path": "zoo.stylenerf.StretchedVolume", "init_args": old}) == {
        "class_path": "zoo.stylenerf.NormalisedDepthRenderer",
        "init_args": {
            "spacing": "zoo.stylenerf.LinearSpacing",
            "normalised_intervals": True,
            "quadrature": {"intervals": "zoo.stylenerf.zero_last_interval", "background": "zoo.render.white"},
        },
    }


def test_a_renderer_that_weighed_twice_is_a_volume_with_two_quadratures() -> None:
    old = {"coarse_density": "zoo.render.softplus", "density": "zoo.render.relu", "background": "zoo.render.white"}
    assert renamed({"class_path": "zoo.volumegan_extras.TwiceWeighed", "init_args": old | {"chunk": 3}}) == {
        "class_path": "zoo.render.VolumeRenderer",
        "init_args": {
            "chunk": 3,
            "coarse": {"density": "zoo.render.softplus"},
            "quadrature": {"density": "zoo.render.relu", "background": "zoo.render.white"},
        },
    }


def test_gauges_are_diagnostics() -> None:
    old = {"class_path": "callbacks.gauges.Gauges", "init_args": {"every": 500}}
    assert renamed(old) == {"class_path": "callbacks.diagnostics.Diagnostics", "init_args": {"every": 500}}
    assert renamed("callbacks.gauges.Gauges") == "callbacks.diagnostics.Diagnostics"


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("zoo.graf.model.Latent", ["shape", "appearance"], ["shape_code", "appearance_code"]),
        (
            "zoo.giraffe.scenes.Latent",
            ["shape", "background_appearance", "scale"],
            ["shape_code", "background_appearance_code", "scale"],
        ),
        ("zoo.volumegan.field.Styles", ["w", "volume"], ["w", "feature_volume"]),
    ],
)
def test_styles_that_were_written_get_the_names_of_today(path: str, old: list[str], new: list[str]) -> None:
    today = [f"styles.{name}" for name in new]
    assert list(renamed_own_tensors(dict.fromkeys([f"styles.{name}" for name in old]), path, "styles.")) == today
    assert list(renamed_own_tensors(dict.fromkeys(today), path, "styles.")) == today
    assert set(new) <= {*resolve_name(path)._fields}
