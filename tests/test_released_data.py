"""Data sets on tiny trees laid out as their documentation says: what is found, which pixels remain, what is refused."""

from PIL import ImageOps

from datamodules.images import ImageFiles
from tests.test_images import encoded, folder_of, plain
from zoo.utils.image_folders import Layout


class Part(Layout):
    """The images of a subfolder, with their colours inverted."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def keep(self, container, names):
        return [name for name in names if name.startswith(f"{self.folder}/")]

    def prepare(self, container, name, image):
        return ImageOps.invert(image)

    def digest(self, container):
        return ["inverted"]


def test_a_layout_chooses_images_before_they_are_opened_and_prepares_them(tmp_path, monkeypatch):
    files = {"a/0.png": encoded(plain((255, 0, 0))), "b/0.png": encoded(plain((0, 255, 0))), "c.png": b"broken"}
    path, place = folder_of(tmp_path / "in", files), {"manifests": tmp_path / "manifests"}
    for folder, colour in (("a", (0, 255, 255)), ("b", (255, 0, 255))):
        source = ImageFiles(path, layout=Part(folder), **place)
        assert source.open() == [f"{folder}/0.png"] and source.bad == {}
        assert source.image(0).getpixel((0, 0)) == colour
        plain_part = Part(folder)
        plain_part.digest = Layout().digest
        assert source.digest(8) != ImageFiles(path, layout=plain_part, **place).digest(8)
    monkeypatch.setattr(ImageFiles, "check_file", None)  # both parts are in the list of checked files
    assert ImageFiles(path, layout=Part("a"), **place).open() == ["a/0.png"]
