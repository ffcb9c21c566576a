"""Replays the reference cases of the published CIPS-3D."""

from tests.parity.cips3d import files, networks, rendering, sampling, training
from tests.parity.harness import IMPORTANCE, NEARLY_EMPTY

KINDS = {
    "render": rendering.render,
    "render_v1": rendering.render,
    "partial_grad": rendering.partial_grad,
    "sampling": sampling.sampling,
    "discriminator": networks.discriminator,
    "losses": training.losses,
    "step": training.step,
    "truncation": rendering.truncation,
    "checkpoint": files.checkpoint,
}
ABSENT: dict[str, dict[str, str]] = {
    "sampling": {
        f"path_{path}.{what}": "cameras of the published web demo; ours follow an orbit of their own"
        for path in ("circle", "translate_circle", "translate_rotate", "yaw_sweep")
        for what in ("position", "lookup", "yaw", "pitch", "up")
    }
}
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {
        r".*\.fine_z": (30, NEARLY_EMPTY),
        r".*\.(siren_out\.2\..*|final_.*|feature_map|depth|inr_.*|aux_out|img)": (100, IMPORTANCE),
    },
    "partial_grad": {r".*\.(img|grad_norms|grad\..*)": (100, IMPORTANCE)},
    "losses": {r".*\.(fake_images|g_preds|[dg]_loss|grad_norms|grad\..*)": (100, IMPORTANCE)},
    "step": {
        r".*\.change_norms": (100, "two steps of Adam, which are nearly signs, may cancel but for their rounding")
    },
    "truncation": {r".*\.img": (100, IMPORTANCE)},
    "checkpoint": {r".*\.img": (100, IMPORTANCE)},
}
