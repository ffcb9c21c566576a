"""Networks that compute in 16 bits: which, when, and what keeps their small gradients from becoming zero.

Rendering, SIRENs and regularisers always compute in float32: in 16 bits a sine of a large phase is noise, and a
regulariser differentiates twice. Two-dimensional networks and discriminators may compute in ``bf16`` (RTX 30, A100 and
later) or ``fp16`` (V100, RTX 20). Weights, EMAs, optimizers, and what a network returns are float32 in either case.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zoo.layers.stylegan2 import to_float32
from zoo.training.nonfinite import NonFiniteLoss, parameters, stop_error
from zoo.utils.errors import UserError
from zoo.utils.ranges import one_of
from zoo.utils.states import check_state

Precision = Literal["float32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_LOSS_SCALE = 2.0**24  # where gradients are zero it would grow without end, and take as many skipped steps to return


class HalfPrecision:
    """Makes networks compute in 16 bits while they are trained; in evaluation mode they compute in float32.

    With fp16, losses are multiplied by a scale, and gradients divided by it, that falls when gradients overflow.

    Args:
        networks: their ``forward`` runs under autocast from now on, and returns float32.
        precision: ``bf16`` or ``fp16``; with ``float32`` nothing changes.
    """

    def __init__(self, networks: Iterable[nn.Module], precision: Precision) -> None:
        one_of(Precision, precision=precision)
        self.precision, self.is_paused = precision, False
        self.scalers: dict[str, torch.amp.GradScaler] = {}  # by loss, once training starts
        self.entered: list = []
        for network in networks if precision != "float32" else ():
            network.register_forward_pre_hook(self.enter)
            network.register_forward_hook(self.leave, always_call=True)

    def enter(self, network: nn.Module, inputs: Any) -> None:
        wanted = network.training and not self.is_paused
        device = next(network.parameters()).device.type
        self.entered.append(torch.autocast(device, DTYPES[self.precision]) if wanted else nullcontext())
        self.entered[-1].__enter__()

    def leave(self, network: nn.Module, inputs: Any, output: Any) -> Any:
        self.entered.pop().__exit__(None, None, None)
        return in_float32(output)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, all compute in float32, and no loss is scaled: gradients cannot overflow."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    def start(self, model: LightningModule, states: dict[str, Any]) -> None:
        """Begin to scale losses where that is needed, as a checkpoint's states say if there is one.

        Raises:
            UserError: the trainer would change the precision, too.
        """
        if model.trainer.precision != "32-true":
            raise UserError(
                f"--trainer.precision {model.trainer.precision} would change the renderer, too: leave it out and give "
                "--model.precision bf16 or fp16, which keeps the renderer in float32."
            )
        if self.precision == "fp16":
            self.scalers = {name: torch.amp.GradScaler(model.device.type) for name in ("loss_g", "loss_d")}
            if states:
                check_state(states, {name: scaler.state_dict() for name, scaler in self.scalers.items()}, "scalers")
            for name, state in states.items():
                self.scalers[name].load_state_dict(state)

    def scaled(self, loss: Tensor, name: str) -> Tensor:
        """A loss as its gradients are to be computed."""
        return self.scalers[name].scale(loss) if self.scalers and not self.is_paused else loss

    def unscale(self, model: LightningModule, optimizer: LightningOptimizer, name: str) -> Tensor | None:
        """Divide gradients by the scale of their loss, log it, and choose the next one.

        Returns:
            both scales [2] on the device, the second smaller where a gradient overflowed; None where none is scaled.
        """
        if not self.scalers or self.is_paused:
            return None
        scaler = self.scalers[name]
        one = torch.ones((), device=parameters(optimizer)[0].device)
        scaler.unscale_(optimizer.optimizer)
        before = scaler.scale(one)
        model.log(f"{name}/scale", before)
        scaler.update()
        return torch.stack([before, scaler.scale(one)])

    def has_overflowed(self, model: LightningModule, name: str, before: float, after: float) -> bool:
        """Whether any gradient overflowed, by the scales of ``unscale``.

        Raises:
            NonFiniteLoss: gradients overflow however little the loss is scaled.
        """
        if after > MAX_LOSS_SCALE:
            self.scalers[name].update(MAX_LOSS_SCALE)
        if after < min(before, 1):
            fault = f"Gradients in fp16 are not finite at iteration {model.iterations}, even with a loss scale of"
            raise stop_error(NonFiniteLoss, model, f"{fault} {before}: resume with --model.precision bf16 or float32.")
        return after < before


def in_float32(value: Any) -> Any:
    """The same tensors, alone or in (named) tuples, with 16-bit floats as float32."""
    if isinstance(value, Tensor):
        return to_float32(value)
    if isinstance(value, tuple):
        parts = [in_float32(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
