"""What a command would do in vain is refused before anything is loaded, and a full disk costs no file."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from tests.test_user_errors import refusal
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.export import save_image, save_orbit
from zoo.utils.errors import Stopped, UserError
from zoo.utils.paths import BUNDLED
from zoo.weights.bundle import build, save_bundle

NOBODY = "nosuch"  # no weights have this name, so a sentence about anything else comes before they are looked for
VERBS = {
    "sample": ["sample", NOBODY, "--out"],
    "images": ["sample", NOBODY, "--images"],
    "orbit": ["orbit", NOBODY, "--out"],
    "mesh": ["mesh", NOBODY, "--out"],
    "view": ["view", NOBODY, "--out"],
    "invert": ["invert", "image.png", NOBODY, "--out"],
    "bundle": ["bundle", NOBODY, "--out"],
    "convert": ["convert", NOBODY, "--out"],
    "evaluate": ["evaluate", NOBODY, "--results"],
}
SUFFIX = {"sample": ".png", "orbit": ".mp4", "mesh": ".ply", "evaluate": ".csv"}  # the others write folders


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder: a file, a folder whose name is that of a file, and an image."""
    (tmp_path / "file").write_text("mine")
    for suffix in SUFFIX.values():
        (tmp_path / f"folder{suffix}").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_a_target_is_checked_before_anything_is_loaded(verb, folder, capsys):
    suffix, option = SUFFIX.get(verb, ""), VERBS[verb][-1]
    wrong = {
        f"file/x{suffix}": f"{option} is 'file/x{suffix}', but '{folder / 'file'}' is no folder: take another place.",
        f"{'n' * 300}{suffix}": "File name too long. Take another place.",
        f"{'n' * (252 - len(suffix))}{suffix}": "File name too long. Take another place.",  # for the lock beside it
    }
    if suffix:
        wrong[f"folder{suffix}"] = f"{option} is 'folder{suffix}', which is a folder: give a file"
    else:
        wrong["file"] = "is no folder: take another place."
    if verb in ("sample", "orbit", "mesh"):
        wrong |= {"x": "is written as ", "x.xyz": "is written as "}
    wrong |= {"": f"{option} is empty"}
    if Path("/proc/self").is_dir():
        wrong |= {f"/proc/x{suffix}": f"but no file can be made in '{Path('/proc')}'"}
    for target, message in wrong.items():
        said = refusal([*VERBS[verb], target], capsys)
        assert message in said and len(said) < 300, said
    assert refusal([*VERBS[verb], f"new/deep/x{suffix}"], capsys) and not (folder / "new").exists()
    assert (folder / "file").read_text() == "mine"


def test_a_disk_that_takes_nothing_is_known_before_anything_is_loaded(folder):
    lines = [f"{' '.join(words)} disk/x{SUFFIX.get(verb, '')}" for verb, words in VERBS.items()]
    codes, said = on_disk(folder, "ro,size=1m", lines)
    assert codes == [2] * len(lines) and len(said) == len(lines)
    assert all("disk' cannot be written to: make it writable, or take another place." in line for line in said)


def test_a_full_disk_is_said_and_costs_no_file(folder):
    config = CONFIG["model"]["init_args"]["generator"]
    save_bundle(folder / "tiny", build(config, nn.Module), config)
    lines = {
        "sample tiny --seeds 0 --views 1 --out": "x.png",
        "sample tiny --count 1 --images": "images",
        "orbit tiny --seeds 0 --frames 2 --out": "x.mp4",
        "orbit tiny --seeds 0 --frames 3 --out ": "x.gif",
        "mesh tiny --cells 8 --views 1 --level 1e-9 --out": "x.ply",
        "invert image.png tiny --samples 4 --latent_steps 0 --style_steps 0 --weight_steps 1 --out": "tuned",
    }
    (folder / "before").mkdir()
    for name in ("x.png", "x.mp4", "x.gif", "x.ply"):
        (folder / "before" / name).write_text("old")
    (folder / "before" / "z").write_bytes(bytes(100 * 2**10))  # does not fit, and fills what is left
    codes, said = on_disk(folder, "size=64k", [f"{line} disk/{name}" for line, name in lines.items()])
    assert codes == [1] * len(lines) and len(said) == len(lines)
    for name, line in zip(lines.values(), said, strict=True):
        assert f"disk/{name}" in line and "o space left" in line and "make room" in line.lower() and len(line) < 300
    assert {p.name: p.read_text() for p in (folder / "after").glob("x.*")} == dict.fromkeys(
        ("x.png", "x.mp4", "x.gif", "x.ply"), "old"
    )
    assert not [*(folder / "after").rglob(".*")]


