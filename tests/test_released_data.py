"""Data sets on tiny trees laid out as their documentation says: what is found, which pixels remain, what is refused."""

import inspect
import io
import json
import multiprocessing
import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from torchvision import transforms

import datamodules
from datamodules.images import Crop, ImageFiles
from datamodules.lmdb_images import environment
from datamodules.presets import PRESETS
from tests import released
from tests.test_images import encoded, folder_of, plain, zip_of
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.utils.errors import UserError, WrongTree
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


@pytest.fixture
def made(tmp_path):
    """Makes a datamodule on a tree; by default on the tiny one of its own."""

    def make(name: str, tree: dict[str, bytes] | None = None, inner: str = "", **options):
        if name in ("LSUN", "Bedrooms"):
            path = tmp_path / "lsun" if (tmp_path / "lsun").exists() else released.lsun(tmp_path / "lsun")
        else:
            path = folder_of(tmp_path / "in", released.TREES[name][0]() if tree is None else tree)
        place = {"path": str(path / inner), "manifests": str(tmp_path / "manifests")}
        return getattr(datamodules, name)(**{"resolution": 8, "batch_size": 2} | place | options)

    return make


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ------------------------------------------------------------------------------------------------------------- trees


@pytest.mark.parametrize("name", released.TREES)
def test_the_images_of_a_tree_are_found_in_a_folder_and_in_a_zip(name, tmp_path, made):
    tree, count = released.TREES[name]
    folder = made(name)
    zipped = getattr(datamodules, name)(
        path=str(zip_of(tmp_path / "in.zip", tree())), manifests=str(tmp_path / "manifests")
    )
    assert len(folder.files) == count and zipped.files.open() == folder.files.open()
    assert (pixels(zipped.files.image(0)) == pixels(folder.files.image(0))).all()
    assert len(pickle.loads(pickle.dumps(folder.files))) == count


@pytest.mark.parametrize("name", [name for name in datamodules.__all__ if name not in ("Cars", "ImageFolder")])
def test_a_datamodule_is_made_without_any_files(name):
    module = getattr(datamodules, name)
    data, presets = module(), {"Bedrooms": "lsun", "FFHQRecropped": "ffhq"}.get(name, name.lower())
    assert data.files.path == Path(inspect.signature(module).parameters["path"].default)
    for preset, wanted in PRESETS[presets].items():
        data = module(preset=preset)
        assert (data.files.crop, data.files.filter, data.flip) == (wanted.crop, wanted.filter, wanted.flip)
        given = module(preset=preset, crop=Crop(side=3), filter="nearest", flip=not wanted.flip)
        assert (given.files.crop, given.files.filter, given.flip) == (Crop(side=3), "nearest", not wanted.flip)
    with pytest.raises(ValueError, match=rf"no preset 'pigam' of {presets}.*plain"):
        module(preset="pigam")


SPLITS = [
    ("CelebA", "train", ["000001", "000002"]),
    ("CelebA", "val", ["000003"]),
    ("CelebA", "test", ["000004"]),
    ("CelebAHQ", "train", ["train/female/000001", "train/female/000002"]),
    ("CelebAHQ", "test", ["val/female/000001", "val/female/000002"]),
    ("FFHQ", "train", ["00000", "00001", "59999"]),
    ("FFHQ", "test", ["60000"]),
    ("AFHQ", "train", [f"train/{animal}/flickr_{animal}_00000{i}" for animal in ("cat", "dog") for i in (1, 2)]),
    ("AFHQ", "test", ["test/cat/flickr_cat_000003", "test/dog/flickr_dog_000003"]),
    ("CompCars", "train", ["78/1/2014/3ac218c0c6c378"]),
    ("CompCars", "test", ["78/1/2015/a"]),
    ("CUB", "train", ["001.Albatross/Albatross_0009_34"]),
    ("CUB", "test", ["002.Auklet/Auklet_0001_1"]),
    ("SRNCars", "test", [f"cars_test/{2:032x}/rgb/00000{i}" for i in (0, 1)]),
    ("SRNCars", "all", [f"{part}/{i:032x}/rgb/00000{k}" for i, part in ((2, "test"), (1, "train")) for k in (0, 1)]),
]


@pytest.mark.parametrize(("name", "split", "wanted"), SPLITS, ids=[f"{name} {split}" for name, split, _ in SPLITS])
def test_a_split_has_the_images_that_the_release_says(name, split, wanted, made):
    names = made(name, split=split).files.open()
    assert len(names) == len(wanted)
    assert all(f"/{found}".rpartition(".")[0].endswith(one) for found, one in zip(names, wanted, strict=True))


