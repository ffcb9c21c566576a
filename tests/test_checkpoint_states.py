"""A checkpoint whose weights are right and whose other states are not: one sentence, whatever is wrong."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from callbacks.checkpoint import RegularCheckpoint
from callbacks.scores import Scores
from datamodules import ImageFolder
from tests.test_user_errors import refusal
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.training.checkpoint_states import check_moments
from zoo.training.ema import EMA
from zoo.utils.errors import UserError
from zoo.utils.states import difference


class Remembers(pl.Callback):
    """Somebody's callback, which trusts what it finds."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": 3}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict["seen"] + 1


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> dict[str, Any]:
    """What a checkpoint after three iterations holds."""
    folder = tmp_path_factory.mktemp("first")
    words = ["--trainer.callbacks+=tests.test_checkpoint_states.Remembers"]
    assert main(["fit", "-c", write_config(folder), *words]) == 0
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


def put(*path: Any) -> Callable[[dict], None]:
    """Another value, the last one, at a path; gone where that is ``...``."""
    *outer, key, value = path

    def change(held: Any) -> None:
        for part in outer:
            held = held[part]
        if value is ...:
            del held[key]
        else:
            held[key] = value

    return change


LOOP = ("loops", "fit_loop")
STEPS = (*LOOP, "epoch_loop.manual_optimization.optim_step_progress", "total")
WRONG = [
    (put("clocks", "iterations", -1), "clocks.iterations is -1 instead of a count"),
    (put("skipped", {"loss_g": "x"}), "skipped.loss_g is x instead of a count"),
    (put("settings", 0, "groups", 0, 7), "settings.groups holds what is none"),
    (put("state_dict", "emas.slow._extra_state", {"updates": -3}), "an EMA's state.updates is -3 instead of a count"),
    (put("pytorch-lightning_version", "new"), "its version cannot be restored (InvalidVersion"),
    (put(*STEPS, "completed", -3), "total.completed is -3 instead of a count"),
    (put(*STEPS, ...), "optim_step_progress has no 'total'"),
    (put("callbacks", "RegularCheckpoint", "best_file", "../mine.txt"), "the file of the best score is '../mine.txt'"),
    (put("callbacks", "Remembers", "seen", "x"), "its states of callbacks cannot be restored (TypeError: "),
    (put("optimizer_states", []), "optimizer_states is a list instead of 2 values"),
    (put("optimizer_states", 1, "param_groups", 0, "param_names", 0, "x"), "state does not know discriminator.from_"),
    (put("optimizer_states", 1, "param_groups", 0, "lr", "x"), "the optimizer's lr is x instead of a number"),
    (put("optimizer_states", 1, "state", 0, "exp_avg", torch.zeros(3)), "'exp_avg' of discriminator.from_rgb.0.weight"),
    (
        put("optimizer_states", 1, "state", 0, "step", torch.tensor(-2.0)),
        "'step' of discriminator.from_rgb.0.weight is",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_damaged_is_named(change, message, state, tmp_path, capsys):
    held = copy.deepcopy(state)
    change(held)
    torch.save(held, tmp_path / "damaged.ckpt")
    words = ["--ckpt_path", str(tmp_path / "damaged.ckpt"), "--trainer.max_steps", "4"]
    words += ["--trainer.callbacks+=tests.test_checkpoint_states.Remembers"]
    said = refusal(["fit", "-c", write_config(tmp_path), *words], capsys)
    assert message in said and "--init_from" in said and len(said) < 300


def test_states_of_scores_and_data_are_looked_at():
    with pytest.raises(UserError, match=r"the first scores\.first is 5 instead of"):
        Scores().load_state_dict({"scored_at": None, "first": 5})
    with pytest.raises(UserError, match=r"the state of the data\.done is -1 instead of a count"):
        ImageFolder("x").load_state_dict({"done": -1})
    Scores().load_state_dict({"scored_at": 3, "first": {"fid": 3.5, "kid": -0.1}})
    RegularCheckpoint().load_state_dict({"best_name": "kid", "best_value": -0.1, "best_file": "best-kid=-0.1.ckpt"})
    EMA().set_extra_state({"updates": 0})


@pytest.mark.parametrize(
    ("value", "like", "problem"),
    [
        ({"a": 1, "more": 2}, {"a": 0}, ""),
        ({"a": {}}, {"a": {"b": 0}}, "x.a has no 'b'"),
        ({"a": "x"}, {"a": 0.0}, "x.a is x instead of a number"),
        ({"a": float("nan")}, {"a": 0.0}, "x.a is nan instead of a number"),
        ({"a": torch.tensor(1.5)}, {"a": 0.0}, ""),
        ([1, True], [0, False], ""),
        ([1], [0, False], "x is a list instead of 2 values"),
        ([1, 1], [0, False], "x.1 is 1 instead of true or false"),
        (True, 0, "x is True instead of a count"),
        (10**20, 0, "x is 100000000000000000000 instead of a count"),
        (torch.ones(3), 0, "x is a tensor of [3] instead of a count"),
        ({}, list, "x is a dict instead of a value of list"),
        (None, int | None, ""),
        (5, {}, "x is 5 instead of names and values"),
        (5, None, ""),
    ],
)
def test_a_state_is_compared_with_one_of_the_same_part(value, like, problem):
    assert difference(value, like, "x") == problem


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.Adam(groups, amsgrad=True),
        lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        lambda groups: torch.optim.Adafactor(groups),
        lambda groups: torch.optim.RMSprop(groups, centered=True),
        lambda groups: torch.optim.Adagrad(groups),
        lambda groups: torch.optim.Rprop(groups),
    ],
)
def test_what_an_optimizer_keeps_itself_is_taken_and_of_another_shape_refused(make):
    parameters = [("a", torch.nn.Parameter(torch.ones(4, 6))), ("b", torch.nn.Parameter(torch.ones(3)))]
    parameters += [("c", torch.nn.Parameter(torch.ones(2, 3, 4, 4)))]
    optimizer = make(parameters)
    for _, parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = optimizer.state_dict()["state"]
    places = [(place, name, parameter) for place, (name, parameter) in enumerate(parameters)]
    check_moments(states, places, make)
    check_moments({place: {} for place in states}, places, make)  # before the first step
    for key, value in states.get(0, {}).items():
        if torch.is_tensor(value) and value.dim():
            with pytest.raises(UserError, match=f"the optimizer's '{key}' of a is "):
                check_moments(states | {0: states[0] | {key: torch.ones(5, 5)}}, places, make)
