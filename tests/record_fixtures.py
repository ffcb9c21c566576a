"""``python -m tests.record_fixtures``: wrote ``tests/fixtures``, in version 0.2.0.

They hold what that version read, wrote and computed. Never record them again because ``tests/test_compatibility.py``
fails: it fails where a file that a user has from then would mean something else now. Put the code right instead.
"""

import copy
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from tests.systems import SYSTEMS, NoiseData
from tests.test_compatibility import FIXTURES, INIT_FROM, drawn, fingerprints, run_losses, two_steps
from zoo.cli import main
from zoo.draws import TrainingDraws
from zoo.training import GAN
from zoo.weights.bundle import build, load_bundle

EMAS = {
    "slow": {
        "class_path": "zoo.training.EMA",
        "init_args": {"decay": {"class_path": "zoo.training.WarmUpDecay", "init_args": {"limit": 0.99}}},
    },
    "fast": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5, "buffers": "lerp"}},
    "kept": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.9, "buffers": "keep"}},
}
KINDS = ["xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "brightness", "contrast", "lumaflip", "hue"]
# Options with which two iterations, the first of which has this number and comes after so many images, do all that a
# system's training can do, beside those of its tiny config.
EVERYTHING: dict[str, tuple[int, int, dict[str, Any]]] = {
    "cips3d": (
        2,
        8,
        {
            "stages": [
                {"start": 0, "ema_start": 1, "noise_iterations": 9, "gradient_rays": 40, "fade_iterations": 5},
                {
                    "start": 3,
                    "lr_g": 5e-3,
                    "lr_d": 2e-3,
                    "augment": "zoo.layers.diffaugment.diffaugment",
                    "frozen": ["mapping.shape"],
                    "batch_split": 2,
                    "samples": 3,
                    "ema_start": 0,
                },
            ],
        },
    ),
    "giraffe": (0, 0, {"fakes": 3}),
    "graf": (2999, 0, {"milestones": [3000], "noise_iterations": 9000}),
    "pigan": (
        40,
        160,
        {
            "stages": [{"start": 0, "lr_g": 5e-3}, {"start": 41, "lr_d": 2e-3, "batch_split": 2}],
            "fade_iterations": 100,
            "noise_iterations": 100,
            "latent_weight": 1.0,
            "angle_weight": 2.0,
            "top_k_every": 1,
            "top_k_least": 0.5,
        },
    ),
    "stylenerf": (40, 20, {"mixing": 1.0, "r1_every": 2, "path_every": 1}),
    "volumegan": (
        40,
        8,
        {
            "mixing": 1.0,
            "r1_every": 2,
            "path_every": 1,
            "growth": {
                "class_path": "zoo.volumegan.Growth",
                "init_args": {"levels": 1, "hold": 2, "fade": 16, "every": 1},
            },
        },
    ),
}


def everything(system: str) -> dict[str, Any]:
    """Config of the model for the two iterations."""
    model = copy.deepcopy(SYSTEMS[system]()["model"])
    options = model["init_args"]
    options |= copy.deepcopy(EVERYTHING[system][2]) | {"emas": copy.deepcopy(EMAS)}
    discriminator = options["discriminator"]["init_args"]
    if system == "cips3d":
        for tower in ("main", "auxiliary"):
            discriminator[tower]["init_args"]["group"] = 2
    elif system == "graf":
        options["patches"]["init_args"]["anneal"] = 0.1
    elif system == "pigan":
        discriminator["latent_dim"] = 4
    elif system == "stylenerf":
        discriminator["groups"] = 2
        weights = dict.fromkeys([*KINDS, "saturation", "noise", "cutout"], 1.0)
        options["augment"]["init_args"] |= {"weights": weights, "probability": 0.5}
    elif system == "volumegan":
        discriminator["groups"] = 2
    return model


def smallest(tensor: Tensor) -> Tensor:
    """A copy in half precision, if that holds the same numbers."""
    half = tensor.half()
    return half if tensor.is_floating_point() and half.to(tensor.dtype).equal(tensor) else tensor.clone()


class Recorder:
    """Training's draws in the precision of halves, and what was asked of them."""

    def __init__(self, step: int, iteration: int, made: dict[str, Tensor]) -> None:
        self.draws, self.step, self.made = TrainingDraws(0, iteration, dtype=torch.float64), step, made

    def take(self, kind: str, name: str, shape: Any) -> Tensor:
        numbers = getattr(self.draws, kind)(name, shape).half().double()
        numbers = numbers if kind == "normal" else numbers.clamp(max=1 - 2**-11)  # half precision rounds up to 1
        count = sum(key.startswith(f"draws.{self.step}.") for key in self.made)
        self.made[f"draws.{self.step}.{count:03d}.{kind}.{name}"] = smallest(numbers)
        return numbers

    def uniform(self, name: str, shape: Any) -> Tensor:
        return self.take("uniform", name, shape)

    def normal(self, name: str, shape: Any) -> Tensor:
        return self.take("normal", name, shape)

    def shared(self, name: str, shape: Any) -> Tensor:
        return self.take("shared", name, shape)


def record_steps(system: str, folder: Path) -> None:
    """Two iterations in float64 from weights without zeros, each EMA with weights of its own."""
    iteration, images_seen, _ = EVERYTHING[system]
    clocks = {"iterations": iteration, "images_seen": images_seen}
    torch.manual_seed(1)
    gan = build(everything(system), GAN)
    with torch.no_grad():
        for parameter in gan.parameters():
            parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).half())
    for ema in gan.emas.values():
        ema.updates = 2
    state = {name: value.clone() if isinstance(value, Tensor) else value for name, value in gan.state_dict().items()}
    tensors = {f"state.{name}": smallest(tensor) for name, tensor in state.items() if isinstance(tensor, Tensor)}
    source = NoiseData().train_source()
    images = [
        source.item(i, gan.generator.resolution)["image"] for i in range(4 if system in ("graf", "stylenerf") else 8)
    ]
    tensors["images"] = torch.stack(images)
    draws = [Recorder(step, iteration + step, tensors) for step in range(2)]
    losses = two_steps(gan.double(), tensors["images"], clocks, draws)
    save_file(tensors, folder / "steps.safetensors")
    extra = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    known = {"model": everything(system), "clocks": clocks, "extra_state": extra, "losses": losses}
    (folder / "steps.json").write_text(json.dumps(known | {"state": fingerprints(gan)}) + "\n")


