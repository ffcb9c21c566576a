"""Replays the reference cases of the published VolumeGAN."""

from tests.parity.harness import IMPORTANCE, NEARLY_EMPTY
from tests.parity.volumegan import files, networks, rendering, sampling, training

KINDS = {
    "render": rendering.render,
    "sampling": sampling.sampling,
    "discriminator": networks.discriminator,
    "losses": training.losses,
    "step": training.step,
    "truncation": rendering.truncation,
    "checkpoint": files.checkpoint,
}
ALPHAS = "the published 'alphas' are the light before the first sample, always 1; we do not keep it"
MODES = ("relu", "softplus", "mipnerf", "relu_last", "relu_white", "relu_maxd", "softplus_nodist", "relu_weight")
ABSENT: dict[str, dict[str, str]] = {
    "render": {"transmittance_first": ALPHAS},
    "sampling": {f"render_{mode}.alphas": ALPHAS for mode in MODES},
    "truncation": {
        "sampler_num_steps_after_video_call": "the published sampler keeps the numbers of its last call; ours has none"
    },
}
SIGNS = (
    "Adam's first steps are as long for tiny gradients as for large ones: rounding, which importance samples enlarge, "
    "turns some of them round"
)
KINKS = "a score's gradient jumps where rounding moves a number past a kink of a leaky ReLU"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {
        "fine_z": (30, NEARLY_EMPTY),
        r"fine_.*|merged_.*|weights|depth|feature2d|syn\..*|rgb_lowres|image.*": (100, IMPORTANCE),
    },
    "losses": {r"(.*\.)?(fake_image|g_loss.*|pl_.*|d_fake_loss|grad_norm\..*|grad\..*)": (100, IMPORTANCE)},
    "sampling": {r"hs_.*": (30, NEARLY_EMPTY)},
    "step": {
        r"\d+\.(value|change_norm|adam_exp_avg_sq|stat)\..*": (100, SIGNS),
        r"\d+\.stat\.Real_Gradient_Penalty": (300, KINKS),
    },
    "truncation": {r".*image.*": (300, IMPORTANCE)},
    "checkpoint": {r"image.*": (100, IMPORTANCE)},
}
