"""Replays the reference cases of the published EG3D."""

from tests.parity.eg3d import files, networks, rendering, sampling, training

KINDS = {
    "render": rendering.render,
    "planes": networks.planes,
    "sampling": sampling.sampling,
    "superresolution": networks.superresolution,
    "augment": networks.augment,
    "discriminator": networks.discriminator,
    "losses": training.losses,
    "step": training.step,
    "truncation": rendering.truncation,
    "checkpoint": files.checkpoint,
}
ABSENT: dict[str, dict[str, str]] = {
    "planes": {"plane_axes": "we keep the two coordinates that matrices stand for; that these do is asserted"},
    "step": {
        f"it{k}.{name}.dataset_label_std": "of the data set; the published program keeps it in the generator unused"
        for k in range(10)
        for name in ("G", "G_ema")
    },
}
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "losses": {r".*\.Gmain\.grad_norms": (100, "gradients of biases before a leaky ReLU are sums that cancel")},
    "step": {r"it0\.G_ema\.change_norms": (100, "so small a change is rounded where weights are stored")},
}
