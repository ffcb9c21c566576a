"""What ``zoo benchmark`` measures, and the table that is made of it."""

import json
from functools import partial

import pytest
import torch
import yaml

from tests.systems import SYSTEMS
from tests.tiny import write_config
from zoo.cli import speed, views_speed
from zoo.cli.command import main
from zoo.evaluate.measuring import Clock
from zoo.leaderboard import speeds
from zoo.utils import devices


def test_benchmark_prints_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", partial(speed.matrix_rate, side=512))  # seconds less
    config = write_config(tmp_path)
    for work, unit in (("render", "seconds_per_image"), ("train", "seconds_per_step")):
        assert main(["benchmark", config, "--work", work, "--json", "--steps", "2"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["system"] == "PiGAN" and facts[unit] > 0 and facts["resolution"] == 8
        assert facts["field_gflop"] == pytest.approx(facts["field_gflops"] * facts[unit], rel=0.2)
        assert facts["sgemm_gflops"] > 1 and facts["peak_rss_mib"] > 100
        seconds = facts[unit] if work == "train" else facts["batch"] * facts[unit]
        assert facts["images_per_second"] == pytest.approx(facts["batch"] / seconds, rel=1e-2)
        assert facts["gflop"] >= facts["field_gflop"] and (facts["gflop"] > facts["field_gflop"]) == (work == "train")
        share = facts["gflop"] / facts["matrix_gflops"] / facts[unit]
        assert facts["matrix_share"] == pytest.approx(share, rel=0.1) and facts["precision"] == "float32"


def test_benchmark_adds_to_a_table_and_to_no_other_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", lambda *_: 100.0)
    config, table = write_config(tmp_path), tmp_path / "benchmarks" / "mine.csv"
    words = ["benchmark", config, "--work", "train", "--steps", "1", "--batch", "2", "--out"]
    for precision in ("bf16", "float32"):
        assert main([*words, str(table), "--precision", precision]) == 0
    assert f"Added to {table}." in capsys.readouterr().err
    rows = speeds.FILE.read(table)
    assert [row["precision"] for row in rows] == ["bf16", "float32"] and rows[0]["experiment"] == config
    assert all(row["machine"] and row["torch"] == torch.__version__ and row["seconds_per_step"] > 0 for row in rows)
    assert all(row["matrix_gflops"] == 100.0 and row["seconds_per_image"] == "" for row in rows)
    before = table.read_bytes()
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    monkeypatch.setattr(speed, "measure", None)  # refused before anything is measured
    for target, sentence in (
        (other, f"'{other}', line 1 has no column 'machine' where it belongs, so this is no file of benchmarks; "),
        (tmp_path, f"--out is '{tmp_path}', which is a folder"),
        (table.with_suffix(".txt"), "A table of benchmarks is written as .csv, not as 'mine.txt'"),
    ):
        assert main([*words, str(target)]) == 2
        assert capsys.readouterr().err.startswith(f"zoo: error: {sentence}")
    assert main([*words, str(table), "--beside_load"]) == 2
    assert "--beside_load True changes nothing with --out" in capsys.readouterr().err
    assert table.read_bytes() == before and other.read_text() == "a,b\n1,2\n"


def test_the_table_of_speeds_has_the_newest_rows_by_machine():
    facts = dict.fromkeys(speeds.COLUMNS, 8) | {"machine": "A", "device": "cpu", "torch": "2.15"}
    facts |= {"commit": "abc", "date": "2030-01-02"}
    facts |= {"experiment": "x/y8", "work": "train", "precision": "float32", "mode": "eager", "seconds_per_image": ""}
    facts |= {"seconds_per_step": 0.5, "images_per_second": 16.0, "matrix_gflops": 2000.0, "matrix_share": 0.25}
    older = facts | {"date": "2030-01-01", "seconds_per_step": 0.75}
    compiled = facts | {"mode": "compiled", "machine": "B"}
    shown = speeds.table([compiled, facts, older])
    assert shown.index("**A**") < shown.index("**B**") and "0.75" not in shown
    assert "0.5 a step" in shown and "25% of 2 TFLOP/s" in shown and "float32, compiled" in shown
    assert "No speeds yet" in speeds.table([])


def test_benchmarks_of_views_have_a_table_of_their_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = dict.fromkeys(speeds.VIEW_COLUMNS, 8) | {"weights": "x", "machine": "A", "psnr": 96.4}
    facts |= {"date": "2030-01-02", "commit": None}
    older = facts | {"date": "2030-01-01", "psnr": 11.0}
    speeds.append_row(facts, "benchmarks/views.csv", speeds.VIEWS)
    monkeypatch.setattr(views_speed, "measure", lambda *_: older)
    words = ["benchmark", "pigan-cars32", "--work", "views", "--out"]
    assert main([*words, "benchmarks/views.csv"]) == 0
    assert "Added to benchmarks/views.csv." in capsys.readouterr().err
    assert [row["psnr"] for row in speeds.VIEWS.read("benchmarks/views.csv")] == [96.4, 11.0]
    tables = speeds.tables("benchmarks")
    assert "96 dB" in tables["many-views"] and "11 dB" not in tables["many-views"] and "No speeds" in tables["speeds"]
    monkeypatch.setattr(views_speed, "measure", None)  # refused before anything is measured
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main([*words, "other.csv"]) == 2
    assert "so this is no file of views benchmarks" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_stopwatch_does_not_count_what_was_asked_for_before(kind, monkeypatch):
    """A device that computes later: each mark waits for it, or is an event in its queue."""
    queue, now = [], [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            queue.append(self)

        def elapsed_time(self, other):
            return 1000 * (other.time - self.time)

    def wait(device):
        for item in queue:
            if isinstance(item, Event):
                item.time = now[0]
            else:
                now[0] += item
        queue.clear()

    monkeypatch.setattr(devices, "wait_for", wait)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = Clock()
    queue.append(10.0)
    with clock.timing(4, torch.device(kind)):
        queue.append(2.0)
    assert clock.seconds == 2.0 and clock.columns()["seconds_per_image"] == 0.5


def test_benchmark_needs_no_cameras_of_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", partial(speed.matrix_rate, side=512))
    config = SYSTEMS["eg3d"]()
    config["model"]["init_args"]["generator"]["init_args"]["poses"] = {"class_path": "zoo.render.DatasetPoses"}
    path = tmp_path / "eg3d.yaml"
    path.write_text(yaml.safe_dump(config))
    for work, unit in (("render", "seconds_per_image"), ("train", "seconds_per_step")):
        assert main(["benchmark", str(path), "--work", work, "--json", "--steps", "1", "--batch", "2"]) == 0
        assert json.loads(capsys.readouterr().out)[unit] > 0


def test_a_training_step_is_one_of_the_last_stage(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", partial(speed.matrix_rate, side=512))
    path = tmp_path / "stylesdf.yaml"
    path.write_text(yaml.safe_dump(SYSTEMS["stylesdf"]()))
    assert main(["benchmark", str(path), "--work", "train", "--json", "--steps", "1", "--batch", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["gflop"] > 1.1 * facts["field_gflop"]  # the sphere's have no discriminator


def test_the_work_of_a_generator_is_counted_as_its_algorithm_needs_it():
    linear = torch.nn.Linear(10, 20)
    generator = torch.nn.ModuleDict({"outer": torch.nn.Sequential(linear), "linear": linear})
    once = 2 * 10 * 20 * 5
    with speed.Work(generator.children()) as work:
        generator["outer"](torch.rand(5, 10)).sum().backward()
        assert work.flop == {torch.float32: 3 * once}
        with torch.no_grad():
            generator["linear"](torch.rand(5, 10))
            with torch.autocast("cpu", torch.bfloat16):
                generator["linear"](torch.rand(5, 10))
        assert work.flop == {torch.float32: 4 * once, torch.bfloat16: once} and work.total == 5 * once
