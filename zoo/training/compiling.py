"""Networks as compiled code (``torch.compile``): which, when, and what happens where that fails.

Names of tensors and checkpoints stay as they are: what is compiled is a network's ``forward``, not the network. Code
that was compiled cannot be differentiated twice, so regularisers run without it, and so do networks in evaluation mode,
whose batches have any size.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo.layers import is_plain

if TYPE_CHECKING:
    from zoo.training.gan import GAN

log = logging.getLogger(__name__)
MOST_VARIANTS = 64  # of a network: in each stage, with and without gradients of weights and of inputs, fading or not


def compile_networks(gan: "GAN") -> None:
    """Let fields and networks of a system run as compiled code while they are trained."""
    fields, networks = named_parts(gan, gan.compiled_fields), named_parts(gan, gan.compiled_networks)
    Compiled(fields, networks, lambda part: part.training and not gan.half.is_paused)


def compile_generator(generator: nn.Module, system: "type[GAN]") -> None:
    """Let fields and networks of a system's generator run as compiled code, also in evaluation mode."""
    names = system.compiled_fields, system.compiled_networks
    own = ([name.removeprefix("generator.") for name in some] for some in names)
    Compiled(*(named_parts(generator, some) for some in own), lambda part: True)


def compiling_failed(model: nn.Module) -> bool:
    """Whether networks of a model were to run as compiled code and do not, since that failed."""
    forwards = (vars(part).get("forward") for part in model.modules())
    return any(isinstance(forward, CompiledForward) and forward.shared.failed for forward in forwards)


def named_parts(model: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """Those of the named parts that a model has: some are options."""
    parts = dict(model.named_modules())
    return [parts[name] for name in names if name in parts]


class Compiled:
    """Runs networks as compiled code, until that fails for one of them; from then on all run as they are.

    Args:
        fields: one code suits any number of points.
        networks: are compiled for each size of their inputs.
        wanted: whether a network is to run as compiled code now.
    """

    def __init__(
        self, fields: Iterable[nn.Module], networks: Iterable[nn.Module], wanted: Callable[[nn.Module], bool]
    ) -> None:
        self.wanted, self.failed = wanted, False
        prepare()
        for network, is_static in [*((field, False) for field in fields), *((network, True) for network in networks)]:
            if "forward" not in vars(network):  # that of an earlier run of the same model stays
                network.forward = CompiledForward(self, network, is_static)

    def code(self, forward: Callable) -> Callable:
        """The function as it is compiled when it is called; the function itself where nothing can be compiled."""
        try:
            return torch.compile(forward)
        except RuntimeError as error:  # torch.compile is not there for this system or Python
            self.fail(error)
            return forward

    def fail(self, error: Exception) -> None:
        """Run all networks as they are from now on, and say why."""
        if not self.failed:
            log.warning(
                "torch.compile failed, so networks run without it: %s. Training goes on, only slower. %s",
                reason(error),
                "It needs a C++ compiler that works, such as g++; or leave out --model.compile.",
            )
        self.failed = True


class CompiledForward:
    """Takes the place of a network's ``forward``."""

    def __init__(self, shared: Compiled, network: nn.Module, is_static: bool) -> None:
        from torch._dynamo.exc import TorchDynamoException  # a second, which others need not wait for

        self.shared, self.network, self.is_static, self.failure = shared, network, is_static, TorchDynamoException
        self.eager, self.compiled = network.forward, shared.code(network.forward)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.shared.failed or not self.shared.wanted(self.network):
            return self.eager(*inputs, **options)
        if self.is_static:
            for leaf in tree_leaves((inputs, options)):
                if isinstance(leaf, Tensor):
                    torch._dynamo.mark_static(leaf)
        try:
            return self.compiled(*inputs, **options)
        except self.failure as error:
            self.shared.fail(error)
        return self.eager(*inputs, **options)

    def __reduce__(self) -> tuple:
        return getattr, (self.network, "forward")  # copies run as they are: compiled code has this network's weights


def prepare() -> None:
    """Settings of torch.compile for all networks."""
    from torch._dynamo import config as dynamo
    from torch._functorch import config as functorch

    dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_VARIANTS)
    functorch.donated_buffer = False  # gradients are computed twice to find the term whose own are not finite
    torch.compiler.assume_constant_result(is_plain)  # it changes around all of training, or regularisers, only
    # Says of each scalar that a network reads, such as how far it has grown, that code ends there and begins anew.
    logging.getLogger("torch._dynamo.variables.tensor").setLevel(logging.ERROR)


def reason(error: Exception) -> str:
    """Kind and first line of the error that made compiling fail, without an end."""
    cause = getattr(error, "inner_exception", error)  # of a compiler
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
