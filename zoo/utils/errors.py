"""One clear sentence out of what went wrong, with the near match where there is one."""

import dis
import errno
import re
import sys
from argparse import ArgumentParser
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path

from zoo.utils.paths import PACKAGE, config_names

ROOTS = [PACKAGE, PACKAGE.parent / "datamodules", PACKAGE.parent / "callbacks"]


class Stopped(RuntimeError):
    """A run that ended early for a known reason; the message says why and what to do.

    Args:
        message: for the user.
        code: what the command exits with.
        silent: another process says it already.
    """

    def __init__(self, message: str, code: int = 1, silent: bool = False) -> None:
        super().__init__(message)
        self.code, self.silent = code, silent


def near(word: str, words: list[str]) -> str:
    """' Did you mean ...?' or nothing."""
    found = get_close_matches(word, words, n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


def explain(message: str, parser: ArgumentParser | None = None) -> str:
    """One line for a message of jsonargparse, which tells everything it tried."""
    keys = [a.dest for a in parser._actions] if parser is not None else []
    text = " ".join(message.split())
    for pattern, answer in PATTERNS:
        if found := list(re.finditer(pattern, text)):
            return answer(found[-1], keys, text)
    return text


def _option(found: re.Match, keys: list[str], text: str) -> str:
    name = found[1]
    classes = re.findall(r"given class_path '([\w.]+)'", text[: found.start()])
    if classes:
        return f"{classes[-1]} has no option '{name}'.{near(name, parameters(classes[-1]))}"
    return f"There is no option '{name}'.{near(name, keys)}"


def _class(found: re.Match, keys: list[str], text: str) -> str:
    module, name = found[1], found[2]
    return f"There is no '{module}.{name}'.{near(name, contents(module))}"


def _module(found: re.Match, keys: list[str], text: str) -> str:
    return f"There is no module '{found[1]}'.{near(found[1].split('.')[-1], ['zoo', 'datamodules', 'callbacks'])}"


def _file(found: re.Match, keys: list[str], text: str) -> str:
    return missing_file(found[1])


def _value(found: re.Match, keys: list[str], text: str) -> str:
    return f"The value of '{found[1]}' is not of its type: expected {found[2]}, got {found[3]}."


def _required(found: re.Match, keys: list[str], text: str) -> str:
    names = re.sub(r"(fit|validate|test|predict)\.", "", found[1])
    return f"Missing: {names}. An experiment gives model and data (-c CONFIG.yaml, see 'zoo list')."


def _unrecognised(found: re.Match, keys: list[str], text: str) -> str:
    if not found[1].startswith("-"):
        return f"'{found[1]}' is one value too many."
    name = found[1].split("=")[0].lstrip("-")
    return f"There is no option '--{name}'.{near('--' + name, ['--' + key for key in keys])}"


PATTERNS = [
    (r"Option '([\w.]+)' is not accepted", _option),
    (r"does not accept option '([\w.+]+)'", _option),
    (r"module '([\w.]+)' has no attribute '(\w+)'", _class),
    (r"cannot import name '(\w+)' from '([\w.]+)'", lambda f, k, t: f"There is no '{f[2]}.{f[1]}'."),
    (r"No module named '([\w.]+)'", _module),
    (
        r"Importing '[\w.]+' is not allowed",
        lambda f, k, t: f"{f[0]}: a config that comes with weights may not name it.",
    ),
    (r"""[Kk]ey "([\w.]+)": Expected an? (?:<class ')?([\w.|\[\], ]+)(?:'>)?\. Got value: (\S+)""", _value),
    (r"following arguments are required: ((?:fit|validate|test|predict)\..*)", _required),
    (r"File does not exist: '?([^'\s]+)", _file),
    (r"[Uu]nrecognized arguments: (\S+)", _unrecognised),
]


def parameters(class_path: str) -> list[str]:
    """Names of the parameters of a function, or of a constructor and those that it hands the rest to."""
    module, name = class_path.rsplit(".", 1)
    built = getattr(import_module(module), name)
    found = [p for part in getattr(built, "__mro__", [built]) for p in signature(part).parameters.values()]
    return [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def contents(module: str) -> list[str]:
    """Public names of a module."""
    return [name for name in dir(import_module(module)) if not name.startswith("_")]


def missing_file(path: Path | str) -> str:
    """There is no such file; the nearest name beside it."""
    path = Path(path)
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"There is no file '{path}'.{near(str(path), beside + config_names())}"


def is_users(error: BaseException) -> bool:
    """Whether an error is a sentence for the user: a missing file, Lightning's refusal, or a ValueError we raised.

    A ValueError counts only where one of our own lines says ``raise``: others are bugs and keep their traceback.
    """
    if isinstance(error, FileNotFoundError) or type(error).__name__ == "MisconfigurationException":
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if not isinstance(error, ValueError) or trace is None:
        return False
    code = trace.tb_frame.f_code
    raised = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and any(Path(code.co_filename).is_relative_to(root) for root in ROOTS)


def disk_problem(error: BaseException) -> str | None:
    """What is wrong with the disk and what to do; None for other errors."""
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"there is no space left for it ({error.strerror}); make room"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"it cannot be written there ({error.strerror}); make the folder writable or take another"
    return None


SHARED_MEMORY_FULL = (
    "The shared memory (/dev/shm) through which processes that read images hand them over is full. Make it larger "
    "(docker run --shm-size=1g) or read without such processes (--data.num_workers 0), and go on from the last "
    "checkpoint (--ckpt_path)."
)


def reader_failed(error: BaseException) -> str | None:
    """The sentence for what a process which reads images has sent, or died of; None for other errors.

    All that torch hands over is text: the traceback in that process, whose last part is the message. Where Lightning
    could not start readers, its own error hides why. That a reader died is raised wherever this process happens to be,
    which may make another error of it.
    """
    text = str(error)
    sent = re.match(r"Caught (\w+) in DataLoader worker process.*^[\w.]*\1: (.+)", text, re.DOTALL | re.MULTILINE)
    if sent and sent[1] in ("Stopped", "FileNotFoundError"):
        return " ".join(sent[2].split())
    died = re.search(r"DataLoader worker \(pid.*?\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)", text)
    not_started = "iter(combined_loader)" in text and getattr(error.__context__, "errno", None) == errno.ENOSPC
    if not_started or (died and died[1] == "Bus error"):
        return SHARED_MEMORY_FULL
    if died:
        return reader_died(f" (killed by signal: {died[1]})" if died[1] else "")
    before = error.__cause__ or error.__context__
    return reader_failed(before) if before is not None else None


def reader_died(how: str = "") -> str:
    return (
        f"A process that reads images died{how}, most often because memory ran out. Take fewer of them "
        "(--data.num_workers N) or smaller batches, and go on from the last checkpoint (--ckpt_path)."
    )


def fail(message: str, code: int = 2) -> int:
    """Print the message as the last line of stderr."""
    print(f"zoo: error: {message}", file=sys.stderr)
    return code


class OneLineErrors:
    """For argument parsers: no abbreviations, and errors in one line with exit code 2."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message, ex=None):
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace("[options] ", "")
        print(f"All options: {command} --help", file=sys.stderr)
        sys.exit(fail(explain(message, parser)))
