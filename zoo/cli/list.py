"""``zoo list``: names of weights, published checkpoints and experiments."""

import json as jsonlib
import re
from fnmatch import fnmatch

from zoo.utils.errors import UserError, near
from zoo.utils.paths import bundled_names, config_names, downloaded_names
from zoo.weights.catalogue import NO_LICENCE, Released, released


def run(pattern: str = "*", json: bool = False) -> None:
    """Print the names of weights that are here, of published checkpoints, and of experiments.

    Args:
        pattern: only names that match, such as 'giraffe*'; a word alone may be any part of them.
        json: print everything that is known of them, as JSON.
    """
    here = [*bundled_names(), *downloaded_names()]
    names = {"weights": here, "published": list(released()), "experiments": config_names()}
    whole = (pattern if {*"*?["} & {*pattern} else f"*{pattern}*").lower()
    found = {title: [name for name in of if fnmatch(name.lower(), whole)] for title, of in names.items()}
    if not any(found.values()):
        systems = [entry.system for entry in released().values()]
        hint = near(pattern, [*systems, *(name for of in names.values() for name in of)])
        hint = hint or " 'zoo list' shows all names."
        raise UserError(f"Nothing is named '{pattern}'.{hint}")
    if json:
        published = [released()[name].as_dict() | {"downloaded": name in here} for name in found["published"]]
        print(jsonlib.dumps(found | {"published": published}, indent=1))
        return
    found["published"] = aligned([published_cells(released()[name], name in here) for name in found["published"]])
    titles = {"published": "published checkpoints ('zoo download NAME'; those with * are here)"}
    for title, lines in found.items():
        print(f"{titles.get(title, title)}:" + "".join(f"\n  {line}" for line in lines or ["(none)"]))


def published_cells(entry: Released, is_here: bool) -> list[str]:
    """Name, licence and score of a published checkpoint."""
    fid = f"FID {entry.fid.fid:g} ({entry.fid.source})" if entry.fid else ""
    licence = re.split(r"[;,]| \(", entry.weights_licence or NO_LICENCE)[0]
    return [entry.name + " *" * is_here, licence, fid]


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