def test_numbers_that_are_not_the_releases_tell_no_split(made):
    """EG3D's zip has each image of FFHQ twice."""
    for split in ("train", "test"):
        twice = {f"00000/img{number:08d}.png": released.picture(1) for number in (0, 60_000, 139_913)}
        with pytest.raises(
            UserError, match=f"has an image 139913.* and do not tell the {split} split: take --data.split all"
        ):
            made("FFHQ", tree=twice, split=split).files.open()
        assert len(made("FFHQ", tree=twice).files) == 3


def test_a_path_may_be_a_folder_within_the_tree(made):
    assert len(made("CelebA", inner="img_align_celeba", split="train").files) == 2  # its list is beside, in Eval
    assert made("AFHQ", inner="train/cat", split="train").files.open() == [f"flickr_cat_00000{i}.png" for i in (1, 2)]
    with pytest.raises(WrongTree, match="the test split of AFHQ"):
        made("AFHQ", inner="train/cat", split="test").files.open()
    assert len(made("SRNCars", tree=released.srncars(), inner="cars_train").files) == 2


def test_what_lies_beside_the_images_of_a_release_is_no_image_of_it(made):
    assert all(name.startswith("images1024x1024/") for name in made("FFHQ").files.open())
    assert not any("part/" in name for name in made("CompCars").files.open())


def test_any_folder_of_images_is_still_read_and_scores_are_those_of_its_images(tmp_path, made):
    for name in ("CelebA", "FFHQ", "AFHQ", "Cats", "Carla", "CompCars"):
        data = made(name, tree={"a.png": released.picture(1), "b/c.png": released.picture(2)})
        plain_one = datamodules.ImageFolder(
            data.files.path, 8, crop=data.files.crop, filter=data.files.filter, manifests=str(tmp_path / "manifests")
        )
        assert data.files.open() == ["a.png", "b/c.png"] and data.digest() == plain_one.digest()


WRONG = [
    ("CUB", released.afhq, {}, "CUB-200-2011", "images.txt", "test/cat/flickr_cat_000003.png"),
    ("SRNCars", released.ffhq, {}, "the train split of SRN's cars", "<object>/rgb/000000.png", "thumbnails128x128/"),
    ("FFHQRecropped", released.ffhq, {}, "FFHQ aligned", "cropping_params.json", "LICENSE.txt"),
    ("CelebA", released.afhq, {"split": "test"}, "the test split of CelebA", "list_eval_partition.txt", "train/dog"),
    ("FFHQ", lambda: {"in-the-wild-images/0.png": b""}, {}, "FFHQ", "images1024x1024/", "in-the-wild-images/0.png"),
    ("CelebAHQ", dict, {}, "CelebA-HQ", "00000.png", "nothing"),
]


@pytest.mark.parametrize(("name", "tree", "options", *["sentence", "expected", "found"]), WRONG)
def test_a_wrong_tree_is_shown_beside_the_expected_one(name, tree, options, sentence, expected, found, tmp_path, made):
    (tmp_path / "in").mkdir()
    with pytest.raises(WrongTree) as error:
        made(name, tree=tree(), **options).files.open()
    first, *rows = str(error.value).split("\n")
    assert f"does not hold {sentence}" in first and len(first) < 300
    column = rows[0].index("found in")
    assert any(expected in row[:column] for row in rows) and any(found in row[column:] for row in rows)


def test_the_command_shows_both_trees(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "datamodules.CelebA", "--data.path", "faces", "--data.resolution", "8"]
    assert main(["fit", "-c", write_config(tmp_path), *words]) == 2
    last = capsys.readouterr().err.split("zoo: error: ")[1].splitlines()
    assert "no folder or zip file 'faces'" in last[0] and "mmlab.ie.cuhk.edu.hk" in last[0]
    assert any("img_align_celeba/000001.jpg" in line and "nothing" in line for line in last[1:])


def test_a_crop_of_a_config_replaces_the_presets_as_a_whole(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "-c", "graf/celeba64", "--print_config"])
    arguments = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert arguments["crop"] == {"side": 108, "shorter": None, "right": 0, "down": 0}
    assert arguments["preset"] == "pigan" and arguments["filter"] == "bilinear"


# ------------------------------------------------------------------------------------------------------------ pixels


def reference(image: Image.Image, *steps) -> np.ndarray:
    return pixels(transforms.Compose(steps)(image))


