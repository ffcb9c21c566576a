"""zoo download, list and load: published checkpoints by name, from loopback, converted and kept."""

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import zoo
from tests.servers import serving
from tests.test_official import SYSTEMS
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.utils.errors import UserError
from zoo.utils.paths import CONFIGS, read_experiment
from zoo.weights import catalogue, download, fetch
from zoo.weights.bundle import load_bundle
from zoo.weights.catalogue import Address, released
from zoo.weights.find import find

pytestmark = pytest.mark.xdist_group("processes")

PIGAN = Path(__file__).parent / "parity" / "cases" / "pigan" / "checkpoint"
EXPERIMENT = CONFIG["model"]["init_args"]["generator"]
NAME = "pigan-celeba-64.official"


def archive() -> bytes:
    """As the published pi-GAN's downloads are."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as opened:
        for name in ("generator.pth", "ema.pth", "ema2.pth"):
            opened.write(PIGAN / name, f"CelebA/{name}")
    return file.getvalue()


ZIP = archive()
SHA256 = hashlib.sha256(ZIP).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, a small experiment, and servers that are asked quickly."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setattr(fetch, "RetryPolicy", partial(fetch.RetryPolicy, timeout=1, attempts=2, wait=0.01))
    return tmp_path / "cache"


def publish(monkeypatch, cache: Path, *urls: str, kind: str = "web", system: str = "pigan", **changes) -> None:
    """Let the catalogue's first pi-GAN lie at these addresses."""
    addresses = tuple(Address(kind, url) for url in urls)
    changed = replace(released()[NAME], addresses=addresses, config=str(cache.parent / "experiment.yaml"), **changes)
    monkeypatch.setattr(type(changed), "system", system)
    monkeypatch.setattr(catalogue, "released", lambda: {NAME: changed})
    monkeypatch.setattr(download, "released", lambda: {NAME: changed})


# The catalogue


def test_the_catalogue_holds_every_published_checkpoint():
    counts = {
        "graf": 10,
        "giraffe": 11,
        "pigan": 3,
        "stylenerf": 4,
        "cips3d": 3,
        "volumegan": 1,
        "eg3d": 6,
        "stylesdf": 5,
    }
    entries = list(released().values())
    assert {system: sum(entry.system == system for entry in entries) for system in counts} == counts
    assert len(entries) == sum(counts.values())
    for entry in entries:
        assert entry.name.startswith(f"{entry.system}-") and entry.name.endswith(".official")
        assert entry.paper.startswith("https://arxiv.org/abs/") and entry.addresses
        known = [path.stem for path in (CONFIGS / entry.system).glob("*.yaml")]
        assert not known or entry.config.split("/")[1] in known
        for address in entry.addresses:
            assert address.url.startswith("https://") and fetch.direct(address).startswith("https://")
            assert entry.file in address.url or address.kind == "drive"
        assert not entry.sha256 or f"-{entry.sha256}." in entry.file
        assert not entry.md5 or re.fullmatch("[0-9a-f]{32}", entry.md5)
        assert entry.fid is None or (entry.fid.fid > 0 and entry.fid.protocol and entry.fid.source)


def test_the_catalogue_loads_nothing_heavy():
    code = "import sys; from zoo.weights.catalogue import released; released(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "False\n"


