"""Replays the reference cases of the published GRAF."""

from tests.parity.graf import files, networks, rendering, sampling, training
from tests.parity.harness import NEARLY_EMPTY

KINDS = {
    "checkpoint": files.checkpoint,
    "render": rendering.render,
    "sampling": sampling.sampling,
    "discriminator": networks.discriminator,
    "losses": training.losses,
    "step": training.step,
    "inference": rendering.inference,
}
ABSENT: dict[str, dict[str, str]] = {}
ENCODING = "places of samples are rounded to float32, and the encoding's highest frequency is 2^9 per world unit"
KINKS = f"{ENCODING}; units of the discriminator that are that near zero have one slope or another"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render_hierarchical": {r".*\.fine_samples": (300, NEARLY_EMPTY)},
    "render": {r"(full|patch)\.(weights|coarse_weights|depth_map|rgb.*|image|acc|extra\..*)": (300, ENCODING)},
    "inference": {
        r"grid\.(rgb|acc)": (300, ENCODING),
        r"(grid\.)?depth_colour": (300, "colours of 256 levels, cut off"),
    },
    "checkpoint": {r"image_.*": (300, ENCODING)},
    "losses": {r"g\.loss|[dg]\.fake_scores": (300, ENCODING), r"[dg]\.grad.*": (300, KINKS)},
    "step": {r"losses": (300, ENCODING)},
}
