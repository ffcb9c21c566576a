"""Files to look at: grids, orbits, meshes, inversions.

``turntable_views`` and ``interpolated_views`` render; ``grid(with_depth_rows(...))`` and ``save_orbit`` write what they
return. ``mesh_of`` and ``save_mesh`` make surfaces, ``mesh_views`` draws them and ``silhouette_iou`` says how well they
fit; ``save_inversion`` writes what ``zoo.inversion.invert`` finds.
"""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    views="Views interpolated_views turntable_views",
    images="grid save_image to_pil_image with_depth_rows",
    orbit="orbit_frames save_orbit",
    mesh="mesh_of save_mesh",
    mesh_pictures="mesh_views",
    silhouettes="silhouette_iou",
    inversion="load_inversion save_inversion",
)
