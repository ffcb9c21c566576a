"""Going on from a checkpoint: exactly, or with what the user changed; starting from given weights; estimates."""

import copy
import functools
import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from tests.same_runs import check_exact_resume, write
from tests.systems import SYSTEMS
from tests.tiny import write_config
from tests.tiny_systems import BOUNDARY
from zoo.cli.command import main
from zoo.training import channels_last, optimizers, resume
from zoo.training.gan import GAN
from zoo.weights.bundle import build, save_bundle


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("stop", "words"),
    [(6, ["--data.num_workers", "2"]), (BOUNDARY, ["--model.precision", "fp16"])],
    ids=["within a stage, two workers", "between stages, fp16"],
)
def test_resume_is_exact(system, stop, words, tmp_path) -> None:
    check_exact_resume(SYSTEMS[system](), tmp_path, words, stop=stop)


@pytest.fixture(scope="module")
def last(tmp_path_factory) -> str:
    """A checkpoint after three iterations."""
    folder = tmp_path_factory.mktemp("first")
    assert main(["fit", "-c", write_config(folder)]) == 0
    return str(folder / "run" / "checkpoints" / "last.ckpt")


def error(words, capsys) -> str:
    """The last line of a command that fails."""
    assert main(words) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_what_was_typed_wins_and_is_told(last, tmp_path, capsys) -> None:
    words = ["fit", "-c", write_config(tmp_path), "--ckpt_path", last, "--trainer.max_steps", "4"]
    typed = ["--model.r1_weight", "7", "--model.optimizer_d.lr", "0.5", "--model.emas.slow.decay", "0.75"]
    assert main([*words, *typed, "--data.batch_size", "2"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("resume: ")]
    assert sorted(told) == [
        "resume: data.batch_size: 4 -> 2",
        "resume: model.emas.slow.decay: 0.9 -> 0.75",
        "resume: model.optimizer_d.lr: 0.01 -> 0.5",
        "resume: model.r1_weight: 0.2 -> 7.0",
    ]
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    rates = [[group["lr"] for group in optimizer["param_groups"]] for optimizer in state["optimizer_states"]]
    assert rates == [[0.01, 0.01], [0.5]]
    assert state["clocks"]["images_seen"] == 3 * 4 + 2


def test_nothing_is_told_where_nothing_changed(last, tmp_path, capsys) -> None:
    words = ["fit", "-c", write_config(tmp_path), "--ckpt_path", last, "--trainer.max_steps", "4"]
    assert main(words) == 0
    assert "resume: " not in capsys.readouterr().err


def test_moments_find_their_parameters_by_name(last, tmp_path) -> None:
    """In a checkpoint of a version in which they stood in another order."""
    state = torch.load(last, weights_only=True)
    for optimizer in state["optimizer_states"]:
        moments, optimizer["state"] = optimizer["state"], {}
        for group in optimizer["param_groups"]:
            places = zip(group["params"], reversed(group["params"]), strict=True)
            optimizer["state"] |= {new: moments[old] for new, old in places if old in moments}
            group["param_names"].reverse()
    torch.save(state, tmp_path / "turned.ckpt")
    for name, source in (("as it was", last), ("turned", str(tmp_path / "turned.ckpt"))):
        (tmp_path / name).mkdir()
        words = ["-c", write_config(tmp_path / name), "--ckpt_path", source, "--trainer.max_steps", "5"]
        assert main(["fit", *words]) == 0
    ours, theirs = (weights(tmp_path / name / "run") for name in ("turned", "as it was"))
    assert all(
        value.equal(theirs[name]) for name, value in ours.items() if torch.is_tensor(value) and "mean_" not in name
    )


def test_how_an_optimizer_steps_is_the_devices_and_no_setting(last, tmp_path, capsys, monkeypatch) -> None:
    """A checkpoint of a CPU goes on in one kernel, of weights laid out for it, where a GPU does so, and back again."""
    states = []
    for name, kinds in (("plain", ()), ("fused", ("cpu",)), ("back", ())):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(optimizers, "FUSED_ON", kinds)
        monkeypatch.setattr(channels_last, "CHANNELS_LAST_ON", kinds)
        source = states[-1][0] if name == "back" else last
        words = ["fit", "-c", write_config(tmp_path / name), "--ckpt_path", source]
        assert main([*words, "--trainer.max_steps", str(5 + 2 * (name == "back"))]) == 0
        path = str(tmp_path / name / "run" / "checkpoints" / "last.ckpt")
        states.append((path, torch.load(path, weights_only=True)))
    assert "resume: " not in capsys.readouterr().err
    groups = [[g["fused"] for o in state["optimizer_states"] for g in o["param_groups"]] for _, state in states]
    assert groups == [[None] * 3, [True] * 3, [None] * 3]
    plain, fused, _ = (state["state_dict"] for _, state in states)
    for tensor, other in ((plain[n], fused[n]) for n in plain if "mean_" not in n and torch.is_tensor(plain[n])):
        torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-5)


