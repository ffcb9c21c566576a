"""What every system must stand, as helpers that take a config: exact resume, several processes, 16 bits.

A new system adds its tiny config to ``SYSTEMS``; every test that is parametrised over it then holds for it too.
"""

import copy
import csv
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import yaml
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from datamodules.base import ImageData
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.draws import TrainingDraws, stream_seed
from zoo.evaluate.extractors import Extractor
from zoo.evaluate.protocol import score
from zoo.render import Camera, orbit_cameras
from zoo.training import DDP, ddp, gan


class NoiseImages:
    """Images of noise, by index, with cameras all round or without."""

    def __init__(self, count: int, posed: bool = False) -> None:
        self.count, self.posed = count, posed

    def __len__(self) -> int:
        return self.count

    def item(self, index: int, resolution: int) -> dict[str, Any]:
        stream = torch.Generator().manual_seed(stream_seed("noise", index))
        image = torch.randint(256, (3, resolution, resolution), dtype=torch.uint8, generator=stream)
        return {"image": image} | ({"camera": Camera(*(x[index] for x in self.all_cameras()))} if self.posed else {})

    def cameras(self, resolution: int) -> Camera | None:
        return self.all_cameras() if self.posed else None

    def all_cameras(self) -> Camera:
        yaw = torch.arange(self.count)[:, None] / self.count
        return orbit_cameras(6.28 * yaw, 1.0 + 0.3 * yaw, radius=10.0, fov=0.5)

    def digest(self, resolution: int) -> str:
        return f"noise-{resolution}-{self.count}"


class NoiseData(ImageData):
    """Endless batches of noise, mirrored or not, in stages.

    Args:
        count: images; few, so that even short runs see all of them more than once.
        stages, batch_size, num_workers, resolution: as in ``ImageData``.
        posed: each has a camera.
    """

    name = "noise"
    extractor = "cars"  # which is quick

    def __init__(
        self,
        count: int = 22,
        stages: dict[int, dict[str, int]] | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
        resolution: int = 8,
        posed: bool = False,
    ) -> None:
        super().__init__(resolution, batch_size, stages, flip=True, num_workers=num_workers)
        self.count, self.posed = count, posed

    def train_source(self) -> NoiseImages:
        return NoiseImages(self.count, self.posed)


DATA = {
    "class_path": "tests.systems.NoiseData",
    "init_args": {"stages": {0: {}, 4: {"resolution": 4, "batch_size": 6}, 8: {"resolution": 8, "batch_size": 3}}},
}


def pigan() -> dict[str, Any]:
    """A tiny pi-GAN with everything that a run remembers: EMAs, learning rates by stage, R1, a second slice."""
    model = copy.deepcopy(CONFIG["model"])
    model["init_args"] |= {
        "stages": [{"start": 0, "lr_g": 5e-3}, {"start": 4, "lr_d": 2e-3}, {"start": 8, "batch_split": 2}],
        "fade_iterations": 3,
        "noise_iterations": 9,
        "mapping_lr": 0.1,
        "emas": {
            "slow": {
                "class_path": "zoo.training.EMA",
                "init_args": {"decay": {"class_path": "zoo.training.WarmUpDecay", "init_args": {"limit": 0.99}}},
            },
            "fast": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5}},
        },
    }
    return {"model": model, "data": copy.deepcopy(DATA)}