def on_disk(folder: Path, options: str, lines: list[str]) -> tuple[list[int], list[str]]:
    """Exit codes of commands, in one process, and the sentences that they end with.

    Beside ``disk``, a small disk of its own, to which ``before`` is copied first, and of which ``after`` is a copy.
    """
    (folder / "disk").mkdir()
    commands = (
        "import shlex, sys; from zoo.cli.command import main; print([main(shlex.split(x)) for x in sys.argv[1:]])"
    )
    script = f"mount -t tmpfs -o {options} none disk || exit 77; cp before/* disk 2>/dev/null; "
    script += f"{shlex.join([sys.executable, '-c', commands, *lines])}; cp -r disk after"
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed, so no disk can be made for this test")
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    paths = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, env=paths)
    if done.returncode == 77 or "unshare: " in done.stderr:
        pytest.skip("this system lets tests mount no disk of their own")
    said = [line for line in done.stderr.splitlines() if line.startswith("zoo: error: ")]
    return json.loads(done.stdout.splitlines()[-1]), said


FFMPEG = {
    "killed": ("kill -9 $$", "ffmpeg could not write 'x.mp4': it was killed (Killed)"),
    "failing": ("echo '[out @ 0x5] No encoder.' >&2; exit 3", "could not write 'x.mp4': No encoder. Make room"),
    "lazy": ("cat >/dev/null", "could not write 'x.mp4': it ended with code 0, having written nothing"),
}


@pytest.mark.parametrize(("script", "message"), FFMPEG.values(), ids=list(FFMPEG))
def test_a_video_that_ffmpeg_did_not_write_is_an_error(script, message, folder, monkeypatch):
    (folder / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ffmpeg").chmod(0o755)
    (folder / "x.mp4").write_text("old")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(folder / "ffmpeg"))
    with pytest.raises(Stopped) as error:
        save_orbit("x.mp4", [Image.new("RGB", (640, 480))] * 3)
    assert message in str(error.value) and (folder / "x.mp4").read_text() == "old"
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "gone")
    with pytest.raises(UserError, match="'gone' cannot be run: set "):
        save_orbit("x.mp4", [Image.new("RGB", (640, 480))])


def test_an_image_that_its_format_cannot_hold_is_said(folder):
    with pytest.raises(UserError, match=r"of 70000x1 pixels cannot be written as .webp .* ends in .png"):
        save_image("x.webp", Image.new("RGB", (70000, 1)))
    assert not (folder / "x.webp").exists()


def test_a_home_is_found_behind_every_option(folder, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(folder))
    for verb in ("sample", "images", "orbit", "invert", "evaluate"):
        said = refusal([*VERBS[verb][:-1], f"{VERBS[verb][-1]}=~/file/x{SUFFIX.get(verb, '')}"], capsys)
        assert f"but '{folder / 'file'}' is no folder" in said
    assert "There is no file 'gone.png'" in refusal(["invert", "~/gone.png", NOBODY], capsys)
    said = refusal(["fit", "-c", "pigan/cars32", "--ckpt_path=~/gone.ckpt"], capsys)
    assert "There is no file 'gone.ckpt'" in said