def record_run(system: str, folder: Path) -> None:
    """A run of three iterations, its bundle and what that draws, two more iterations, two from its weights."""
    config = SYSTEMS[system]()
    if system == "pigan":
        config["model"]["init_args"]["discriminator"]["init_args"]["channels"] = [8, 8, 8]
    elif system == "stylenerf":
        config["model"]["init_args"]["discriminator"]["init_args"]["base_channels"] = 32
    trainer = {"accelerator": "cpu", "log_every_n_steps": 1, "max_steps": 3, "default_root_dir": "run"}
    Path("tiny.yaml").write_text(yaml.safe_dump(config | {"trainer": trainer}))
    run_losses("-c", "tiny.yaml")
    shutil.copy("run/config.yaml", folder)
    shutil.copy("run/checkpoints/last.ckpt", folder)
    assert main(["bundle", str(folder / "last.ckpt"), "--out", str(folder / "bundle")]) == 0
    images = drawn(load_bundle(folder / "bundle")[0])
    save_file({name: tensor.clone() for name, tensor in images.items()}, folder / "expected.safetensors")
    shutil.rmtree("run")
    words, last = ["-c", str(folder / "config.yaml")], str(folder / "last.ckpt")
    expected = {"resumed": run_losses(*words, "--ckpt_path", last, "--trainer.max_steps", "5")}
    shutil.rmtree("run")
    if system == INIT_FROM:
        expected["started"] = run_losses(*words, "--init_from", last, "--trainer.max_steps", "2")
        shutil.rmtree("run")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        for system in SYSTEMS:
            folder = FIXTURES / system
            folder.mkdir(parents=True)  # what is recorded stays
            record_steps(system, folder)
            record_run(system, folder)
