"""What every system is trained with: the base of all LightningModules, EMA, precision, checkpoints."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, gan="GAN", ddp="DDP", ema="EMA WarmUpDecay", schedules="LinearSchedule PiecewiseLinearSchedule"
)
