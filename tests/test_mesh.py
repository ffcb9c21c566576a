"""Meshes: where surfaces lie, which way they face, what colours they have; of known solids and of every system."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import nn

from tests.analytic import Box, Sphere
from tests.systems import SYSTEMS
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.draws import SampleDraws
from zoo.export import mesh as meshes
from zoo.export.mesh import (
    Grid,
    check_target,
    fitting_level,
    is_visible,
    mesh_of,
    query_grid,
    save_mesh,
    solid_above,
    surface,
)
from zoo.weights.bundle import build, save_bundle

ROOT = Path(__file__).parent.parent


class Soft(Sphere):
    """A ball whose density falls off slowly: 20 exp(-8 r^2)."""

    def density(self, points, styles):
        return 20 * torch.exp(-8 * points.square().sum(-1, keepdim=True))


def density_grid(generator: Any, styles: Any, cells: int) -> Grid:
    return query_grid(lambda points: generator.density(points, styles), generator, cells)


def ball(radius: float = 0.5, cells: int = 24) -> Grid:
    return density_grid(Sphere(half=radius), None, cells)


@pytest.mark.parametrize("solid", [Sphere(half=0.8), Box(half=0.8)], ids=["sphere", "box"])
def test_a_solid_has_its_surface_and_its_colours(solid):
    cell = 2 / 24
    found = mesh_of(solid, 3, cells=24, views=12, resolution=64)
    places = torch.from_numpy(np.array(found.vertices)).float()
    if isinstance(solid, Sphere):
        distance = places.norm(dim=1) - solid.half
        assert found.volume == pytest.approx(4 / 3 * np.pi * solid.half**3, rel=0.05)
        outwards = (torch.from_numpy(np.array(found.vertex_normals)).float() * places).sum(1)
        assert outwards.mean() > 0.9 * solid.half and outwards.min() > 0.5 * solid.half  # a step makes stairs
    else:
        size = solid.half * torch.tensor([1, 0.5, 0.7])
        distance = (places.abs() - size).amax(1)
        assert found.volume > 0
    assert distance.abs().max() < cell
    assert found.is_watertight and found.is_winding_consistent

    style = solid.map(solid.latents(1, SampleDraws(0, [3]))).z
    expected = 127.5 * (1 + (0.7 * style + 0.3 * places).clamp(-1, 1))
    off = (torch.from_numpy(np.array(found.visual.vertex_colors))[:, :3] - expected).abs()
    seen = places[:, 1] > 0  # cameras are above
    assert off[seen].mean() < 5 and off[seen].quantile(0.95) < 12
    assert off.max() < 80  # the side that nobody sees has its neighbours' colours


def test_colours_do_not_shine_through():
    """Of two balls in a row, the one behind must not get the colour of the one in front."""

    class Two(Sphere):
        centre = 0.55

        def density(self, points, styles):
            return 1000.0 * (((points.abs() - points.new_tensor([self.centre, 0, 0])).norm(dim=-1, keepdim=True)) < 0.3)

        def hit(self, rays, camera):
            found = []
            for x in (self.centre, -self.centre):
                origins = rays.origins - rays.origins.new_tensor([x, 0, 0])
                middle = -(origins * rays.directions).sum(-1)
                inside = 0.3**2 - (origins + middle[..., None] * rays.directions).square().sum(-1)
                found.append(torch.where(inside > 0, middle - inside.clamp(min=0).sqrt(), torch.inf))
            nearest = torch.minimum(*found)
            return torch.where(nearest.isfinite(), nearest, torch.nan)

        def render(self, styles, camera, *, resolution=None, draws=None):
            rendered = super().render(styles, camera, resolution=resolution, draws=draws)
            side = rendered.depth.shape[-1]
            rays = self.rays(camera, side)
            points = rays.origins + rendered.depth.flatten(1)[..., None] * rays.directions
            left = (points[..., 0] < 0).view(-1, 1, side, side).float()
            image = torch.cat([left, 1 - left, 0 * left], dim=1) * 2 - 1  # left is red, right is green
            return rendered._replace(image=torch.where(rendered.opacity > 0, image, 1.0))

    found = mesh_of(Two(), 0, cells=32, views=12, resolution=96)
    colours = np.array(found.visual.vertex_colors)[:, :2].astype(int)
    red = colours[:, 0] > colours[:, 1]
    assert (red == (found.vertices[:, 0] < 0)).mean() > 0.99


def test_a_vertex_is_seen_only_past_what_is_not_in_its_way():
    solid = solid_above(ball(), 1.0)
    places = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.7, 0.0]])
    towards = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, -1.0, 0], [0, 0, 1.0]])
    assert is_visible(solid, places, towards).tolist() == [True, False, False, True]


def test_surfaces_are_closed_by_the_faces_of_the_box():
    vertices, faces = surface(solid_above(ball(radius=1.2), 1.0))
    found = trimesh.Trimesh(vertices, faces, process=False)
    assert found.is_watertight and np.abs(vertices).max() == 1
    assert found.volume == pytest.approx(4 / 3 * np.pi * 1.2**3 - 6 * np.pi * 0.2**2 * (3 * 1.2 - 0.2) / 3, rel=0.03)


def test_flat_bounds_get_cells_of_equal_sides():
    flat = Sphere(half=0.4)
    flat.bounds = torch.tensor([[-1.0, -0.5, -1.0], [1.0, 0.5, 0.5]])
    grid = density_grid(flat, None, 20)
    assert grid.values.shape == (21, 11, 16) and torch.allclose(grid.cell, torch.tensor(0.1))
    vertices, _ = surface(solid_above(grid, 1.0))
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.4).max() < 0.1


@pytest.mark.parametrize(
    ("radius", "level", "message"), [(0.0, 1.0, "Nothing"), (9.0, 1.0, "All"), (0.5, 2e3, "lower")]
)
def test_a_level_without_a_surface_says_so(radius, level, message):
    with pytest.raises(ValueError, match=f"{message}.* --level"):
        solid_above(ball(radius, 8), level)


def test_nothing_opaque_asks_for_a_level():
    class Fog(Sphere):
        def density(self, points, styles):
            return 0.01 + 0.01 * (points.norm(dim=-1, keepdim=True) < 0.5)

    with pytest.raises(ValueError, match=r"--level 0\.01, half its greatest density"):
        mesh_of(Fog(), 0, cells=8, views=4)


def test_the_fitting_level_has_the_silhouettes_that_are_rendered():
    """The soft ball stops half of a ray at distance b from its middle if 20 exp(-8 b^2) sqrt(pi / 8) = ln 2."""
    soft = Soft()
    grid = density_grid(soft, None, 48)
    level = fitting_level(soft, grid, soft.poses.turntable(4))
    half_stopped = (np.log(20 * np.sqrt(np.pi / 8) / np.log(2)) / 8) ** 0.5
    vertices, _ = surface(solid_above(grid, level))
    assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(half_stopped, abs=0.01)


def test_a_file_says_what_is_in_the_mesh(tmp_path):
    found = mesh_of(Sphere(half=0.8), 0, cells=8, views=4)
    save_mesh(tmp_path / "new" / "ball.ply", found)
    ply = trimesh.load(tmp_path / "new" / "ball.ply", process=False)
    assert np.allclose(ply.vertices, found.vertices, atol=1e-6) and (ply.faces == found.faces).all()
    assert (ply.visual.vertex_colors == found.visual.vertex_colors).all()

    save_mesh(tmp_path / "ball.glb", found)
    data = (tmp_path / "ball.glb").read_bytes()
    length = int.from_bytes(data[12:16], "little")
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    (part,) = tree["meshes"][0]["primitives"]
    view = tree["bufferViews"][tree["accessors"][part["attributes"]["COLOR_0"]]["bufferView"]]
    linear = np.frombuffer(binary, np.uint8, view["byteLength"], view["byteOffset"]).reshape(-1, 4)[:, :3]
    shade = found.visual.vertex_colors[:, :3] / 255
    expected = np.where(shade <= 0.04045, shade / 12.92, ((shade + 0.055) / 1.055) ** 2.4) * 255
    assert np.abs(linear - expected).max() <= 0.51
    assert "KHR_materials_unlit" in tree["materials"][part["material"]]["extensions"]


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setattr(meshes, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need scikit-image and trimesh: pip install 'gan3d-zoo\[mesh\]'"):
        check_target(Path("a.ply"))


def tiny(system: str, cells: int) -> tuple[nn.Module, Any, float]:
    """A random generator, the styles of its turntable's first view, and a level."""
    for attempt in range(20):  # relu leaves some random fields empty
        torch.manual_seed(attempt)
        generator = build(SYSTEMS[system]()["model"]["init_args"]["generator"], nn.Module)
        with torch.no_grad():
            latent, _ = generator.turntable(generator.latents(1, SampleDraws(0, [0])), 1)
            styles = generator.map(latent)
            values = density_grid(generator, styles, cells).values
            level = float(values.min() + values.max()) / 2
        if level > 0:
            return generator, styles, level
    raise AssertionError("twenty empty fields")


