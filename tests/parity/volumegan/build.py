"""How the published VolumeGAN's options and tensors become our networks and cameras."""

from torch import nn

import zoo.render
from tests.parity.harness import Case
from tests.parity.published import load
from zoo.render import Orbit
from zoo.volumegan import convert as volumegan
from zoo.volumegan.convert import GENERATOR, discriminator_table, generator_config, poses_config
from zoo.volumegan.discriminator import Discriminator
from zoo.volumegan.model import Generator
from zoo.weights.bundle import build


def load_generator(case: Case, **cameras) -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        cameras: other values of its ``ps_cfg``.
    """
    of = case.config["generator"]
    config = generator_config(of | {"ps_cfg": of["ps_cfg"] | cameras})
    return load(build(config, nn.Module).eval(), case.weights("generator."), GENERATOR, unread="filter$")


def load_discriminator(case: Case) -> Discriminator:
    state = case.weights("discriminator.")
    discriminator = build(volumegan.discriminator_config(case.config["discriminator"], state), nn.Module)
    return load(discriminator, state, discriminator_table(len(discriminator.blocks)), unread="filter$")


def build_poses(of: dict) -> Orbit:
    config = poses_config(of)
    return getattr(zoo.render, config["class_path"].removeprefix("zoo.render."))(**config["init_args"])
