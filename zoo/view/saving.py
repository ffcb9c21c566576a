"""What a viewer saves: images, camera paths and meshes, under names that nothing has yet."""

import json
from itertools import count
from pathlib import Path

from zoo.export.images import grid, save_image, to_pil_image
from zoo.export.mesh import check_target as check_mesh
from zoo.export.mesh import mesh_of_styles, save_mesh
from zoo.export.orbit import check_target as check_video
from zoo.export.orbit import save_orbit
from zoo.generator import evaluating
from zoo.utils.errors import UserError
from zoo.utils.files import replacing
from zoo.view.scene import Choice, Scene
from zoo.view.viewpoints import CameraPath, Viewpoint

FRAMES_BETWEEN = 24  # two keyframes
RATE = 24.0  # frames in a second of a video


class Shelf:
    """The folder that everything goes into.

    Args:
        folder: made when something is saved.
        name: of the weights, with which names of files begin.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def free(self, choice: Choice, *suffixes: str) -> list[Path]:
        """A name that no file has yet, whatever its suffix, with each of these."""
        taken = {path.stem for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        stems = (f"{self.name}-{choice.index}-{number:03d}" for number in count(1))
        stem = next(stem for stem in stems if stem not in taken)
        return [self.folder / f"{stem}{suffix}" for suffix in suffixes]

    def save_image(
        self, scene: Scene, choice: Choice, viewpoint: Viewpoint, shown: str = "image", resolution: int | None = None
    ) -> list[Path]:
        """What is seen, as a PNG; nothing of it is left out."""
        (path,) = self.free(choice, ".png")
        save_image(path, to_pil_image(scene.picture(choice, viewpoint, shown, resolution, exact=True)))
        return [path]

    def save_path(
        self,
        scene: Scene,
        choice: Choice,
        path: CameraPath,
        shown: str = "image",
        resolution: int | None = None,
        suffix: str = ".gif",
    ) -> list[Path]:
        """A video along a camera path, and a JSON file of its keyframes and of the cameras of all frames.

        Raises:
            UserError: there are less than two keyframes, or no such video can be written.
        """
        if len(path.keyframes) < 2:
            raise UserError("A camera path needs at least two keyframes: look from elsewhere, and add another.")
        video, written = self.free(choice, suffix, ".json")
        check_video(video)
        viewpoints = path.viewpoints(FRAMES_BETWEEN * (len(path.keyframes) - 1) + 1)
        pictures = (scene.picture(choice, viewpoint, shown, resolution) for viewpoint in viewpoints)
        save_orbit(video, (grid(picture[None, None]) for picture in pictures), RATE)
        camera = scene.stand.cameras(viewpoints)
        facts = {
            "weights": self.name,
            "seed": scene.seed,
            "choice": choice._asdict(),
            "keyframes": [viewpoint._asdict() for viewpoint in path.keyframes],
            "frames": [
                {"pose": pose.tolist(), "intrinsics": intrinsics.tolist()}
                for pose, intrinsics in zip(*camera, strict=True)
            ],
        }
        with replacing(written) as part:
            part.write_text(json.dumps(facts, indent=1))
        return [video, written]

    def save_mesh(self, scene: Scene, choice: Choice, cells: int = 128, suffix: str = ".ply") -> list[Path]:
        """The object as a coloured surface.

        Raises:
            UserError: the system has neither density nor surface, or the object has no surface, or a package is not
                installed.
        """
        (path,) = self.free(choice, suffix)
        check_mesh(path)
        with evaluating(scene.generator):
            styles = scene.styles_of(choice)
        save_mesh(path, mesh_of_styles(scene.generator, styles, cells=cells))
        return [path]
