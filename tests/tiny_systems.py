"""The config of a tiny run of every system, with as much of what a run remembers as fits."""

from typing import Any

from tests.tiny import CONFIG, named

BOUNDARY = 4  # the first iteration of the second stage of DATA
STAGES = {0: {}, BOUNDARY: {"resolution": 4, "batch_size": 6}, 8: {"resolution": 8, "batch_size": 3}}
DATA = named("tests.systems.NoiseData", stages=STAGES)
ADAM = named("torch.optim.Adam", lr=2e-3, betas=[0.0, 0.99])
FRONT = named("zoo.render.GaussianPoses", yaw_spread=0.3, pitch_spread=0.15)
AUGMENT = named("zoo.layers.ada.Augmentation", controller=named("zoo.layers.ada.Controller", images=100))


def noise(stages: dict[int, dict[str, int]], **init_args: Any) -> dict[str, Any]:
    return named("tests.systems.NoiseData", stages=stages, **init_args)


def ema(decay: float | dict[str, Any], **init_args: Any) -> dict[str, Any]:
    return named("zoo.training.EMA", decay=decay, **init_args)


def run_of(model: str, data: dict[str, Any] = DATA, **init_args: Any) -> dict[str, Any]:
    return unshared({"model": named(model, **init_args), "data": data})


def unshared(config: Any) -> Any:
    """A copy whose parts can be changed one by one."""
    if isinstance(config, dict):
        return {name: unshared(part) for name, part in config.items()}
    return [unshared(part) for part in config] if isinstance(config, list) else config


def pigan() -> dict[str, Any]:
    """A tiny pi-GAN with everything that a run remembers: EMAs, learning rates by stage, R1, a second slice."""
    warm = named("zoo.training.WarmUpDecay", limit=0.99)
    changed = {
        "stages": [{"start": 0, "lr_g": 5e-3}, {"start": 4, "lr_d": 2e-3}, {"start": 8, "batch_split": 2}],
        "fade_iterations": 3,
        "noise_iterations": 9,
        "mapping_lr": 0.1,
        "emas": {"slow": ema(warm), "fast": ema(0.5)},
    }
    return run_of("zoo.pigan.PiGAN", **(CONFIG["model"]["init_args"] | changed))


def giraffe() -> dict[str, Any]:
    """A tiny GIRAFFE of two objects, with as many fakes as real images in every stage."""

    def field(features: int, **sizes: Any) -> dict[str, Any]:
        waves = {name: named("zoo.giraffe.Octaves", octaves=2) for name in ("positions", "directions")}
        sizes = {"latent_dim": 4, "hidden_dim": 8, "num_layers": 3, "skips": [1], "features": features, **sizes}
        return named("zoo.giraffe.Field", **waves, **sizes)

    depths = named("zoo.giraffe.StratifiedDepths", near=1.0, far=4.0, samples=6)
    rmsprop = named("torch.optim.RMSprop", lr=1e-3)
    generator = named(
        "zoo.giraffe.Generator",
        objects=field(6),
        background=field(6, skips=[]),
        boxes=named("zoo.giraffe.BoxPrior", count=2),
        poses=named("zoo.giraffe.ScenePoses", polar=[0.3, 0.5]),
        renderer=named("zoo.giraffe.SceneRenderer", depths=depths, chunk=200),
        neural_renderer=named("zoo.giraffe.NeuralRenderer", stages=1, channels_in=6, channels=6, least=2),
        feature_resolution=4,
        background_rotation=[0.0, 0.25],
    )
    return run_of(
        "zoo.giraffe.GIRAFFE",
        noise({0: {}, 4: {"batch_size": 6}, 8: {"batch_size": 3}}),
        generator=generator,
        discriminator=named("zoo.giraffe.Discriminator", resolution=8, channels=8),
        optimizer_g=rmsprop,
        optimizer_d=rmsprop,
        emas={"slow": ema(0.9, buffers="keep")},
    )


def graf() -> dict[str, Any]:
    """A tiny GRAF: two schedules of the clock, mirrored patches, spectral norm's state."""
    rmsprop = named("torch.optim.RMSprop", lr=1e-3)
    field = {"shape_dim": 3, "appearance_dim": 2, "hidden_dim": 8, "num_layers": 6, "point_octaves": 2}
    depths = named("zoo.graf.AlongAxis", near=7.5, far=12.5, samples=3, radius=10.5)
    generator = named(
        "zoo.graf.Generator",
        field=named("zoo.graf.RadianceField", **field),
        renderer=named("zoo.render.VolumeRenderer", depths=depths),
        poses=named("zoo.graf.OnSphere", radius=[9.5, 10.5]),
        resolution=8,
    )
    return run_of(
        "zoo.graf.GRAF",
        generator=generator,
        discriminator=named("zoo.graf.Discriminator", channels=2),
        optimizer_g=rmsprop,
        optimizer_d=rmsprop,
        patches=named("zoo.graf.Patches", anneal=90.0),
        noise_iterations=9,
        milestones=[4, 8],
        mirror=True,
        emas={"ema": ema(0.5)},
    )