def test_list(cache, capsys):
    assert main(["list", "giraffe-c*"]) == 0
    printed = capsys.readouterr().out
    assert "giraffe-cats-64.official " in printed and "FID 8 (paper, as quoted in" in printed and "graf" not in printed
    assert main(["list", "EG3D"]) == 0  # a word alone is a part of a name
    lines = capsys.readouterr().out.splitlines()
    at = {line.index("NVIDIA") for line in lines if "NVIDIA" in line}
    assert len(at) == 1 and "  eg3d/ffhq512_64" in lines  # licences stand below each other
    assert main(["list", "*ffhq*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_name = {entry["name"]: entry for entry in found["published"]}
    assert by_name["giraffe-ffhq-256.official"]["sha256"] == "fa488759" and "giraffe/ffhq256" in found["experiments"]
    assert by_name["volumegan-ffhq-256.official"]["fid"]["fid"] == 9.1
    assert not by_name["giraffe-ffhq-256.official"]["downloaded"]
    assert main(["list", "girafe"]) == 2
    assert "Nothing is named 'girafe'. Did you mean 'giraffe'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["download"], ["sample", "--out", "x.png"]])
def test_names_that_are_not_there(cache, capsys, words):
    assert main([words[0], "graf-carla-1288.official", *words[1:]]) == 2
    assert "Did you mean" in (said := capsys.readouterr().err) and "graf-carla-128.official" in said
    if words[0] == "sample":
        assert main(["sample", "graf-cub-64.official", "--out", "x.png"]) == 2
        assert "not here yet: 'zoo download graf-cub-64.official' fetches it." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("pigan-cars23", "Did you mean pigan-cars32?"),
        ("Pigan-Cars32", "Did you mean pigan-cars32?"),
        ("pigan", "Did you mean pigan-cars32 or pigan-celeba-64.official or pigan-cats-64.official?"),
        ("pigan/celeba64", "'pigan/celeba64' is an experiment: name weights, such as pigan-celeba-64.official."),
        ("eg3d/cars32", "such as eg3d-cars32."),
        ("stylesdf/ffhq256", "which 'zoo fit -c stylesdf/ffhq256' trains."),
        ("nothing-like-it", "'zoo list' shows all names."),
    ],
)
def test_a_name_that_is_none_is_answered_with_one_that_is(cache, source, hint):
    with pytest.raises(UserError) as error:
        find(source)
    assert str(error.value).endswith(hint)