def giraffe() -> dict[str, Any]:
    """A tiny GIRAFFE of two objects, with as many fakes as real images in every stage."""

    def field(features: int, **sizes: Any) -> dict[str, Any]:
        waves = {
            name: {"class_path": "zoo.giraffe.Octaves", "init_args": {"octaves": 2}}
            for name in ("positions", "directions")
        }
        sizes = {"latent_dim": 4, "hidden_dim": 8, "num_layers": 3, "skips": [1], "features": features, **sizes}
        return {"class_path": "zoo.giraffe.Field", "init_args": waves | sizes}

    depths = {"class_path": "zoo.giraffe.StratifiedDepths", "init_args": {"near": 1.0, "far": 4.0, "samples": 6}}
    rmsprop = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 1e-3}}
    generator = {
        "objects": field(6),
        "background": field(6, skips=[]),
        "boxes": {"class_path": "zoo.giraffe.BoxPrior", "init_args": {"count": 2}},
        "poses": {"class_path": "zoo.giraffe.ScenePoses", "init_args": {"polar": [0.3, 0.5]}},
        "renderer": {"class_path": "zoo.giraffe.SceneRenderer", "init_args": {"depths": depths, "chunk": 200}},
        "neural_renderer": {
            "class_path": "zoo.giraffe.NeuralRenderer",
            "init_args": {"stages": 1, "channels_in": 6, "channels": 6, "least": 2},
        },
        "feature_resolution": 4,
        "background_rotation": [0.0, 0.25],
    }
    model = {
        "generator": {"class_path": "zoo.giraffe.Generator", "init_args": generator},
        "discriminator": {"class_path": "zoo.giraffe.Discriminator", "init_args": {"resolution": 8, "channels": 8}},
        "optimizer_g": rmsprop,
        "optimizer_d": copy.deepcopy(rmsprop),
        "emas": {"slow": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.9, "buffers": "keep"}}},
    }
    stages = {0: {}, 4: {"batch_size": 6}, 8: {"batch_size": 3}}
    return {
        "model": {"class_path": "zoo.giraffe.GIRAFFE", "init_args": model},
        "data": {"class_path": "tests.systems.NoiseData", "init_args": {"stages": stages}},
    }


def graf() -> dict[str, Any]:
    """A tiny GRAF: two schedules of the clock, mirrored patches, spectral norm's state."""
    optimizer = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 1e-3}}
    field = {"shape_dim": 3, "appearance_dim": 2, "hidden_dim": 8, "num_layers": 6, "point_octaves": 2}
    depths = {"class_path": "zoo.graf.AlongAxis", "init_args": {"near": 7.5, "far": 12.5, "samples": 3, "radius": 10.5}}
    generator = {
        "field": {"class_path": "zoo.graf.RadianceField", "init_args": field},
        "renderer": {"class_path": "zoo.render.VolumeRenderer", "init_args": {"depths": depths}},
        "poses": {"class_path": "zoo.graf.OnSphere", "init_args": {"radius": [9.5, 10.5]}},
        "resolution": 8,
    }
    model = {
        "generator": {"class_path": "zoo.graf.Generator", "init_args": generator},
        "discriminator": {"class_path": "zoo.graf.Discriminator", "init_args": {"channels": 2}},
        "optimizer_g": optimizer,
        "optimizer_d": copy.deepcopy(optimizer),
        "patches": {"class_path": "zoo.graf.Patches", "init_args": {"anneal": 90.0}},
        "noise_iterations": 9,
        "milestones": [4, 8],
        "mirror": True,
        "emas": {"ema": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5}}},
    }
    return {"model": {"class_path": "zoo.graf.GRAF", "init_args": model}, "data": copy.deepcopy(DATA)}


def volumegan() -> dict[str, Any]:
    """A tiny VolumeGAN: lazy regularisers with steps of their own, growth, mixing, running means of w and of paths."""
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3, "betas": [0.0, 0.99]}}
    depths = {"class_path": "zoo.render.JitteredUniform", "init_args": {"near": 0.8, "far": 1.2, "samples": 4}}
    fine = {"class_path": "zoo.render.Importance", "init_args": {"samples": 4}}
    structure = {"resolution": 4, "start": 2, "base_channels": 4, "channels": 4, "w_dim": 8}
    field = {"channels": 4, "hidden_dim": 8, "num_layers": 2, "colour_dim": 8, "frequencies": 2, "w_dim": 8}
    generator = {
        "structure": {"class_path": "zoo.volumegan.StructuralVolume", "init_args": structure},
        "field": {"class_path": "zoo.volumegan.StyledField", "init_args": field | {"max_log2": 1}},
        "renderer": {
            "class_path": "zoo.render.VolumeRenderer",
            "init_args": {"depths": depths, "fine": fine, "chunk": 256},
        },
        "synthesis": {
            "class_path": "zoo.volumegan.SynthesisNetwork",
            "init_args": {"low": 4, "resolution": 8, "base_channels": 32, "w_dim": 8},
        },
        "poses": {"class_path": "zoo.render.GaussianPoses", "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.15}},
        "latent_dim": 4,
        "mapping_dim": 8,
        "mapping_layers": 2,
    }
    discriminator = {"resolution": 8, "base_channels": 32, "groups": 1, "last": 2}
    model = {
        "generator": {"class_path": "zoo.volumegan.Generator", "init_args": generator},
        "discriminator": {"class_path": "zoo.volumegan.Discriminator", "init_args": discriminator},
        "optimizer_g": optimizer,
        "optimizer_d": copy.deepcopy(optimizer),
        "emas": {"ema": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5}}},
        "r1_every": 3,
        "path_every": 2,
        "growth": {"class_path": "zoo.volumegan.Growth", "init_args": {"levels": 1, "hold": 4, "fade": 16, "every": 2}},
    }
    return {"model": {"class_path": "zoo.volumegan.VolumeGAN", "init_args": model}, "data": copy.deepcopy(DATA)}


