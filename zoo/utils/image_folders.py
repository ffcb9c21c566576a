"""Folders and zips of images: which of their files are images, which can be used, and what is left out."""

import gc
import hashlib
import json
import logging
import os
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from PIL import Image
from tqdm import tqdm

from zoo.utils.errors import Stopped, UserError, printable
from zoo.utils.files import replacing
from zoo.utils.images import MAX_BYTES, BadImage, decode, pillow_silenced
from zoo.utils.listed_files import Container, File, Zip, container_of, text
from zoo.utils.paths import is_image
from zoo.utils.ranges import one_of

log = logging.getLogger(__name__)

OnBad = Literal["skip", "refuse"]
MANIFEST_VERSION = 3  # raise it when other files become usable, or lines say more
BROKEN = (ValueError, OSError, KeyError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile)
CAMERAS = re.compile(
    r"(.*/)?(dataset\.json|transforms\w*\.json|cameras?\.(json|npz|npy)|(?P<folder>(?:^|.*/)(poses?|cameras?))/.*)"
)
# Endings of images that are not read here, and what to do with them; Pillow's plugins for some are not used.
UNREAD = {
    ".heic .heif .hif .jxl .cr2 .cr3 .nef .arw .dng .raf .orf .rw2": "convert them to PNG or JPEG",
    ".mp4 .m4v .mov .avi .mkv .webm": "write their frames as PNG or JPEG",
    ".npy .npz": "if they hold images, write these as PNG",
}
SHA256 = re.compile("[0-9a-f]{64}")
ENTRIES = itemgetter("stamp", "sha256", "size", "problem")
LABEL = re.compile(rb'\[\s*"[^"]+"\s*,\s*(\[[^\[\]]*\]|-?\d+)\s*\]')  # of StyleGAN's dataset.json


def images_of(container: Container, names: list[str]) -> list[str]:
    """Those that are names of images."""
    return [name for name in names if is_image(name)]


def whole(container: Container, name: str, image: Image.Image) -> Image.Image:
    """The image itself."""
    return image


def nothing_else(container: Container) -> list[str]:
    return []


@dataclass(frozen=True)
class Layout:
    """How the images of a path are found and read: functions, none of which is called before the images' first use.

    Args:
        container: what is at a path: a folder, a zip, or what has their methods.
        keep: those of the names of all files that are images to be used, chosen before any of them is opened.
        prepare: what is used of the image of a name, before any crop; cameras are of what it returns, which then has
            one size for all images.
        digest: lines that change when what ``prepare`` does or reads beside the image changes.
        split: the part of a data set that ``keep`` chooses.
    """

    container: Callable[[Path], Container] = container_of
    keep: Callable[[Container, list[str]], list[str]] = images_of
    prepare: Callable[[Container, str, Image.Image], Image.Image] = whole
    digest: Callable[[Container], list[str]] = nothing_else
    split: str = "all"


