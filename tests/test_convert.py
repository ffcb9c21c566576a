"""zoo convert: published files of pi-GAN become bundles that draw what they drew."""

import shutil
import zipfile
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.pigan import convert as pigan
from zoo.pigan.convert import DISCRIMINATOR, GENERATOR, PLAIN_DISCRIMINATOR
from zoo.pigan.model import Discriminator, FilmSiren, Generator, SpatialEmbedding
from zoo.render import Orbit, Stratified, VolumeRenderer
from zoo.stylenerf import convert as stylenerf
from zoo.utils.records import Record
from zoo.weights.bundle import load_bundle, load_network, save_bundle
from zoo.weights.convert import convert, convert_network, recognise, systems
from zoo.weights.names import to_published
from zoo.weights.read import Contents, Place

RUN = Path(__file__).parent / "parity" / "cases" / "pigan" / "checkpoint"
EXPECTED = load_file(RUN / "weights.safetensors")


@pytest.fixture
def experiment(tmp_path) -> str:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(CONFIG))
    return str(tmp_path / "experiment.yaml")


def published(folder: Path, table: list = GENERATOR) -> dict[str, torch.Tensor]:
    """The tensors of a bundle under their published names."""
    tensors = load_file(folder / "model.safetensors")
    return to_published({n: t for n, t in tensors.items() if not n.startswith("mean_")}, table)


def equal(tensors: dict, prefix: str) -> bool:
    expected = {n.removeprefix(prefix): t for n, t in EXPECTED.items() if n.startswith(prefix)}
    return set(tensors) == set(expected) and all(torch.equal(tensors[n], t) for n, t in expected.items())


@pytest.mark.parametrize(
    ("options", "prefix", "used"),
    [
        ([], "ema.", "generator.pth with the EMAs in ema.pth"),
        (["--weights", "ema2"], "ema2.", "generator.pth with the EMAs in ema2.pth"),
        (["--weights", "raw"], "generator.", "generator.pth, raw weights"),
    ],
)
def test_a_generator_becomes_a_bundle(tmp_path, experiment, capsys, options, prefix, used):
    out = tmp_path / "out"
    words = [str(RUN / "generator.pth"), str(out), "--experiment", experiment, "--license", "unknown", *options]
    assert main(["convert", *words]) == 0
    printed = capsys.readouterr().out
    assert used in printed and "  siren.siren.SPATIALSIRENBASELINE\n" in printed and "none of which was" in printed
    assert equal(published(out), prefix)
    generator, info = load_bundle(out)
    assert info.card["iterations"] == "12345" and info.card["converted_from"] == used
    assert info.card["license"] == "unknown" and info.card["system"] == "PiGAN"
    assert generator.field.input_scale == pytest.approx(2 / 0.24) and not generator.mean_phases.isnan().any()
    assert generator.renderer.depths.near == 0.88 and generator.resolution == 8
    assert main(["sample", str(out), "--out", str(tmp_path / "grid.png"), "--seeds", "0", "--views", "2"]) == 0


def test_without_emas_raw_weights_are_used_and_said(tmp_path, experiment):
    shutil.copy(RUN / "generator.pth", tmp_path)
    done, _ = convert(tmp_path / "generator.pth", tmp_path / "out", experiment=experiment)
    assert done.used == "generator.pth, raw weights" and equal(published(tmp_path / "out"), "generator.")
    with pytest.raises(ValueError, match=r"no ema\.pth in or beside it; --weights can be raw\."):
        convert(tmp_path / "generator.pth", tmp_path / "out", experiment=experiment, weights="ema")


def test_files_with_the_time_in_their_names_belong_together(tmp_path, experiment):
    for name in ("generator.pth", "ema.pth"):
        shutil.copy(RUN / name, tmp_path / f"05--12:30--{name}")
    done, _ = convert(tmp_path / "05--12:30--generator.pth", tmp_path / "out", experiment=experiment)
    assert done.used.endswith("05--12:30--ema.pth")


