"""Querying a field at very many samples with little memory, and no more often than gradients need.

B batch, R rays, S samples, N = R S points
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo.render.depths import Samples

Condition = TypeVar("Condition")  # what a field depends on besides the samples, such as styles
Field = Callable[[Samples, Condition], tuple[Tensor, Tensor]]


def query(field: Field[Condition], samples: Samples, condition: Condition, chunk: int | None) -> tuple[Tensor, Tensor]:
    """Raw density [B, R, S, 1] and features [B, R, S, C] at all samples.

    Chunks that fit into the processor's cache are the fastest way, and what the field computes inside is not kept for
    the backward pass, so memory does not grow with the number of samples. The backward pass queries again, but only
    the samples that a gradient reaches: with relu densities those in empty space have none.

    Args:
        field: its output for one sample must not depend on the others. If it is a module, what it learns must reach it
            through its parameters and the condition; any other callable is recomputed everywhere.
        samples: B x R x S of them.
        condition: handed to the field as it is: tensors in lists, tuples and dicts.
        chunk: points at once; None for all of them, in plain autograd. A gradient that is itself to be differentiated
            takes plain autograd's time and memory too.
    """
    if chunk is None or samples.t.numel() <= chunk:
        return field(samples, condition)
    if not torch.is_grad_enabled():
        return in_chunks(field, samples, condition, chunk)
    if not isinstance(field, nn.Module):
        from torch.utils.checkpoint import checkpoint  # torch 2.7 imports sympy with it, which takes a second

        return in_chunks(lambda *some: checkpoint(field, *some, use_reentrant=False), samples, condition, chunk)
    leaves, structure = tree_flatten((samples, condition))
    return CheckpointedQuery.apply(field, chunk, structure, len(leaves), *leaves, *field.parameters())


def raw_density(points: Tensor, field: Field[Condition], condition: Condition) -> Tensor:
    """Raw density [B, N, 1, 1] at points [B, N, 3]."""
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    return query(field, samples, condition, chunk=4096)[0]


def in_chunks(field: Field[Condition], samples: Samples, condition: Condition, chunk: int) -> tuple[Tensor, Tensor]:
    """All samples, so many rays at a time that they have about ``chunk`` samples."""
    batch, rays, per_ray = samples.t.shape
    step = max(1, chunk // (batch * per_ray))
    outputs = [field(samples.take(slice(start, start + step)), condition) for start in range(0, rays, step)]
    raw, features = zip(*outputs, strict=True)
    return torch.cat(raw, dim=1), torch.cat(features, dim=1)


def selected_indices(chosen: Tensor) -> Tensor:
    """Indices [B, K] of what is chosen [B, N] in each row; K is the most of any row, and others fill up the rest."""
    return chosen.byte().argsort(dim=1, descending=True, stable=True)[:, : int(chosen.sum(1).max())]


class CheckpointedQuery(torch.autograd.Function):
    """A query whose backward pass recomputes what it needs, where it needs it."""

    @staticmethod
    def forward(
        ctx: Any, field: nn.Module, chunk: int, structure: Any, count: int, *inputs: Any
    ) -> tuple[Tensor, Tensor]:
        # inputs: the leaves of (samples, condition), ``count`` of them, then the field's parameters
        samples, condition = tree_unflatten(inputs[:count], structure)
        ctx.field, ctx.chunk, ctx.structure, ctx.count = field, chunk, structure, count
        ctx.others = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs))
        device = samples.t.device.type
        ctx.precision = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        return in_chunks(field, samples, condition, chunk)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [o if x is None else x for x, o in zip(ctx.saved_tensors, ctx.others, strict=True)]
        learned = [i for i, want in enumerate(ctx.needs_input_grad[4:]) if want]
        sums: list[Tensor | None] = [None] * len(inputs)
        if torch.is_grad_enabled():  # the gradients are to be differentiated themselves: plain autograd
            outputs = ctx.field(*tree_unflatten(inputs[: ctx.count], ctx.structure))
            differentiable = {"create_graph": True, "allow_unused": True}
            downstream = torch.autograd.grad(outputs, [inputs[i] for i in learned], gradients, **differentiable)
            for i, gradient in zip(learned, downstream, strict=True):
                sums[i] = gradient
            return None, None, None, None, *sums

        for i in learned:  # the graph of the second time ends at these; the parameters are leaves already
            if i < ctx.count:
                inputs[i] = inputs[i].detach().requires_grad_()
        samples, condition = tree_unflatten(inputs[: ctx.count], ctx.structure)
        reached = torch.stack([(gradient != 0).any(-1) for gradient in gradients]).any(0).flatten(1)
        index = selected_indices(reached)
        flat = [gradient.flatten(1, 2) for gradient in gradients]
        with torch.enable_grad(), torch.autocast(**ctx.precision):
            for some in index.split(max(1, ctx.chunk // len(index)), dim=1):
                outputs = ctx.field(samples.single(some), condition)
                upstream = [g.gather(1, some[..., None].expand(-1, -1, g.shape[-1]))[:, :, None] for g in flat]
                downstream = torch.autograd.grad(outputs, [inputs[i] for i in learned], upstream, allow_unused=True)
                for i, gradient in zip(learned, downstream, strict=True):
                    before = sums[i]
                    sums[i] = gradient if before is None else before + gradient
        return None, None, None, None, *sums
