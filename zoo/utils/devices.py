"""Checks of devices, before they fail."""

import re

import torch

from zoo.utils.errors import UserError

LAST_RELEASE = {(7, 0): "2.7.1"}  # the last torch whose default wheel was seen to support this capability


def unsupported(name: str, capability: tuple[int, int], arch_list: list[str], version: str) -> str | None:
    """Why this torch has no code for a GPU, and what to do; None where it has.

    Args:
        name: of the GPU.
        capability: its compute capability.
        arch_list: what torch was built for, ``sm_70``, ``compute_90``, ...
        version: of torch.
    """
    for kind, number, special in re.findall(r"\b(sm|compute)_(\d+)([a-z]?)\b", " ".join(arch_list)):
        built = (int(number[:-1]), int(number[-1]))
        in_family = kind == "compute" or built[0] == capability[0]  # compute_ is compiled for the GPU when loaded
        if built == capability or (not special and in_family and built < capability):
            return None
    wanted = f"sm_{capability[0]}{capability[1]}"
    release = LAST_RELEASE.get(capability)
    remedy = f"torch {release} has: pip install torch=={release}" if release else "Install a torch that lists it"
    return (
        f"torch {version} has no code for {name} ({wanted}), only for {', '.join(arch_list)}. {remedy} "
        "(python -c 'import torch; print(torch.cuda.get_arch_list())'), or train with --trainer.accelerator cpu."
    )


def check_gpus(indices: list[int]) -> None:
    """Refuse GPUs that could only fail.

    Raises:
        UserError: names the GPU and the torch that supports it.
    """
    for index in indices:
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        if reason := unsupported(properties.name, capability, torch.cuda.get_arch_list(), torch.__version__):
            raise UserError(reason)


def usable(name: str) -> torch.device:
    """The device of this name: cpu, cuda, cuda:1.

    Raises:
        UserError: there is none, or torch cannot support it.
    """
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"There is no device '{name}' for torch here ({why}): take cpu, cuda or cuda:1.") from error
    if device.type == "cuda":
        check_gpus([device.index])
    return device