def test_objects_lie_where_the_turntable_puts_them():
    from zoo.giraffe.scenes import rotate_points, to_paper

    generator, scene, level = tiny("giraffe", 12)
    found = mesh_of(generator, 0, cells=12, level=level, views=2)
    places = to_paper(torch.from_numpy(found.vertices.astype(np.float32)))[:, None] - scene.place
    inside = rotate_points(places, scene.rotation.mT).abs() <= scene.scale + 0.3  # the sides of a cell
    assert inside.all(-1).any(-1).all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_surface(system):
    generator, _, level = tiny(system, 6)
    found = mesh_of(generator, 0, cells=6, level=level, views=3)
    low, high = generator.bounds.numpy()
    assert len(found.faces) > 0 and (found.vertices >= low - 1e-6).all() and (found.vertices <= high + 1e-6).all()
    assert found.is_watertight and len(found.visual.vertex_colors) == len(found.vertices)


def test_zoo_mesh_writes_a_file_a_sample(tmp_path, capsys):
    config = CONFIG["model"]["init_args"]["generator"]
    save_bundle(tmp_path / "b", build(config, nn.Module), config)
    words = ["mesh", str(tmp_path / "b"), "--out", str(tmp_path / "car.glb"), "--cells", "6", "--views", "3"]
    assert main([*words, "--seeds", "0,3", "--level", "1"]) == 0
    assert (tmp_path / "car-0.glb").is_file() and (tmp_path / "car-3.glb").is_file()
    assert main([*words, "--seeds", "3", "--level", "1"]) == 0
    assert (tmp_path / "car.glb").read_bytes() == (tmp_path / "car-3.glb").read_bytes()
    out = capsys.readouterr().out
    assert "faces, level 1\n" in out
    assert main([*words, "--seeds", "3", "--level", "1", "--check", "2"]) == 0
    assert re.search(
        r", level 1, watertight, silhouettes in 2 other views agree to [01]\.\d{3} ", capsys.readouterr().out
    )


