"""Several processes: where a network's optimizer steps, its gradients are averaged over all of them, and no others.

torch's DistributedDataParallel would send the gradients of both networks in every backward pass, though each loss
trains only one of them, and search every graph for parameters that it did not use.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

BUCKET_BYTES = 2**25  # sent at once: enough for the speed of a network, and little memory for the copies


class DDP(DDPStrategy):
    """Data-parallel training of a ``zoo.training.gan.GAN``, which averages gradients itself: for ``strategy: ddp``.

    All processes begin with the weights of the first one, and have its buffers after every iteration.

    Args:
        process_group_backend: of torch.distributed; by default nccl for GPUs and gloo for CPUs.
        timeout: how long a process waits for the others, before it ends with an error.
        start_method: how Lightning starts the processes, unless torchrun, SLURM or another launcher did.
    """

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=5),
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout, start_method=start_method)

    def configure_ddp(self) -> None:
        """Instead of wrapping the model."""
        broadcast([*self.lightning_module.parameters(), *self.lightning_module.buffers()])

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        output = super().training_step(*args, **kwargs)
        broadcast(changing_buffers(self.lightning_module))
        return output


def several_processes() -> bool:
    """Whether this is one of them."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace the gradients of one network's parameters by their mean over all processes; all must call this.

    A process that has no gradient for a parameter counts as zero; where no process has one, there is none afterwards.
    """
    if not several_processes():
        return
    has_gradient = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    has_gradient = has_gradient.to(parameters[0].device)
    dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
    for parameter, somewhere in zip(parameters, has_gradient.tolist(), strict=True):
        if somewhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    average([p.grad for p in parameters if p.grad is not None])


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors, which have the same shapes on all processes, by their means over these; all must call this."""
    if not several_processes():
        return
    pending = []
    for bucket in buckets(tensors):
        flat = flattened(bucket).div_(dist.get_world_size())  # before the sum, which could overflow
        pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in pending:
        work.wait()
        unflatten(flat, bucket)


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Replace tensors, which have the same shapes on all processes, by those of the first one; all must call this."""
    if not several_processes():
        return
    for bucket in buckets(tensors):
        flat = flattened(bucket)
        dist.broadcast(flat, src=0)
        unflatten(flat, bucket)


def changing_buffers(model: nn.Module) -> list[Tensor]:
    """All buffers but those that a module names in ``constant_buffers``."""
    return [
        buffer
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name not in getattr(part, "constant_buffers", ())
    ]


def exchanged(gan: nn.Module) -> dict[str, tuple[int, int]]:
    """Bytes and messages of what an iteration of a ``GAN`` sends at most, where each optimizer steps once: gradients of
    its generator and of its discriminator, and buffers."""
    networks = {"generator": gan.generator, "discriminator": gan.discriminator}
    tensors = {name: [p for p in network.parameters() if p.requires_grad] for name, network in networks.items()}
    tensors["buffers"] = changing_buffers(gan)
    return {name: (sum(t.nbytes for t in of), len([*buckets(of)])) for name, of in tensors.items()}


def buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in groups of one kind and of at most ``BUCKET_BYTES``, or of one that is larger."""
    by_kind = defaultdict(list)
    for tensor in tensors:
        by_kind[tensor.device, tensor.dtype].append(tensor)
    for of_kind in by_kind.values():
        bucket, size = [], 0
        for tensor in of_kind:
            if bucket and size + tensor.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket


def flattened(bucket: list[Tensor]) -> Tensor:
    """The values of all, [N], in a tensor of their own."""
    return torch.cat([tensor.reshape(-1) for tensor in bucket])


def unflatten(flat: Tensor, bucket: list[Tensor]) -> None:
    """Copy values [N] back to where ``flattened`` took them from."""
    for tensor, values in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        tensor.copy_(values.view_as(tensor))
