"""What jsonargparse's parsers say, in one sentence, and the private parts of them that we touch.

The parser raises its errors from one another, from the option that was given down to what is wrong with it, and tells
in each everything that it tried. A sentence of ours among them is what the user reads. Of the rest, the texts that
users meet most are translated here, and others are cut.
"""

import os
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Literal, get_args, get_origin

from zoo.utils.errors import fail, mendable, missing_file, near, printable
from zoo.utils.paths import config_names, config_path, overlay_names
from zoo.utils.user_code import whose

LONGEST = 280  # characters of a sentence
# Beside what the parser denies of Python's own library.
HARMFUL = """
    torch.save torch.load torch.serialization torch.hub torch.jit torch.package torch.export torch.onnx
    torch.multiprocessing torch.utils.cpp_extension torch.utils.model_zoo numpy.save numpy.savez
    numpy.savez_compressed numpy.savetxt numpy.load numpy.loadtxt numpy.fromfile numpy.memmap numpy.lib
    safetensors huggingface_hub PIL joblib dill cloudpickle yaml
"""
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "a mapping (name: value)",
    "list": "a list",
    "tuple": "a list",
    "None": "null",
}
PLACES = ("zoo", "zoo.render", "zoo.training", "datamodules")  # of classes that options name
OWN_IMAGES = "Images of your own are --data datamodules.ImageFolder --data.path"
PLAIN_VALUES = {"None": "null", "True": "true", "False": "false"}


class ParsedOnce:
    """For argument parsers: do not parse the values of an object within a config again and again.

    At each level of a config the parser would parse all that is below it three times, which gives the same, and half
    of the time until a training starts went into that.
    """

    def parse_object(self, obj, namespace=None, env=None, **options):
        if namespace == obj:
            namespace = None  # equal values need no merging
        if namespace is None and options.get("defaults"):  # said only of an object within another
            # They are there from the start then, and need not be added to all objects in this one once more.
            namespace, options["defaults"] = self.get_defaults(skip_validation=True), False
        return super().parse_object(obj, namespace, env, **options)


class OneLineErrors(ParsedOnce):
    """For argument parsers: no abbreviations, and errors in one line with exit code 2."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})
        self.words: list[str] = []

    def parse_args(self, args=None, *others, **kwargs):
        self.words = [str(word) for word in args or []]
        return super().parse_args(args, *others, **kwargs)

    def error(self, message, ex=None):
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace("[options] ", "")
        command += f" {self.words[0]}" if " " not in command and self.words else ""  # nothing but a verb of the trainer
        print(f"All options: {command} --help", file=sys.stderr)
        sys.exit(fail(explain(message, ex, parser, self.words)))


def option_names(parser: ArgumentParser) -> list[str]:
    """Names of a parser's options, with dots between their parts; only the private ``_actions`` has them."""
    return [action.dest for action in parser._actions]


def required_names(parser: ArgumentParser) -> list[str]:
    """Names of the options that must be given."""
    return [action.dest for action in parser._actions if action.required]


def show_plainly(parser: ArgumentParser) -> None:
    """For the help of a parser: switches have no value, as they are used, and all choices are shown."""
    for action in parser._actions:
        type_ = getattr(action, "_typehint", None)
        choices = [name for one in (type_, *get_args(type_)) if get_origin(one) is Literal for name in get_args(one)]
        if choices:
            action.metavar = f"{{{','.join(choices)}}}"
        elif type_ is bool and not action.default:
            action.nargs = 0


@contextmanager
def allowed_imports(packages: list[str]) -> Iterator[None]:
    """Inside, a parsed value that names something outside these packages is an error.

    What is allowed can be set, but not read, in public; afterwards it is as it was.
    """
    from jsonargparse import _common, set_parsing_settings

    before = dict(_common.parsing_settings)
    packages = [name for name in packages if not _common.denying_import_path_entry(name)]  # would undo that
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=packages)
    try:
        yield
    finally:
        _common.parsing_settings.update(before)


def refuse_imports_that_do_harm() -> None:
    """From now on, no option may name what runs programs or touches files: the parser's own list, a warning so far."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(import_path_denylist=HARMFUL.split())  # has all of the parser's own enforced, too


def explain(
    message: str,
    error: BaseException | None = None,
    parser: ArgumentParser | None = None,
    words: list[str] | None = None,
) -> str:
    """One sentence for what a parser could not read.

    Args:
        message: the parser's.
        error: what it comes from.
        parser: whose options there are.
        words: the command line.
    """
    if sentence := mendable(error):
        return sentence
    texts = list(dict.fromkeys(causes(error)))
    if sentence := wrong_value(texts, words or []) or missing_value(texts, is_typed=words is not None):
        return sentence
    text = " ".join(message.split())
    if found := re.search(r"argument (\S+): expected (?:one|at least one) argument", text):
        return f"{without_value(found[1], words or [])} needs a value."
    for pattern, answer in PATTERNS:
        if found := list(re.finditer(pattern, text)):
            return answer(found[-1], option_names(parser) if parser is not None else [], text)
    return shortened(text)


def shortened(text: str) -> str:
    """In one line, and not longer than a reader takes in."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} ..."


