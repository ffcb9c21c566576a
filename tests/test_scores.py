"""The protocol of a score: conditions and cameras, real statistics that are kept, refusals, rows."""

import json
import subprocess

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.analytic import Sphere
from tests.systems import SYSTEMS
from zoo.cli.evaluate import add_rows
from zoo.draws import SampleDraws
from zoo.evaluate import protocol, real_statistics
from zoo.evaluate.extractors import Extractor
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.metrics.reprojection import reprojection_metric
from zoo.evaluate.protocol import score
from zoo.evaluate.samples import cameras_from
from zoo.generator import Generator, quantise, render_samples
from zoo.weights.bundle import build

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.usefixtures("cache")]


class Colours(nn.Module):
    """An extractor without weights: mean colour of each quarter of an image."""

    calls = 0

    def forward(self, images):
        Colours.calls += len(images)
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def colours(sha256: str = "0") -> Extractor:
    return Extractor("colours", "none", sha256, Colours())


class Data(pl.LightningDataModule):
    """Real images: spheres of random colours, or whatever is given."""

    name = "spheres"

    def __init__(self, images=None, count: int = 40) -> None:
        super().__init__()
        self.images = render_samples(Sphere(), range(count), seed=9).image.clamp(-1, 1) if images is None else images

    def digest(self):
        return str(self.images.double().sum().item())

    def val_dataloader(self):
        return DataLoader([{"image": image, "index": i} for i, image in enumerate(self.images)], batch_size=8)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.images), batch_size=8, shuffle=True)  # draws from the global stream


def write_images(folder, generator, count: int) -> None:
    images = quantise(render_samples(generator, range(count)).image)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:05d}.png")


# ----------------------------------------------------------------------------------------------------- the protocol


def test_the_same_score_in_any_batch_size_and_from_the_written_images(tmp_path):
    a = score(Sphere(), Data(), colours(), n_fake=20, batch_size=20)
    b = score(Sphere(), Data(), colours(), n_fake=20, batch_size=3)
    write_images(tmp_path, Sphere(), 20)
    c = score(ImagePathDataset(tmp_path), Data(), colours())
    assert list(a.values) == ["fid-colours-none-20", "kid-colours-none-20"]
    for name, value in a.values.items():
        assert b.values[name] == pytest.approx(value, rel=1e-6)
        assert c.values[name] == pytest.approx(value, rel=1e-6)
    assert score(Sphere(), Data(), colours(), n_fake=20, seed=1).values != a.values
    assert score(Sphere(), Data(), colours(), n_fake=20, draws="none").values != a.values
    assert score(Sphere(), Data(), colours(), n_fake=20, truncation=0.5).values != a.values


# -------------------------------------------------------------------------------------------- conditions and cameras


class Tinted(Sphere):
    """Its colour is that of the camera it is conditioned on: another one on the right."""

    is_conditioned = True

    def map(self, latents, *, truncation=1.0, condition=None):
        condition = self.cameras(len(latents.z), None) if condition is None else condition
        return super().map(latents)._replace(z=condition.origins.sign())


def test_a_condition_may_be_each_images_own_or_the_same_for_all():
    own, fixed = (score(Tinted(), Data(), colours(), n_fake=16, condition=kind) for kind in ("own", "fixed"))
    assert list(own.values) == ["fid-colours-none-16", "kid-colours-none-16"]
    assert list(fixed.values) == ["fid-colours-none-16-fixed", "kid-colours-none-16-fixed"]
    assert own.values["fid-colours-none-16"] != fixed.values["fid-colours-none-16-fixed"]
    assert [scores.rows()[0]["condition"] for scores in (own, fixed)] == ["own", "fixed"]
    assert fixed.rows()[0]["metric"] == "fid-colours-none-16"  # a column says which
    alike = [score(Sphere(), Data(), colours(), n_fake=16, condition=kind) for kind in ("own", "fixed")]
    assert alike[0].values == alike[1].values and alike[1].fields["condition"] == "none"


@pytest.mark.parametrize("told", [1.0, 0.0])
def test_eg3d_is_conditioned_where_it_is_told_a_camera(told):
    config = SYSTEMS["eg3d"]()["model"]["init_args"]["generator"]
    config["init_args"]["condition_scale"] = told
    eg3d = build(config, Generator)
    assert eg3d.is_conditioned == bool(told)
    images = [render_samples(eg3d, range(3), draws="none", condition=kind).image for kind in ("own", "fixed")]
    assert torch.equal(*images) == (not told)


def test_views_are_of_one_object_or_each_conditioned_on_its_own_camera():
    metrics = [reprojection_metric()]
    one, many = (score(Tinted(), metrics=metrics, n_objects=1, condition=kind) for kind in ("fixed", "own"))
    assert one.values["psnr-1objects-32views-fixed"] > many.values["psnr-1objects-32views"] + 10


