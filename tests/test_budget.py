"""A training that ends when its time is spent, and learning rates that fall by shares of it."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from callbacks import budget
from callbacks.budget import Budget
from callbacks.curve import Curve
from callbacks.decay import LearningRateDecay
from tests.test_user_errors import refusal
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.utils.errors import UserError
from zoo.weights.bundle import load_bundle

BUDGET = ["--trainer.callbacks+=callbacks.budget.Budget", "--trainer.max_steps=-1"]
SHARES = ["--trainer.callbacks+=callbacks.decay.LearningRateDecay", "--trainer.callbacks.shares=[0.5]"]

RATES: list[float] = []


class Rates(pl.Callback):
    """Keeps the generator's learning rate in each iteration."""

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        RATES.append(round(trainer.optimizers[0].param_groups[0]["lr"], 6))


@pytest.fixture
def a_second_a_step(monkeypatch):
    """Both clocks go on by a second when they are read: that is what each step takes."""
    RATES.clear()
    for clock in budget.CLOCKS:
        now = iter(range(1000))
        monkeypatch.setitem(budget.CLOCKS, clock, lambda now=now: float(next(now)))


def last(folder: Path) -> Path:
    return folder / "run" / "checkpoints" / "last.ckpt"


def iterations(folder: Path) -> int:
    return torch.load(last(folder), weights_only=True)["clocks"]["iterations"]


@pytest.mark.parametrize("clock", ["processor_seconds", "wall_seconds"])
def test_training_ends_with_the_step_that_spends_the_budget(clock, tmp_path, a_second_a_step):
    words = ["fit", "-c", write_config(tmp_path), *BUDGET, f"--trainer.callbacks.{clock}=4.5"]
    assert main(words) == 0 and iterations(tmp_path) == 5
    assert load_bundle(last(tmp_path))[1].card[clock] == "5.0"


def test_a_resumed_run_goes_on_counting_and_a_spent_one_does_not_train(tmp_path, a_second_a_step, capsys):
    words = ["fit", "-c", write_config(tmp_path), *BUDGET, "--trainer.callbacks.processor_seconds"]
    assert main([*words, "3"]) == 0 and iterations(tmp_path) == 3
    assert main([*words, "5", "--ckpt_path", str(last(tmp_path))]) == 0 and iterations(tmp_path) == 5
    assert main([*words, "5", "--ckpt_path", str(last(tmp_path))]) == 0 and iterations(tmp_path) == 5
    assert "resume: all 5 processor seconds are spent" in capsys.readouterr().err


def test_an_interrupted_step_is_counted(tmp_path, a_second_a_step, monkeypatch):
    """The clock stops before the callback that saves."""
    from callbacks.interrupt import GracefulInterrupt

    monkeypatch.setattr(GracefulInterrupt, "received_anywhere", lambda self, trainer: [trainer.global_step == 2, False])
    words = ["fit", "-c", write_config(tmp_path), *BUDGET, "--trainer.callbacks.processor_seconds=9"]
    assert main(words) == 130
    assert torch.load(last(tmp_path), weights_only=True)["callbacks"]["Budget"]["processor_seconds"] == 2.0


def test_shares_are_of_the_budget_or_else_of_all_iterations(tmp_path, a_second_a_step):
    words = ["fit", "-c", write_config(tmp_path), *SHARES, "--trainer.callbacks+=tests.test_budget.Rates"]
    assert main([*words, *BUDGET, "--trainer.callbacks.processor_seconds=5"]) == 0
    assert RATES == [0.01] * 3 + [0.003] * 2  # 3 of 5 are more than half
    RATES.clear()
    assert main([*words, "--trainer.max_steps=4"]) == 0
    assert RATES == [0.01] * 2 + [0.003] * 2


def test_a_decay_goes_on_when_its_run_resumes(tmp_path, a_second_a_step):
    words = ["fit", "-c", write_config(tmp_path), *SHARES, "--trainer.callbacks+=tests.test_budget.Rates", *BUDGET]
    words += ["--trainer.callbacks.processor_seconds=6"]
    assert main([*words, "--trainer.max_steps=4"]) == 0
    assert main([*words, "--ckpt_path", str(last(tmp_path))]) == 0
    assert RATES == [0.01] * 3 + [0.003] * 3


REFUSED = [
    (lambda: Budget(), "Budget has two clocks: give processor_seconds or wall_seconds, and not both."),
    (lambda: Budget(1.0, 1.0), "Budget has two clocks"),
    (lambda: Budget(wall_seconds=0), "wall_seconds of Budget is 0: give a number above 0."),
    (lambda: LearningRateDecay(), "LearningRateDecay needs to know when: give milestones or shares, and not both."),
    (lambda: LearningRateDecay([1], shares=[0.5]), "give milestones or shares, and not both."),
    (lambda: LearningRateDecay(shares=[1.5]), "shares of LearningRateDecay holds 1.5: give numbers from 0 to 1."),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_a_budget_that_cannot_be_is_refused(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)


def test_shares_of_a_training_without_an_end_are_refused(tmp_path, capsys):
    said = refusal(["fit", "-c", write_config(tmp_path), *SHARES, "--trainer.max_steps=-1"], capsys)
    assert said.endswith("give --trainer.max_steps or callbacks.budget.Budget.")


def test_the_state_of_a_curve_from_before_budgets_is_read():
    curve = Curve()
    curve.load_state_dict({"seconds": 12.5, "rows": [{"iteration": 1}]})
    assert curve.seconds == {"processor_seconds": 12.5, "wall_seconds": 0.0} and len(curve.rows) == 1
    with pytest.raises(UserError, match="damaged"):
        curve.load_state_dict({"seconds": 12.5, "rows": 3})
    assert LearningRateDecay([2, 3], 0.1).milestones == [2, 3]
