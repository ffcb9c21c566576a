"""Replays the reference cases of the published GIRAFFE."""

from tests.parity.giraffe import files, networks, rendering, sampling, training

KINDS = {
    "checkpoint": files.checkpoint,
    "render": rendering.render,
    "modules": networks.modules,
    "sampling": sampling.sampling,
    "discriminator": networks.discriminator,
    "losses": training.losses,
    "step": training.step,
    "gan2d": training.gan2d,
    "truncation": rendering.truncation,
}
ABSENT: dict[str, dict[str, str]] = {}
ENCODING = "places of samples are rounded to float32, and the encoding's highest frequency is 2^9 pi per unit of a box"
CANCELS = f"{ENCODING}; shares of a density's gradient cancel"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {r".*\.(feat.*|weights|depth_map|image|renderer\..*)|alpha_map": (100, ENCODING)},
    "losses": {r".*\.(grad_norms|grad\..*)": (100, CANCELS)},
    "step": {r".*\.square_avg_norms": (100, CANCELS)},
    "truncation": {r".*\.frames": (100, ENCODING)},
    "checkpoint": {r".*\.image": (100, ENCODING)},
}