def test_only_2d_networks_and_their_emas_have_channels_last(monkeypatch) -> None:
    monkeypatch.setattr(channels_last, "CHANNELS_LAST_ON", ("cpu",))
    model = build(SYSTEMS["eg3d"]()["model"], GAN)
    channels_last.use_channels_last(model)
    four = {name: p for name, p in model.named_parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[-1] > 1}
    laid_out = {name for name, p in four.items() if p.is_contiguous(memory_format=torch.channels_last)}
    assert laid_out == {name for name in four if name.startswith("discriminator.") or "superresolution." in name}
    assert {name.split(".")[0] for name in laid_out} == {"discriminator", "generator", "emas"}


def test_options_that_say_how_to_step_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(optimizers, "FUSED_ON", ("cpu",))
    parameter = torch.nn.Parameter(torch.zeros(2))
    made = [torch.optim.Adam([parameter], fused=False), torch.optim.Adam([parameter], foreach=True)]
    made += [torch.optim.RMSprop([parameter]), torch.optim.SGD([parameter], lr=0.1)]
    for optimizer in made:
        optimizers.use_fused(optimizer)
    assert [optimizer.param_groups[0].get("fused") for optimizer in made] == [False, None, None, True]


def test_settings_that_did_not_change_stay_where_a_schedule_had_moved_them() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))

    def made(**kwargs) -> list:
        return [torch.optim.Adam([parameter], **kwargs), torch.optim.SGD([parameter])]

    restored = made(lr=0.1, eps=1e-3)
    restored[0].param_groups[0]["lr"] = 0.04  # by a schedule
    before, now = (resume.settings(made(lr=0.1, eps=eps)) for eps in (1e-3, 1e-5))
    assert resume.apply_changes(before, now, restored) == ["optimizer_g.eps: 0.001 -> 1e-05"]
    assert restored[0].param_groups[0]["lr"] == 0.04 and restored[0].param_groups[0]["eps"] == 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.generator.mapping_dim", "9"], "mapping.layers.0.weight is [8, 4] instead of [9, 4]"),
        (["--model.emas", "{}"], "emas.slow._extra_state is unexpected"),
        (["--model.optimizer_d", "torch.optim.SGD"], "state of Adam for optimizer_d, which SGD cannot resume from"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(words, message, last, tmp_path, capsys) -> None:
    said = error(["fit", "-c", write_config(tmp_path), "--ckpt_path", last, *words], capsys)
    assert message in said and "or start a new run from its weights with --init_from" in said


def test_another_number_of_processes_is_refused(last, tmp_path, capsys) -> None:
    state = torch.load(last, weights_only=True)
    assert state["processes"] == 1
    torch.save(state | {"processes": 2}, tmp_path / "two.ckpt")
    words = ["-c", write_config(tmp_path), "--ckpt_path", str(tmp_path / "two.ckpt")]
    message = error(["fit", *words], capsys)
    assert "written by 2 processes, and this run has 1 process" in message and "--trainer.devices" in message
    assert main(["validate", *words]) == 0  # scores do not depend on it


def test_scores_are_printed_once(last, tmp_path, monkeypatch) -> None:
    whole, seen = pl.Trainer.validate, []

    @functools.wraps(whole)
    def validate(self, *args, **options):
        seen.append(options["verbose"])
        return whole(self, *args, **options)

    monkeypatch.setattr(pl.Trainer, "validate", validate)
    assert main(["validate", "-c", write_config(tmp_path), "--ckpt_path", last]) == 0
    assert seen == [False]  # the trainer's table would be a second time


def test_a_foreign_checkpoint_is_refused(tmp_path, capsys) -> None:
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    words = ["fit", "-c", write_config(tmp_path), "--ckpt_path", str(tmp_path / "x.ckpt")]
    assert "not a checkpoint of a run here" in error(words, capsys)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


FROZEN = ["--model.optimizer_g.lr", "0", "--model.optimizer_d.lr", "0", "--trainer.max_steps", "1"]


def test_training_starts_from_a_checkpoint(last, tmp_path, capsys) -> None:
    words = ["fit", "-c", write_config(tmp_path), "--init_from", last, *FROZEN]
    assert main([*words, "--init_fresh", "[generator.mapping,discriminator.final]"]) == 0
    said = capsys.readouterr().err
    assert "generator: 10 tensors of generator, fresh: mapping.layers.0.bias" in said
    ours, theirs = weights(tmp_path / "run"), torch.load(last, weights_only=True)["state_dict"]
    same = {name for name, value in ours.items() if isinstance(value, torch.Tensor) and value.equal(theirs[name])}
    fresh = {name for name in ours if "mapping" in name or "discriminator.final" in name}
    ema = {name for name in ours if name.startswith("emas.")}  # has moved towards the generator
    assert same - ema == {n for n in ours if "mean_" not in n} - fresh - ema
    clocks = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["clocks"]
    assert clocks["iterations"] == 1


def test_training_starts_from_a_bundle_without_what_was_computed_for_it(last, tmp_path, capsys) -> None:
    from zoo.weights.bundle import load_bundle

    generator, info = load_bundle(last)
    save_bundle(tmp_path / "bundle", generator, info.config)
    words = ["fit", "-c", write_config(tmp_path), "--init_from", str(tmp_path / "bundle"), *FROZEN]
    assert main(words) == 0
    assert "discriminator: fresh, the weights have none" in capsys.readouterr().err
    ours, theirs = weights(tmp_path / "run"), torch.load(last, weights_only=True)["state_dict"]
    for name in (name for name in ours if name.startswith("generator.") and "mean_" not in name):
        source = theirs[name.replace("generator.", "emas.slow.module.")]
        assert ours[name].equal(source)
        torch.testing.assert_close(ours[name.replace("generator.", "emas.slow.module.")], source)
    assert ours["generator.mean_phases"].isnan().all()  # a finished model's means are not those of its successor


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--init_from", "{last}", "--model.generator.mapping_dim", "9"],
            "layers.0.weight is [8, 4] instead of [9, 4]",
        ),
        (["--init_from", "{last}", "--init_fresh", "[generator.maping]"], "does not have: generator.maping"),
        (["--init_from", "nosuch"], "no weights named 'nosuch'"),
        (["--init_fresh", "[generator]"], "give both"),
        (["--estimate", "--ckpt_path", "{last}"], "leave out --ckpt_path"),
        (["--estimate", "--trainer.max_steps", "-1"], "give --trainer.max_steps"),
        (["--trainer.precision", "bf16-mixed"], "--model.precision bf16 or fp16"),
    ],
)
def test_what_cannot_be_started(words, message, last, tmp_path, capsys) -> None:
    words = [word.replace("{last}", last) for word in words]
    assert message in error(["fit", "-c", write_config(tmp_path), *words], capsys)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_starting_from_weights_is_for_fit(last, tmp_path, capsys) -> None:
    words = ["validate", "-c", write_config(tmp_path), "--init_from", last]
    assert "are for 'zoo fit', not for 'zoo validate'" in error(words, capsys)


