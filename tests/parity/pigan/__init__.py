"""Replays the reference cases of the published pi-GAN."""

from tests.parity.pigan import files, networks, rendering, sampling, training

KINDS = {
    "render": rendering.render,
    "sampling": sampling.sampling,
    "discriminator": networks.discriminator,
    "losses": training.losses,
    "step": training.step,
    "truncation": rendering.truncation,
    "checkpoint": files.checkpoint,
}
ABSENT: dict[str, dict[str, str]] = {}
IMPORTANCE = (
    "follows from importance samples: in cells which are nearly empty rounding moves them a thousand times as far, and "
    "eight sines amplify that"
)
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {r".*\.(fine_.*|weights|depth|image)": (100, IMPORTANCE)},
    "step": {r".*\.change_norms": (1e5, "some parameters move by less than the distance to the next float32 number")},
}