def volumegan() -> dict[str, Any]:
    """A tiny VolumeGAN: lazy regularisers with steps of their own, growth, mixing, running means of w and of paths."""
    renderer = named(
        "zoo.render.VolumeRenderer",
        depths=named("zoo.render.JitteredUniform", near=0.8, far=1.2, samples=4),
        fine=named("zoo.render.Importance", samples=4),
        chunk=256,
    )
    structure = {"resolution": 4, "start": 2, "base_channels": 4, "channels": 4, "w_dim": 8}
    field = {"channels": 4, "hidden_dim": 8, "num_layers": 2, "colour_dim": 8, "frequencies": 2, "w_dim": 8}
    generator = named(
        "zoo.volumegan.Generator",
        structure=named("zoo.volumegan.StructuralVolume", **structure),
        field=named("zoo.volumegan.StyledField", **field, max_log2=1),
        renderer=renderer,
        synthesis=named("zoo.volumegan.SynthesisNetwork", low=4, resolution=8, base_channels=32, w_dim=8),
        poses=FRONT,
        latent_dim=4,
        mapping_dim=8,
        mapping_layers=2,
    )
    return run_of(
        "zoo.volumegan.VolumeGAN",
        generator=generator,
        discriminator=named("zoo.volumegan.Discriminator", resolution=8, base_channels=32, groups=1, last=2),
        optimizer_g=ADAM,
        optimizer_d=ADAM,
        emas={"ema": ema(0.5)},
        r1_every=3,
        path_every=2,
        growth=named("zoo.volumegan.Growth", levels=1, hold=4, fade=16, every=2),
    )


def cips3d() -> dict[str, Any]:
    """A tiny CIPS-3D whose stages differ in all that they can."""
    adam = named("torch.optim.Adam", lr=1.0e-2, betas=[0.0, 0.9])
    shape = {"latent_dim": 4, "style_dim": 6, "num_layers": 2}
    appearance = {"latent_dim": 4, "style_dim": 5, "num_layers": 2, "norm_hidden": True, "norm_out": True}
    like_pigan = CONFIG["model"]["init_args"]["generator"]["init_args"]
    generator = named(
        "zoo.cips3d.Generator",
        field=named("zoo.cips3d.FilmSiren", hidden_dim=8, num_layers=2, feature_dim=4, style_dim=6),
        inr=named("zoo.cips3d.Inr", feature_dim=4, hidden_dim=8, style_dim=5, num_blocks=3, first_rgb=1),
        mapping=named(
            "zoo.cips3d.Mapping",
            shape=named("zoo.cips3d.MappingNetwork", **shape),
            appearance=named("zoo.cips3d.MappingNetwork", **appearance),
        ),
        renderer=like_pigan["renderer"],
        poses=like_pigan["poses"],
        resolution=8,
    )
    discriminator = named(
        "zoo.cips3d.Discriminator",
        main=named("zoo.cips3d.Tower", channels=[8, 6]),
        auxiliary=named("zoo.cips3d.Tower", channels=[6, 4], shrink_first=True),
    )
    last = {
        "start": 8,
        "lr_d": 2e-3,
        "auxiliary_every": 0,
        "augment": "zoo.layers.diffaugment.diffaugment",
        "frozen": ["field", "mapping.shape", "auxiliary"],
        "ema_start": 0,
    }
    return run_of(
        "zoo.cips3d.CIPS3D",
        generator=generator,
        discriminator=discriminator,
        optimizer_g=adam,
        optimizer_d=adam,
        emas={"ema": ema(0.9)},
        r1_every=2,
        stages=[
            {"start": 0, "ema_start": 1, "noise_iterations": 9, "gradient_rays": 40},
            {"start": 4, "lr_g": 5e-3, "auxiliary_every": 2, "fade_iterations": 3, "ema_start": 2},
            last,
        ],
    )


def stylenerf() -> dict[str, Any]:
    """A tiny StyleNeRF: growing, a NeRF path, lazy regularisers, running means, augmentation that adapts."""
    line = named("zoo.stylenerf.LinearSpacing", near=0.88, far=1.12)
    field = {"hidden_dim": 8, "num_layers": 2, "feature_dim": 4, "octaves": 2}
    outside = named("zoo.stylenerf.PlainField", **field, latent_dim=3)
    synthesis = {"low": 8, "resolution": 16, "feature_dim": 4, "base_channels": 64, "clamp": None, "w_dim": 8}
    upsampler = "zoo.layers.upsampling.NearestConcat"
    generator = named(
        "zoo.stylenerf.Generator",
        foreground=named("zoo.stylenerf.StyledField", **field, w_dim=8),
        renderer=named("zoo.stylenerf.NormalisedDepthRenderer", spacing=line, samples=4, chunk=100),
        synthesis=named("zoo.stylenerf.SynthesisNetwork", **synthesis, upsampler=upsampler),
        poses=FRONT,
        background=named("zoo.stylenerf.BackgroundRenderer", field=outside, samples=3),
        latent_dim=4,
        mapping_layers=2,
        start=8,
    )
    discriminator = {"resolution": 16, "base_channels": 64, "clamp": None, "groups": 1, "start": 8}
    return run_of(
        "zoo.stylenerf.StyleNeRF",
        noise({0: {}, 4: {"batch_size": 6}}, resolution=16),
        generator=generator,
        discriminator=named("zoo.stylenerf.Discriminator", **discriminator),
        optimizer_g=ADAM,
        optimizer_d=ADAM,
        emas={"ema": ema(0.5)},
        nerf_path_side=4,
        r1_every=3,
        path_every=2,
        growth=named("zoo.stylenerf.Growth", begin=4, end=40),
        augment=AUGMENT,
    )


