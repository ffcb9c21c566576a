"""The ``zoo`` command.

``fit``, ``validate``, ``test`` and ``predict`` are Lightning's command line (``zoo.cli.lightning``); every other verb
is the plain typed function ``run`` of the module here that has its name, and a verb of two words the function of the
second word in the module of the first: its parameters are the options, its docstring the help. Nothing heavy is
imported before it is needed, so that help comes at once: what is heavy is imported inside, after the options were
parsed.
"""

import os
import sys
import time
from collections.abc import Callable
from errno import ENAMETOOLONG
from importlib import import_module
from itertools import pairwise
from typing import Any

from zoo.cli.help import TRAINING, VERBS, of_two_words, overview, training_help, version
from zoo.utils.errors import Stopped, UserError, disk_problem, fail, mendable, near, printable, reader_failed
from zoo.utils.memory import out_of_memory
from zoo.utils.parser import OneLineErrors, required_names, show_plainly
from zoo.utils.user_code import PACKAGES, own_packages_first, trusted, whose, working_folder_last

PATIENCE = 10.0  # seconds between two processes of a run which meet the same error


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Errors of the user end in one line on stderr and code 2, failures in training with code 1, an interrupted run with
    128 and the signal's number; a bug keeps its traceback.
    """
    own_packages_first()
    first = os.getppid()  # where a trainer started this process
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        print(f"gan3d-zoo {version()}")
        return 0
    verb, *rest = argv
    if several := of_two_words(verb):
        if not rest or rest[0] in ("-h", "--help"):
            print("\n".join([f"usage: zoo {verb} VERB ...", "", *several]))
            return 0
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    rest = [with_home(word) for word in rest]
    if verb not in VERBS:
        return fail(f"There is no verb '{printable(verb, 80)}'.{near(verb, list(VERBS))} 'zoo --help' lists them.")
    try:
        if trusted():
            working_folder_last()
        return train(verb, rest) if verb in TRAINING else call(verb, rest)
    except BrokenPipeError:  # the reader of our output, such as head, has ended
        return 1
    except Exception as error:
        if isinstance(error, Stopped) and error.silent:
            return 0 if started_by_trainer() else error.code
        if (answer := answer_to(error, verb)) is None:
            raise
        sentence, code = answer
        if started_by_trainer() and has_ended(first):
            return code
        if code <= 128:
            return fail(sentence, code)
        print(sentence, file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return fail("Interrupted.", 130)


def answer_to(error: Exception, verb: str) -> tuple[str, int] | None:
    """What to say of an error, and the exit code; None of a bug."""
    if sentence := reader_failed(error):
        return sentence, 1
    if isinstance(error, Stopped):
        return str(error), error.code
    if place := out_of_memory(error):
        lower = f": lower {' or '.join(options)}" if (options := sizes(verb)) else ""
        return f"There is not enough memory on {place} for this{lower}.", 2
    if (problem := disk_problem(error)) and error.filename:
        is_users = isinstance(error, PermissionError) or error.errno == ENAMETOOLONG
        return f"'{printable(error.filename, 120)}': {problem}.", 2 if is_users else 1
    return (sentence, 2) if (sentence := mendable(error)) else None


def has_ended(process: int) -> bool:
    """Whether the process that started this one ends within some seconds: then it met the same error, and said so."""
    end = time.monotonic() + PATIENCE
    while os.getppid() == process and time.monotonic() < end:
        time.sleep(0.1)
    return os.getppid() != process


def started_by_trainer() -> bool:
    """Whether the trainer of another process started this one. That one watches it and kills everything, itself too,
    when it ends with an error; so the exit code of a run that was stopped in good order is the first process's."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and "TORCHELASTIC_RUN_ID" not in os.environ


def train(verb: str, rest: list[str]) -> int:
    """Run a verb of Lightning's command line."""
    if "-h" in rest or "--help" in rest:
        print(training_help(verb))
        return 0
    working_folder_last()
    for name in PACKAGES:
        if not started_by_trainer() and (said := whose(name)):
            print(f"zoo: {said}", file=sys.stderr)
    from zoo.cli.lightning import run

    run([verb, *("--help" if a == "--help-all" else a for a in rest)])
    return 0


def call(verb: str, rest: list[str]) -> int:
    """Parse the options of a verb's function and call it."""
    function, parser, names = parser_of(verb, as_positional=bool({"-h", "--help"} & {*rest}))
    rest = with_underscores(rest, names)
    refuse_empty(rest)
    switches = {f"--{name}" for name, default in parser.get_defaults().items() if isinstance(default, bool)}
    rest = [
        f"{word}=true" if word in switches and after not in ("true", "false") else word
        for word, after in pairwise([*rest, ""])
    ]
    named = {word.split("=")[0] for word in rest}
    required = required_names(parser) or names[:1]  # 'zoo list pigan*'
    function(**parser.parse_args(with_names(rest, [name for name in required if f"--{name}" not in named])).as_dict())
    return 0


def parser_of(verb: str, as_positional: bool = False) -> tuple[Callable, Any, list[str]]:
    """The function of a verb, the parser of its options, and their names."""
    from jsonargparse import ArgumentParser

    from zoo.cli.option_help import OptionHelp

    class Parser(OneLineErrors, ArgumentParser):
        pass

    module, _, name = verb.partition(" ")
    function: Callable = getattr(import_module(f"zoo.cli.{module}"), name or "run")
    description = (function.__doc__ or "").split("\n\n")[0]
    texts = {"description": description, "epilog": f"example: {VERBS[verb].example}"}
    parser = Parser(prog=f"zoo {verb}", formatter_class=OptionHelp, **texts)
    names = parser.add_function_arguments(function, as_group=False, as_positional=as_positional)
    if as_positional:
        show_plainly(parser)
    return function, parser, names


def sizes(verb: str) -> list[str]:
    """Options that a verb's need of memory grows with."""
    if verb in TRAINING:
        return ["--data.batch_size", "--data.resolution"]
    names = [name for name in parser_of(verb)[2] if (verb, name) != ("evaluate", "resolution")]  # of a folder only
    known = ("resolution", "cells", "batch_size", "batch", "samples", "views", "frames", "seeds", "real_count")
    return [f"--{name}" for name in known if name in names]


def with_home(word: str) -> str:
    """An argument with the user's home for a ~ before its value; shells leave it where it is, as in --out=~/car.png."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}"


def with_underscores(words: list[str], names: list[str]) -> list[str]:
    """The arguments, with underscores in the names of options: ``--beside-load`` is ``--beside_load``."""
    known = {f"--{name.replace('_', '-')}": f"--{name}" for name in names}
    known["--from"] = "--from_file"  # a keyword of Python
    parts = (word.partition("=") for word in words)
    return ["".join((known.get(option, option), *rest)) for option, *rest in parts]


def refuse_empty(words: list[str]) -> None:
    """Refuse an argument without a character: as a path, it would be the working folder.

    Raises:
        UserError: says which.
    """
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=")
        if not word or (word.startswith("--") and equals and not value):
            name = option or (before if before.startswith("--") and "=" not in before else "An argument")
            raise UserError(f"{name} is empty: give a value, or leave it out.")


def with_names(words: list[str], names: list[str]) -> list[str]:
    """The arguments, with these names before positional values."""
    left, previous, result = iter(names), "", []
    for word in words:
        has_name = word.startswith("-") or (previous.startswith("--") and "=" not in previous)
        name = None if has_name else next(left, None)
        result += [word] if name is None else [f"--{name}", word]
        previous = word
    return result
