"""Files to look at: grids, orbits, meshes, inversions.

``turntable_views`` and ``interpolated_views`` render; ``grid(beside(...))`` and ``save_orbit`` write what they hand
back. ``mesh_of`` and ``save_mesh`` make surfaces, ``save_inversion`` keeps what ``zoo.inversion.invert`` finds.
"""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    views="Views interpolated_views turntable_views",
    pictures="beside grid picture",
    orbit="orbit_frames save_orbit",
    mesh="mesh_of save_mesh",
    inversion="load_inversion save_inversion",
)
