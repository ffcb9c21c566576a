"""Rows of earlier results files, as those of today.

They held FID and KID of images with the cameras of the prior only, and did not say how to find weights and real images
again. Both are known for the weights that come with the package and the procedural cars.
"""

import json
from collections.abc import Mapping
from typing import Any

from zoo.utils.paths import bundled_names

OLD_COLUMNS = [
    "system",
    "config",
    "weights",
    "weights_sha256",
    "dataset",
    "dataset_digest",
    "resolution",
    "metric",
    "value",
    "n_real",
    "n_fake",
    "truncation",
    "draws",
    "seed",
    "extractor_sha256",
    "precision",
    "images_seen",
    "seconds",
    "hardware",
    "commit",
    "date",
]
CARS = 5000  # of the test split


def migrated(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of today's columns; what nobody wrote down is missing."""
    drawn = row["draws"] != ""
    return {
        **row,
        "better": "less",
        "condition": "none",  # there were no others
        "cameras": "prior" if drawn else "",
        "record": record_of(row),
    }


def record_of(row: Mapping[str, str]) -> str:
    """What is needed to measure it again; empty where that is not known."""
    number, extractor, *_ = f"{row['metric']}-".split("-")
    bundled = row["weights"] in bundled_names()
    if not bundled or number not in ("fid", "kid") or row["dataset"] != "cars" or row["n_real"] != str(CARS):
        return ""
    data = {"class_path": "datamodules.Cars", "init_args": {"resolution": int(row["resolution"])}}
    metric = {"class_path": f"zoo.evaluate.metrics.{number}.{number}_metric", "init_args": {}}
    record = {"source": row["weights"], "real": data, "extractor": extractor, "metric": metric, "number": number}
    return json.dumps(record, sort_keys=True)
