"""Surfaces of generators that know their signed distance: where they lie, which way they face, how they look."""

import math

import numpy as np
import pytest
import torch
import trimesh

from tests.analytic import BallSurface, Sphere, TorusSurface
from zoo.export.mesh import mesh_of, save_mesh
from zoo.export.silhouettes import rasterised, silhouette_iou
from zoo.generator import draws_for
from zoo.render import Camera, GaussianPoses, Quadrature, VolumeRenderer
from zoo.stylesdf import Generator, OffsetDepths, SDFField, SigmoidDensity

SMALL = {"views": 6, "resolution": 24}
BALL, TORUS = BallSurface(half=0.7), TorusSurface(half=0.6)
SIZES = {  # area and volume
    "ball": (BALL, 4 * math.pi * 0.7**2, 4 / 3 * math.pi * 0.7**3),
    "torus": (TORUS, 4 * math.pi**2 * 0.6 * 0.24, 2 * math.pi**2 * 0.6 * 0.24**2),
}


@pytest.fixture(scope="module")
def torus() -> trimesh.Trimesh:
    return mesh_of(TORUS, 3, cells=48, views=12, resolution=48)


@pytest.mark.parametrize("solid", SIZES)
def test_a_known_surface_has_its_area_and_volume(solid):
    generator, area, volume = SIZES[solid]
    found = mesh_of(generator, 0, cells=64, **SMALL)
    assert found.is_watertight and found.is_winding_consistent
    assert found.area == pytest.approx(area, rel=0.01) and found.volume == pytest.approx(volume, rel=0.01)
    assert found.euler_number == (0 if solid == "torus" else 2)
    distance = generator.signed_distance(torch.from_numpy(found.vertices), None)
    assert distance.abs().max() < 1e-3  # a cell is 0.03


def test_normals_are_the_gradient_of_the_distance(torus):
    x, y, z = np.array(torus.vertices).T
    ring = np.hypot(x, z)
    expected = np.stack([x * (1 - 0.6 / ring), y, z * (1 - 0.6 / ring)], axis=1) / 0.24
    assert np.abs(torus.vertex_normals - expected).max() < 1e-2


def test_a_file_has_these_normals(torus, tmp_path):
    for name in ("torus.ply", "torus.glb"):
        save_mesh(tmp_path / name, torus)
        (back,) = trimesh.load_scene(tmp_path / name, process=False).geometry.values()
        assert np.allclose(back.vertex_normals, torus.vertex_normals, atol=1e-5), name
    of_faces = trimesh.Trimesh(torus.vertices, torus.faces, process=False).vertex_normals
    assert np.abs(of_faces - torus.vertex_normals).max() > 1e-3  # so that the files cannot agree by chance


def test_colours_are_those_of_the_images(torus):
    style = TORUS.map(TORUS.latents(1, draws_for(TORUS, 0, [3]))).z
    expected = 127.5 * (1 + (0.7 * style + 0.3 * torch.from_numpy(np.array(torus.vertices)).float()).clamp(-1, 1))
    off = (torch.from_numpy(np.array(torus.visual.vertex_colors))[:, :3] - expected).abs()
    assert off[torch.from_numpy(np.array(torus.vertices))[:, 1] > 0].mean() < 5


def test_a_learned_distance_need_not_grow_evenly():
    """Three times the distance, as a network may learn it, has the same zero set and the same unit normals."""

    class Steep(BallSurface):
        def signed_distance(self, points, styles):
            return 3 * super().signed_distance(points, styles)

    plain, steep = (mesh_of(kind(half=0.7), 0, cells=16, **SMALL) for kind in (BallSurface, Steep))
    assert np.allclose(plain.vertices, steep.vertices, atol=1e-5)
    assert np.allclose(plain.vertex_normals, steep.vertex_normals, atol=1e-5)


def test_a_surface_that_leaves_the_bounds_is_cut_there():
    found = mesh_of(BallSurface(half=1.2), 0, cells=24, **SMALL)
    assert found.is_watertight and np.abs(found.vertices).max() == 1
    assert found.volume == pytest.approx(4 / 3 * np.pi * 1.2**3 - 6 * np.pi * 0.2**2 * (3 * 1.2 - 0.2) / 3, rel=0.03)
    flat = (np.abs(found.vertices) < 0.4).sum(1) == 2  # in the middle of a face of the bounds
    assert flat.any() and np.allclose(np.abs(found.vertex_normals[flat]).max(1), 1)


@pytest.mark.parametrize(("radius", "side"), [(-0.1, "outside"), (9.0, "inside")])
def test_no_zero_in_the_bounds_says_so(radius, side):
    with pytest.raises(ValueError, match=f"no surface: all of its bounds is {side}, with signed distances from"):
        mesh_of(BallSurface(half=radius), 0, cells=8, **SMALL)


