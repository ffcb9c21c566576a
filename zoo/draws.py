"""Where every random number of a generator comes from.

A generator never calls ``torch.rand``: it requests numbers of a ``Draws`` object by name. During training the object is
a stream that depends only on (seed, iteration, rank), so that a resumed run continues exactly without any saved random
state. For evaluation and grids each sample has a stream of its own, so that sample 17 is the same image in every batch
size, on every device and for every number of processes. ``draws=None`` means: nothing random.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """Random numbers by name. Axis 0 of every shape is the sample."""

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        """Numbers from [0, 1) of the given shape."""
        ...

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers of the given shape."""
        ...

    def shared(self, name: str, shape: Sequence[int]) -> Tensor:
        """Numbers from [0, 1) that a paper draws once for the whole batch; the shape has no sample axis."""
        ...


def coin(draws: Draws, name: str) -> float:
    """A number from [0, 1) for the whole batch by which the host decides; where draws can, made on the host."""
    return getattr(draws, "host", draws).shared(name, ()).item()


def stream_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part, the same on every machine and Python version."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class TrainingDraws:
    """One stream for one training iteration on one process; successive requests continue it.

    Args:
        seed: seed of the run.
        iteration: training iterations completed before this one.
        rank: index of the process; ``shared`` numbers ignore it.
        device: where the numbers are made.
        dtype: of the numbers, which are those of float32 in any.

    host: such draws that are made on the host, see ``coin``.
    """

    def __init__(
        self,
        seed: int,
        iteration: int,
        rank: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.own = torch.Generator(self.device).manual_seed(stream_seed("training", seed, iteration, rank))
        self.common = torch.Generator(self.device).manual_seed(stream_seed("shared", seed, iteration))
        self.host = self if self.device.type == "cpu" else TrainingDraws(seed, iteration, rank, dtype=dtype)

    def _make(self, make: Callable[..., Tensor], stream: torch.Generator, shape: Sequence[int]) -> Tensor:
        return make(tuple(shape), generator=stream, device=self.device, dtype=torch.float32).to(self.dtype)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._make(torch.rand, self.own, shape)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._make(torch.randn, self.own, shape)

    def shared(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._make(torch.rand, self.common, shape)


class SampleDraws:
    """One stream per (seed, sample index, name); two requests for one name give the same numbers.

    Numbers are made on the CPU and moved, so that a sample is the same on every device.

    Args:
        seed: seed of the set of samples.
        indices: index of every sample of the batch, in order.
        device: where the numbers are wanted.
        dtype: of the numbers, which are those of float32 in any.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seed, self.indices, self.device, self.dtype = seed, list(indices), torch.device(device), dtype

    def _stack(self, make: Callable[..., Tensor], name: str, shape: Sequence[int]) -> Tensor:
        if shape[0] != len(self.indices):
            raise ValueError(f"'{name}' was asked for {shape[0]} samples, but these draws are for {len(self.indices)}.")
        streams = (torch.Generator().manual_seed(stream_seed(self.seed, i, name)) for i in self.indices)
        numbers = [make(tuple(shape[1:]), generator=stream, device="cpu", dtype=torch.float32) for stream in streams]
        return torch.stack(numbers).to(self.device, self.dtype)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._stack(torch.rand, name, shape)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._stack(torch.randn, name, shape)

    def shared(self, name: str, shape: Sequence[int]) -> Tensor:
        stream = torch.Generator().manual_seed(stream_seed(self.seed, "shared", name))
        numbers = torch.rand(tuple(shape), generator=stream, device="cpu", dtype=torch.float32)
        return numbers.to(self.device, self.dtype)


class MixedDraws:
    """What lies between samples: mixtures of their numbers that are distributed as the numbers themselves.

    Independent normal numbers with weights whose squares add up to one are normal again, so mixtures stay at the
    latents' usual distance from zero, as on the arc between two of them (Shoemake 1985); numbers from [0, 1) are mixed
    as the normal ones of the same rank.

    Args:
        draws: of the samples that are mixed, L of them.
        weights: of each sample in each mixture [T, L]; only their ratios matter.
    """

    def __init__(self, draws: SampleDraws, weights: Tensor) -> None:
        self.draws, self.shared = draws, draws.shared
        self.weights = (weights / weights.norm(dim=1, keepdim=True)).to(draws.device)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        numbers = self.draws.uniform(name, (len(self.draws.indices), *shape[1:]))
        mixed = torch.special.ndtr(self._mix(torch.special.ndtri(numbers.double().clamp(1e-9, 1 - 1e-9))))
        return mixed.to(numbers.dtype).clamp(max=1 - 1e-7)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._mix(self.draws.normal(name, (len(self.draws.indices), *shape[1:])))

    def _mix(self, numbers: Tensor) -> Tensor:
        return torch.tensordot(self.weights.to(numbers.dtype), numbers, dims=1)


class RayDraws:
    """The draws of some rays of an image: numbers are made for all of its rays at once, and these get theirs.

    So a ray has the same numbers in whatever part of the image it is rendered. Axis 1 of every shape is the ray.

    Args:
        draws: where the numbers come from.
        rays: of the whole image.
    """

    def __init__(self, draws: Draws, rays: int) -> None:
        self.draws, self.rays = draws, rays
        self.index: slice | Tensor = slice(None)
        self.made: dict[str, Tensor] = {}

    def take(self, index: slice | Tensor) -> "RayDraws":
        """Those of the rays with these indices."""
        part = RayDraws(self.draws, self.rays)
        part.index, part.made = index, self.made
        return part

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._some(self.draws.uniform, name, shape)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._some(self.draws.normal, name, shape)

    def shared(self, name: str, shape: Sequence[int]) -> Tensor:
        if name not in self.made:
            self.made[name] = self.draws.shared(name, shape)
        return self.made[name]

    def _some(self, make: Callable[[str, Sequence[int]], Tensor], name: str, shape: Sequence[int]) -> Tensor:
        if name not in self.made:
            self.made[name] = make(name, (shape[0], self.rays, *shape[2:]))
        return self.made[name][:, self.index]
