"""Gradients that are not finite while training."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor

from tests.runs import fit, load
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.pigan.training import PiGAN

pytestmark = pytest.mark.xdist_group("processes")


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


# Gradients


class Rooted(PiGAN):
    """Has a term that is zero, but whose gradient is not a number in some iterations on some process.

    Args:
        bad: those iterations.
        network: whose loss it is in, ``d`` or ``g``.
        process: on which it is.
        lost: iteration in which the term itself is not a number there.
    """

    def __init__(
        self, *args, bad: list[int], network: str = "g", process: int = 0, lost: int | None = None, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self.bad, self.network, self.process, self.lost = bad, network, process, lost

    def root(self, network: str, output: Tensor) -> dict[str, Tensor]:
        if network != self.network:
            return {}
        nothing = 0 * output.sum()
        if self.global_rank == self.process and self.iterations in self.bad:
            nothing = (0 * output).square().sum().sqrt()
        if self.global_rank == self.process and self.iterations == self.lost:
            nothing = nothing * torch.nan
        return {"root": nothing}

    def loss_d(self, real, fake, z, angles) -> dict[str, Tensor]:
        output = self.discriminator(fake, self.alpha).scores
        return super().loss_d(real, fake, z, angles) | self.root("d", output)

    def loss_g(self, fake, z, angles) -> dict[str, Tensor]:
        return super().loss_g(fake, z, angles) | self.root("g", self.discriminator(fake, self.alpha).scores)


class Digests(pl.Callback):
    """Writes down the sum of each network's parameters after each iteration, by process."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args) -> None:
        path = Path(trainer.default_root_dir) / f"sums-{trainer.global_rank}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        networks = (pl_module.generator, pl_module.discriminator)
        sums = [sum(p.double().sum().item() for p in network.parameters()) for network in networks]
        with open(path, "a") as file:
            print(trainer.global_step, *map(repr, sums), file=file)


def rooted_config(folder: Path, max_steps: int = 8, **settings) -> str:
    path = Path(write_config(folder, max_steps=max_steps))
    config = yaml.safe_load(path.read_text())
    config["model"]["class_path"] = "tests.test_faults.Rooted"
    config["model"]["init_args"] |= settings
    config["trainer"]["callbacks"] = [{"class_path": "tests.test_faults.Digests"}]
    path.write_text(yaml.safe_dump(config))
    return str(path)


def sums(folder: Path, process: int = 0) -> tuple[list[str], ...]:
    """Global steps, and sums of the generator's and of the discriminator's parameters, after each iteration."""
    lines = (folder / "run" / f"sums-{process}.txt").read_text().splitlines()
    return tuple(zip(*(line.split() for line in lines), strict=True))


@pytest.mark.parametrize(("network", "name"), [("g", "generator"), ("d", "discriminator")])
def test_steps_whose_gradients_are_not_finite_are_skipped_and_counted(network, name, tmp_path, caplog):
    assert main(["fit", "-c", rooted_config(tmp_path, bad=[2, 3, 5], network=network)]) == 0
    steps, *changing = sums(tmp_path)
    assert steps == tuple(map(str, range(1, 9)))  # a skipped step is an iteration
    mine, other = changing if network == "g" else changing[::-1]
    assert mine[1] == mine[2] == mine[3] and mine[4] == mine[5] and len(set(mine)) == 5
    assert len(set(other)) == 8  # the other network went on
    state = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert state["skipped"] == {f"loss_{network}": 3} and state["clocks"]["iterations"] == 8
    warnings = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(warnings) == 3 and all(f"gradients of the {name} are not finite" in text for text in warnings)
    assert [f"from loss_{network}/root" in text for text in warnings] == [False, True, False]
    assert [f"number {n} of at most 3" in text for n, text in zip((1, 2, 1), warnings, strict=True)] == [True] * 3
    metrics = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = metrics[0].split(",").index(f"loss_{network}/skipped")
    assert [line.split(",")[place] for line in metrics[1:] if line.split(",")[place]] == ["1", "2", "3"]


@pytest.mark.parametrize(("max_skips", "done"), [(3, 5), (0, 2)])
def test_too_many_skips_in_a_row_stop_the_run(max_skips, done, tmp_path, capsys):
    config = rooted_config(tmp_path, bad=[2, 3, 4, 5, 6, 7], max_skips=max_skips)
    assert main(["fit", "-c", config, "--checkpoint.every", "1"]) == 1
    said = last_line(capsys)
    assert f"gradients of the generator are not finite at iteration {done}" in said and "loss_g/fake is" in said
    assert ("from loss_g/root" in said) == (max_skips > 0) and "the last checkpoint is good" in said
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["clocks"]["iterations"] == done


def test_two_processes_skip_and_stop_alike(tmp_path):
    config = rooted_config(tmp_path, 30, bad=[2, 3, 5], process=1, lost=8)
    with fit(config, "--trainer.devices", "2") as process:
        said = process.stderr.read().strip().splitlines()
        assert process.wait(timeout=120) == 1, said
    assert sums(tmp_path, 0) == sums(tmp_path, 1)
    steps, generator, _ = sums(tmp_path)
    assert generator[1] == generator[2] == generator[3] and generator[4] == generator[5] and len(steps) == 8
    assert sum("from loss_g/root" in line and "number 2 of at most 3" in line for line in said) == 1
    ends = [line for line in said if line.startswith("zoo: error:")]
    assert len(ends) == 1 and "loss_g/root is nan on process 1" in ends[0] and "on process 0" not in ends[0]
    assert not any("Traceback" in line for line in said)