def cips3d() -> dict[str, Any]:
    """A tiny CIPS-3D whose stages differ in all that they can."""
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-2, "betas": [0.0, 0.9]}}
    part = "zoo.cips3d."
    shape = {"latent_dim": 4, "style_dim": 6, "num_layers": 2}
    appearance = {"latent_dim": 4, "style_dim": 5, "num_layers": 2, "norm_hidden": True, "norm_out": True}
    generator = copy.deepcopy(CONFIG["model"]["init_args"]["generator"]["init_args"])
    generator = {
        "field": {
            "class_path": f"{part}FilmSiren",
            "init_args": {"hidden_dim": 8, "num_layers": 2, "feature_dim": 4, "style_dim": 6},
        },
        "inr": {
            "class_path": f"{part}Inr",
            "init_args": {"feature_dim": 4, "hidden_dim": 8, "style_dim": 5, "num_blocks": 3, "first_rgb": 1},
        },
        "mapping": {
            "class_path": f"{part}Mapping",
            "init_args": {
                "shape": {"class_path": f"{part}MappingNetwork", "init_args": shape},
                "appearance": {"class_path": f"{part}MappingNetwork", "init_args": appearance},
            },
        },
        "renderer": generator["renderer"],
        "poses": generator["poses"],
        "resolution": 8,
    }
    towers = {
        "main": {"class_path": f"{part}Tower", "init_args": {"channels": [8, 6]}},
        "auxiliary": {"class_path": f"{part}Tower", "init_args": {"channels": [6, 4], "shrink_first": True}},
    }
    model = {
        "class_path": f"{part}CIPS3D",
        "init_args": {
            "generator": {"class_path": f"{part}Generator", "init_args": generator},
            "discriminator": {"class_path": f"{part}Discriminator", "init_args": towers},
            "optimizer_g": adam,
            "optimizer_d": copy.deepcopy(adam),
            "emas": {"ema": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.9}}},
            "r1_every": 2,
            "stages": [
                {"start": 0, "ema_start": 1, "noise_iterations": 9, "gradient_rays": 40},
                {"start": 4, "lr_g": 5e-3, "auxiliary_every": 2, "fade_iterations": 3, "ema_start": 2},
                {
                    "start": 8,
                    "lr_d": 2e-3,
                    "auxiliary_every": 0,
                    "augment": "zoo.layers.diffaugment.diffaugment",
                    "frozen": ["field", "mapping.shape", "auxiliary"],
                    "ema_start": 0,
                },
            ],
        },
    }
    return {"model": model, "data": copy.deepcopy(DATA)}


def stylenerf() -> dict[str, Any]:
    """A tiny StyleNeRF: growing, a NeRF path, lazy regularisers, running means, augmentation that adapts."""
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3, "betas": [0.0, 0.99]}}
    part = "zoo.stylenerf."
    line = {"class_path": f"{part}LinearSpacing", "init_args": {"near": 0.88, "far": 1.12}}
    field = {"hidden_dim": 8, "num_layers": 2, "feature_dim": 4, "octaves": 2}
    outside = {"class_path": f"{part}PlainField", "init_args": field | {"latent_dim": 3}}
    synthesis = {"low": 8, "resolution": 16, "feature_dim": 4, "base_channels": 64, "clamp": None, "w_dim": 8}
    generator = {
        "foreground": {"class_path": f"{part}StyledField", "init_args": field | {"w_dim": 8}},
        "renderer": {
            "class_path": f"{part}NormalisedDepthRenderer",
            "init_args": {"spacing": line, "samples": 4, "chunk": 100},
        },
        "synthesis": {
            "class_path": f"{part}SynthesisNetwork",
            "init_args": synthesis | {"upsampler": "zoo.layers.upsampling.NearestConcat"},
        },
        "poses": {"class_path": "zoo.render.GaussianPoses", "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.15}},
        "background": {"class_path": f"{part}BackgroundRenderer", "init_args": {"field": outside, "samples": 3}},
        "latent_dim": 4,
        "mapping_layers": 2,
        "start": 8,
    }
    augment = {
        "class_path": "zoo.layers.ada.Augmentation",
        "init_args": {"controller": {"class_path": "zoo.layers.ada.Controller", "init_args": {"images": 100}}},
    }
    discriminator = {"resolution": 16, "base_channels": 64, "clamp": None, "groups": 1, "start": 8}
    model = {
        "generator": {"class_path": f"{part}Generator", "init_args": generator},
        "discriminator": {"class_path": f"{part}Discriminator", "init_args": discriminator},
        "optimizer_g": adam,
        "optimizer_d": copy.deepcopy(adam),
        "emas": {"ema": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5}}},
        "nerf_path_side": 4,
        "r1_every": 3,
        "path_every": 2,
        "growth": {"class_path": f"{part}Growth", "init_args": {"begin": 4, "end": 40}},
        "augment": augment,
    }
    data = {"stages": {0: {}, 4: {"batch_size": 6}}, "resolution": 16}
    return {
        "model": {"class_path": f"{part}StyleNeRF", "init_args": model},
        "data": {"class_path": "tests.systems.NoiseData", "init_args": data},
    }