def eg3d() -> dict[str, Any]:
    """A tiny EG3D: cameras of images, swaps, blur, a growing rendered side, lazy regularisers, augmentation."""

    def schedule(start: float, end: float) -> dict[str, Any]:
        return named("zoo.training.LinearSchedule", start=start, end=end, images=40)

    quadrature = {"density": "zoo.render.shifted_softplus", "background": "zoo.render.white"}
    renderer = named(
        "zoo.render.VolumeRenderer",
        depths=named("zoo.eg3d.FixedLimits", near=2.2, far=3.3, samples=4),
        fine=named("zoo.eg3d.SmoothedImportance", samples=4),
        quadrature=named("zoo.render.MidpointQuadrature", **quadrature),
        chunk=200,
    )
    planes = {"resolution": 8, "channels": 4, "base_channels": 64, "most_channels": 8, "w_dim": 8}
    larger = {"low": 4, "doubles_first": False, "channels": [8, 4], "clamp": None, "feature_dim": 4, "w_dim": 8}
    generator = named(
        "zoo.eg3d.Generator",
        plane_network=named("zoo.eg3d.PlaneNetwork", **planes),
        field=named("zoo.eg3d.TriPlaneField", channels=4, hidden_dim=8, feature_dim=4),
        renderer=renderer,
        superresolution=named("zoo.eg3d.Superresolution", **larger),
        poses=named("zoo.eg3d.LookAtPoses", yaw_spread=0.3, pitch_spread=0.15, radius=2.7, fov_deg=18.0),
        latent_dim=4,
        render_side=4,
    )
    discriminator = {"resolution": 8, "base_channels": 64, "most_channels": 8, "clamp": None, "groups": 1}
    return run_of(
        "zoo.eg3d.EG3D",
        noise({0: {}, 4: {"batch_size": 6}}, resolution=8, posed=True),
        generator=generator,
        discriminator=named("zoo.eg3d.DualDiscriminator", **discriminator, mapping_layers=2),
        optimizer_g=ADAM,
        optimizer_d=ADAM,
        emas={"ema": ema(0.5)},
        swap=schedule(1.0, 0.5),
        blur=schedule(2.0, 0.0),
        growth=schedule(3, 4),
        regulariser=named("zoo.eg3d.DensityTV", points=10),
        density_every=2,
        r1_every=3,
        augment=AUGMENT,
    )


def stylesdf() -> dict[str, Any]:
    """A tiny StyleSDF: a sphere, then the renderer, then the decoder from the second stage of the data on; in parts."""
    renderer = named(
        "zoo.render.VolumeRenderer",
        depths=named("zoo.stylesdf.OffsetDepths", near=0.88, far=1.12, samples=4),
        quadrature={"density": named("zoo.stylesdf.SigmoidDensity", beta=0.05)},
        chunk=None,
    )
    decoder = {"feature_dim": 6, "style_dim": 4, "latent_dim": 8, "mapping_layers": 2}
    generator = named(
        "zoo.stylesdf.Generator",
        field=named("zoo.stylesdf.SDFField", hidden_dim=6, num_layers=2, style_dim=4),
        renderer=renderer,
        poses=FRONT,
        decoder=named("zoo.stylesdf.Decoder", widths={8: 6, 16: 4}, **decoder),
        latent_dim=4,
    )
    discriminator = named(
        "zoo.stylesdf.StagedDiscriminator",
        volume=named("zoo.stylesdf.PoseDiscriminator", channels=[4, 6, 6]),
        image=named("zoo.stylesdf.ImageDiscriminator", widths={16: 4, 8: 6, 4: 6}),
    )
    betas = {"betas": [0.0, 0.9]}
    image = {"settings_g": betas, "settings_d": betas, "r1_every": 3, "path_every": 2, "at_once": 2}
    return run_of(
        "zoo.stylesdf.StyleSDF",
        noise({0: {}, BOUNDARY: {"batch_size": 6}}, resolution=16),
        generator=generator,
        discriminator=discriminator,
        optimizer_g=ADAM,
        optimizer_d=ADAM,
        emas={"ema": ema(0.5, buffers="keep")},
        sphere=named("zoo.stylesdf.SphereStage", iterations=2, batch=2),
        volume=named("zoo.stylesdf.VolumeStage", iterations=BOUNDARY - 2, at_once=2),
        image=named("zoo.stylesdf.ImageStage", **image),
    )
