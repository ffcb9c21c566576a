"""Published experiments fit the GPUs of their papers by the plan's estimate: in fake tensors, on a GPU that is none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from zoo.render import Camera
from zoo.render.plan import Machine, Plan, saved_bytes
from zoo.training.gan import GAN
from zoo.utils import constants
from zoo.utils.paths import CONFIGS
from zoo.weights.bundle import build

# GiB of a GPU, by the papers and their programs; where neither says, of those of their time (in brackets).
MEMORY = {
    "pigan": 24,  # RTX 6000
    "graf": 11,  # (1080 Ti)
    "giraffe": 11,  # 1080 Ti; at 256 pixels a V100
    "stylenerf": 32,  # V100
    "cips3d": 32,  # (V100)
    "volumegan": 16,  # V100
    "eg3d": 24,  # RTX 3090, the smallest that its program was tested on
    "stylesdf": 24,  # (RTX 6000)
}
# What weights, and a generator's step, may take of it by estimate: the rest is for the discriminator, what cuDNN works
# in, and gradients of a layer or two.
SHARE = 0.7
SMALL = ("cars32.yaml", "cars64.yaml")  # ours
PUBLISHED = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name in MEMORY and path.name not in SMALL)
QUICK = ("graf/carla128", "pigan/celeba64")
NAMES = [str(path.relative_to(CONFIGS).with_suffix("")) for path in PUBLISHED]
CASES = [
    pytest.param(path, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for path, name in zip(PUBLISHED, NAMES, strict=True)
]


class NoDraws:
    """Numbers that nobody looks at."""

    def uniform(self, name: str, shape: Any) -> Tensor:
        return torch.empty(tuple(shape), device="cuda")

    normal = shared = uniform


def cameras(n: int) -> Camera:
    return Camera(torch.empty(n, 4, 4, device="cuda"), torch.empty(n, 3, 3, device="cuda"))


def passes(gan: GAN, config: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    """The generator's part of a step, for each stage of training."""
    data, generator = config["data"]["init_args"], gan.generator
    of_data = data.get("stages") or {0: {}}
    for start, stage in of_data.items():
        batch = stage.get("batch_size", data["batch_size"])
        side = stage.get("resolution", data["resolution"])
        system = type(gan).__name__
        if system == "StyleSDF":
            yield from stylesdf(gan)
            return
        own = [s for s in getattr(gan, "stages", None) or [] if s.start <= start][-1:]
        batch = -(-batch // getattr(own[0], "batch_split", 1)) if own else batch
        options: dict[str, Any] = {"resolution": side}
        if system == "GRAF":
            options["resolution"] = gan.discriminator.size
        elif system == "CIPS3D":
            options["gradient_rays"] = own[0].gradient_rays
        elif system == "EG3D":
            grown = generator.render_side.item() if gan.growth is None else gan.growth(10**12)
            options["render_side"] = round(grown)
            batch = gan.at_once or batch

        def one(batch: int = batch, options: dict[str, Any] = options) -> Any:
            camera, draws = cameras(batch), NoDraws()
            styles = generator.map(generator.latents(batch, draws), condition=camera)
            return generator.render(styles, camera, draws=draws, **options)

        yield one


def stylesdf(gan: GAN) -> Iterator[Callable[[], Any]]:
    """StyleSDF's two stages: the renderer with gradients of distances, and the decoder without the renderer's."""
    generator, side = gan.generator, gan.generator.render_side
    volume_stage, image_stage = gan.stages[-2:]

    def volume() -> Any:
        n = volume_stage.at_once
        styles = generator.map(generator.latents(n, NoDraws()))
        return generator.integrate(styles, cameras(n), side, NoDraws(), differentiable=True)[:3]

    def image() -> Any:
        n = image_stage.at_once
        styles = generator.map(generator.latents(n, NoDraws()))
        with torch.no_grad():
            generator.integrate(styles, cameras(n), side, NoDraws(), with_features=True)
        features = torch.empty(n, generator.decoder.feature_dim, side, side, device="cuda")
        return generator.decoder(features, styles.latents, NoDraws())

    yield from (volume, image)


def move(gan: GAN, states: dict[str, float]) -> None:
    """Make all parameters and buffers fake, but for states, which the host reads."""
    for module in gan.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(torch.empty(p.shape, device="cuda"), p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                value = torch.empty(b.shape, dtype=b.dtype, device="cuda")
                module._buffers[name] = torch.tensor(states[name], device="cpu") if name in states else value


@pytest.mark.parametrize("path", CASES)
def test_a_published_experiment_fits_the_gpu_of_its_paper(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    memory = MEMORY[path.parent.name]
    if path.parent.name == "giraffe" and config["data"]["init_args"]["resolution"] > 64:
        memory = 16
    if boxes := config["model"]["init_args"]["generator"]["init_args"].get("boxes"):
        boxes["init_args"]["coordinates"] = None  # a file of the data set
    with torch.device("meta"):
        gan = build(config["model"], GAN)
    side = config["model"]["init_args"]["generator"]["init_args"].get("render_side", 64)
    with FakeTensorMode(), torch.device("cuda"):
        move(gan, {"alpha": 1.0, "lod": 0.0, "trained": 1.0, "render_side": float(side)})
        trained = [p for network in (gan.generator, gan.discriminator) for p in network.parameters()]
        weights = sum(p.nbytes for p in gan.parameters())  # with those of EMAs
        weights += 3 * sum(p.nbytes for p in trained)  # a gradient and two moments
        for one in passes(gan, config):
            plan = Plan(Machine("cuda", memory))
            for part in gan.modules():
                if isinstance(getattr(part, "plan", None), Plan):
                    part.plan = plan
            kept = saved_bytes(one)
            decided = [(work, how) for (_, work), how in plan.decisions.items()]
            parts = [how.memory(work) for work, how in decided if how.at_once is not None]
            taken = (weights + kept + max(parts, default=0)) / 2**30
            print(f"{path.parent.name}/{path.stem}: {taken:.1f} of {memory} GiB")
            assert taken <= SHARE * memory, [f"{work}: {how}" for work, how in decided]
    constants.forget()  # those of a GPU that was none