CENTRE = transforms.CenterCrop
RESIZE = partial(transforms.Resize, interpolation=transforms.InterpolationMode.BILINEAR)
SQUARES = {  # the steps that the published programs name, with which a preset must agree
    ("CelebA", "pigan"): ((178, 218), [RESIZE(320), CENTRE(256), lambda image: pixels(image)[::32, ::32]]),
    ("CelebA", "graf"): ((178, 218), [CENTRE(108), RESIZE(8)]),
    ("CelebA", "giraffe"): ((178, 218), [CENTRE(108), RESIZE((8, 8))]),
    ("CelebAHQ", "graf"): ((1024, 1024), [CENTRE(650), RESIZE(8)]),
    ("FFHQ", "giraffe"): ((64, 64), [RESIZE((8, 8))]),
    ("FFHQ", "stylenerf"): ((64, 64), [lambda image: pixels(image).reshape(8, 8, 8, 8, 3).mean((1, 3)).round()]),
    ("FFHQ", "cips3d"): ((64, 64), [lambda image: image.resize((8, 8), Image.Resampling.LANCZOS)]),
    ("Cats", "pigan"): ((64, 64), [lambda image: pixels(image)[::8, ::8]]),
    ("Carla", "graf"): ((64, 64), [RESIZE(8)]),
    ("CLEVR", "giraffe"): ((32, 24), [RESIZE((8, 8))]),
}


@pytest.mark.parametrize(("name", "preset"), SQUARES, ids=[" ".join(pair) for pair in SQUARES])
def test_a_preset_makes_the_squares_of_its_program(name, preset, made):
    size, steps = SQUARES[name, preset]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), np.uint8))
    data = made(name, tree={"images/a.png": encoded(noise)}, preset=preset)
    square = data.files.item(0, 8)["image"].permute(1, 2, 0).numpy().astype(int)
    assert abs(square - reference(noise, *steps)).max() <= 1


@pytest.mark.parametrize("name", ["CompCars", "LSUN"])
def test_random_squares_are_for_training_and_only_of_the_preset(name, made):
    if name == "LSUN":
        pytest.importorskip("lmdb", reason="needs the package lmdb")
    preset = "giraffe" if name == "CompCars" else "giraffe2d"
    spread = {}
    for options in ({"preset": preset}, {"preset": preset, "crop": Crop()}, {"preset": "plain"}):
        data = made(name, flip=False, batch_size=24, **options)
        batch = next(iter(data.train_dataloader()))
        means = {index: batch["image"][batch["index"] == index][:, 0].mean((1, 2)) for index in range(3)}
        spread[str(options)] = max(float(mean.max() - mean.min()) for mean in means.values())
        middle = next(iter(data.val_dataloader()))["image"][0, 0]
        assert abs(float(middle.mean())) < 0.06
    assert [round(value, 1) > 0 for value in spread.values()] == [True, False, False]


def test_a_bird_is_cut_out(tmp_path, made):
    bird = pixels(made("CUB").files.image(0))
    whole_image = pixels(Image.open(io.BytesIO(released.picture(0))))
    assert bird.shape == (12, 12, 3)  # the box, 12 x 8 from (6, 4), in the middle of a square
    assert (bird[:2] == 255).all() and (bird[10:] == 255).all()
    assert (bird[2:10, :6] == whole_image[4:12, 6:12]).all() and (bird[:, 6:] == 255).all()  # the mask's left half
    tree = released.cub()
    first = made("CUB").digest()
    masks = {name: data for name, data in tree.items() if name.startswith("segmentations/")}
    rest = {name: data for name, data in tree.items() if name not in masks}
    folder_of(tmp_path / "beside" / "CUB_200_2011", rest)
    place = {"path": str(tmp_path / "beside" / "CUB_200_2011"), "manifests": str(tmp_path / "manifests")}
    with pytest.raises(ValueError, match=r"2 of 2 birds, such as 'images/001.*segmentations.*cut_out false"):
        datamodules.CUB(**place).files.open()
    whole = datamodules.CUB(cut_out=False, **place)
    assert (pixels(whole.files.image(0)) == whole_image).all()
    folder_of(tmp_path / "beside", masks)  # as they are released
    assert (pixels(datamodules.CUB(**place).files.image(0)) == bird).all()
    folder_of(tmp_path / "beside" / "CUB_200_2011", {"bounding_boxes.txt": b"1 5.0 4.0 12.0 8.0\n2 0 0 24 24\n"})
    assert datamodules.CUB(**place, resolution=8).digest() != first
    folder_of(tmp_path / "beside" / "CUB_200_2011", {"filtered_files.txt": b"2 002.Auklet/Auklet_0001_1.jpg\n"})
    assert datamodules.CUB(**place).files.open() == ["images/002.Auklet/Auklet_0001_1.jpg"]


