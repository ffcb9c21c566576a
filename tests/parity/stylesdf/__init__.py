"""Replays the reference cases of the published StyleSDF."""

from tests.parity.stylesdf import files, networks, rendering, sampling, training

KINDS = {
    "checkpoint": files.checkpoint,
    "render_stage1": rendering.render_stage1,
    "render_stage2": rendering.render_stage2,
    "sampling": sampling.sampling,
    "sphere_init": training.sphere_init,
    "discriminator_stage1": networks.discriminator_stage1,
    "discriminator_stage2": networks.discriminator_stage2,
    "losses_stage1": training.losses_stage1,
    "losses_stage2": training.losses_stage2,
    "step_stage1": training.step_stage1,
    "step_stage2": training.step_stage2,
    "truncation": rendering.truncation,
}
ABSENT: dict[str, dict[str, str]] = {}
LOOSE: dict[str, dict[str, tuple[float, str]]] = {}