def eg3d() -> dict[str, Any]:
    """A tiny EG3D: cameras of images, swaps, blur, a growing rendered side, lazy regularisers, augmentation."""
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3, "betas": [0.0, 0.99]}}
    part = "zoo.eg3d."

    def schedule(start: float, end: float) -> dict[str, Any]:
        return {"class_path": "zoo.training.LinearSchedule", "init_args": {"start": start, "end": end, "images": 40}}

    quadrature = {"density": "zoo.render.shifted_softplus", "background": "zoo.render.white"}
    renderer = {
        "depths": {"class_path": f"{part}FixedLimits", "init_args": {"near": 2.2, "far": 3.3, "samples": 4}},
        "fine": {"class_path": f"{part}SmoothedImportance", "init_args": {"samples": 4}},
        "quadrature": {"class_path": "zoo.render.MidpointQuadrature", "init_args": quadrature},
        "chunk": 200,
    }
    planes = {"resolution": 8, "channels": 4, "base_channels": 64, "most_channels": 8, "w_dim": 8}
    larger = {"low": 4, "doubles_first": False, "channels": [8, 4], "clamp": None, "feature_dim": 4, "w_dim": 8}
    generator = {
        "plane_network": {"class_path": f"{part}PlaneNetwork", "init_args": planes},
        "field": {
            "class_path": f"{part}TriPlaneField",
            "init_args": {"channels": 4, "hidden_dim": 8, "feature_dim": 4},
        },
        "renderer": {"class_path": "zoo.render.VolumeRenderer", "init_args": renderer},
        "superresolution": {"class_path": f"{part}Superresolution", "init_args": larger},
        "poses": {
            "class_path": f"{part}LookAtPoses",
            "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.15, "radius": 2.7, "fov_deg": 18.0},
        },
        "latent_dim": 4,
        "render_side": 4,
    }
    augment = {
        "class_path": "zoo.layers.ada.Augmentation",
        "init_args": {"controller": {"class_path": "zoo.layers.ada.Controller", "init_args": {"images": 100}}},
    }
    discriminator = {"resolution": 8, "base_channels": 64, "most_channels": 8, "clamp": None, "groups": 1}
    model = {
        "generator": {"class_path": f"{part}Generator", "init_args": generator},
        "discriminator": {"class_path": f"{part}DualDiscriminator", "init_args": discriminator | {"mapping_layers": 2}},
        "optimizer_g": adam,
        "optimizer_d": copy.deepcopy(adam),
        "emas": {"ema": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5}}},
        "swap": schedule(1.0, 0.5),
        "blur": schedule(2.0, 0.0),
        "growth": schedule(3, 4),
        "regulariser": {"class_path": f"{part}DensityTV", "init_args": {"points": 10}},
        "density_every": 2,
        "r1_every": 3,
        "augment": augment,
    }
    data = {"stages": {0: {}, 4: {"batch_size": 6}}, "resolution": 8, "posed": True}
    return {
        "model": {"class_path": f"{part}EG3D", "init_args": model},
        "data": {"class_path": "tests.systems.NoiseData", "init_args": data},
    }


