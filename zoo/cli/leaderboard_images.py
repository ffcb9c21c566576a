"""Images of the leaderboard's page: of weights, an orbit and a grid of samples."""

import sys
from collections.abc import Mapping
from pathlib import Path

from zoo.cli.options import numbers
from zoo.export.images import grid, save_image, with_depth_rows
from zoo.export.orbit import orbit_frames, save_orbit
from zoo.export.views import turntable_views
from zoo.leaderboard.html_page import FRAMES, SEEDS, VIEWS
from zoo.utils.errors import UserError, printable
from zoo.weights import load_bundle

RATE = 9.0  # frames in a second


def draw_images(files: Mapping[Path, Mapping[str, Path]]) -> None:
    """Draw weights into the files of ``zoo.leaderboard.html_page.to_draw``; says which could not be drawn, and why."""
    for source, named in files.items():
        print(f"Drawing {printable(source.name, 80)}", file=sys.stderr)
        try:
            generator, _ = load_bundle(source)
        except UserError as error:
            print(f"It is not drawn: {error}", file=sys.stderr)
            continue
        frames = [*orbit_frames(turntable_views(generator, numbers(SEEDS)[:1], FRAMES), depth=False)]
        views = turntable_views(generator, numbers(SEEDS), VIEWS)
        save_orbit(named["orbit"], frames, RATE)
        save_image(named["still"], frames[0])
        save_image(named["grid"], grid(with_depth_rows(views.image, views.depth)))