def test_the_published_zip_and_a_folder(tmp_path, experiment):
    with zipfile.ZipFile(tmp_path / "CelebA.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("generator.pth", "ema.pth", "ema2.pth"):
            archive.write(RUN / name, f"CelebA/{name}")
        archive.writestr("__MACOSX/CelebA/._generator.pth", b"nothing")
    for source in (tmp_path / "CelebA.zip", RUN):
        convert(source, tmp_path / "out", experiment=experiment)
        assert equal(published(tmp_path / "out"), "ema.")
    shutil.copy(RUN / "generator.pth", tmp_path / "a--generator.pth")
    shutil.copy(RUN / "generator.pth", tmp_path / "b--generator.pth")
    with pytest.raises(ValueError, match="holds several generators; name one"):
        convert(tmp_path, tmp_path / "out", experiment=experiment)


def test_a_discriminator_becomes_a_bundle_too(tmp_path):
    convert(RUN / "discriminator.pth", tmp_path / "out")
    assert equal(published(tmp_path / "out", DISCRIMINATOR), "discriminator.")
    assert load_network(tmp_path / "out", Discriminator)[0](torch.zeros(1, 3, 32, 32)).latent.shape == (1, 256)


def module(name: str, state: dict[str, torch.Tensor], **attributes) -> Record:
    """A recorded module with these tensors."""
    own = {key: tensor for key, tensor in state.items() if "." not in key}
    heads = dict.fromkeys(key.split(".")[0] for key in state if "." in key)
    inner = {
        head: module("torch.nn.Module", {k[len(head) + 1 :]: t for k, t in state.items() if k.startswith(head + ".")})
        for head in heads
    }
    return Record(name, state={"_parameters": own, "_buffers": {}, "_modules": inner, **attributes})


def test_what_our_network_never_reads_is_kept(tmp_path):
    own = Discriminator([2, 3, 4], coordinates=False, latent_dim=0)
    state = to_published(own.state_dict(), PLAIN_DISCRIMINATOR)
    state |= {"pose_layer.weight": torch.ones(4, 2), "pose_layer.bias": torch.ones(4)}
    record = module("discriminators.sgdiscriminators.StridedDiscriminator", state, step=3)
    done = convert_network(pigan, Place(tmp_path / "discriminator.pth"), Contents(record, [], ""))
    save_bundle(tmp_path / "out", done.network, done.config, done.unused)
    back = published(tmp_path / "out", PLAIN_DISCRIMINATOR)
    assert set(back) == set(state) and all(torch.equal(back[n], state[n]) for n in state)
    assert torch.equal(load_network(tmp_path / "out", Discriminator)[0].final.weight, own.final.weight)


@pytest.mark.parametrize("embedded", [False, True])
def test_other_kinds_of_siren(tmp_path, embedded):
    field = FilmSiren(8, 3, 25.0 if embedded else 1.0, SpatialEmbedding(2, 4) if embedded else None)
    own = Generator(field, VolumeRenderer(Stratified(0.8, 1.2, 4)), Orbit(fov_deg=12), 5, 6)
    state = to_published({n: t for n, t in own.state_dict().items() if not n.startswith("mean_")}, GENERATOR)
    record = module("generators.generators.ImplicitGenerator3d", state, step=3)
    siren = record.state["_modules"]["siren"]
    siren.name = "siren.siren.EmbeddingPiGAN128" if embedded else "siren.siren.TALLSIREN"
    if embedded:
        siren.state["_modules"]["gridwarper"] = module("siren.siren.UniformBoxWarp", {}, scale_factor=25.0)
    contents = Contents(record, [], "")
    assert pigan.experiments(contents) == ([] if embedded else ["pigan/carla128"])
    experiment = CONFIG["model"]["init_args"]["generator"]
    done = convert_network(pigan, Place(tmp_path / "generator.pth"), contents, experiment)
    assert done.network.field.input_scale == field.input_scale and not done.unused
    assert all(torch.equal(t, own.state_dict()[n]) for n, t in done.network.state_dict().items() if "mean" not in n)
    plain = convert_network(pigan, Place(tmp_path / "g.pth"), Contents(state, [], ""), experiment)  # a bare state dict
    assert plain.network.field.input_scale == 8.0  # which only the experiment can tell
    assert experiment == CONFIG["model"]["init_args"]["generator"]  # untouched


def test_what_is_refused(tmp_path, experiment):
    generator = RUN / "generator.pth"
    for options, message in (
        ({}, "may come from pigan/celeba64 or pigan/cats64: name it with --experiment"),
        ({"system": "pigann"}, r"'pigann' has no converter: .*Did you mean 'pigan'"),
        ({"weights": "best", "experiment": experiment}, "no weights 'best': ema, raw, ema2"),
        ({"experiment": "graf/carla64"}, r"of pigan, and the experiment is of another system: zoo\.graf\.Generator"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(generator, tmp_path / "out", **options)
    with pytest.raises(ValueError, match=r"ema\.pth holds EMAs without names"):
        convert(RUN / "ema.pth", tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"of no known system .*\(.*pigan.*2 entries \(state, param_groups\).*OrderedDict"
    ):
        convert(RUN / "optimizer_G.pth", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="There is no experiment 'pigan/none'"):
        convert(generator, tmp_path / "out", experiment="pigan/none")
    (tmp_path / "other.yaml").write_text("trainer: {}")
    with pytest.raises(ValueError, match="is no experiment"):
        convert(generator, tmp_path / "out", experiment=str(tmp_path / "other.yaml"))
    assert not (tmp_path / "out").exists()


def test_emas_of_another_generator_are_refused(tmp_path, experiment):
    shutil.copy(RUN / "generator.pth", tmp_path)
    torch.save({"shadow_params": [torch.ones(3)]}, tmp_path / "ema.pth")
    with pytest.raises(ValueError, match="are not of the parameters in"):
        convert(tmp_path / "generator.pth", tmp_path / "out", experiment=experiment)
    torch.save({"params": []}, tmp_path / "ema.pth")
    with pytest.raises(ValueError, match="holds no EMAs"):
        convert(tmp_path / "generator.pth", tmp_path / "out", experiment=experiment)


def test_tensors_that_do_not_fit_are_named_before_memory_is_taken(tmp_path):
    state = {n.removeprefix("generator."): t for n, t in EXPECTED.items() if n.startswith("generator.")}
    experiment = CONFIG["model"]["init_args"]["generator"]
    place = Place(tmp_path / "generator.pth")
    state["siren.network.0.layer.weight"] = torch.zeros(2**22, 3)
    with pytest.raises(ValueError, match=r"field\.layers\.1\.weight is \[16, 16\] instead of \[4194304, 4194304\]"):
        convert_network(pigan, place, Contents(state, [], ""), experiment)
    state = deepcopy(state) | {"siren.network.0.layer.weight": torch.tensor(1.0)}
    with pytest.raises(ValueError, match=r"no 'siren\.network\.0\.layer\.weight' with 2 axes"):
        convert_network(pigan, place, Contents(state, [], ""), experiment)


def test_stylenerf_stores_noise_as_one_image(tmp_path):
    name, noise = "synthesis.b8.conv0.noise_const", torch.randn(4, 4)
    contents = Contents({"G_ema": module("training.networks.Generator", {name: noise}, _init_kwargs={})}, [], "")
    state = stylenerf.published(Place(tmp_path / "x.pkl"), contents, "ema").state
    assert state[name].shape == (1, 1, 4, 4)  # ours has axes for samples and channels
    back = stylenerf.official({"ema": state}, {})["network-snapshot.pt"]["G_ema"]
    assert torch.equal(back[name], noise)


def test_systems_are_found_and_must_agree(tmp_path):
    assert systems()["pigan"] is pigan
    with pytest.raises(ValueError, match="may be of several systems: give --system a or b"):
        recognise(RUN / "generator.pth", {"a": pigan, "b": pigan})