def test_a_face_is_cropped_as_eg3d_does(made):
    """A unit of the standard face becomes 300 pixels of which 700 become 512, and its origin lies in the middle."""
    face = made("FFHQRecropped").files.image(0)
    assert face.size == (512, 512)
    # 7.5 times as large, the image has 1,125 pixels. Of these, 1,024 begin at 562.5 - 512 + (70 - 75) * 7.5 = 13 from
    # the left and at 562.5 - 512 + (61 - 75) * 7.5 = -54.5 from the top, as the published program counts rows from one
    # more and drops the half; and of these, 700 begin 162 further on.
    for x, y in ((256, 256), (0, 256), (511, 0)):
        column = (175 + (x + 0.5) * 700 / 512) / 7.5 - 0.5
        row = (108 + (y + 0.5) * 700 / 512) / 7.5 - 0.5
        red, green, blue = face.getpixel((x, y))
        assert abs(red - 255 * column / 149) < 0.9 and abs(green - 255 * row / 149) < 0.9 and blue == 10


@pytest.mark.parametrize("damage", ["{", "[]", '{"00000.png": {}}', '{"00000.png": {"lm": [1], "lm3d_std": []}}'])
def test_damaged_crops_get_a_sentence(damage, made):
    with pytest.raises(UserError, match=r"cropping_params\.json") as error:
        made("FFHQRecropped", tree=released.recropped() | {"cropping_params.json": damage.encode()}).files.open()
    assert len(str(error.value)) < 400 and not isinstance(error.value, WrongTree)


def test_arrays_are_images_of_celebahq(tmp_path, made):
    data = made("CelebAHQ", tree=released.arrays() | {"no.npy": released.arrays()["imgHQ00000.npy"][:-9]})
    values = np.arange(3 * 24 * 24).reshape(3, 24, 24).transpose(1, 2, 0) % 256
    for index in range(2):
        assert abs(pixels(data.files.image(index)) - values).max() <= index  # floats are cut, not rounded
    assert set(data.files.bad) == {"no.npy"}
    zipped = datamodules.CelebAHQ(str(zip_of(tmp_path / "a.zip", released.arrays())), manifests=str(tmp_path / "m"))
    assert (pixels(zipped.files.image(0)) == values).all()


def test_a_cats_face_is_made_upright(made):
    tree = released.cats()
    face = made("Cats").files.image(0)
    photograph = Image.open(io.BytesIO(tree["CAT_00/00000001_000.jpg"])).convert("RGB")
    assert (pixels(face) == pixels(photograph.crop((30, 20, 130, 120)))).all()
    turned = Image.new("RGB", (200, 200))
    for x, y in ((80, 80), (110, 120)):
        turned.paste((255, 255, 255), (x - 3, y - 3, x + 3, y + 3))
    tilt = np.array([[0.6, 0.8], [-0.8, 0.6]])  # rows: where right and down of the upright face point
    ears = [np.array([95, 100]) + np.array([dx, -30]) @ tilt for dx in (-50, -40, -30, 30, 40, 50)]
    numbers = [9, 80, 80, 110, 120, 90, 130, *(round(v) for ear in ears for v in ear)]
    files = {"CAT_00/a.png": encoded(turned), "CAT_00/a.png.cat": " ".join(map(str, numbers)).encode()}
    upright = pixels(made("Cats", tree=tree | files).files.image(1))[..., 0]
    side = len(upright)
    rows, columns = np.nonzero(upright > 200)
    assert abs(rows.mean() - 0.4 * side) < 1.5 and abs(columns.mean() - 0.5 * side) < 1.5
    assert np.ptp(rows) < 10 and abs(np.ptp(columns) - 56) < 5  # 50 pixels apart, and level
    outside = {"CAT_00/b.png": encoded(turned.crop((0, 0, 90, 90)))} | {
        "CAT_00/b.png.cat": tree["CAT_00/00000001_000.jpg.cat"]
    }
    assert made("Cats", tree=tree | files | outside).files.open() == ["CAT_00/00000001_000.jpg", "CAT_00/a.png"]


def test_prepared_cats_stay_as_they_are(made):
    tree = released.prepared_cats()
    files = made("Cats", tree=tree).files
    assert files.open() == list(tree)
    assert (pixels(files.image(0)) == pixels(Image.open(io.BytesIO(tree[files.open()[0]])))).all()


