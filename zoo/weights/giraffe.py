"""Names of tensors in the published GIRAFFE's state dicts (github.com/autonomousvision/giraffe) and ours."""

# ours -> published; for a field, a renderer, a discriminator alone
FIELD = [
    (r"first\.", "fc_in."),
    (r"shape\.", "fc_z."),
    (r"layers\.(\d+)\.", r"blocks.\1."),
    (r"skip_shapes\.(\d+)\.", r"fc_z_skips.\1."),
    (r"skip_points\.(\d+)\.", r"fc_p_skips.\1."),
    (r"density\.", "sigma_out."),
    (r"appearance\.", "fc_z_view."),
    (r"colour\.", "feat_view."),
    (r"view\.", "fc_view."),
    (r"features\.", "feat_out."),
]
RENDERER = [
    (r"enter\.", "conv_in."),
    (r"layers\.(\d+)\.", r"conv_layers.\1."),
    (r"colours\.(\d+)\.", r"conv_rgb.\1."),
    (r"colour\.", "conv_rgb."),
    (r"colour_up\.kernel", "upsample_rgb.1.f"),
    (r"up\.kernel", "upsample_2.1.f"),
]
DISCRIMINATOR = [(r"layers\.(\d+)\.", r"blocks.\1."), (r"score\.", "conv_out.")]
BLOCK = [(r"first\.", "conv_0."), (r"second\.", "conv_1."), (r"skip\.", "conv_s.")]


def inside(ours: str, published: str, table: list) -> list:
    """The table of a part, for the whole that holds it."""
    return [(ours + pattern, published + to) for pattern, to in table]


GENERATOR = [
    *inside(r"scene\.objects\.", "decoder.", FIELD),
    *inside(r"scene\.background\.", "background_generator.", FIELD),
    *inside(r"renderer\.", "neural_renderer.", RENDERER),
]
# The 2D baseline: between its blocks the published lists hold what changes the size, so every other number is missing.
RESIDUAL = [
    *((rf"blocks\.{i}\.{pattern}", f"resnet.{2 * i}.{to}") for i in range(10) for pattern, to in BLOCK),
    (r"enter\.", "conv_img."),
]
GENERATOR_2D = [*RESIDUAL[:-1], (r"enter\.", "fc."), (r"colour\.", "conv_img.")]
DISCRIMINATOR_2D = [*RESIDUAL, (r"score\.", "fc.")]
