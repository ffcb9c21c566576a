"""Files to look at: grids, films, meshes, inversions."""