def stylesdf() -> dict[str, Any]:
    """A tiny StyleSDF: a sphere, then the renderer, then the decoder from the second stage of the data on; in parts."""
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3, "betas": [0.0, 0.99]}}
    part = "zoo.stylesdf."

    def of(name: str, **init_args: Any) -> dict[str, Any]:
        return {"class_path": f"{part}{name}", "init_args": init_args}

    renderer = {
        "depths": of("OffsetDepths", near=0.88, far=1.12, samples=4),
        "quadrature": {"density": of("SigmoidDensity", beta=0.05)},
        "chunk": None,
    }
    generator = {
        "field": of("SDFField", hidden_dim=6, num_layers=2, style_dim=4),
        "renderer": {"class_path": "zoo.render.VolumeRenderer", "init_args": renderer},
        "poses": {"class_path": "zoo.render.GaussianPoses", "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.15}},
        "decoder": of("Decoder", widths={8: 6, 16: 4}, feature_dim=6, style_dim=4, latent_dim=8, mapping_layers=2),
        "latent_dim": 4,
    }
    discriminators = {
        "volume": of("PoseDiscriminator", channels=[4, 6, 6]),
        "image": of("ImageDiscriminator", widths={16: 4, 8: 6, 4: 6}),
    }
    betas = {"betas": [0.0, 0.9]}
    model = {
        "generator": of("Generator", **generator),
        "discriminator": of("StagedDiscriminator", **discriminators),
        "optimizer_g": adam,
        "optimizer_d": copy.deepcopy(adam),
        "emas": {"ema": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.5, "buffers": "keep"}}},
        "sphere": of("SphereStage", iterations=2, batch=2),
        "volume": of("VolumeStage", iterations=BOUNDARY - 2, at_once=2),
        "image": of("ImageStage", settings_g=betas, settings_d=betas, r1_every=3, path_every=2, at_once=2),
    }
    data = {"stages": {0: {}, BOUNDARY: {"batch_size": 6}}, "resolution": 16}
    return {
        "model": of("StyleSDF", **model),
        "data": {"class_path": "tests.systems.NoiseData", "init_args": data},
    }


SYSTEMS: dict[str, Callable[[], dict[str, Any]]] = {
    "cips3d": cips3d,
    "eg3d": eg3d,
    "giraffe": giraffe,
    "graf": graf,
    "pigan": pigan,
    "stylenerf": stylenerf,
    "stylesdf": stylesdf,
    "volumegan": volumegan,
}
EARLIER = ("sphere", "volume")  # stages of training that come before a system's last


def last_stage(model: dict[str, Any]) -> dict[str, Any]:
    """The config of a model that begins with its last stage."""
    return model | {"init_args": model["init_args"] | dict.fromkeys(model["init_args"].keys() & {*EARLIER})}


BOUNDARY = 4  # the first iteration of the second stage of DATA


def write(config: dict[str, Any], folder: Path) -> str:
    """The yaml of a run into ``folder``, in which all images that were trained on are noted."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = {
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
        "callbacks": [{"class_path": "tests.systems.Seen"}],
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(config | {"trainer": trainer}))
    return str(path)


def train(words: Sequence[str]) -> None:
    """``zoo`` in this process."""
    assert main([*words]) == 0


def check_exact_resume(
    config: dict[str, Any],
    folder: Path,
    words: Sequence[str] = (),
    steps: int = 12,
    stop: int = 6,
) -> None:
    """Training ``steps`` iterations at once, or only ``stop`` and then the rest, ends in the same state, bit for bit.

    Args:
        config: ``model`` and ``data``.
        folder: for both runs.
        words: more options of both.
        steps, stop: iterations.
    """
    whole, halves = folder / "whole", folder / "halves"
    train(["fit", "-c", write(config, whole), *words, "--trainer.max_steps", str(steps)])
    train(["fit", "-c", write(config, halves), *words, "--trainer.max_steps", str(stop)])
    last = str(halves / "checkpoints" / "last.ckpt")
    resumed = ["--ckpt_path", last, "--trainer.max_steps", str(steps)]
    train(["fit", "-c", write(config, halves), *words, *resumed])
    assert_same_run(whole, halves)


def assert_same_run(one: Path, two: Path, interrupted_at: int | None = None) -> None:
    """Two runs, the second in two parts, saw the same images, had the same losses and ended in the same state.

    Args:
        interrupted_at: an iteration whose losses were not logged in the second, since a Ctrl-C ended its first part.
    """
    for seen in sorted(one.glob("seen-*.txt")):
        assert seen.read_text() == (two / seen.name).read_text()
    rows = [row for row in losses(one) if row["step"] != str(interrupted_at)]
    for first, second in zip(rows, losses(two), strict=True):
        # Lightning repeats the last value of a term that is not computed in every iteration; a new process has none.
        assert {n: v for n, v in first.items() if second.get(n)} == {n: v for n, v in second.items() if v}
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two)]
    for state in states:
        state["clocks"].pop("seconds")
        state.pop("loops")  # Lightning's counts of what happened since the start of the process
    assert {"state_dict", "optimizer_states", "clocks", "global_step", "scalers", "NoiseData"} <= states[0].keys()
    assert differences(*states) == []


def losses(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, also of those of earlier parts of the run."""
    files = [*sorted(run.glob("metrics-*.csv")), run / "metrics.csv"]
    return [row for file in files for row in csv.DictReader(file.read_text().splitlines())]