def test_a_name_that_is_none_is_answered_without_torch(tmp_path):
    code = """if True:
        import sys
        from zoo.cli.command import main
        for verb in ("view nosuch", "bundle nosuch x"):
            assert main(verb.split()) == 2
        print("torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n" and done.stderr.count("There are no weights named 'nosuch'") == 2


# Downloads


def test_a_name_stands_for_its_weights_after_the_download(cache, tmp_path, monkeypatch, capsys):
    with serving(lambda request: request.give(ZIP)) as server:
        publish(monkeypatch, cache, f"{server.address}/CelebA.zip")
        assert main(["download", NAME]) == 0
        assert len(server.asked) == 1
        out, err = capsys.readouterr()
        assert out == f"{cache}/weights/{NAME}\n" and "no licence is stated, so all rights are reserved" in err
        assert main(["download", NAME]) == 0  # and is not fetched again
        assert len(server.asked) == 1
    assert sorted(file.name for file in (cache / "weights" / NAME).iterdir()) == [
        *("README.md", "config.yaml", "ema2.safetensors", "model.safetensors", "raw.safetensors"),
    ]
    assert not [file for file in (cache / "weights").iterdir() if file.name.startswith(".making")]
    generator = zoo.load(NAME)
    assert not generator.training and generator.resolution == 8
    info = load_bundle(NAME)[1]
    assert info.name == NAME and info.card["weights"] == "ema" and info.card["source_sha256"]
    card = (cache / "weights" / NAME / "README.md").read_text()
    for fact in ("all rights are reserved", "arxiv.org/abs/2012.00926", "14.7: at 128x128", f"zoo download {NAME}"):
        assert fact in card
    assert main(["sample", NAME, "--out", str(tmp_path / "x.png"), "--seeds", "0", "--views", "1"]) == 0
    assert main(["list", "pigan-celeba*", "--json"]) == 0


def test_it_works_without_network_once_it_is_there_and_says_what_to_do_before(cache, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    publish(monkeypatch, cache, "http://127.0.0.1:1/CelebA.zip")
    assert main(["download", NAME]) == 1
    said = capsys.readouterr().err
    assert "ZOO_OFFLINE" in said and f"Then: zoo download {NAME} --from FILE" in said
    (cache.parent / "mine.zip").write_bytes(ZIP)
    assert main(["download", NAME, "--from", str(cache.parent / "mine.zip")]) == 0
    assert main(["download", NAME]) == 0 and zoo.load(NAME).resolution == 8


def test_published_hashes_are_checked(cache, monkeypatch, capsys):
    with serving(lambda request: request.give(b"PK" + ZIP[2:-1])) as bad, serving(lambda r: r.give(ZIP)) as good:
        publish(monkeypatch, cache, f"{bad.address}/a.zip", sha256=SHA256[:8])
        assert main(["download", NAME]) == 1 and f"does not begin with {SHA256[:8]}" in capsys.readouterr().err
        (cache.parent / "mine.zip").write_bytes(ZIP[:-1])
        assert main(["download", NAME, "--from", str(cache.parent / "mine.zip")]) == 2
        assert f"of CelebA.zip begins with {SHA256[:8]}: fetch it again" in capsys.readouterr().err
        publish(monkeypatch, cache, f"{bad.address}/a.zip", f"{good.address}/b.zip", sha256=SHA256[:8])
        assert main(["download", NAME]) == 0
    assert main(["download", NAME, "--from", "none.zip"]) == 0  # it is there


def test_published_md5s_are_checked(cache, monkeypatch, capsys):
    md5 = hashlib.md5(ZIP).hexdigest()
    with (
        serving(lambda request: request.give(b"PK" + ZIP[2:] + b"more")) as bad,
        serving(lambda r: r.give(ZIP)) as good,
    ):
        publish(monkeypatch, cache, f"{bad.address}/a.zip", md5=md5)
        assert main(["download", NAME]) == 2
        assert f"but that of CelebA.zip is {md5}: fetch it again" in capsys.readouterr().err
        (cache.parent / "mine.zip").write_bytes(ZIP + b"more")
        assert main(["download", NAME, "--from", str(cache.parent / "mine.zip")]) == 2
        assert (cache.parent / "mine.zip").exists()  # what somebody has fetched by hand stays
        publish(monkeypatch, cache, f"{good.address}/b.zip", md5=md5)
        assert main(["download", NAME]) == 0  # the wrong one is gone


def test_hashes_of_the_first_use_are_checked_ever_after(cache, monkeypatch, capsys):
    given = {"file": ZIP}
    with serving(lambda request: request.give(given["file"])) as server:
        publish(monkeypatch, cache, f"{server.address}/CelebA.zip")
        assert main(["download", NAME]) == 0
        model = cache / "weights" / NAME / "model.safetensors"
        tensors = load_file(model)
        tensors["field.density.bias"] += 1
        save_file(tensors, model, metadata=load_bundle(NAME)[1].card)
        with pytest.raises(ValueError, match=r"have changed since their download on .*: delete the folder"):
            zoo.load(NAME)
        assert main(["download", NAME]) == 2
        for file in (cache / "weights" / NAME).iterdir():
            file.unlink()
        assert main(["download", NAME]) == 0  # from the file that came
        zoo.load(NAME)
        for file in [*(cache / "weights" / NAME).iterdir(), cache / "downloads" / NAME / "CelebA.zip"]:
            file.unlink()
        given["file"] = ZIP + b"more"
        capsys.readouterr()
        assert main(["download", NAME]) == 2
        said = capsys.readouterr().err
        assert "but the download of" in said and f"{NAME}.json, too" in said


def test_a_damaged_file_is_neither_kept_as_weights_nor_remembered(cache, monkeypatch, capsys):
    with serving(lambda request: request.give(ZIP[: len(ZIP) // 2])) as server:
        publish(monkeypatch, cache, f"{server.address}/CelebA.zip")
        assert main(["download", NAME]) == 2
        assert "it is damaged or truncated: download it again" in capsys.readouterr().err
        server.script = lambda request: request.give(ZIP)
        assert not list((cache / "weights").glob("[a-z]*")) and not list((cache / "downloads").glob("*.json"))
        assert main(["download", NAME]) == 0
    assert len(server.asked) == 2


def test_without_a_hash_the_container_tells(cache, monkeypatch, capsys):
    """Checksums of all members, also of those that are not read, and where the zip ends."""
    with zipfile.ZipFile(file := io.BytesIO(ZIP), "a") as opened:
        opened.writestr("CelebA/notes.txt", b"by their authors")
    flipped = file.getvalue().replace(b"by their", b"by other")
    for data in (flipped, ZIP + b"junk"):
        with serving(lambda request, data=data: request.give(data)) as server:
            publish(monkeypatch, cache, f"{server.address}/CelebA.zip")
            assert main(["download", NAME, "--rest", "false"]) == 2
            assert "download it again" in capsys.readouterr().err.splitlines()[-1]
        assert not list(cache.glob("*/*/*.zip")) and not list((cache / "downloads").glob("*.json"))


def test_a_damaged_record_is_named(cache, monkeypatch, capsys):
    publish(monkeypatch, cache, "http://127.0.0.1:1/CelebA.zip")
    (cache.parent / "mine.zip").write_bytes(ZIP)
    assert main(["download", NAME, "--from", str(cache.parent / "mine.zip")]) == 0
    for text in ("", "[]", "{}"):
        (cache / "downloads" / f"{NAME}.json").write_text(text)
        assert main(["download", NAME]) == 2
        assert f"{NAME}.json is damaged: delete it" in capsys.readouterr().err.splitlines()[-1]


def test_the_hub_states_hashes(cache, monkeypatch, capsys):
    """Its library would not check them."""

    def hub(request) -> None:
        if request.command == "HEAD":
            tags = {"X_Linked_ETag": f'"{SHA256}"', "X_Repo_Commit": "0" * 40, "X_Linked_Size": str(len(ZIP))}
            request.say(200, b"", len(ZIP), ETag='"x"', **tags)
        else:
            request.give(given["file"])

    given = {"file": ZIP + b"x"}
    with serving(hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        publish(monkeypatch, cache, "https://huggingface.co/a/b/resolve/main/CelebA.zip", kind="hub")
        assert main(["download", NAME]) == 1
        assert f"does not begin with {SHA256[:12]}" in capsys.readouterr().err
        given["file"] = ZIP
        assert main(["download", NAME]) == 0


def test_two_processes_may_want_the_same(cache, monkeypatch):
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with serving(lambda request: request.give(ZIP)) as server:
        publish(monkeypatch, cache, f"{server.address}/CelebA.zip")
        both = [context.Process(target=download.download, args=(NAME,)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(timeout=60)
        assert [process.exitcode for process in both] == [0, 0] and len(server.asked) == 1
    zoo.load(NAME)


def a_zip(folder: Path) -> bytes:
    """As the published CIPS-3D's releases are, with a second run in it."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as opened:
        for run in ("resume_iter_645500", "other"):
            for name in ("G_ema.pth", "generator.pth", "G_ema_model.pth", "state_dict.pth"):
                opened.write(folder / name, f"train_ffhq_high/{run}/{name}")
    return file.getvalue()


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "pigan"])
def test_every_system(cache, monkeypatch, name):
    file, experiment, _, _ = SYSTEMS[name]
    data = a_zip(file.parent) if name == "cips3d" else file.read_bytes()
    (cache.parent / "experiment.yaml").write_text(yaml.safe_dump(experiment() or read_experiment("volumegan/ffhq256")))
    with serving(lambda request: request.give(data)) as server:
        sha256 = hashlib.sha256(data).hexdigest()[:8]
        inside = released()["cips3d-ffhq-256.official"].inside if name == "cips3d" else ""
        publish(monkeypatch, cache, f"{server.address}/x", system=name, sha256=sha256, inside=inside)
        folder = download.download(NAME, rest=False)
    assert [file.name for file in sorted(folder.iterdir())] == ["README.md", "config.yaml", "model.safetensors"]
    generator = zoo.load(NAME)
    assert type(generator).__module__ == f"zoo.{name}.model" and load_bundle(NAME)[1].card["weights"] == "ema"


def test_what_comes_with_the_package_needs_no_network(cache, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert main(["download", "pigan-cars32"]) == 0 and "bundled/pigan-cars32" in capsys.readouterr().out
    assert main(["download", "pigan-cars32", "--from", "x.zip"]) == 2 and "is a bundle" in capsys.readouterr().err
    assert main(["sample", "pigan-cars32", "--out", str(tmp_path / "x.png"), "--seeds", "0", "--views", "1"]) == 0
    assert torch.is_tensor(next(zoo.load("pigan-cars32").parameters()))
