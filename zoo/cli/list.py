"""``zoo list``: names of weights, published checkpoints and experiments."""

import json as jsonlib
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from zoo.utils.errors import UserError, near
from zoo.utils.paths import bundled_names, config_names, downloaded_names

if TYPE_CHECKING:
    from zoo.weights.catalogue import Released


def run(pattern: str = "*", json: bool = False) -> None:
    """Print the names of weights that are here, of published checkpoints, and of experiments.

    Args:
        pattern: only names that match, such as 'giraffe*'.
        json: print everything that is known of them, as JSON.
    """
    from zoo.weights.catalogue import released

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


def published_line(entry: "Released", is_here: bool) -> str:
    """A published checkpoint in one line."""
    fid = f"FID {entry.fid.fid:g} ({entry.fid.source})" if entry.fid else ""
    licence = (entry.weights_licence or "no licence stated").split(";")[0].split(" (")[0]
    return f"{entry.name + ' *' * is_here:<34} {licence:<18} {fid}".rstrip()