def differences(one: Any, two: Any, name: str = "") -> list[str]:
    """Names of the values that are not the same, bit for bit."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return [found for key in one for found in differences(one[key], two[key], f"{name}.{key}")]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        return [
            found for i, pair in enumerate(zip(one, two, strict=True)) for found in differences(*pair, f"{name}.{i}")
        ]
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.shape == two.shape:
        return [] if torch.allclose(one, two, rtol=0, atol=0, equal_nan=True) else [name]
    return [] if type(one) is type(two) and one == two else [name]


# Callbacks for runs in processes of their own


class Seen(pl.Callback):
    """Writes which images each process trained on, a line an iteration."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, *_) -> None:
        with open(Path(trainer.default_root_dir) / f"seen-{trainer.global_rank}.txt", "a") as file:
            file.write(f"{pl_module.iterations} {tuple(batch['image'].shape)} {batch['index'].tolist()}\n")


class Keep(pl.Callback):
    """Writes, for each process, the state it ended in, and the losses and gradients of every iteration."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.losses: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer) -> None:
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        mine = [(name, p.grad) for name, p in pl_module.named_parameters() if id(p) in own and p.grad is not None]
        if mine:  # a step that is left out has none
            self.gradients.append({name: gradient.clone() for name, gradient in mine})

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        self.losses.append({name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("loss")})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        kept = {"state": pl_module.state_dict(), "gradients": self.gradients, "losses": self.losses}
        torch.save(kept, Path(trainer.default_root_dir) / f"kept-{trainer.global_rank}.pt")


class TorchDDP(DDP):
    """torch's own, which averages in the backward pass of the last loss before a step.

    Until it is known to be the last, a backward pass waits.
    """

    training_step = DDPStrategy.training_step

    def configure_ddp(self) -> None:
        self._ddp_kwargs = {"find_unused_parameters": True}
        DDPStrategy.configure_ddp(self)
        self.waiting, self.replacement = None, patch.object(gan, "average_gradients", self.average)
        self.replacement.start()

    def backward(self, *args: Any, **kwargs: Any) -> None:
        if self.waiting:
            with self.block_backward_sync():
                self.waiting()
        self.waiting = partial(super().backward, *args, **kwargs)

    def average(self, parameters: list[nn.Parameter]) -> None:
        self.waiting()
        self.waiting = None

    def teardown(self) -> None:
        self.replacement.stop()
        super().teardown()


class Exchange(pl.Callback):
    """Two processes exchange what is known, in one bucket and in many; and begin alike, and are after an iteration."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for parameter in pl_module.discriminator.parameters():
            parameter.data += trainer.global_rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for parameter in pl_module.discriminator.parameters():
            assert trainer.strategy.reduce(parameter.detach().clone(), reduce_op="mean").equal(parameter)
        pl_module.statistic = nn.Buffer(torch.full((2,), float(trainer.global_rank)))
        self.exchange(trainer.global_rank)
        with patch.object(ddp, "BUCKET_BYTES", 10):
            self.exchange(trainer.global_rank)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        assert pl_module.statistic.tolist() == [0, 0]

    def exchange(self, rank: int) -> None:
        shapes, on_one = [(3,), (2, 3), (), (0, 4), (2, 2)], 1
        parameters = [
            nn.Parameter(torch.zeros(shape, dtype=torch.float64 if shape == () else None)) for shape in shapes
        ]
        unused, frozen = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2), requires_grad=False)
        for i, parameter in enumerate(parameters):
            if rank == 0 or i != on_one:
                parameter.grad = torch.full_like(parameter, 10.0 * i + rank)
        ddp.average_gradients([unused, *parameters, frozen])
        assert unused.grad is None and frozen.grad is None
        for i, parameter in enumerate(parameters):
            assert parameter.grad.equal(torch.full_like(parameter, 5.0 if i == on_one else 10 * i + 0.5)), (i, rank)

        network = nn.BatchNorm1d(2)
        network.shift, network.constant_buffers = nn.Buffer(torch.ones(2)), ("shift",)
        for buffer in network.buffers():
            buffer += rank
        ddp.broadcast(ddp.changing_buffers(network))
        assert network.running_mean.tolist() == [0, 0] and network.running_var.tolist() == [1, 1]
        assert network.num_batches_tracked == 0 and network.shift.tolist() == [1 + rank] * 2