IMAGES = "evaluate images --real images"
REFUSED = {
    "sample x --out x.png --seeds 5-2": "'5-2' of --seeds counts down: write 2-5.",
    "sample x --out x.png --seeds 3-1,4": "'3-1' of --seeds counts down: write 1-3.",
    "mesh x --seeds 4,0-99999999999": "stands for more than 10,000 samples: give fewer --seeds.",
    "orbit x --seeds 3-": "'3-' is not a list of samples",
    "sample x --images s --count -3": "count is -3: give a number from 1 to 10000000.",
    "sample x --images s --count 99999999999999": "give a number from 1 to 10000000.",
    "sample x --images=": "--images is empty: give a value, or leave it out.",
    "sample x --out x.png --seeds 1--2": "'1--2' is not a list of samples",
    "sample x --images s --seeds 0-3": "--seeds 0-3 changes nothing for --images: leave it out.",
    "sample x --out x.png --count 3": "--count 3 changes nothing for a grid: leave it out.",
    "orbit x --frames 2 --seconds 1e12": "from 0.002 to 1,000 frames in a second, not 2e-12: change --frames or",
    "orbit x --frames 2 --seconds 1e-9": "from 0.002 to 1,000 frames in a second, not 2e+09: change --frames or",
    "orbit x --seconds 0": "seconds is 0.0: give a number above 0.",
    "sample x --out x.png --truncation 1e9": "truncation is 1000000000.0: give a number from -100 to 100.",
    "convert x out --to official --weights ema": "--weights ema changes nothing with --to official",
    "benchmark pigan/cars32 --steps 0": "steps is 0: give a number from 1 to 100000.",
    "benchmark pigan/cars32 --threads -1": "threads is -1: give a number from 1 to 1024.",
    "benchmark other.yaml": "other.yaml is no experiment: it has no model with a generator.",
    "leaderboard --top 0": "top is 0: give a number of at least 1.",
    "leaderboard --results reslts.csv": "There is no file 'reslts.csv'. Did you mean 'results.csv'?",
    "invert images x": "'images' is a folder: name a file",
    "invert image.png x --mask images": "'images' is a folder: name a file",
    "invert image.png x --latent_steps -1": "latent_steps is -1: give a number from 0 to 100000.",
    "invert image.png x --samples 999999999999": "samples is 999999999999: give a number from 1 to 100000.",
    "invert dangling.png x": "'dangling.png' is a link that leads nowhere: name a file on a disk.",
    "invert /dev/null x": "'/dev/null' is no regular file: name a file on a disk.",
    "invert pigan-cars32 image.png": "There is no file 'pigan-cars32'.",
    "predict -c pigan/cars32 --ckpt_path run": "'run' is a folder: name a file, such as 'run/checkpoints/last.ckpt'.",
    "invert image.png x --elevation 91": "elevation is 91.0: give a number from -90 to 90.",
    "invert image.png x --weight_steps 0 --locality 1": "--locality 1.0 changes nothing with --weight_steps 0",
    "invert image.png pigan-cars32 --mask black.png": "The mask is black throughout the square that is used",
    f"{IMAGES} --count 20": "20 images of 'images' are requested, but it holds 2: take fewer.",
    f"{IMAGES} --real_count 20": "20 images of 'images' are requested, but it holds 2: take fewer.",
    f"{IMAGES} --count 1": "count is 1: give a number from 2 to 10000000.",
    f"{IMAGES} --consistency 99999999999": "give a number from 0 to 10000000.",
    f"{IMAGES} --resolution 0": "resolution is 0: give a number from 1 to 100000.",
    "evaluate pigan-cars32 --real images --resolution 64": "--resolution 64 changes nothing for weights",
    "evaluate '' --real images": "An argument is empty: give a value, or leave it out.",
    "evaluate images --real=": "--real is empty: give a value, or leave it out.",
    "evaluate images --real datamodules.ImageFolder": "needs path: give it as one of the init_args in a yaml.",
    "evaluate images --real number.yaml": "'number.yaml' gives '5' as a class_path: give the import path of a class.",
    "evaluate images --real items.yaml": "gives '[1]' as init_args of datamodules.Cars: give names and values.",
    f"{IMAGES} --batch_size 0": "batch_size is 0: give a number from 1 to 100000.",
    f"{IMAGES} --truncation 0.5": "--truncation 0.5 changes nothing for a folder of images, which is scored as it is",
    f"{IMAGES} --inception_weights x": "--inception_weights x changes nothing without --extractor inception2015",
    f"{IMAGES} --extractor cars": "it cannot score 'images': take efficientnetlite0, or leave the extractor out.",
    f"{IMAGES} --extractor inception2015 --inception_weights images": "'images' is a folder: name a file",
    f"{IMAGES} --results image.png": "'image.png', line 1 is not text in UTF-8",
    f"{IMAGES} --results results.csv": "'results.csv', line 1 has no column 'system' where it belongs",
    f"{IMAGES} --results /dev/null": "--results is '/dev/null', which is no regular file",
    "evaluate images --real other.yaml": "'other.yaml' names no real images",
    "evaluate images --real empty.yaml": "'empty.yaml' is empty",
    "evaluate images --real list.yaml": "'list.yaml' holds a list",
    "evaluate images --real self.yaml": "an anchor (&, *) that repeats or contains itself",
    "evaluate images --real broken.yaml": "'broken.yaml' is no yaml: ",
    "evaluate none --real images": "'none' is an empty folder: there is nothing to read in it.",
    "evaluate run --real images": "'run' is no weights bundle, but a run's",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=list(REFUSED))
