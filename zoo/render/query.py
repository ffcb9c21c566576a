"""Querying a field at very many samples with little memory, and no more often than gradients need.

B batch, R rays, S samples, N = R S points
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo.render.depths import Samples
from zoo.render.plan import Chunk, Plan, Strategy, Work, differentiable, layout_of

Condition = TypeVar("Condition")  # what a field depends on besides the samples, such as styles
Field = Callable[[Samples, Condition], tuple[Tensor, Tensor]]


def query(
    field: Field[Condition], samples: Samples, condition: Condition, chunk: Chunk = "auto", plan: Plan | None = None
) -> tuple[Tensor, Tensor]:
    """Raw density [B, R, S, 1] and features [B, R, S, C] at all samples.

    How many are computed at once, and whether what the field computes inside is kept for the backward pass, is the
    plan's to decide, see ``zoo.render.plan``. Where it is not kept, memory does not grow with the number of samples:
    the backward pass queries again, on CPUs only the samples that a gradient reaches (with relu densities those in
    empty space have none).

    Args:
        field: its output for one sample must not depend on the others. If it is a module, what it learns must reach it
            through its parameters and the condition; any other callable is recomputed everywhere.
        samples: B x R x S of them.
        condition: handed to the field as it is: tensors in lists, tuples and dicts.
        chunk: points at once; ``auto`` as the plan decides; None for all of them, in plain autograd. A gradient that is
            itself to be differentiated takes plain autograd's time and memory in any case.
        plan: by default one that decides for the device.
    """
    return compute(field, samples, condition, strategy_for(field, samples, condition, chunk, plan))


def query_hits(
    field: Field[Condition],
    samples: Samples,
    hit: Tensor,
    condition: Condition,
    chunk: Chunk = "auto",
    plan: Plan | None = None,
) -> tuple[Tensor, Tensor]:
    """As ``query``, but zeros on rays that hit nothing, bool [B, R]; on CPUs those are not computed, either."""
    strategy = strategy_for(field, samples, condition, chunk, plan)
    if not strategy.selects:
        found = compute(field, samples, condition, strategy)
        return where_hit(hit, found)
    if hit.all():
        return compute(field, samples, condition, strategy)
    rays = selected_indices(hit)
    if rays.shape[1] in (0, hit.shape[1]):
        return where_hit(hit, compute(field, samples, condition, strategy))
    found = where_hit(hit.gather(1, rays), compute(field, samples.take(rays), condition, strategy))
    at = (torch.arange(len(rays), device=rays.device)[:, None], rays)
    raw, features = (x.new_zeros(*samples.t.shape, x.shape[-1]).index_put(at, x) for x in found)
    return raw, features


def where_hit(hit: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Results [B, R, S, C] with zeros on all other rays than those, bool [B, R]."""
    raw, features = (torch.where(hit[..., None, None], x, 0) for x in found)
    return raw, features


def raw_density(points: Tensor, field: Field[Condition], condition: Condition, plan: Plan | None = None) -> Tensor:
    """Raw density [B, N, 1, 1] at points [B, N, 3]."""
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    return query(field, samples, condition, "auto", plan)[0]


def strategy_for(
    field: Field[Condition], samples: Samples, condition: Condition, chunk: Chunk, plan: Plan | None
) -> Strategy:
    """How to query these samples; arguments as of ``query``."""
    positions, t = samples.positions, samples.t
    # A leaf to differentiate by is there for a loss of that gradient, such as one of a surface's normals.
    is_leaf = positions is not None and positions.requires_grad and positions.is_leaf
    gradients = (2 if is_leaf else 1) if torch.is_grad_enabled() else 0

    def some(rays: int) -> tuple[Tensor, Tensor]:
        same = torch.zeros(len(t), rays, dtype=torch.long, device=t.device)
        return field(*differentiable((samples.take(same), condition)))

    layout = partial(layout_of, field, t.device, condition, t.dtype)
    work = Work(t.device, t.numel(), gradients, layout, some, points_of_one=len(t) * t.shape[-1])
    return (plan or Plan()).strategy(chunk, work)


def compute(
    field: Field[Condition], samples: Samples, condition: Condition, strategy: Strategy
) -> tuple[Tensor, Tensor]:
    """Raw density and features at samples, as a strategy says."""
    at_once = strategy.at_once
    if at_once is None or samples.t.numel() <= at_once:
        return field(samples, condition)
    if not (torch.is_grad_enabled() and strategy.recomputes):
        return in_chunks(field, samples, condition, at_once)
    if not isinstance(field, nn.Module):
        from torch.utils.checkpoint import checkpoint  # torch 2.7 imports sympy with it, which takes a second

        again = partial(checkpoint, field, use_reentrant=False, preserve_rng_state=False)  # whose state is on the host
        return in_chunks(again, samples, condition, at_once)
    leaves, structure = tree_flatten((samples, condition))
    return CheckpointedQuery.apply(field, strategy, structure, len(leaves), *leaves, *field.parameters())


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
        ctx: Any, field: nn.Module, strategy: Strategy, structure: Any, count: int, *inputs: Any
    ) -> tuple[Tensor, Tensor]:
        # inputs: the leaves of (samples, condition), ``count`` of them, then the field's parameters
        samples, condition = tree_unflatten(inputs[:count], structure)
        ctx.field, ctx.strategy, ctx.structure, ctx.count = field, strategy, structure, count
        ctx.others = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs))
        device = samples.t.device.type
        ctx.precision = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        return in_chunks(field, samples, condition, strategy.at_once or samples.t.numel())

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
        with torch.enable_grad(), torch.autocast(**ctx.precision):
            for some, upstream in parts(samples, gradients, ctx.strategy):
                outputs = ctx.field(some, condition)
                downstream = torch.autograd.grad(outputs, [inputs[i] for i in learned], upstream, allow_unused=True)
                for i, gradient in zip(learned, downstream, strict=True):
                    before = sums[i]
                    sums[i] = gradient if before is None else before + gradient
        return None, None, None, None, *sums


def parts(samples: Samples, gradients: Sequence[Tensor], strategy: Strategy) -> Iterator[tuple[Samples, list[Tensor]]]:
    """Samples and the gradients [..., C] of their results, so many at a time as a strategy says.

    Where it selects, all those that a gradient reaches, as rays of one sample each; else whole rays, in order.
    """
    batch, rays, per_ray = samples.t.shape
    at_once = strategy.at_once or samples.t.numel()
    if strategy.selects:
        reached = torch.stack([(gradient != 0).any(-1) for gradient in gradients]).any(0).flatten(1)
        flat = [gradient.flatten(1, 2) for gradient in gradients]
        for index in selected_indices(reached).split(max(1, at_once // batch), dim=1):
            upstream = [g.gather(1, index[..., None].expand(-1, -1, g.shape[-1]))[:, :, None] for g in flat]
            yield samples.single(index), upstream
    else:
        step = max(1, at_once // (batch * per_ray))
        for start in range(0, rays, step):
            some = slice(start, start + step)
            yield samples.take(some), [gradient[:, some] for gradient in gradients]