# -------------------------------------------------------------------------------------------------------------- LSUN


@pytest.fixture
def lsun(tmp_path):
    pytest.importorskip("lmdb", reason="needs the package lmdb")
    return lambda path, **options: datamodules.LSUN(
        str(path), resolution=8, batch_size=2, manifests=str(tmp_path / "manifests"), **options
    )


def test_an_lmdb_is_read_by_key(tmp_path, lsun):
    path = released.lsun(tmp_path / "lsun")
    first = pixels(Image.open(io.BytesIO(released.picture(0, (34, 25), "WEBP"))))
    for inner, options in (("", {}), ("bedroom_train_lmdb", {}), ("bedroom_val_lmdb", {})):
        train, test = lsun(path / inner, **options), lsun(path / inner, split="test")
        assert [len(train.files), len(test.files), len(lsun(path / inner, limit=2).files)] == [3, 1, 2]
        assert train.files.open()[2] == f"{2:040x}.webp" and (pixels(train.files.image(0)) == first).all()
    assert len(datamodules.Bedrooms(str(path), manifests=str(tmp_path / "manifests")).files) == 3
    checked = json.loads(lsun(path / "bedroom_train_lmdb").files.manifest_path().read_text())
    assert len(checked["files"]) == 3  # also after the test split was read through the same path
    exported = {f"0/0/0/{i:040x}.webp": released.picture(i) for i in range(2)}
    assert len(lsun(folder_of(tmp_path / "exported", exported)).files) == 2


def test_each_process_opens_an_lmdb_for_itself(tmp_path, lsun):
    """LMDB refuses a second one in a process, and must not be used in a process that was forked from the first."""
    path = released.lsun(tmp_path / "lsun")
    one, other = lsun(path), lsun(path)
    image = pixels(one.files.image(1))
    assert (pixels(other.files.image(1)) == image).all()
    assert (pixels(pickle.loads(pickle.dumps(one.files)).image(1)) == image).all()
    mine = environment(one.files.container.path).opened
    results, send = multiprocessing.Pipe(duplex=False)

    def child():
        same = (pixels(one.files.image(1)) == image).all()
        send.send((bool(same), environment(one.files.container.path).opened[1] is mine[1]))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert results.poll(20) and results.recv() == (True, False)
    process.join()
    assert (pixels(one.files.image(1)) == image).all()
    batches = [next(iter(lsun(path, num_workers=workers).train_dataloader()))["image"] for workers in (0, 2)]
    assert (batches[0] == batches[1]).all()


def test_what_is_no_lmdb_of_the_category_is_refused(tmp_path, lsun, monkeypatch):
    path = released.lsun(tmp_path / "lsun", parts=("train",))
    for options in ({"split": "test"}, {"category": "church_outdoor"}):
        for inner in ("", "bedroom_train_lmdb"):
            with pytest.raises(WrongTree, match="LSUN's") as error:
                lsun(path / inner, **options).files.open()
            assert "data.mdb" in str(error.value).split("found in")[1]
    folder_of(tmp_path / "cat_lmdb", {"data.mdb": b"hello" * 1000})
    with pytest.raises(UserError, match="no LMDB, or a broken one"):
        lsun(tmp_path / "cat_lmdb", category="cat").files.open()
    with pytest.raises(UserError, match="limit of LSUN"):
        lsun(path, limit=0)
    away = released.lsun(tmp_path / "away")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match=r"gan3d-zoo\[lsun\]"):
        lsun(away).files.open()


# --------------------------------------------------------------------------------------------------------- the whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*released.TREES, "LSUN"])
def test_two_steps_on_every_data_set(name, tmp_path, made, monkeypatch):
    if name == "LSUN":
        pytest.importorskip("lmdb", reason="needs the package lmdb")
    monkeypatch.chdir(tmp_path)
    path = made(name).files.path
    words = ["--data", f"datamodules.{name}", "--data.path", str(path), "--data.resolution", "8"]
    config = write_config(tmp_path, max_steps=2)
    assert main(["fit", "-c", config, *words, "--data.batch_size", "2"]) == 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3


def test_the_page_names_every_class_and_preset():
    page = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text()
    for name in datamodules.__all__:
        assert name in ("Cars", "ImageFolder") or f"`{name}`" in page, name
    for data, presets in PRESETS.items():
        assert all(f"`{preset}`" in page for preset in presets), data