class CheckedImages:
    """The images of a folder or zip, sorted by name.

    All files are decoded once, at first use, so that broken ones are known before training; the result is kept in
    a manifest, and files that have not changed are not read again. What is left out is logged.

    Args:
        path: folder or zip file.
        on_bad: skip files that are no usable images with a warning that names them, or refuse to start.
        manifests: folder for manifests; where it cannot be written to, files are checked again each time.
        layout: how images are found and read.
    """

    def __init__(
        self,
        path: str | Path,
        on_bad: OnBad = "skip",
        manifests: str | Path = "data/manifests",
        layout: Layout = Layout(),
    ) -> None:
        one_of(OnBad, on_bad=on_bad)
        self.path, self.on_bad, self.manifests = Path(path).expanduser(), on_bad, Path(manifests)
        self.layout = layout
        self.container: Container | None = None
        self.names: list[str] | None = None
        self.hashes: dict[str, str] = {}  # by name
        self.sizes: dict[str, tuple[int, int]] = {}  # width and height [pixels] by name
        self.bad: dict[str, str] = {}  # the problem, by name
        self.left_out = ""  # files that are no images, in words

    @property
    def name(self) -> str:
        """For tables."""
        return text(self.path.resolve().stem)

    def open(self) -> list[str]:
        """Names of the usable images, in order.

        Raises:
            UserError: there is no such folder or zip, no image in it, or a bad one that must not be skipped.
        """
        if self.names is None:
            with uncollected():
                self.start()
        return self.names

    def start(self) -> None:
        """See ``open``."""
        self.container, path = self.container or self.layout.container(self.path), text(self.path)
        found = list(self.container.files())
        everything = {file.name: file for file in found}  # of members of one name the last, as other programs do
        names = sorted(everything)
        used = set(self.layout.keep(self.container, names))
        files = [everything[name] for name in names if name in used]
        others = [everything[name] for name in names if name not in used and not is_image(name)]
        self.left_out = summary(others, Counter(file.name for file in found))
        if not files:
            raise UserError(f"'{path}' holds no images (.png, .jpg, .webp ...): {self.left_out or 'it is empty'}.")
        checked = self.check(files, names)
        usable = {name: line for name, line in checked.items() if line["problem"] is None}
        self.hashes = {name: line["sha256"] for name, line in usable.items()}
        self.sizes = {name: tuple(line["size"]) for name, line in usable.items()}
        self.bad = {name: line["problem"] for name, line in checked.items() if name not in usable}
        if self.bad:
            message = f"{len(self.bad)} of {len(files)} files of '{path}' are no usable images: "
            if self.on_bad == "refuse":
                raise UserError(f"{message}{listing(self.bad)}. Repair or remove them, or set on_bad to skip.")
            problems = [f"{text(name)}: {problem}" for name, problem in self.bad.items()]
            say(f"{message}{listing(problems, 20, '; ')}. They are skipped.")
            if not self.hashes:
                raise UserError(f"No image of '{path}' can be used: {printable(problems[0], 120)}. Take others.")
        if self.left_out:
            say(f"Left out of '{path}': {self.left_out}.")
        self.names = list(self.hashes)
        self.look_at(others)

    def look_at(self, others: list[File]) -> None:
        """What is done with the other files: cameras and labels are mentioned."""
        if unused := unused_cameras(self.container, others):
            say(f"Cameras or labels that come with '{text(self.path)}' are not used: {unused}.")

    def manifest_path(self) -> Path:
        path = self.path if self.container is None else self.container.path
        key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
        return self.manifests / f"{path.name}-{key}.json"

    def check(self, files: list[File], names: list[str]) -> dict[str, dict[str, Any]]:
        """The lines of the manifest for these files, by name; ``names`` are of all files."""
        path = self.manifest_path()
        known = read_manifest(path)
        todo = [file for file in files if known.get(file.name, {}).get("stamp") != file.stamp or file.problem]
        if todo:
            title = f"checking {text(self.path.name)}"
            threads = 1 if isinstance(self.container, Zip) else torch.get_num_threads()  # a zip has one file position
            with uncollected(False), pillow_silenced(), ThreadPoolExecutor(threads) as pool:
                bar = {"unit": "file", "dynamic_ncols": True, "disable": None}  # None: in a terminal alone
                results = tqdm(pool.map(self.check_file, todo), title, len(todo), **bar)
                known = known | {file.name: result for file, result in zip(todo, results, strict=True)}
        checked = {file.name: known[file.name] for file in files}
        if any(file.problem is None for file in todo):
            about = {
                "version": MANIFEST_VERSION,
                "path": str(self.path),
                "usable": sum(line["problem"] is None for line in checked.values()),
                "bad": {name: line["problem"] for name, line in checked.items() if line["problem"] is not None},
                "files": {name: known[name] for name in names if name in known},  # also of another split
            }
            with suppress(OSError), replacing(path) as part:  # it only saves time
                part.write_text(json.dumps(about))
        return checked

    def check_file(self, file: File) -> dict[str, Any]:
        """Its line of the manifest."""
        problem, digest, size, stamp = file.problem, None, None, file.stamp
        if problem is None and file.size > MAX_BYTES:
            problem = f"{file.size:,} bytes are more than the {MAX_BYTES:,} allowed"
        if problem is None:
            try:
                data = self.container.read(file.name)
                digest = hashlib.sha256(data).hexdigest()
                size = decode(data, file.name).size
            except Exception as error:  # also what zip and file system raise for a single broken member
                problem = str(error) if isinstance(error, BadImage) else f"it cannot be read ({error})"
                if isinstance(error, OSError | MemoryError):  # of the disk or the machine: it may be gone next time
                    stamp = ""
        return {"stamp": stamp, "sha256": digest, "size": size, "problem": problem}

    def __len__(self) -> int:
        return len(self.open())

    def image(self, index: int) -> Image.Image:
        """What the layout uses of an image: all of it, unless it says otherwise.

        Raises:
            zoo.utils.errors.Stopped: it could be read at the start, but now cannot.
        """
        name = self.open()[index]
        try:
            with pillow_silenced():
                return self.layout.prepare(self.container, name, decode(self.container.read(name), name))
        except BROKEN as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise Stopped(
                f"'{text(name)}' of '{text(self.path)}' could be read at the start, but now: {why}. Restore or remove "
                "it, and resume from the last checkpoint (--ckpt_path)."
            ) from error


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Its lines by name of the file: those that are whole; none of another version."""
    try:
        manifest = json.loads(path.read_text())
        lines = dict(manifest["files"]) if manifest["version"] == MANIFEST_VERSION else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # there is none, or it was damaged
        return {}
    return {name: line for name, line in lines.items() if is_line(line)}


def is_line(line: Any) -> bool:
    """Whether this is what ``CheckedImages.check_file`` has returned."""
    try:
        stamp, sha256, size, problem = ENTRIES(line)
    except (TypeError, KeyError):
        return False
    if problem is not None or not isinstance(stamp, str):
        return isinstance(stamp, str) and isinstance(problem, str)
    is_size = isinstance(size, list) and [*map(type, size)] == [int, int] and min(size) > 0
    return is_size and isinstance(sha256, str) and SHA256.fullmatch(sha256) is not None


@contextmanager
def uncollected(off: bool = True) -> Iterator[None]:
    """Inside, Python does not look for garbage, which it would do again and again among so many new objects."""
    was_on = gc.isenabled()
    (gc.disable if off else gc.enable)()
    try:
        yield
    finally:
        (gc.enable if was_on else gc.disable)()


# ------------------------------------------------------------------------------------------------------ what is said


def say(line: str) -> None:
    """Log it; once on each machine, however many processes of a run read the images."""
    if all(int(os.environ.get(name, 0)) == 0 for name in ("LOCAL_RANK", "SLURM_LOCALID")):
        log.warning("%s", line)


def listing(names: Iterable[str], most: int = 3, between: str = ", ") -> str:
    """The first few, and how many more."""
    names = [text(name, 60 if most == 3 else 200) for name in names]
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def summary(files: list[File], copies: Counter[str]) -> str:
    """How many files of each kind are no images, or only there for a second time, with the names of some."""
    kinds = defaultdict(list)
    for file in files:
        kinds[file.problem or PurePosixPath(file.name).suffix.lower() or "no suffix"].append(file.name)
    if repeated := [name for name, count in copies.items() if count > 1]:
        kinds["members of the same name as a later one"] = repeated
    advice = {suffix: f"; {what}" for suffixes, what in UNREAD.items() for suffix in suffixes.split()}
    lines = [f"{len(of)} x {text(kind, 60)} ({listing(of)}{advice.get(kind, '')})" for kind, of in kinds.items()]
    return listing(lines, 6, "; ")


def unused_cameras(container: Container, files: list[File]) -> str:
    """Cameras and labels in other files of a folder or zip, or in a folder beside it; empty where there are none."""
    found = defaultdict(list)
    for file in files:
        if (match := CAMERAS.fullmatch(file.name)) and not file.problem:
            found[match["folder"] or file.name].append(file)
    several = {name: f"{text(name)} ({len(of)} files)" for name, of in found.items() if of[0].name != name}
    lines = [several.get(name) or described(container, of[0]) for name, of in found.items()]
    beside = [container.path.parent / name for name in ("poses", "pose", "cameras")]
    lines += [f"the folder '{text(folder)}'" for folder in beside if folder.is_dir() and folder != container.path]
    return listing([line for line in lines if line], 5)


def described(container: Container, file: File) -> str:
    """What a json of labels or cameras holds, as its beginning shows it; empty where there are no labels."""
    name = text(file.name)
    if PurePosixPath(file.name).name != "dataset.json":
        return name
    try:
        labels = {
            value.count(b",") + 1 if value[:1] == b"[" else 0 for value in LABEL.findall(container.head(file.name))
        }
    except BROKEN as error:
        return f"{name} (it cannot be read: {error})"
    kinds = {0: "a class", 1: "1 number"}
    counts = " or ".join(kinds.get(count, f"{count} numbers") for count in sorted(labels, reverse=True))
    return f"{name} ({counts} an image)" if labels else ""
