"""CIPS-3D: which rays learn and what that costs, the interface, exchange of layers, networks that do not fit."""

import re

import pytest
import torch
from torch import Tensor, nn

from zoo.cips3d.extras import Heads, swap_layers
from zoo.cips3d.inr import Inr
from zoo.cips3d.model import FilmSiren, Generator, Mapping, MappingNetwork
from zoo.draws import RayDraws, SampleDraws, TrainingDraws
from zoo.render import GaussianPoses, Importance, JitteredUniform, VolumeRenderer
from zoo.utils.errors import UserError
from zoo.utils.paths import CONFIGS
from zoo.weights.bundle import build, load_bundle, save_bundle

PAGE = CONFIGS / "cips3d" / "README.md"
WHOSE = ("shape", "appearance")


def build_generator(features_from: str = "shape", resolution: int = 8, **inr) -> Generator:
    torch.manual_seed(0)
    return Generator(
        FilmSiren(hidden_dim=8, num_layers=2, feature_dim=6, style_dim=5),
        Inr(**({"feature_dim": 6, "style_dim": 7, "hidden_dim": 8, "num_blocks": 5} | inr)),
        Mapping(MappingNetwork(3, 5, 2), MappingNetwork(4, 7, 2, norm_hidden=True, norm_out=True), features_from),
        VolumeRenderer(JitteredUniform(0.88, 1.12, 4), fine=Importance(4)),
        GaussianPoses(yaw_spread=0.3, pitch_spread=0.15),
        resolution=resolution,
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


# Rays that learn


def rendered_image(generator: Generator, gradient_rays: int | None, seed: int = 0) -> Tensor:
    draws = TrainingDraws(seed, 0)
    latent, camera = generator.latents(2, draws), generator.cameras(2, draws)
    return generator(latent, camera, draws=draws, gradient_rays=gradient_rays, density_noise=0.1).image


def test_gradients_pass_through_the_chosen_rays_only() -> None:
    generator = build_generator()
    image = rendered_image(generator, 10)
    with torch.no_grad():
        assert torch.allclose(image, rendered_image(generator, None), atol=1e-5)  # what is seen is the same
    touched = torch.zeros(64, dtype=torch.bool)
    for pixel in range(64):
        gradient = torch.autograd.grad(
            image.flatten(2)[:, :, pixel].sum(), generator.inr.blocks[3].to_rgb.bias, retain_graph=True
        )[0]
        touched[pixel] = bool(gradient.any())
    draws = TrainingDraws(0, 0)
    generator.latents(2, draws), generator.cameras(2, draws)
    chosen = draws.shared("gradient_rays", (64,)).argsort()[:10]
    assert touched.nonzero()[:, 0].tolist() == sorted(chosen.tolist())


def test_the_gradient_is_that_of_these_rays() -> None:
    generator = build_generator()
    whole, some = rendered_image(generator, None), rendered_image(generator, 10)
    chosen = torch.zeros(64, dtype=torch.bool)
    draws = TrainingDraws(0, 0)
    chosen[draws.shared("gradient_rays", (64,)).argsort()[:10]] = True
    parameters = [p for n, p in generator.named_parameters() if "auxiliary" not in n]
    weight = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad((whole * weight * chosen.view(8, 8)).sum(), parameters)
    found = torch.autograd.grad((some * weight).sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(expected, found, strict=True))


def saved_bytes(function) -> int:
    """What autograd keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(kept.values())


def test_memory_falls_with_the_rays_that_learn() -> None:
    generator = build_generator(resolution=32, hidden_dim=64)
    whole = saved_bytes(lambda: rendered_image(generator, None))
    some = saved_bytes(lambda: rendered_image(generator, 64))  # of 1,024
    assert some < whole / 5


def test_chosen_rays_need_draws() -> None:
    generator = build_generator()
    draws = TrainingDraws(0, 0)
    with pytest.raises(ValueError, match="gradient_rays needs draws"):
        generator(generator.latents(1, draws), generator.cameras(1, None), gradient_rays=3)


def test_rays_keep_their_numbers_in_any_part() -> None:
    draws = SampleDraws(0, [3, 5])
    whole = draws.uniform("jitter", (2, 9, 4))
    index = torch.tensor([7, 2])
    by_ray = RayDraws(draws, 9)
    assert torch.equal(by_ray.take(index).uniform("jitter", (2, 2, 4)), whole[:, index])
    assert torch.equal(by_ray.take(slice(4, 6)).uniform("jitter", (2, 2, 4)), whole[:, 4:6])


@torch.no_grad()
def test_parts_of_an_image_are_the_image() -> None:
    generator = build_generator()
    image = rendered_image(generator, None)
    generator.chunk = 13
    assert torch.allclose(rendered_image(generator, None), image, atol=1e-5)


# Interface


@pytest.mark.parametrize("features_from", ["shape", "appearance"])
def test_the_interface(features_from: str) -> None:
    generator = build_generator(features_from)
    draws = SampleDraws(0, range(3))
    latent, camera = generator.latents(3, draws), generator.cameras(3, draws)
    styles = generator.map(latent, truncation=0.7)
    rendered = generator.render(styles, camera, resolution=5)
    assert rendered.image.shape == rendered.raw.shape == (3, 3, 5, 5) and rendered.depth.shape == (3, 1, 5, 5)
    assert rendered.image.abs().max() <= 1 and rendered.image.requires_grad
    assert torch.equal(rendered.image, generator.render(styles, camera, resolution=5).image)
    points = torch.zeros(3, 11, 3)
    assert generator.density(points, styles).shape == (3, 11, 1) and generator.density(points, styles).min() >= 0
    turned, cameras = generator.turntable(latent, 4)
    assert turned.z_shape.shape == (12, 3) and torch.equal(turned.z_appearance[4], latent.z_appearance[1])
    assert cameras.pose.shape == (12, 4, 4)


def test_features_follow_what_they_should() -> None:
    """The other latent does not reach the field's own colours; in the other variant it does."""
    for features_from in ("shape", "appearance"):
        generator = build_generator(features_from)
        draws = TrainingDraws(0, 0)
        latent, camera = generator.latents(1, draws), generator.cameras(1, None)
        other = latent._replace(z_appearance=latent.z_appearance + 1)
        a, b = generator(latent, camera), generator(other, camera)
        assert torch.equal(a.opacity, b.opacity) and not torch.equal(a.image, b.image)
        assert torch.equal(a.raw, b.raw) == (features_from == "shape")


@torch.no_grad()
def test_truncation_goes_to_stored_means() -> None:
    generator = build_generator()
    draws = TrainingDraws(0, 0)
    latent = generator.latents(2, draws)
    assert generator.mean_shape.isnan().all()
    before = generator.map(latent, truncation=0.0)
    generator.prepare()
    assert not generator.mean_shape.isnan().any()
    means = generator.mean_styles()
    for a, b, mean in zip(before, generator.map(latent, truncation=0.0), means, strict=True):
        assert torch.equal(a, b) and torch.allclose(b, mean.expand_as(b))
    half, whole = generator.map(latent, truncation=0.5), generator.map(latent)
    assert torch.allclose(half.appearance, (whole.appearance + means.appearance) / 2, atol=1e-6)


@torch.no_grad()
def test_layers_are_exchanged() -> None:
    source, target = build_generator(), build_generator()
    for parameter in target.parameters():
        parameter.add_(1)
    before = state(source)
    mixed = state(swap_layers(source, target, [1, 4], 0.25))
    for name, own in state(source).items():
        assert torch.equal(own, before[name])
        is_swapped = name.startswith(("inr.blocks.1.", "inr.blocks.4."))
        assert torch.allclose(mixed[name], own + 0.25 * is_swapped), name
    with pytest.raises(UserError, match=r"no block 99: these generators have blocks 0 to \d\."):
        swap_layers(source, target, [1, 99])


def test_the_page_tells_how_to_save_what_was_exchanged(tmp_path, monkeypatch) -> None:
    sizes = {"latent_dim": 3, "style_dim": 5, "num_layers": 1}
    parts = {
        "field": ("FilmSiren", {"hidden_dim": 8, "feature_dim": 6, "style_dim": 5}),
        "inr": ("Inr", {"feature_dim": 6, "hidden_dim": 8, "style_dim": 5}),
        "mapping": (
            "Mapping",
            {name: {"class_path": "zoo.cips3d.MappingNetwork", "init_args": sizes} for name in WHOSE},
        ),
    }
    args = {name: {"class_path": f"zoo.cips3d.{of}", "init_args": own} for name, (of, own) in parts.items()}
    depths = {"class_path": "zoo.render.JitteredUniform", "init_args": {"near": 0.88, "far": 1.12, "samples": 4}}
    args["renderer"] = {"class_path": "zoo.render.VolumeRenderer", "init_args": {"depths": depths}}
    args["poses"] = {"class_path": "zoo.render.GaussianPoses", "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.1}}
    config = {"class_path": "zoo.cips3d.Generator", "init_args": args}
    monkeypatch.chdir(tmp_path)
    ffhq, cartoon = (build(config, Generator) for _ in range(2))
    save_bundle("ffhq", ffhq, config)
    save_bundle("cartoon", cartoon, config)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    exec(code, {})
    mixed, _ = load_bundle("mixed")
    for i, (a, b, c) in enumerate(zip(mixed.inr.blocks, ffhq.inr.blocks, cartoon.inr.blocks, strict=True)):
        half = 0.5 * b.second.weight + 0.5 * c.second.weight
        assert torch.allclose(a.second.weight, half if i >= 3 else b.second.weight)


@torch.no_grad()
@pytest.mark.parametrize("rgb_dim", [3, 5])
def test_what_hits_nothing_starts_with_the_colour_that_was_asked_for(rgb_dim: int) -> None:
    of = build_generator(rgb_dim=rgb_dim)
    generator = Generator(of.field, of.inr, of.mapping, of.renderer, of.poses, empty=0.9)
    nothing = torch.zeros(1, 2, 6)
    weights = generator.inr.modulate(torch.zeros(1, 7))
    if rgb_dim > 3:  # what comes before the last layer is summed up with random numbers
        nn.init.zeros_(generator.inr.final.weight)
    assert torch.allclose(generator.inr(nothing, weights), torch.tensor(0.9))
    assert torch.allclose(generator.auxiliary(nothing).tanh(), torch.tensor(0.9))


def test_layers_can_have_styles_of_their_own() -> None:
    plain = build_generator()
    torch.manual_seed(1)
    shape = Heads(MappingNetwork(3, 9, 2), 5, ["0", "1", "colour"], num_layers=2)
    appearance = Heads(MappingNetwork(4, 6, 1, True, True), 7, [str(i) for i in range(10)], norm_out=True)
    generator = Generator(plain.field, plain.inr, Mapping(shape, appearance), plain.renderer, plain.poses)
    draws = TrainingDraws(0, 0)
    latent, camera = generator.latents(2, draws), generator.cameras(2, None)
    styles = generator.prepare().map(latent, truncation=0.5)
    assert styles.shape.shape == styles.colour.shape == (2, 3, 5) and styles.appearance.shape == (2, 10, 7)
    assert torch.allclose(generator.map(latent, truncation=0.0).appearance[0], generator.mean_appearance[0])
    image = generator.render(styles, camera, resolution=4)
    for name, i, same in (("shape", 2, True), ("colour", 2, False), ("appearance", 9, False)):
        other = getattr(styles, name).clone()
        other[:, i] += 1
        changed = generator.render(styles._replace(**{name: other}), camera, resolution=4)
        assert torch.equal(changed.image, image.image) == same  # the last shape style is only the features'
        assert torch.equal(changed.opacity, image.opacity)


# Networks that do not fit each other


def test_widths_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"field.feature_dim \(6\) and inr.feature_dim \(5\) must be the same"):
        build_generator(feature_dim=5)
    with pytest.raises(ValueError, match=r"mapping.appearance.style_dim \(7\) and inr.style_dim \(6\)"):
        build_generator(style_dim=6)


@pytest.mark.parametrize("wrong", [{"rgb_dim": 2}, {"first_rgb": 5}])
def test_a_network_without_colour_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"No colour comes of|rgb_dim of Inr is 2"):
        build_generator(**wrong)