def causes(error: BaseException | None) -> Iterator[str]:
    """Texts of an error and of those that it was raised from, down to the first one."""
    while error is not None:
        yield str(error).strip()
        error = error.__cause__


def wrong_value(texts: list[str], words: list[str]) -> str | None:
    """The sentence for a value that is not of its option's type, whose errors these are; None for anything else."""
    keys = [(depth, found[1]) for depth, text in enumerate(texts) if (found := re.match(r'Parser key "(\S+)"', text))]
    if not keys or not (found := next((f for p in WRONG if (f := re.match(p, texts[-1], re.DOTALL))), None)):
        return None
    not_there = rf"class_path '{re.escape(found['value'].strip())}':\s+(No module|module \S+ has no|cannot import)"
    if any(re.search(not_there, text) for text in texts):
        return None
    value, type_ = found["value"].strip(), found.groupdict().get("type") or "the import path of a class"
    if nested := re.match(r"NestedArg\(key='([\w.]+)', val=(.*)\)", value):
        return shortened(f"{full_name([key for _, key in keys], words)} does not take {nested[2]} for its {nested[1]}.")
    value = named[1] if (named := re.match(r"Namespace\(class_path='([\w.]+)'", value)) else value
    for text in texts[keys[-1][0] :]:  # of several types, each was tried
        if "base" not in found.groupdict() and (several := re.search(r"Subtypes: \[(.*)\]\nErrors", text)):
            type_ = several[1]
            break
    if base := found.groupdict().get("base"):
        type_ = base.rsplit(".", 1)[-1]
    value, type_ = PLAIN_VALUES.get(value, value), plain_type(type_)
    hint = near_class(value) if "import path of a" in type_ else ""
    if type_ == "a list" and value[:1] not in ("[", "{"):
        hint = f" A list of it alone is '[{value}]'."
    if type_ == "a text" and value.startswith("{"):
        hint = " A text with a colon and a blank needs quotes of its own, as in '\"a: b\"'."
    if "LightningDataModule" in type_ and os.path.isdir(value):
        hint = f" {OWN_IMAGES} {shlex.quote(value)}."
    return shortened(f"{full_name([key for _, key in keys], words)} must be {type_}, not '{value}'.{hint}")


def missing_value(texts: list[str], is_typed: bool) -> str | None:
    """The sentence for a class that was not given all that it needs; None for anything else.

    Args:
        texts: of the errors.
        is_typed: whether options were read, not the config of one object.
    """
    found = texts and re.fullmatch(r"the following arguments are required: (.*)", texts[-1])
    classes = [name for text in texts for name in re.findall(r"(?:given |Namespace\()class_path[ =]'([\w.]+)'", text)]
    if not found or not classes:
        return None
    if not is_typed:
        return f"{classes[-1]} needs {found[1]}: give it as one of the init_args in a yaml."
    keys = [key for text in texts for key in re.findall(r'^Parser key "(\S+)"', text)]
    missing = ", ".join(f"--{full_name([*keys, name], [])}" for name in found[1].split(", "))
    return f"{classes[-1]} needs {found[1]}: give {missing}."


WRONG = [
    r"Expected an? (?P<type>.+?)\. Got value: (?P<value>.*)",
    r"Import path (?P<value>\S+) does not (?:correspond to a subclass of|implement protocol) (?P<base>\S+)",
    r"Not a valid subclass of (?P<base>[\w.]+)\. Got value: (?P<value>.*?)(?:\n|$)",
    r"Expected a dot import path string: (?P<value>.*)",
    r"Expected '(?P<value>\S+)' to be a (?:function that returns|subclass of) <class '(?P<base>\S+?)'>",
    r"no signature found for builtin <built-in (?:method|function) (?P<value>\w+)",
]


def plain_type(type_: str) -> str:
    """A type as Python shows it, in words: ``<class 'float'>`` is 'a number'."""
    parts = re.split(r", (?![^\[]*\])", re.sub(r"<class '(?:\w+\.)*(\w+?)(?:Type)?'>", r"\1", type_))
    parts = [re.sub(r"\b(?:[a-z_]\w*\.)+(\w)", r"\1", part) for part in parts]
    parts = [re.sub(r"^(dict|list|tuple)\[.*\]$", r"\1", part) for part in parts]
    parts = [re.sub(r"^Literal\[(.*)\]$", r"one of \1", part) for part in parts]
    parts = ["the import path of a function" if part.startswith("Callable[") else part for part in parts]
    classes = {
        part: f"the import path of {'an' if part[0] in 'AEIO' else 'a'} {part}"
        for part in parts
        if re.fullmatch(r"[A-Z]\w*", part)
    } | TYPES
    return " or ".join(dict.fromkeys(classes.get(part, part) for part in parts if part != "Tensor"))


def full_name(keys: list[str], words: list[str]) -> str:
    """The option, as it was typed, or as a config has it: the parser names only its last part."""
    *outer, last = ".".join(keys).split(".")
    for word in reversed(words):
        *parts, final = word.partition("=")[0].removesuffix("+").removeprefix("--").split(".")
        left = iter(parts)
        if word.startswith("--") and final == last and all(key in left for key in outer):
            return "--" + ".".join([*parts, final])
    return ".".join(keys)


