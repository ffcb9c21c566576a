"""zoo push and zoo download hf:user/name, against a server on loopback that speaks as the Hub does."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import zoo
from tests.servers import Request, serving
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.weights.bundle import build, load_bundle, save_bundle

pytestmark = pytest.mark.xdist_group("processes")

GENERATOR = CONFIG["model"]["init_args"]["generator"]
BIG = ".safetensors"  # files that the Hub keeps elsewhere and knows by their sha256


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """Repositories: name -> files, and what is done to those that are asked for."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}
        self.spoil = lambda name, data: data

    def commit(self, repository: str) -> str:
        contents = sorted((name, git_hash(data)) for name, data in self.files[repository].items())
        return hashlib.sha1(json.dumps(contents).encode()).hexdigest()

    def __call__(self, request: Request) -> None:
        size = int(request.headers.get("Content-Length", 0))
        body, path = request.rfile.read(size), request.path.split("?")[0]
        for pattern, answer in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", lambda r, b: r.say(200, b"{}")),
            (r"/api/models/(\w+/[\w.-]+)/preupload/main", self.preupload),
            (r"/(\w+/[\w.-]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/store/(\w+)", self.store),
            (r"/api/models/(\w+/[\w.-]+)/commit/main", self.write),
            (r"/api/models/(\w+/[\w.-]+)(?:/revision/(\w+))?", self.about),
            (r"/(\w+/[\w.-]+)/resolve/(\w+)/(.+)", self.give),
        ):
            if found := re.fullmatch(pattern, path):
                return answer(request, body, *found.groups())
        return request.say(404, b"{}", X_Error_Code="RepoNotFound")

    def answer(self, request: Request, value) -> None:
        request.say(200, json.dumps(value).encode(), Content_Type="application/json")

    def create(self, request: Request, body: bytes) -> None:
        if request.headers.get("Authorization") != "Bearer hf_mine":
            return request.say(401, b'{"error": "Who are you?"}')
        about = json.loads(body)
        name = f"{about.get('organization') or 'me'}/{about['name']}"
        self.files.setdefault(name, {})
        return self.answer(request, {"url": f"{request.server.address}/{name}"})

    def preupload(self, request: Request, body: bytes, name: str) -> None:
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(BIG) else "regular"}
            for file in json.loads(body)["files"]
        ]
        self.answer(request, {"files": [mode | {"shouldIgnore": False} for mode in modes]})

    def batch(self, request: Request, body: bytes, name: str) -> None:
        objects = [
            file | {"actions": {"upload": {"href": f"{request.server.address}/store/{file['oid']}"}}}
            for file in json.loads(body)["objects"]
        ]
        self.answer(request, {"transfer": "basic", "objects": objects})

    def store(self, request: Request, body: bytes, sha256: str) -> None:
        if request.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
        assert hashlib.sha256(body).hexdigest() == sha256
        self.stored[sha256] = body
        request.say(200)

    def write(self, request: Request, body: bytes, name: str) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.files[name][value["path"]] = self.stored[value["oid"]]
        done = {
            "commitUrl": f"{request.server.address}/{name}/commit/{self.commit(name)}",
            "commitOid": self.commit(name),
        }
        self.answer(request, done)

    def about(self, request: Request, body: bytes, name: str, revision: str | None) -> None:
        if name not in self.files or revision not in (None, "main", self.commit(name)):
            request.say(404, b"{}", X_Error_Code="RevisionNotFound" if name in self.files else "RepoNotFound")
            return
        files = []
        for path, data in self.files[name].items():
            file = {"rfilename": path, "size": len(data), "blobId": git_hash(data)}
            if path.endswith(BIG):
                file |= {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
            files.append(file)
        self.answer(request, {"id": name, "modelId": name, "sha": self.commit(name), "siblings": files})

    def give(self, request: Request, body: bytes, name: str, revision: str, path: str) -> None:
        data = self.files[name][path]
        digest = hashlib.sha256(data).hexdigest() if path.endswith(BIG) else git_hash(data)
        tags = {"ETag": f'"{digest}"', "X_Repo_Commit": self.commit(name)}
        request.say(200, b"" if request.command == "HEAD" else self.spoil(path, data), len(data), **tags)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on loopback that the environment points to."""
    script = Hub()
    with serving(script) as server:
        for name, value in {
            "HF_ENDPOINT": server.address,
            "HF_TOKEN": "hf_mine",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "ZOO_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        script.asked = server.asked
        yield script


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(1)
    save_bundle(tmp_path / "mine", build(GENERATOR, nn.Module), GENERATOR, system="PiGAN", license="MIT")
    (tmp_path / "mine" / "notes.txt").write_text("private")
    return tmp_path / "mine"


def upload(hub: Hub, folder: Path, name: str = "me/cars") -> None:
    hub.files[name] = {file.name: file.read_bytes() for file in folder.iterdir()}


def test_pushed_weights_come_back(hub, folder, tmp_path, capsys):
    assert main(["push", str(folder), "me/cars"]) == 0
    said = capsys.readouterr()
    assert "/me/cars" in said.out and said.err == ""  # no bar, as this is no terminal
    assert set(hub.files["me/cars"]) == {"README.md", "config.yaml", "model.safetensors"}
    assert hub.files["me/cars"]["README.md"].startswith(b"---\nlibrary_name: gan3d-zoo\nlicense: mit\n")
    assert main(["sample", "hf:me/cars", "--out", "x.png"]) == 2
    assert "not here yet: 'zoo download hf:me/cars' fetches it" in capsys.readouterr().err
    assert main(["download", "hf:me/cars"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/cache/weights/hf--me--cars\n"
    mine, theirs = load_file(folder / "model.safetensors"), zoo.load("hf:me/cars").state_dict()
    assert set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
    count = len(hub.asked)
    assert main(["download", "hf:me/cars"]) == 0 and len(hub.asked) == count
    words = ["sample", "hf:me/cars", "--out", str(tmp_path / "x.png"), "--seeds", "0", "--views", "1"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["list", "me/cars"]) == 0 and "\n  hf:me/cars\n" in capsys.readouterr().out


def test_a_revision_is_a_bundle_of_its_own(hub, folder, capsys):
    upload(hub, folder)
    commit = hub.commit("me/cars")
    assert main(["download", f"hf:me/cars@{commit}"]) == 0 and f"hf--me--cars@{commit}" in capsys.readouterr().out
    assert main(["download", "hf:me/cars@none"]) == 2
    assert "me/cars could not be fetched: the Hub has no such name and revision" in capsys.readouterr().err


def test_what_did_not_come_as_stated_is_not_kept(hub, folder, tmp_path, capsys):
    upload(hub, folder)
    for spoilt in ("model.safetensors", "config.yaml"):
        hub.spoil = lambda name, data, spoilt=spoilt: data[:-1] + b"x" if name == spoilt else data
        assert main(["download", "hf:me/cars"]) == 1
        assert f"{spoilt} of me/cars does not match the hash that the Hub states" in capsys.readouterr().err
        assert not list((tmp_path / "cache" / "weights").glob("[!.]*"))
    hub.spoil = lambda name, data: data
    assert main(["download", "hf:me/cars"]) == 0
    file = tmp_path / "cache" / "weights" / "hf--me--cars" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    assert main(["download", "hf:me/cars"]) == 2 and "have changed since their download" in capsys.readouterr().err


def test_bundles_of_strangers_run_nothing(hub, folder, tmp_path, capsys):
    marker = tmp_path / "made"
    evil = GENERATOR | {"init_args": GENERATOR["init_args"] | {"renderer": {"class_path": "subprocess.Popen"}}}
    evil["init_args"]["renderer"]["init_args"] = {"args": ["touch", str(marker)]}
    bomb = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9 if i else ['1'] * 9)}]" for i in range(12))
    huge = GENERATOR | {"init_args": GENERATOR["init_args"] | {"mapping_dim": 2**24}}
    for config, message in (
        (yaml.safe_dump(evil), "may not name it"),
        (bomb, "stands for more than 10,000 values"),
        ("!!python/object/apply:os.system ['touch x']", "is no yaml"),
        ("[1, 2]", "has no class_path"),
        (yaml.safe_dump(huge), "do not fit its config"),
    ):
        (folder / "config.yaml").write_text(config)
        upload(hub, folder)
        assert main(["download", "hf:me/cars"]) == 2
        assert message in (said := capsys.readouterr().err) and said.count("zoo: error") == 1
    assert not marker.exists() and not list((tmp_path / "cache" / "weights").glob("[!.]*"))


def test_only_files_of_a_bundle_are_fetched(hub, folder, tmp_path):
    upload(hub, folder)
    hub.files["me/cars"] |= {"../../evil.yaml": b"x", "run.py": b"x", "x/model.safetensors": b"x"}
    assert main(["download", "hf:me/cars"]) == 0
    names = {file.name for file in (tmp_path / "cache" / "weights" / "hf--me--cars").iterdir()}
    assert names == {"README.md", "config.yaml", "model.safetensors"}


def test_what_push_refuses(hub, folder, tmp_path, monkeypatch, capsys):
    save_bundle(tmp_path / "theirs", load_bundle(folder)[0], GENERATOR, source_sha256="1", license="not stated")
    assert main(["push", str(tmp_path / "theirs"), "me/theirs"]) == 2
    assert "whose licence is: not stated. Ask its authors" in capsys.readouterr().err and not hub.asked
    assert main(["push", str(tmp_path / "theirs"), "me/theirs", "--redistribute"]) == 0
    assert main(["push", str(tmp_path / "none"), "me/none"]) == 2
    for name in ("a name", "cars", "hf:me/cars"):
        assert main(["push", str(folder), name]) == 2
        assert f"'{name}' is no repository such as user/name." in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert main(["push", str(folder), "me/cars"]) == 2
    said = capsys.readouterr().err
    assert "me/cars was not written: " in said and "'hf auth login'" in said and said.count("\n") == 1
    for create, message in (
        (lambda r, body: r.raw(b""), "me/cars was not written: the Hub cannot be reached ("),
        (lambda r, body: r.say(500, b"{}"), "me/cars was not written: "),
    ):
        hub.create = create
        assert main(["push", str(folder), "me/cars"]) == 2
        said = capsys.readouterr().err
        assert message in said and "login" not in said


def test_what_a_hub_says_is_one_line_without_escape_codes(hub, folder, capsys):
    """Gated repositories show what they are and give nothing."""
    upload(hub, folder)
    gated = {"X_Error_Code": "GatedRepo", "X_Error_Message": "Access to it is restricted."}
    for give, code, message in (
        (lambda r, *_: r.say(403, b"{}", **gated), 2, "me/cars could not be fetched: it is gated. Accept its terms"),
        (lambda r, *_: r.say(500, b"{}", X_Error_Message="\x1b[31mred\x07 alert"), 1, "me/cars could not be fetched: "),
    ):
        hub.give = give
        assert main(["download", "hf:me/cars"]) == code
        said = capsys.readouterr().err.splitlines()[-1]
        assert message in said and said.isprintable() and len(said) < 300


def test_what_is_no_bundle_or_not_there(hub, folder, monkeypatch, capsys):
    hub.files["me/other"] = {"pytorch_model.bin": b"x"}
    for name, code, message in (
        ("hf:me/other", 2, "me/other is no weights bundle: it has no config.yaml and no model.safetensors"),
        ("hf:me/none", 2, "me/none could not be fetched: the Hub has no such name"),
        ("hf:me", 2, "'hf:me' is no name such as hf:user/repository"),
        ("me/other", 2, "For a repository of the Hub, write hf:me/other."),
        ("hf:../x", 2, "is no name such as"),
    ):
        assert main(["download", name]) == code and message in capsys.readouterr().err
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert main(["download", "hf:me/cars"]) == 1 and "forbids to fetch it" in capsys.readouterr().err
    monkeypatch.delenv("ZOO_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert main(["download", "hf:me/cars"]) == 1
    said = capsys.readouterr().err
    assert "me/cars could not be fetched: the Hub cannot be reached (" in said and "Check the network" in said