def test_memory_is_that_of_the_grid():
    """A grid of 256 cells takes 68 MB, and what marching cubes gets as much again."""
    code = """
import resource, torch
from tests.analytic import Sphere
from zoo.export.mesh import query_grid, solid_above, surface
import skimage.measure
class Ball(Sphere):
    def density(self, points, styles):
        return (10 * (0.5 - points.norm(dim=-1, keepdim=True))).clamp(min=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
grid = query_grid(lambda points: Ball().density(points, None), Ball(), 256)
grid = solid_above(grid, 0.1)
vertices, _ = surface(grid)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400


# Pictures


def test_a_picture_of_a_mesh_shows_the_side_that_faces_the_camera():
    from zoo.export.mesh_pictures import drawn
    from zoo.render.cameras import Camera, intrinsics_from_fov, look_at

    box = trimesh.creation.box([1.0, 1.0, 1.0])
    red, blue = [255, 0, 0, 255], [0, 0, 255, 255]
    box = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)  # flat sides
    box.visual.vertex_colors = np.where(box.vertex_normals[:, 2:] > 0.5, red, blue)
    origins = torch.tensor([[0.0, 0.0, 4.0]])
    camera = Camera(look_at(origins), intrinsics_from_fov(0.6, 1, origins))
    coloured, grey = drawn(box, camera, 64)
    half = round(0.5 / 3.5 / np.tan(0.3) * 32)  # of the near side [pixels]
    front = slice(32 - half + 1, 32 + half - 1)
    assert (coloured[:, front, front] == torch.tensor([255, 0, 0]).view(3, 1, 1)).all()
    assert (coloured[:, : 32 - half - 1] == 255).all() and (grey[:, :, 32 + half + 1 :] == 255).all()
    assert (grey[0] == grey[1]).all() and 150 < grey[0, 32, 32] < 250
    from_behind = Camera(look_at(-origins), camera.intrinsics)
    assert (drawn(box, from_behind, 64)[0][:, 32, 32] == torch.tensor([0, 0, 255])).all()


def test_the_verb_draws_two_rows_for_each_mesh(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    words = ["mesh", "pigan-cars32", "--out", "car.ply", "--seeds", "0-1", "--cells", "16", "--views", "2"]
    assert main([*words, "--picture", "mesh.png"]) == 0
    assert Image.open("mesh.png").size == (4 * 130 - 2, 4 * 130 - 2)
    assert main([*words, "--picture", "mesh.txt"]) == 2
