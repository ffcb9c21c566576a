"""Sharing the work of one score between processes: every process takes indices[rank::world]."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """Index of this process and number of processes; (0, 1) where there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gather_tensor(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """Every process's tensor, whatever their lengths and whichever way processes talk; for metrics to add up by."""
    tensors = [tensor] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(tensors, tensor.cpu(), group)
    return [other.to(tensor.device) for other in tensors]


def gather_rows(parts: list[tuple[Tensor, Tensor]], total: int) -> Tensor:
    """All processes' rows in order [total, F], on every process.

    Args:
        parts: (positions [b], rows [b, F]) of this process; together the processes have each position once.
    """
    parts_of_all = [parts] * rank_and_world()[1]
    if len(parts_of_all) > 1:
        torch.distributed.all_gather_object(parts_of_all, parts)
    flat = [part for parts in parts_of_all for part in parts]
    gathered = torch.empty(total, flat[0][1].shape[1])
    for positions, rows in flat:
        gathered[positions] = rows
    return gathered


def broadcast(value: Any) -> Any:
    """The first process's value, on every process."""
    if rank_and_world()[1] == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]
