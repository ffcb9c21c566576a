"""How the published VolumeGAN's options and tensors become our networks and cameras."""

from torch import nn

import zoo.render
from tests.parity.harness import Case
from zoo.render import Orbit
from zoo.volumegan import convert as volumegan
from zoo.volumegan.convert import GENERATOR, discriminator_table, generator_config, poses_config
from zoo.volumegan.discriminator import Discriminator
from zoo.volumegan.model import Generator
from zoo.weights.bundle import UNUSED, build
from zoo.weights.names import from_published


def load_generator(case: Case, **cameras) -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        cameras: other values of its ``ps_cfg``.
    """
    of = case.config["generator"]
    config = generator_config(of | {"ps_cfg": of["ps_cfg"] | cameras})
    generator = build(config, nn.Module).eval()
    state = from_published(case.weights("generator."), list(generator.state_dict()), GENERATOR)
    unused = {name for name in state if name.startswith(UNUSED)}
    assert all(name.endswith("filter") for name in unused), unused
    generator.load_state_dict({name: tensor for name, tensor in state.items() if name not in unused})
    return generator


def load_discriminator(case: Case) -> Discriminator:
    state = case.weights("discriminator.")
    discriminator = build(volumegan.discriminator_config(case.config["discriminator"], state), nn.Module)
    ours = from_published(state, list(discriminator.state_dict()), discriminator_table(len(discriminator.blocks)))
    unused = {name for name in ours if name.startswith(UNUSED)}
    assert all(name.endswith("filter") for name in unused), unused
    discriminator.load_state_dict({name: tensor for name, tensor in ours.items() if name not in unused})
    return discriminator


def build_poses(of: dict) -> Orbit:
    config = poses_config(of)
    return getattr(zoo.render, config["class_path"].removeprefix("zoo.render."))(**config["init_args"])
