"""Names that have changed, so that configs, bundles and checkpoints of earlier versions keep working.

Whatever reads one of these files hands its plain values through ``renamed``; nothing else knows old names.
"""

import re
from typing import Any

# Beginnings of class paths, old to new. Where a class has a new name, it stands before its module.
CLASS_PATHS = {
    "zoo.gan.": "zoo.training.",
    "zoo.giraffe_scenes.": "zoo.giraffe.",
    "zoo.giraffe_extras.": "zoo.giraffe.",
    "zoo.stylenerf_2d.": "zoo.stylenerf.",
    "zoo.stylenerf_fields.": "zoo.stylenerf.",
    "zoo.stylenerf_extras.": "zoo.stylenerf.",
    "zoo.volumegan_extras.": "zoo.volumegan.",
    "zoo.cips3d_extras.": "zoo.cips3d.",
}


def renamed(config: Any) -> Any:
    """Plain values, as read from yaml or a checkpoint, with the names of today."""
    if isinstance(config, dict):
        return {key: renamed(value) for key, value in config.items()}
    if isinstance(config, list):
        return [renamed(value) for value in config]
    if isinstance(config, str) and re.fullmatch(r"zoo(\.\w+)+", config):
        for old, new in CLASS_PATHS.items():
            if config.startswith(old):
                return new + config.removeprefix(old)
    return config


def renamed_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What was read from a checkpoint of a run, with the names of today."""
    return checkpoint | {key: renamed(checkpoint[key]) for key in ("config", "data_config") if key in checkpoint}
