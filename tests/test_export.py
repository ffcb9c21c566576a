"""Grids, depth colours, orbits."""

import pytest
import torch
from PIL import Image
from torch import nn

from tests.tiny import CONFIG
from zoo.export.orbit import orbit_frames, save_orbit
from zoo.export.pictures import DEPTH_COLOURS, beside, depth_to_bytes, grid
from zoo.export.views import Views, turntable_views
from zoo.weights.bundle import build


def test_depth_colours_share_a_scale_over_the_views_of_a_latent_only():
    depth = torch.tensor([[[1.0, 2.0], [3.0, torch.nan]], [[10.0, 20.0], [30.0, 30.0]]]).view(2, 2, 1, 1, 2)
    colours = depth_to_bytes(depth)
    pixel = lambda i, v, x: tuple(colours[i, v, :, 0, x].tolist())  # noqa: E731
    assert pixel(0, 0, 0) == DEPTH_COLOURS[0] == pixel(1, 0, 0)
    assert pixel(0, 1, 0) == DEPTH_COLOURS[-1] == pixel(1, 1, 1)
    assert pixel(0, 1, 1) == (255, 255, 255)
    assert pixel(0, 0, 1) not in (pixel(0, 0, 0), pixel(0, 1, 0))


def test_a_latent_without_anything_is_white():
    assert (depth_to_bytes(torch.full((1, 2, 1, 3, 3), torch.nan)) == 255).all()


def test_rows_are_images_and_below_them_depths():
    images = torch.linspace(-1, 1, 2).view(2, 1, 1, 1, 1).expand(2, 3, 3, 4, 4)
    rows = beside(images, torch.full((2, 3, 1, 2, 2), torch.nan))
    assert rows.shape == (4, 3, 3, 4, 4)
    assert rows[:, 0, 0, 0, 0].tolist() == [0, 255, 255, 255]
    picture = grid(rows, gap=1, least=8)
    assert picture.size == (3 * 9 - 1, 4 * 9 - 1)
    assert picture.getpixel((0, 0)) == (0, 0, 0) and picture.getpixel((8, 0)) == (255, 255, 255)
    assert picture.getpixel((9, 7)) == (0, 0, 0) and picture.getpixel((9, 9)) == (255, 255, 255)


def test_orbit_has_a_frame_a_view(tmp_path):
    shades = torch.linspace(-1, 1, 5).view(1, 5, 1, 1, 1).expand(2, 5, 3, 64, 64)
    frames = orbit_frames(Views(shades, torch.ones(2, 5, 1, 32, 32)))
    for name in ("o.gif", "o.webp"):
        save_orbit(tmp_path / name, frames, seconds=1.0)
        film = Image.open(tmp_path / name)
        assert film.n_frames == 5 and film.size == (130, 130) and film.info["loop"] == 0
        film.seek(4)
        assert film.convert("RGB").getpixel((10, 10)) == (255, 255, 255)
        film.seek(0)
        assert max(film.convert("RGB").getpixel((10, 10))) < 8
    with pytest.raises(ValueError, match=r"o\.mp4"):
        save_orbit(tmp_path / "o.mp4", frames)


def test_views_do_not_depend_on_their_neighbours_and_leave_the_generator_and_the_random_state_alone():
    generator = build(CONFIG["model"]["init_args"]["generator"], nn.Module).train()
    generator.field.eval()
    state = torch.random.get_rng_state()
    both = turntable_views(generator, [2, 5], 3)
    alone = turntable_views(generator, [5], 3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert generator.training and generator.mapping.training and not generator.field.training
    torch.testing.assert_close(both.image[1:], alone.image)
    assert (both.image[0] - both.image[1]).abs().max() > 1e-3
    assert (both.image[0, 0] - both.image[0, 2]).abs().max() > 1e-3