def test_cameras_are_the_priors_the_data_sets_or_uniform():
    class Seen(Data):
        """All from one camera."""

        def val_dataloader(self):
            camera = Sphere().cameras(1, None).take(0)
            return DataLoader([{"image": x, "camera": camera} for x in self.images], batch_size=8)

    sphere, draws = Tinted(), SampleDraws(0, range(50))
    latents, camera = sphere.sample(50, draws)
    for name, azimuths in (("dataset", 1), ("uniform", 50)):
        same, seen = cameras_from(name, Seen())(sphere, latents, camera, draws)
        assert torch.equal(same.z, latents.z) and not torch.equal(seen.pose, camera.pose)
        assert len(seen.pose) == 50 and len(seen.pose.unique(dim=0)) == azimuths
    assert seen.origins[:, 1].std() < 1e-5 < camera.origins[:, 1].std()  # on the turntable's way, all around
    assert seen.origins[:, 0].min() < -3 and seen.origins[:, 0].max() > 3
    few = latents._replace(z=latents.z[:9])
    again = cameras_from("uniform", None)(sphere, few, camera, SampleDraws(0, range(9)))[1]
    assert torch.allclose(again.pose, seen.pose[:9])  # whatever else is in the batch

    scores = score(Tinted(), Seen(), colours(), n_fake=16, cameras="uniform")
    assert next(iter(scores.values)) == "fid-colours-none-16-uniform" and scores.rows()[0]["cameras"] == "uniform"
    with pytest.raises(ValueError, match="'spheres' have no cameras"):
        score(Sphere(), Data(), colours(), n_fake=4, cameras="dataset")


# ------------------------------------------------------------------------------- real statistics, refusals and rows


def test_real_features_are_kept_until_anything_changes(cache, monkeypatch):
    data = Data()

    def calls(**change) -> int:
        Colours.calls = 0
        settings = {"real": data, "extractor": colours(), "n_real": None, **change}
        score(Sphere(settings.pop("resolution", 32)), n_fake=4, **settings)
        return Colours.calls - 4

    assert calls() == 40
    assert calls() == 0
    assert calls(real=Data(data.images.flip(0) * 0.9)) == 40
    assert calls(extractor=colours("1")) == 40
    assert calls(n_real=30) == 30
    big = Data(nn.functional.interpolate(data.images, scale_factor=2))
    monkeypatch.setattr(big, "digest", data.digest)  # even if a digest forgot the resolution
    assert calls(real=big, resolution=64) == 40
    assert calls() == 0
    monkeypatch.setattr(real_statistics, "QUANTISATION", "floor-1")
    assert calls() == 40
    for file in (cache / "reals").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert calls() == 40  # broken files are made again
    assert not list(cache.rglob(".saving-*"))


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="32 pixels wide and the generated ones 64"):
        score(Sphere(64), Data(), colours(), n_fake=4)


def test_images_that_are_not_finite_are_refused():
    broken = Sphere()
    nn.init.constant_(broken.tint, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        score(broken, Data(), colours(), n_fake=4)


def test_folders_of_several_sizes_are_refused(tmp_path):
    for i, size in enumerate((8, 16)):
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=r"1.png' is 16x16, but '.*0.png' is 8x8"):
        score(ImagePathDataset(tmp_path), ImagePathDataset(tmp_path), colours())
    with pytest.raises(ValueError, match="There is no folder or zip file"):
        score(ImagePathDataset(tmp_path / "none"), Data(), colours())


def test_rows_say_how_to_do_it_again(tmp_path):
    from zoo import leaderboard

    path = tmp_path / "runs" / "results.csv"
    about = {"system": "sphere", "weights": "none", "weights_sha256": "0", "images_seen": 5, "seconds": 1.5}
    scores = score(Sphere(), Data(), extractor=colours(), n_fake=8)
    rows = [row | {"record": json.dumps(row["record"])} for row in scores.rows(**about)]
    assert [json.loads(row["record"])["number"] for row in rows] == ["fid", "kid"]
    add_rows(rows, path)
    rows = leaderboard.read(path)
    assert {row["metric"]: row["value"] for row in rows} == scores.values
    assert rows[0]["parameters"] == 3 and rows[0]["seconds_per_image"] > 0 and rows[0]["peak_memory_mib"] > 100
    assert rows[0]["condition"] == "none" and rows[0]["cameras"] == "prior" and rows[0]["better"] == "less"
    assert rows[0]["n_real"] == 40 and rows[0]["dataset"] == "spheres" and rows[0]["draws"] == "per-sample"
    again = score(Sphere(), Data(), colours(), n_fake=rows[0]["n_fake"], seed=rows[0]["seed"])
    assert again.values == scores.values


def test_metric_names():
    assert [protocol.short_count(n) for n in (500, 1000, 1024, 50_000)] == ["500", "1k", "1024", "50k"]


def test_rows_of_results_alone_are_no_change_of_the_source(tmp_path, monkeypatch):
    for name in ("zoo/evaluate/protocol.py", "zoo/leaderboard/results.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(protocol, "__file__", str(tmp_path / "zoo/evaluate/protocol.py"))
    assert protocol.commit() == ""
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b.org commit -qm c"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    (tmp_path / "zoo/leaderboard/results.csv").write_text("after")
    assert len(protocol.commit()) == 12
    (tmp_path / "zoo/evaluate/protocol.py").write_text("after")
    assert protocol.commit().endswith("+")
