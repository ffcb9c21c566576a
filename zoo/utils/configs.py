"""Reading yaml that somebody else wrote: whatever is in the file, an answer or one sentence."""

from pathlib import Path
from typing import Any

import yaml

from zoo.utils.errors import UserError, printable
from zoo.utils.old_names import renamed

MOST_VALUES = 10_000  # in a config; in yaml a few lines can stand for any number, and a value can contain itself


def read_yaml(file: Path | str) -> Any:
    """Plain values, with the names of today.

    Raises:
        UserError: it is not text, not yaml, or stands for impossibly much; says which, and the line.
        FileNotFoundError: there is none.
    """
    if Path(file).is_dir():
        raise UserError(f"'{file}' is a folder: give the yaml file itself.")
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"'{file}' is not a text file in UTF-8, so it is no yaml.") from None
    except PermissionError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}): make it readable.") from None
    try:
        return renamed(bounded(yaml.safe_load(text), f"'{file}'"))
    except yaml.YAMLError as error:
        raise UserError(f"'{file}' is no yaml: {problem(error)}.") from None
    except RecursionError:
        raise UserError(f"'{file}' is no config: its values are nested too deeply.") from None


def read_mapping(file: Path | str) -> dict[str, Any]:
    """``read_yaml`` of a file that must hold names and values.

    Raises:
        UserError: it holds something else; and as ``read_yaml``.
    """
    values = read_yaml(file)
    if not isinstance(values, dict):
        held = "is empty" if values is None else f"holds a {'list' if isinstance(values, list) else 'single value'}"
        raise UserError(f"'{file}' {held}, where a config has names and values, such as 'model:' and 'data:'.")
    return values


def bounded(values: Any, source: str) -> Any:
    """The values, unless they are more than any config has, contain themselves, or name a class by no text.

    Raises:
        UserError: they are.
    """
    waiting, seen = [values], 0
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        seen += 1
        if isinstance(value, dict) and not isinstance(value.get("class_path", ""), str):
            shown = printable(value["class_path"], 40)
            raise UserError(f"{source} gives '{shown}' as a class_path: give the import path of a class.")
        if isinstance(value, dict) and "class_path" in value and not isinstance(value.get("init_args"), dict | None):
            shown = printable(value["init_args"], 40)
            raise UserError(f"{source} gives '{shown}' as init_args of {value['class_path']}: give names and values.")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{source} holds a value with a zero byte, '{printable(value, 40)}', which no value has.")
        if seen > MOST_VALUES:
            raise UserError(
                f"{source} stands for more than {MOST_VALUES:,} values, which no config does: look for an anchor "
                "(&, *) that repeats or contains itself."
            )
    return values


def with_nulls(values: Any) -> Any:
    """The values, with null for 'None', as Python writes it.

    So do users, and jsonargparse, which hands the value of an option within an object on to the parser of the next one
    as Python shows it.
    """
    if isinstance(values, dict):
        return {name: with_nulls(value) for name, value in values.items()}
    if isinstance(values, list):
        return [with_nulls(value) for value in values]
    return None if values == "None" else values


def problem(error: yaml.YAMLError) -> str:
    """What is wrong, and in which line where that is known."""
    mark = getattr(error, "problem_mark", None)
    what = " ".join((getattr(error, "problem", None) or str(error)).split())[:120]
    return what if mark is None else f"{what} (line {mark.line + 1})"