def test_the_surface_comes_before_the_density_unless_a_level_is_asked_for():
    class Both(BallSurface):
        """Its density is that of a smaller ball."""

        def density(self, points, styles):
            return 1000.0 * (points.norm(dim=-1, keepdim=True) < 0.4)

    usual, dense = (mesh_of(Both(half=0.7), 0, cells=16, level=level, **SMALL) for level in (None, 500.0))
    assert usual.metadata == {"level": None} and usual.extents.max() == pytest.approx(1.4, abs=0.02)
    assert dense.metadata == {"level": 500.0} and dense.extents.max() == pytest.approx(0.8, abs=0.13)
    with pytest.raises(ValueError, match=r"A mesh needs density, which"):
        mesh_of(BallSurface(), 0, cells=8, level=1.0, **SMALL)


def test_stylesdf_has_its_learned_surface():
    """Of random weights, with the median of its distances made zero."""
    torch.manual_seed(0)
    generator = Generator(
        SDFField(hidden_dim=8, num_layers=2, style_dim=4),
        VolumeRenderer(OffsetDepths(0.88, 1.12, 8), Quadrature(SigmoidDensity(0.01))),
        GaussianPoses(yaw_spread=0.3, pitch_spread=0.15, fov_deg=12),
        latent_dim=4,
        render_side=16,
    )
    styles = generator.map(generator.latents(1, draws_for(generator, 0, [0])))
    points = torch.rand(1, 500, 3) * 0.24 - 0.12
    with torch.no_grad():
        distances = generator.signed_distance(points, styles)
        generator.field.distance.bias -= distances.median()
        found = mesh_of(generator, 0, cells=64, **SMALL)
        places = torch.from_numpy(np.array(found.vertices)).float()[None]
        left = generator.signed_distance(places, styles)[0]
    assert found.is_watertight and found.metadata == {"level": None}
    inside = (places[0].abs() < 0.119).all(-1)  # not where the bounds cut it
    assert inside.sum() > 1000
    assert left[inside].abs().max() < 0.2 * (distances - distances.median()).abs().mean()
    towards = places + 1e-3 * torch.from_numpy(np.array(found.vertex_normals)).float()
    with torch.no_grad():
        assert (generator.signed_distance(towards, styles)[0] > left)[inside].all()


# ------------------------------------------------------------------------------------------------------- silhouettes


def test_pixels_of_triangles_are_those_whose_middles_are_inside():
    """Against barycentric coordinates, one triangle at a time; some are off the image or degenerate."""
    triangles = torch.rand(60, 3, 2, generator=torch.Generator().manual_seed(0)) * 24 - 4
    triangles[0], triangles[1, 2] = torch.tensor([[2.0, 3.0], [9, 3], [2, 8]]), triangles[1, 1]
    triangles = torch.cat([triangles, triangles.new_tensor([[[3.0, 3], [math.nan, 1], [20, 20]]])])
    pixels = torch.cartesian_prod(*[torch.arange(16.0)] * 2).double()
    for triangle in triangles:
        a, b, c = triangle.double()
        edges = torch.stack([b - a, c - a], dim=1)
        u, v = torch.linalg.solve(edges, (pixels - a).mT) if edges.det().abs() > 1e-9 else pixels.new_full((2, 256), -1)
        inside = (u >= -1e-12) & (v >= -1e-12) & (u + v <= 1 + 1e-12)
        assert (rasterised(triangle[None], 16).mT.flatten() == inside).all()
    together = rasterised(triangles, 16)
    assert (together == torch.stack([rasterised(x, 16) for x in triangles[:, None]]).any(0)).all()


@pytest.mark.parametrize("solid", SIZES)
def test_a_mesh_has_the_silhouettes_of_its_object(solid):
    generator = SIZES[solid][0]
    found = mesh_of(generator, 0, cells=48, **SMALL)
    assert silhouette_iou(generator, 0, found, resolution=64) > 0.985


def test_silhouettes_tell_a_mesh_that_does_not_fit():
    """Every view of a ball is a disc: 0.9 of its radius covers 0.81 of it, or, from near, a little less."""
    smaller = trimesh.creation.icosphere(4, 0.9 * 0.7)
    assert silhouette_iou(BALL, 0, smaller, resolution=96) == pytest.approx(0.8, abs=0.02)
    moved = trimesh.creation.icosphere(4, 0.7).apply_translation([0, 0.7, 0])
    assert silhouette_iou(BALL, 0, moved, resolution=96) < 0.6
    away = trimesh.creation.icosphere(1, 0.1).apply_translation([0, 50, 0])
    assert silhouette_iou(BALL, 0, away, resolution=32) == 0


def test_views_are_those_of_the_prior_and_not_those_of_the_colours():
    class Noted(Sphere):
        def render(self, styles, camera, **kwargs):
            noted.append(camera)
            return super().render(styles, camera, **kwargs)

    noted: list[Camera] = []
    solid = Noted(half=0.7)
    found = mesh_of(solid, 0, cells=12, views=24, resolution=16)
    coloured = torch.cat([camera.pose for camera in noted])
    noted.clear()
    silhouette_iou(solid, 0, found, views=8)
    checked = torch.cat([camera.pose for camera in noted])
    noted.clear()
    silhouette_iou(solid, 1, found, views=8)
    others = torch.cat([camera.pose for camera in noted])
    assert len(checked) == len(others) == 8
    places = torch.cat([checked, others, coloured])[:, :3, 3]
    assert ((places[:16, None] - places).norm(dim=-1) < 1e-3).sum() == 16  # each is near itself alone
