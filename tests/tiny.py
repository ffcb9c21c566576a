"""A pi-GAN and a data set so small that a test can train them, and the yaml that describes them."""

from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def named(name: str, **init_args: Any) -> dict[str, Any]:
    """The config of an object of a class."""
    return {"class_path": name, "init_args": init_args}


CONFIG = {
    "trainer": {"max_steps": 3, "accelerator": "cpu", "log_every_n_steps": 1, "default_root_dir": None},
    "model": {
        "class_path": "zoo.pigan.PiGAN",
        "init_args": {
            "generator": {
                "class_path": "zoo.pigan.Generator",
                "init_args": {
                    "field": {
                        "class_path": "zoo.pigan.FilmSiren",
                        "init_args": {"hidden_dim": 8, "num_layers": 2, "input_scale": 8.0},
                    },
                    "renderer": {
                        "class_path": "zoo.render.VolumeRenderer",
                        "init_args": {
                            "quadrature": {
                                "density": {
                                    "class_path": "zoo.render.BoundedRelu",
                                    "init_args": {"scale": 50.0, "shift": 30.0, "radius": 0.12, "margin": 0.02},
                                }
                            },
                            "depths": {
                                "class_path": "zoo.render.Stratified",
                                "init_args": {"near": 0.88, "far": 1.12, "samples": 4},
                            },
                        },
                    },
                    "poses": {
                        "class_path": "zoo.render.GaussianPoses",
                        "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.15},
                    },
                    "latent_dim": 4,
                    "mapping_dim": 8,
                    "resolution": 8,
                },
            },
            "discriminator": {
                "class_path": "zoo.pigan.Discriminator",
                "init_args": {"channels": [8, 16, 16], "latent_dim": 0},
            },
            "optimizer_g": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-2, "betas": [0.0, 0.9]}},
            "optimizer_d": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-2, "betas": [0.0, 0.9]}},
            "emas": {"slow": {"class_path": "zoo.training.EMA", "init_args": {"decay": 0.9}}},
        },
    },
    "data": {"class_path": "tests.tiny.Noise", "init_args": {"resolution": 8}},
}


def write_config(folder, **trainer) -> str:
    """The yaml as a file; keyword arguments change the trainer's block."""
    path = folder / "tiny.yaml"
    config = CONFIG | {"trainer": CONFIG["trainer"] | {"default_root_dir": str(folder / "run")} | trainer}
    path.write_text(yaml.safe_dump(config))
    return str(path)


def solid(raw: Tensor, points: Tensor) -> Tensor:
    """A density that is not of this package."""
    return raw.abs() + 10


class NoiseImages(Dataset):
    def __init__(self, resolution: int, count: int, broken_from: int | None) -> None:
        self.resolution, self.count, self.broken_from = resolution, count, broken_from

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        stream = torch.Generator().manual_seed(index)
        image = torch.rand(3, self.resolution, self.resolution, generator=stream) * 2 - 1
        if self.broken_from is not None and index >= self.broken_from:
            image = image * torch.nan
        return {"image": image, "index": index}


class Noise(pl.LightningDataModule):
    """Images of noise.

    Args:
        resolution: side [pixels].
        batch_size: images per iteration.
        count: images.
        broken_from: images from this one on are not numbers.
    """

    name = "noise"

    def __init__(
        self, resolution: int = 8, batch_size: int = 4, count: int = 4000, broken_from: int | None = None
    ) -> None:
        super().__init__()
        self.resolution, self.batch_size, self.count = resolution, batch_size, count
        self.broken_from = broken_from

    def digest(self) -> str:
        return f"noise-{self.resolution}-{self.count}"

    def train_dataloader(self) -> DataLoader:
        return DataLoader(NoiseImages(self.resolution, self.count, self.broken_from), self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(NoiseImages(self.resolution, min(self.count, 16), None), self.batch_size)