class Traffic(pl.Callback):
    """Notes the bytes of each reduction and broadcast of tensors between processes, by iteration."""

    def __init__(self) -> None:
        self.sent: list[list[tuple[str, int]]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name in ("all_reduce", "broadcast"):
            setattr(dist, name, self.noted(name, getattr(dist, name)))

    def noted(self, name: str, send: Callable[..., Any]) -> Callable[..., Any]:
        def noting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.sent[-1].append((name, tensor.nbytes))
            return send(tensor, *args, **kwargs)

        return noting

    def on_train_batch_start(self, *_) -> None:
        self.sent.append([])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (Path(trainer.default_root_dir) / f"sent-{trainer.global_rank}.json").write_text(json.dumps(self.sent))


class Means(nn.Module):
    """Mean colours of an image's 16 parts: features [B, 48]."""

    def forward(self, images: Tensor) -> Tensor:
        return avg_pool2d(images.float(), images.shape[-1] // 4).flatten(1)


def scores(generator: nn.Module, data: ImageData) -> dict[str, float]:
    """FID and KID of odd numbers of images."""
    return score(generator, data, Extractor("means", "none", "0", Means()), n_fake=7, n_real=9, batch_size=2).values


class ScoreAtEnd(pl.Callback):
    """Writes the scores that each process arrived at."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = scores(pl_module.sampler, trainer.datamodule)
        (Path(trainer.default_root_dir) / f"scores-{trainer.global_rank}.json").write_text(json.dumps(values))


class SplitDraws:
    """One process's rows of what a single process would draw for the batches of all."""

    def __init__(self, draws: TrainingDraws, rank: int, world: int) -> None:
        self.draws, self.rank, self.world = draws, rank, world
        self.shared = draws.shared

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self.draws.uniform(name, (shape[0] * self.world, *shape[1:]))[self.rank :: self.world]

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self.draws.normal(name, (shape[0] * self.world, *shape[1:]))[self.rank :: self.world]


class SameDraws(pl.Callback):
    """Lets several processes draw together what one with the larger batch would."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.draws = lambda: SplitDraws(
            TrainingDraws(pl_module.seed, pl_module.iterations, 0), trainer.global_rank, trainer.world_size
        )


class Trouble(pl.Callback):
    """After so many iterations one process gets a Ctrl-C, or raises an error.

    Args:
        at: iterations.
        rank: of the process.
        interrupt: a Ctrl-C instead of an error.
    """

    def __init__(self, at: int, rank: int, interrupt: bool = False) -> None:
        self.at, self.rank, self.interrupt = at, rank, interrupt

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        if (pl_module.iterations, trainer.global_rank) == (self.at, self.rank):
            if not self.interrupt:
                raise RuntimeError(f"trouble on process {self.rank}")
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # until the handler has run


class Overflow(pl.Callback):
    """In the second iteration the first gradient that one process computes for each network is infinite.

    Args:
        rank: of the process.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # So low a scale that nothing else overflows.
        half = pl_module.half
        half.scalers = {name: torch.amp.GradScaler("cpu", init_scale=2.0**8) for name in half.scalers}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        if (pl_module.iterations, trainer.global_rank) == (1, self.rank):
            for network in (pl_module.generator, pl_module.discriminator):
                self.plant(next(network.parameters()))

    def plant(self, parameter: nn.Parameter) -> None:
        def once(gradient: Tensor) -> Tensor:
            handle.remove()
            return gradient + float("inf")

        handle = parameter.register_hook(once)
