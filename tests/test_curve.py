"""The table of scores over processor time."""

import csv
import time

import pytest

from callbacks.scores import Scores
from tests.tiny import write_config
from zoo.cli.command import main

BURNT = 0.4  # seconds of a score


def burn(self: Scores, trainer, model) -> dict[str, float]:
    """A score that takes time."""
    end = time.process_time() + BURNT
    while time.process_time() < end:
        pass
    return {"fid-x": 10.0 - model.iterations}


def test_the_curve_counts_training_steps_and_goes_on_when_a_run_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(Scores, "measure", burn)
    callbacks = ["--trainer.callbacks+=callbacks.curve.Curve", "--trainer.callbacks+=callbacks.scores.Scores"]
    words = ["fit", "-c", write_config(tmp_path), *callbacks, "--trainer.callbacks.every=1", "--trainer.max_steps"]

    def curve() -> list[dict[str, str]]:
        return list(csv.DictReader((tmp_path / "run" / "curve.csv").open()))

    start = time.process_time()
    assert main([*words, "2"]) == 0
    all_seconds = time.process_time() - start
    first = curve()
    assert [row["iteration"] for row in first] == ["0", "1", "2"]
    assert [row["fid-x"] for row in first] == ["10.0", "9.0", "8.0"]
    logged = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    for name in ("loss_g", "loss_d"):
        assert first[0][name] == "" and [float(row[name]) for row in first[1:]] == pytest.approx(
            [float(row[name]) for row in logged if row[name]], abs=1e-4
        )
    seconds = [float(row["processor_seconds"]) for row in first]
    assert seconds == sorted(seconds) and seconds[0] == 0
    assert 0 < seconds[-1] < all_seconds - 3 * BURNT
    assert main([*words, "3", "--ckpt_path", str(tmp_path / "run" / "checkpoints" / "last.ckpt")]) == 0
    assert curve()[:3] == first and curve()[3]["iteration"] == "3" and len(curve()) == 4
    assert float(curve()[3]["processor_seconds"]) >= seconds[-1]
