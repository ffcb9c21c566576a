"""Replays the reference cases of the published StyleNeRF."""

from tests.parity import harness
from tests.parity.stylenerf import files, networks, rendering, sampling, training

KINDS = {
    "augment": networks.augment,
    "upsamplers": networks.upsamplers,
    "render": rendering.render,
    "discriminator": networks.discriminator,
    "discriminator_variants": networks.discriminator_variants,
    "losses": training.losses,
    "step": training.step,
    "sampling": sampling.sampling,
    "camera_predictor": sampling.camera_predictor,
    "checkpoint": files.checkpoint,
    "truncation": rendering.truncation,
}
NO_SKIP = "left out of a convolution it is part of, upsampling has no meaning; the program returns a placeholder"
ABSENT: dict[str, dict[str, str]] = {
    "upsamplers": {"default.k1.skip_up": NO_SKIP, "default.k3.skip_up": NO_SKIP},
}
IMPORTANCE = f"{harness.IMPORTANCE}, and the encoding's highest frequency again"
CANCELS = "the bias of the density's last layer moves the whole volume: shares of its gradient cancel but for rounding"
KINKS = f"{IMPORTANCE}; units of the discriminator that are that near zero have one slope or another"
VANISHES = "where the density's gradient is nearly zero its direction is all rounding"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {r".*\.(depth_unit_sorted|img|image_lowres|depth_map|b\d+\.(x|img))": (300, IMPORTANCE)},
    "truncation": {r"img\.early_gradient": (1e4, VANISHES), r"img\..*": (300, IMPORTANCE)},
    "sampling": {r".*\.fine_(det|rand)": (30, IMPORTANCE)},
    "losses": {
        r".*\.reg\.(rgb_rand|rgb_rand_out|x_rand)": (300, IMPORTANCE),
        r".*Gmain\.(grad_norm|grad\..*sigma_out\.bias)": (1e5, CANCELS),
        r".*(main|reg)\.(Loss.*|backward.*|grad_norm|grad\..*)": (100, KINKS),
    },
    "step": {r".*\.(backward\..*|pl_mean_after|total_grad_norm|change_norm|after\..*)": (300, KINKS)},
}