def test_what_makes_no_sense_is_one_sentence(line, message, folder, capsys, monkeypatch):
    if "--results" in line:  # the table is looked at before minutes of scoring
        monkeypatch.setattr("zoo.evaluate.protocol.score", lambda *args, **kwargs: pytest.fail("it is scored"))
    for name in ("images/0.png", "images/1.png", "run/views.png", "black.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / name)
    (folder / "run" / "checkpoints").mkdir()
    (folder / "run" / "checkpoints" / "last.ckpt").touch()
    (folder / "none").mkdir()
    (folder / "dangling.png").symlink_to("nowhere.png")
    texts = {"number": "data: {class_path: 5}\n", "items": "class_path: datamodules.Cars\ninit_args: [1]\n"}
    texts |= {"empty": "", "list": "- a\n", "self": "data: &a {x: *a}\n", "broken": "a: [}", "other": "data:\n"}
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "results.csv").write_text("a,b\n1,2\n")
    before = {*folder.rglob("*")}
    said = refusal(shlex.split(line), capsys)
    assert message in said and len(said) < 300
    assert {path for path in folder.rglob("*") if folder / "data" not in (path, *path.parents)} == before


def test_scores_are_printed_whatever_happens_to_the_table(folder, monkeypatch, capsys):
    from zoo import leaderboard

    shutil.copytree(BUNDLED / "pigan-cars32", folder / "bundle")
    (folder / "images").mkdir()
    for index in range(4):
        Image.new("RGB", (32, 32), (index, 90, 20)).save(folder / "images" / f"{index}.png")
    shutil.copy(folder / "images" / "0.png", folder / "bundle")  # the bundle stays one
    monkeypatch.setenv("ZOO_CACHE", str(folder / "cache"))

    def full(rows, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(leaderboard, "append_rows", full)
    assert main(["evaluate", "bundle", "--real", "images", "--count", "4", "--results", "results.csv"]) == 1
    printed = capsys.readouterr()
    assert "fid-efficientnetlite0-bicubic224-4 " in printed.out and "kid-efficientnetlite0-bicubic224-4 " in printed.out
    assert "'results.csv': there is no space left for it" in printed.err
