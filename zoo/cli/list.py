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
        pattern: only names that match, such as 'giraffe*'.
        json: print everything that is known of them, as JSON.
    """
    here = [*bundled_names(), *downloaded_names()]
    names = {"weights": here, "published": list(released()), "experiments": config_names()}
    found = {title: [name for name in of if fnmatch(name, pattern)] for title, of in names.items()}
    if not any(found.values()):
        systems = [f"{entry.system}*" for entry in released().values()]
        hint = near(pattern, [*systems, *(name for of in names.values() for name in of)])
        hint = hint or " 'zoo list' shows all names."
        raise UserError(f"Nothing is named '{pattern}'.{hint}")
    if json:
        published = [released()[name].as_dict() | {"downloaded": name in here} for name in found["published"]]
        print(jsonlib.dumps(found | {"published": published}, indent=1))
        return
    found["published"] = [published_line(released()[name], name in here) for name in found["published"]]
    titles = {"published": "published checkpoints ('zoo download NAME'; those with * are here)"}
    for title, lines in found.items():
        print(f"{titles.get(title, title)}:" + "".join(f"\n  {line}" for line in lines or ["(none)"]))


def published_line(entry: Released, is_here: bool) -> str:
    """A published checkpoint in one line."""
    fid = f"FID {entry.fid.fid:g} ({entry.fid.source})" if entry.fid else ""
    licence = re.split(r"[;,]| \(", entry.weights_licence or NO_LICENCE)[0]
    return f"{entry.name + ' *' * is_here:<34} {licence:<20} {fid}".rstrip()
