"""Cases of tri-planes, superresolution, augmentation and the discriminator."""

import re
from types import SimpleNamespace

import torch
from torch import nn

from tests.parity.eg3d.build import as_images, fill, load_discriminator
from tests.parity.harness import Case
from tests.parity.published import Watched
from tests.parity.replay import Replay
from zoo.eg3d.cameras import camera_of
from zoo.eg3d.convert import GENERATOR, MODULES, axes_of
from zoo.eg3d.discriminator import pair
from zoo.eg3d.field import AXES, TriPlaneField
from zoo.eg3d.synthesis import Superresolution
from zoo.eg3d.training import EG3D
from zoo.layers.ada import Augmentation
from zoo.layers.stylegan2 import minibatch_stddev
from zoo.render import Camera
from zoo.weights.names import published_name


@torch.no_grad()
def planes(case: Case) -> None:
    planes, points, of = case.inputs["planes"], case.inputs["points"], case.config["decoder"]
    assert axes_of(case.outputs["plane_axes"]) == "official"
    case.compare("projections", torch.stack([points[..., pair] for pair in AXES["official"]], dim=1))
    for name in case.outputs:
        if found := re.fullmatch(r"features_(fixed_)?([\d.]+)", name):
            axes = "fixed" if found[1] else "official"
            field = TriPlaneField(planes.shape[2], extent=float(found[2]), plane_axes=axes)
            case.compare(name, field.look_up(points, planes))
    field = TriPlaneField(of["n_features"], feature_dim=of["decoder_output_dim"], rate=of["decoder_lr_mul"])
    state = {f"decoder.{name}": t for name, t in case.weights("decoder.").items()}
    ours = {f"field.{name}": name for name in field.state_dict()}
    field.load_state_dict({name: state[published_name(key, GENERATOR)] for key, name in ours.items()})
    raw, colours = field.decode(case.cast(case.outputs["features_1"]).mean(1))
    case.compare("decoder_rgb", colours)
    case.relative("decoder_sigma", raw)


@torch.no_grad()
def superresolution(case: Case) -> None:
    for module, of in case.config["modules"].items():
        network = Superresolution(
            **MODULES[module],
            low=of["sr_input_resolution"],
            channels=of["sr_block_channels"],
            feature_dim=of["feature_channels"],
            w_dim=of["w_dim"],
        )
        whole = nn.ModuleDict({"superresolution": network})
        fill(case, whole, {f"superresolution.{n}": t for n, t in case.weights(f"{module}.").items()}, GENERATOR)
        for name in case.outputs:
            if found := re.fullmatch(rf"({re.escape(module)}\.\w+)\.image", name):
                features, w = (case.inputs[f"{found[1]}.{part}"] for part in ("feature", "ws"))
                image, raw = network(features, w[:, -1])
                case.scores(name, image)
                case.scores(f"{found[1]}.rgb_after", raw)


@torch.no_grad()
def augment(case: Case) -> None:
    changes = "xflip rotate90 xint scale prerotate aniso postrotate xfrac brightness contrast lumaflip hue saturation"
    names = [name for change in changes.split() for name in (change, f"{change}_gate")]
    gan = SimpleNamespace(sigma=0.0, augment=Augmentation(probability=case.config["p"]))
    draws = Replay([*zip(names, case.draws("pipe"), strict=True)])
    image, raw = EG3D.seen(gan, case.inputs["image"], case.inputs["image_raw"], draws)
    case.compare("image", image)
    case.compare("image_raw", raw)


@torch.no_grad()
def discriminator(case: Case) -> None:
    network, camera = load_discriminator(case), camera_of(case.inputs["c"])
    images = as_images(case, case.inputs["image_uint8"])
    raw, other, large = (case.inputs[f"image_raw{end}"] for end in ("", "_b", "_large"))
    case.compare("raw_resized", pair(images[:1], raw[:1])[:, 3:])
    case.compare("raw_large_resized", pair(images[:1], large)[:, 3:])
    case.scores("cmap", network.camera_features(case.inputs["c"]))
    network.features = Watched(network.features)
    case.scores("score", network(images, raw, camera).scores)
    features = network.features.calls[0][1]
    case.scores("features_4x4", features)
    case.compare("minibatch_std_channel", minibatch_stddev(features, network.groups)[:, -1:])
    case.scores("score_b", network(images, other, camera).scores)
    case.scores("score_batch2", network(images[:2], raw[:2], camera.take(slice(2))).scores)
    case.scores("score_large_raw", network(images[:1], large, camera.take(slice(1))).scores)
    times = float(re.search(r"x (\d+)", case.config["runs"]["clamp"])[1])
    case.scores("score_clamp", network(times * images, times * raw, camera).scores)
    case.scores("score_swapped", network(images, raw, Camera(*(x.roll(1, 0) for x in camera))).scores)
    noisy = load_discriminator(case, disc_c_noise=case.config["disc_c_noise_of_run_noise"])
    draws = Replay([("camera_noise", case.draws("noise")[0])] * 2)
    case.scores("score_noise", noisy(images, raw, camera, draws).scores)
    case.compare("c_after_noise", noisy.label(camera, draws))  # theirs is changed in place
