"""Networks with published weights: to load, to watch and to train."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zoo.render import Camera
from zoo.training.gan import GAN
from zoo.weights.bundle import UNUSED
from zoo.weights.names import from_published, published_name

NOTHING = "(?!)"  # a pattern


def load(
    network: nn.Module, state: Mapping[str, Tensor], table: list, unread: str = NOTHING, unknown: str = NOTHING
) -> Any:
    """The network with a published state dict.

    Args:
        table: translates our names.
        unread: pattern of published names of what nothing reads here; found anywhere in a name.
        unknown: pattern of our names of what no published program has; whole names.
    """
    ours = from_published(dict(state), list(network.state_dict()), table)
    unused = [name for name in ours if name.startswith(UNUSED)]
    odd = [name for name in unused if not re.search(unread, name)]
    missing, _ = network.load_state_dict({n: t for n, t in ours.items() if n not in unused}, strict=False)
    odd += [name for name in missing if not re.fullmatch(unknown, name)]
    assert not odd, odd
    return network


def by_published_name(network: nn.Module, table: list) -> dict[str, nn.Parameter]:
    """A network's parameters; the table translates our names."""
    return {published_name(name, table): parameter for name, parameter in network.named_parameters()}


def gradients_of(network: nn.Module, table: list) -> dict[str, Tensor]:
    """Gradients of a network's parameters by published name, of those that have any."""
    return {name: p.grad for name, p in by_published_name(network, table).items() if p.grad is not None}


def same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same numbers, bit for bit, wherever they are."""
    return set(ours) == set(theirs) and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in theirs)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As they are now, without gradients."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def squared_gradients(scores: Tensor, *images: Tensor) -> Tensor:
    """Squared length of the gradient of each sample's score, [B]."""
    gradients = torch.autograd.grad(scores.sum(), images, retain_graph=True)
    return sum(gradient.square().flatten(1).sum(1) for gradient in gradients)


class Watched:
    """A callable that remembers arguments and results of its calls."""

    def __init__(self, function: Callable) -> None:
        self.function, self.calls = function, []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        self.calls.append((args, result))
        return result


def watching(owner: Any, name: str) -> Any:
    """Watches a function of a module, or a method of an object, inside a ``with``."""
    return patch.object(owner, name, Watched(getattr(owner, name)))


@contextmanager
def hearing(networks: Mapping[Any, nn.Module]) -> Iterator[dict[Any, list[tuple[tuple, Any]]]]:
    """What networks are given and return inside, call by call; results are copied, since a ReLU may change them."""
    calls: dict[Any, list[tuple[tuple, Any]]] = {name: [] for name in networks}

    def note(name: Any, network: nn.Module, arguments: tuple, result: Any) -> None:
        calls[name].append((arguments, result.clone() if isinstance(result, Tensor) else result))

    hooks = [network.register_forward_hook(partial(note, name)) for name, network in networks.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


class Step(NamedTuple):
    """What was noted of an optimizer's step."""

    losses: list[tuple[str, dict[str, Tensor]]]  # by term, each with its prefix, in order
    gradients: dict[nn.Parameter, Tensor]  # before they are clipped

    def norm(self) -> Tensor:
        """Of all gradients together."""
        return torch.stack([gradient.norm() for gradient in self.gradients.values()]).norm()


def noted(gan: GAN) -> list[Step]:
    """The steps that optimizers take from now on."""
    steps, losses, accumulate, step = [], [], gan.accumulate, gan.step

    def note(prefix: str, terms: dict[str, Tensor]) -> None:
        losses.append((prefix, copies(terms)))
        accumulate(prefix, terms)

    def note_step(optimizer: torch.optim.Optimizer, **how: Any) -> None:
        learned = [p for group in optimizer.param_groups for p in group["params"]]
        steps.append(Step([*losses], {p: p.grad.clone() for p in learned if p.grad is not None}))
        losses.clear()
        step(optimizer, **how)

    gan.accumulate, gan.step = note, note_step
    return steps


def last_losses(steps: list[Step]) -> dict[str, dict[str, Tensor]]:
    """Losses by prefix and term, each as it was last."""
    return dict(loss for step in steps for loss in step.losses)


def adam_moments(parameter: Tensor, second: float) -> dict[str, Tensor]:
    """Moments in Adam's state: no first one, and one number for all of the second."""
    return {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.full_like(parameter, second)}


class Before(pl.Callback):
    """Gives the optimizers, which are ten steps old, the recorded moments.

    Args:
        moments: of each optimizer, by parameter and by name in the optimizer's state.
    """

    def __init__(self, moments: list[dict[nn.Parameter, dict[str, Tensor]]]) -> None:
        self.moments = moments

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        for optimizer, moments in zip(trainer.optimizers, self.moments, strict=True):
            for parameter, of_it in moments.items():
                optimizer.state[parameter] = {"step": torch.tensor(10.0), **of_it}


def train(
    gan: pl.LightningModule, images: Tensor, batch: int, *callbacks: pl.Callback, cameras: Camera | None = None
) -> pl.Trainer:
    """Train on these images in order, as many at once; with the camera of each, where there are any."""
    items = [{"image": image} for image in images]
    if cameras is not None:
        items = [item | {"camera": Camera(*of)} for item, *of in zip(items, *cameras, strict=True)]
    with TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=len(images) // batch,
            accelerator=torch.get_default_device().type,
            devices=1,
            callbacks=[*callbacks],
            default_root_dir=folder,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(gan, DataLoader(items, batch))
    gan.to(torch.get_default_device())  # the trainer has moved it to the CPU
    return trainer