def without_value(option: str, words: list[str]) -> str:
    """The option that was typed without a value: the parser names only its first part."""
    bare = (word for word, after in pairwise([*words, "--"]) if after.startswith("--") and "=" not in word)
    return next((word for word in bare if word == option or word.startswith(f"{option}.")), option)


def near_class(name: str) -> str:
    """A hint at the class or function of nearly this name, which was typed without its module, in whatever case."""
    if not name.isidentifier():
        return ""
    found = {}
    for module in PLACES:
        for inside in contents(module):
            if callable(getattr(import_module(module), inside)):
                found.setdefault(inside.lower(), f"{module}.{inside}")
    close = get_close_matches(name.lower(), found, n=1)
    return f" Did you mean '{found[close[0]]}'?" if close else ""


def _option(found: re.Match, keys: list[str], text: str) -> str:
    name = found[1]
    classes = re.findall(r"given class_path '([\w.]+)'", text[: found.start()])
    if classes:
        hint = near(name, parameters(classes[-1]))
        if name == "path" and classes[-1].startswith("datamodules."):
            hint = f" {OWN_IMAGES} FOLDER."
        return f"{classes[-1]} has no option '{name}'.{hint}"
    return f"There is no option '{name}'.{near(name, keys)}"


def _module(found: re.Match, keys: list[str], text: str) -> str:
    first, *inner = found[1].split(".")
    if inner and (said := whose(first)):
        return f"There is no module '{found[1]}': {said}"
    hint = near(found[1].split(".")[-1], ["zoo", "datamodules", "callbacks"])
    return f"There is no module '{found[1]}' in the working folder or among what is installed.{hint}"


def _denied(found: re.Match, keys: list[str], text: str) -> str:
    if found[2] == "*":
        return (
            f"Importing '{found[1]}' is not allowed: a config that comes with weights may only name classes of zoo. "
            f"If it is your own code, set the environment variable ZOO_TRUST={found[1].split('.')[0]}."
        )
    return f"'{found[1]}' runs programs or code, or touches files: options and configs may not name it."


def _required(found: re.Match, keys: list[str], text: str) -> str:
    names = re.sub(r"(fit|validate|test|predict)\.", "", found[1])
    return f"Missing: {names}. An experiment gives model and data (-c CONFIG.yaml, see 'zoo list')."


def _unrecognised(found: re.Match, keys: list[str], text: str) -> str:
    if not found[1].startswith("-"):
        word = printable(found[1], 60)
        is_config = "trainer.max_steps" in keys and (config_path(found[1]) or found[1].endswith(".yaml"))
        return f"'{word}' is one value too many" + (f": give an experiment as -c {word}." if is_config else ".")
    name = printable(found[1].split("=")[0].lstrip("-"), 60)
    longer = [key for key in keys if key.startswith(f"{name}_") or key.endswith(f".{name}")]
    if hint := near(name, keys) or (longer and f" Did you mean '{longer[0]}'?"):
        return f"There is no option '--{name}'.{hint}".replace("mean '", "mean '--")
    if "trainer.max_steps" in keys and "." not in name:
        begin = "'--model.', '--data.' and '--trainer.'"
        return f"There is no option '--{name}': those of the model, the data and the trainer begin with {begin}."
    return f"There is no option '--{name}'."


PATTERNS = [
    (r"Option '([\w.]+)' is not accepted", _option),
    (r"does not accept option '([\w.+]+)'", _option),
    (r"module '([\w.]+)' has no attribute '(\w+)'", lambda f, k, t: no_such(f[1], f[2])),
    (r"cannot import name '(\w+)' from '([\w.]+)'", lambda f, k, t: no_such(f[2], f[1])),
    (r"No module named '([\w.]+)'", _module),
    (r"Importing '([\w.]+)' is not allowed, denied by the '(\S+)' entry", _denied),
    (r"following arguments are required: ((?:fit|validate|test|predict)\..*)", _required),
    (r"following arguments are required: (.*)", lambda f, k, t: f"Missing: {f[1]}."),
    (r"File does not exist: '?([^'\s]+)", lambda f, k, t: missing_file(f[1], [*config_names(), *overlay_names()])),
    (r"[Uu]nrecognized arguments: (\S+)", _unrecognised),
]


def no_such(module: str, name: str) -> str:
    """That a module has nothing of this name, and where it may be."""
    said = whose(module)
    return f"There is no '{module}.{name}'" + (f": {said}" if said else f".{near(name, contents(module))}")


def parameters(class_path: str) -> list[str]:
    """Names of the parameters of a function, or of a constructor and those that it hands the rest to."""
    module, name = class_path.rsplit(".", 1)
    built = getattr(import_module(module), name)
    found = [p for part in getattr(built, "__mro__", [built]) for p in signature(part).parameters.values()]
    return [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def contents(module: str) -> list[str]:
    """Public names of a module."""
    return [name for name in dir(import_module(module)) if not name.startswith("_")]
