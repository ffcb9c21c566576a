"""Names of tensors in the published pi-GAN's state dicts (github.com/marcoamonteiro/pi-GAN) and ours."""

# ours -> published
GENERATOR = [
    (r"field\.layers\.(\d+)\.", r"siren.network.\1.layer."),
    (r"field\.density\.", "siren.final_layer."),
    (r"field\.colour_sine\.", "siren.color_layer_sine.layer."),
    (r"field\.colour\.", "siren.color_layer_linear.0."),
    (r"field\.embedding\.cube", "siren.spatial_embeddings"),
    (r"mapping\.layers\.(\d+)\.", lambda m: f"siren.mapping_network.network.{2 * int(m[1])}."),
]
DISCRIMINATOR = [
    (r"blocks\.(\d+)\.first\.conv\.", r"layers.\1.network.0.conv."),
    (r"blocks\.(\d+)\.second\.conv\.", r"layers.\1.network.2.conv."),
    (r"blocks\.(\d+)\.skip\.", r"layers.\1.proj."),
    (r"from_rgb\.(\d+)\.", r"fromRGB.\1.model.0."),
    (r"final\.", "final_layer."),
]
PLAIN_DISCRIMINATOR = [(pattern, to.replace(".conv.", ".")) for pattern, to in DISCRIMINATOR]  # without coordinates
