"""Weights bundles: round trips, and everything that can be wrong with them."""

from copy import deepcopy

import pytest
import torch
import yaml
from jsonargparse import _common
from safetensors.torch import load_file, save_file
from torch import nn

from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.draws import SampleDraws
from zoo.weights.bundle import build, load_bundle, save_bundle

GENERATOR = CONFIG["model"]["init_args"]["generator"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    save_bundle(tmp_path / "b", build(GENERATOR, nn.Module), GENERATOR, system="PiGAN", images_seen=12, license=None)
    return tmp_path / "b"


def test_round_trip(folder):
    torch.manual_seed(1)
    before = build(GENERATOR, nn.Module)
    after, info = load_bundle(folder)
    assert info.card == {"system": "PiGAN", "images_seen": "12"} and info.config == GENERATOR and not after.training
    assert load_bundle(folder)[1].sha256 == info.sha256 and len(info.sha256) == 64
    draws = SampleDraws(0, [3])
    images = [g.render(g.map(g.latents(1, draws)), g.cameras(1, draws)).image for g in (before, after)]
    assert torch.equal(*images)


def test_a_bundle_of_a_bundle_states_more(tmp_path):
    words = ["bundle", "pigan-cars32", str(tmp_path / "mine")]
    assert main(words) == 0 and main([*words, "--data", "my cars"]) == 0
    (_, before), (_, after) = load_bundle("pigan-cars32"), load_bundle(tmp_path / "mine")
    assert after.card == before.card | {"data": "my cars"} and after.config == before.config


def test_means_are_stored_and_the_generator_is_left_alone(tmp_path):
    generator = build(GENERATOR, nn.Module)
    save_bundle(tmp_path, generator, GENERATOR)
    assert generator.mean_phases.isnan().all() and generator.training
    assert not load_bundle(tmp_path)[0].mean_phases.isnan().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("field.density.bias"), "field.density.bias is missing"),
        (lambda t: t.update(more=torch.zeros(1)), "more is unexpected"),
        (lambda t: t.update({"field.colour.bias": torch.zeros(4)}), r"field.colour.bias is \[4\] instead of \[3\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize("path", ["subprocess.Popen", "tests.tiny.Noise", "pathlib.Path"])
def test_a_config_that_came_with_weights_may_not_name_other_packages(folder, path):
    config = deepcopy(GENERATOR)
    config["init_args"]["renderer"] = {"class_path": path}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    policy = dict(_common.parsing_settings)
    with pytest.raises(ValueError, match=r"may (not|only) name "):
        load_bundle(folder)
    assert dict(_common.parsing_settings) == policy


@pytest.mark.parametrize(
    "part", [{"background": "math.sqrt"}, {"background": "zoo.render.relu"}, {"density": "zoo.render.black"}]
)
def test_a_part_that_cannot_play_its_role_is_refused(part):
    config = deepcopy(GENERATOR)
    config["init_args"]["renderer"]["init_args"]["quadrature"] = part
    with pytest.raises(ValueError, match=r"config.renderer.quadrature.\w+ must be the import path of a \w+, not"):
        build(config, nn.Module)


def test_a_callable_outside_the_packages_is_refused_too(folder):
    config = deepcopy(GENERATOR)
    config["init_args"]["renderer"]["init_args"]["quadrature"] = {"density": "tests.tiny.solid"}
    build(config, nn.Module)  # one's own config may
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"may (not|only) name "):
        load_bundle(folder)


def test_files_that_are_not_bundles(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        load_bundle(folder)
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        load_bundle(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load_bundle(tmp_path / "x.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="does not say how long it was trained"):
        load_bundle(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="Did you mean"):
        load_bundle(tmp_path / "x.ckp")
