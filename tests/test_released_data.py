"""Data sets on tiny trees laid out as their documentation says: what is found, which pixels remain, what is refused."""

from functools import partial

from PIL import ImageOps

from datamodules.images import ImageFiles
from tests.test_images import encoded, folder_of, plain
from zoo.utils.image_folders import Layout


def below(folder, container, names):
    return [name for name in names if name.startswith(f"{folder}/")]


def inverted(container, name, image):
    return ImageOps.invert(image)


def test_a_layout_chooses_images_before_they_are_opened_and_prepares_them(tmp_path, monkeypatch):
    files = {"a/0.png": encoded(plain((255, 0, 0))), "b/0.png": encoded(plain((0, 255, 0))), "c.png": b"broken"}
    path, place = folder_of(tmp_path / "in", files), {"manifests": tmp_path / "manifests"}
    for folder, colour in (("a", (0, 255, 255)), ("b", (255, 0, 255))):
        keep = partial(below, folder)
        source = ImageFiles(path, layout=Layout(keep=keep, prepare=inverted, digest=lambda _: ["inverted"]), **place)
        assert source.open() == [f"{folder}/0.png"] and source.bad == {}
        assert source.image(0).getpixel((0, 0)) == colour
        assert source.digest(8) != ImageFiles(path, layout=Layout(keep=keep), **place).digest(8)
    monkeypatch.setattr(ImageFiles, "check_file", None)  # both parts are in the list of checked files
    assert ImageFiles(path, layout=Layout(keep=partial(below, "a")), **place).open() == ["a/0.png"]
