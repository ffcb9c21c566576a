"""Cameras of images in the files of other programs: found beside the images, read and written.

| Format | Camera space | World | Reads | Writes |
|---|---|---|---|---|
| EG3D's ``dataset.json`` (``eg3d``) | OpenCV | kept | yes | yes |
| NeRF's ``transforms.json`` (``transforms``) | OpenGL | z up | yes | yes |
| SRN's ``pose`` and ``intrinsics.txt`` (``srn``) | OpenCV | z up | yes | no |
| poses of GRAF's CARLA (``carla``) | OpenGL | z up | yes | no |

Each module turns its format into the convention of ``zoo.render.cameras`` and says where it is known from.
"""

from datamodules.camera_files.camera_set import CameraSet
from datamodules.camera_files.formats import check_target, find_cameras, matched, read_cameras, write_cameras

__all__ = ["CameraSet", "check_target", "find_cameras", "matched", "read_cameras", "write_cameras"]