def test_estimate_measures_every_stage_and_keeps_nothing(tmp_path, capsys) -> None:
    config = write(SYSTEMS["pigan"](), tmp_path / "run")
    before = sorted((tmp_path / "run").rglob("*"))
    assert main(["fit", "-c", config, "--trainer.max_steps", "3600008", "--estimate"]) == 0
    assert sorted((tmp_path / "run").rglob("*")) == before
    text = capsys.readouterr().out
    assert "generator: 852 parameters" in text and "between processes: 0.0" in text
    assert "EMAs of the generator: 2" in text and "GiB of this process" in text
    stages = re.findall(r"iterations ([\d,]+) to ([\d,]+): (\S+) s an iteration, (\S+) images/s, (.+)", text)
    assert [stage[:2] for stage in stages] == [("0", "4"), ("4", "8"), ("8", "3,600,008")]
    for (*_, seconds, pace, _), size in zip(stages, (4, 6, 3), strict=True):
        assert float(seconds) * float(pace) == pytest.approx(size, rel=0.02)
    number, unit = re.search(r"in all: (\S+) (\S+) for 3,600,008 iterations", text).groups()
    total = float(number) * {"min": 60, "h": 3600, "days": 86400}[unit]
    assert total == pytest.approx(3_600_008 * float(stages[2][2]), rel=0.02)


def test_estimate_knows_the_stages_of_stylesdf(tmp_path, capsys) -> None:
    config = write(SYSTEMS["stylesdf"](), tmp_path / "run")
    assert main(["fit", "-c", config, "--trainer.max_steps", "100", "--estimate"]) == 0
    assert re.findall(r"iterations (\d+) to (\d+):", capsys.readouterr().out) == [("0", "2"), ("2", "4"), ("4", "100")]


def test_config_changes_are_named_as_they_are_typed() -> None:
    before = {
        "class_path": "zoo.PiGAN",
        "init_args": {"field": {"class_path": "A", "init_args": {"width": 8}}, "k": {}},
    }
    now = copy.deepcopy(before)
    now["init_args"]["field"] = {"class_path": "B", "init_args": {"depth": 2}}
    assert resume.config_changes(before, now, "model") == [
        "model.field.class_path: A -> B",
        "model.field.width: 8 -> unset",
        "model.field.depth: unset -> 2",
    ]
    assert resume.config_changes(before, before, "model") == resume.config_changes(None, now, "model") == []
