"""Names of tensors in the published GRAF's state dicts (github.com/autonomousvision/graf) and ours."""

# ours -> published; the second network of hierarchical sampling, which no published experiment has, is generator_fine
FIELD = [
    (r"layers\.(\d+)\.", r"pts_linears.\1."),
    (r"density\.", "alpha_linear."),
    (r"feature\.", "feature_linear."),
    (r"colour_hidden\.", "views_linears.0."),
    (r"colour\.", "rgb_linear."),
    (r"output\.", "output_linear."),
]
GENERATOR = [
    *((r"field\." + pattern, "generator." + to) for pattern, to in FIELD),
    *((r"volume\.field\." + pattern, "generator_fine." + to) for pattern, to in FIELD),
]
# by the side of the patches: norms and activations are counted too, and no norm follows the first convolution for large
DISCRIMINATOR = {
    32: [(r"convolutions\.(\d+)\.", lambda m: f"main.{3 * int(m[1])}.")],
    64: [(r"convolutions\.(\d+)\.", lambda m: f"main.{max(0, 3 * int(m[1]) - 1)}.")],
    128: [(r"convolutions\.(\d+)\.", lambda m: f"main.{max(0, 3 * int(m[1]) - 1)}.")],
}
