"""How long many views of one object take, with and without what is in empty space."""

import itertools
from typing import Any

import torch

from zoo.cli.speed import about_this_machine, significant
from zoo.export.camera_paths import frames_along_path
from zoo.export.views import in_batches
from zoo.generator import WithoutEmptySpace, draws_for, evaluating
from zoo.utils.devices import Stopwatch, describe
from zoo.utils.errors import UserError
from zoo.weights import load_bundle


def measure(
    source: str, resolution: int | None, views: int, threads: int | None, steps: int, device: torch.device
) -> dict[str, Any]:
    """Facts about views of objects on this machine.

    Args:
        source: weights, as of ``load_bundle``.
        resolution, views, threads: as of ``zoo benchmark``.
        steps: objects, samples 0 to steps - 1, after a warm-up; each is rendered plainly and without empty space, whose
            grid is made anew for each.

    Returns:
        among others, seconds_per_view; plain_seconds_per_view; speedup, their ratio; occupied_share of the samples,
        which were queried; reciprocal_of_share, what the speedup would be if nothing but them took time;
        speedup_of_reciprocal; and psnr, that of all images against plain ones [dB].

    Raises:
        UserError: nothing is left out of such images.
    """
    threads = torch.get_num_threads() if threads is None else threads
    torch.set_num_threads(threads)
    generator, info = load_bundle(source, resolution)
    generator = generator.to(device)
    pixels, queried, samples, error = views * generator.image_side(resolution) ** 2, 0, 0, 0.0
    times: dict[bool, list[float]] = {True: [], False: []}
    with evaluating(generator):
        for index, exact in itertools.product([0, *range(steps)], (True, False)):
            latent, _ = generator.sample(1, draws_for(generator, 0, [index]))
            styles, camera = frames_along_path(generator, generator.map(latent), "turntable", views)
            without, watch = WithoutEmptySpace(generator, styles, pixels, exact), Stopwatch(device)
            watch.mark()
            with without:
                images = torch.cat([one.image for one in in_batches(generator, styles, camera, resolution, exact=True)])
            watch.mark()
            times[exact] += watch.seconds()
            if exact:
                plain = images
                continue
            if not any(space.samples for space in without.spaces):
                raise UserError(
                    f"{views} views of {info.name} leave no empty space out, so there is nothing to compare: take more "
                    "or larger ones, of a system that marches rays through one density by zoo.render.VolumeRenderer."
                )
            queried += sum(space.queried for space in without.spaces)
            samples += sum(space.samples for space in without.spaces)
            error += float(((images - plain) / 2).square().mean()) / (steps + 1)
    slow, fast = (sum(times[exact][1:]) / steps / views for exact in (True, False))
    share = queried / samples
    return {
        "weights": info.name,
        "work": "views",
        "seconds_per_view": round(fast, 6),
        "plain_seconds_per_view": round(slow, 6),
        "speedup": significant(slow / fast),
        "occupied_share": significant(share),
        "reciprocal_of_share": significant(1 / share),
        "speedup_of_reciprocal": significant(slow / fast * share),
        "psnr": round(-10 * torch.tensor(error).log10().item(), 1),
        "views": views,
        "resolution": generator.image_side(resolution),
        "steps": steps,
        "threads": threads,
        "device": describe(device),
        **about_this_machine(device),
    }
