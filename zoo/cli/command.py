"""The ``zoo`` command.

``fit``, ``validate``, ``test`` and ``predict`` are Lightning's command line (``zoo.cli.lightning``); every other verb
is the plain typed function ``run`` of the module here that has its name: its parameters are the options, its docstring
the help. Nothing heavy is imported before it is needed, so that help comes at once: what is heavy is imported inside,
after the options were parsed.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise

from zoo.utils.errors import Stopped, disk_problem, fail, is_users, mendable, near, reader_failed
from zoo.utils.memory import keep_freed_memory
from zoo.utils.parser import OneLineErrors, required_names

TRAINING = {
    "fit": "train a model: zoo fit -c CONFIG.yaml",
    "validate": "measure a model on the validation images",
    "test": "measure a model on the test images",
    "predict": "render samples with the trainer, on many devices",
}
VERBS = {
    "list": "names of weights and experiments",
    "sample": "render a grid of samples from several sides, or one file per sample",
    "orbit": "render a video of objects from all sides, image beside depth (GIF, WebP or MP4)",
    "mesh": "write objects as coloured surfaces (PLY or GLB)",
    "invert": "GAN inversion: reproduce your image with a generator, and show it from all sides",
    "evaluate": "score weights, or a folder of images, against real images",
    "leaderboard": "print the table of scores",
    "benchmark": "time rendering or training of an experiment",
    "bundle": "write the weights of a checkpoint for others to use",
    "download": "fetch published weights by name, check and convert them",
    "convert": "turn a published checkpoint into a weights bundle, running nothing in it",
    "push": "copy a weights bundle to the Hugging Face Hub",
}
TRAINING_HELP = """\
usage: zoo {verb} -c CONFIG.yaml [-c OVERLAY.yaml ...] [--KEY VALUE ...]

{summary}

  -c CONFIG.yaml              an experiment or overlay, a file or a name that 'zoo list' shows; the last one wins
  --trainer.max_steps N       stop after so many iterations
  --trainer.devices N         processes or GPUs
  --trainer.accelerator NAME  cpu or gpu
  --trainer.default_root_dir DIR
                              where everything is written (default: runs/<name of the first config>)
  --trainer.callbacks+=NAME   add a callback, e.g. callbacks.samples.SampleGrid
  --data CLASS                where images come from, e.g. datamodules.ImageFolder; then --data.path DIR
  --model.KEY VALUE           any parameter of the model
  --checkpoint.every N        iterations between two checkpoints (default: 1000)
  --checkpoint.keep_every N   iterations between two checkpoints that are kept (default: none)
  --checkpoint.best NAME      score whose best checkpoint is kept (default: fid, the first FID; null for none)
  --ckpt_path FILE            resume from this checkpoint; options given here override those it was saved with
  --estimate                  time a few iterations of each stage, print parameters, memory and hours, and stop
  --init_from NAME|FILE       start from the weights of a bundle or .ckpt (finetuning)
  --init_fresh "[PART,...]"   parts that do not start from them, e.g. [discriminator.final]
  --print_config              print all values and stop; the output is a config
  --model.help [CLASS], --data.help [CLASS]
                              parameters of a class
  --help-all                  every option of Lightning's trainer, too
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Errors of the user end in one line on stderr and code 2, failures in training with code 1, an interrupted run with
    128 and the signal's number; a bug keeps its traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    verb, *rest = argv
    if verb not in TRAINING | VERBS:
        return fail(f"There is no verb '{verb}'.{near(verb, [*TRAINING, *VERBS])} 'zoo --help' lists them.")
    keep_freed_memory()
    try:
        return train(verb, rest) if verb in TRAINING else call(verb, rest)
    except BrokenPipeError:  # the reader of our output, such as head, has ended
        return 1
    except Exception as error:
        if sentence := reader_failed(error):
            return fail(sentence, 1)
        if isinstance(error, Stopped):
            if error.silent and started_by_trainer():
                return 0
            if not error.silent:
                print(error if error.code > 128 else f"zoo: error: {error}", file=sys.stderr)
            return error.code
        if (problem := disk_problem(error)) and error.filename:
            return fail(f"'{error.filename}': {problem}.", 1)
        if sentence := mendable(error):
            return fail(sentence)
        if not is_users(error):
            raise
        return fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        return fail("Interrupted.", 130)


def started_by_trainer() -> bool:
    """Whether the trainer of another process started this one. That one watches it and kills everything, itself too,
    when it ends with an error; so the exit code of a run that was stopped in good order is the first process's."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and "TORCHELASTIC_RUN_ID" not in os.environ


def overview() -> str:
    """The text of ``zoo --help``."""
    lines = [f"  {name:<12} {summary}" for name, summary in (TRAINING | VERBS).items()]
    return "\n".join(
        [
            "usage: zoo VERB ...",
            "",
            "3D-aware GANs on one renderer.",
            "",
            *lines,
            "",
            "zoo VERB --help lists its options.",
        ]
    )


def train(verb: str, rest: list[str]) -> int:
    """Run a verb of Lightning's command line."""
    if "-h" in rest or "--help" in rest:
        print(TRAINING_HELP.format(verb=verb, summary=TRAINING[verb]), end="")
        return 0
    from zoo.cli.lightning import run

    run([verb, *("--help" if a == "--help-all" else a for a in rest)])
    return 0


def call(verb: str, rest: list[str]) -> int:
    """Parse the options of a verb's function and call it."""
    from jsonargparse import ArgumentParser

    class Parser(OneLineErrors, ArgumentParser):
        pass

    function: Callable = import_module(f"zoo.cli.{verb}").run
    parser = Parser(prog=f"zoo {verb}", description=(function.__doc__ or "").split("\n\n")[0])
    for_help = bool({"-h", "--help"} & {*rest})
    names = parser.add_function_arguments(function, as_group=False, as_positional=for_help)
    rest = with_underscores(rest, names)
    switches = {f"--{name}" for name, default in parser.get_defaults().items() if isinstance(default, bool)}
    rest = [
        f"{word}=true" if word in switches and after not in ("true", "false") else word
        for word, after in pairwise([*rest, ""])
    ]
    named = {word.split("=")[0] for word in rest}
    required = required_names(parser) or names[:1]  # 'zoo list pigan*'
    function(**parser.parse_args(with_names(rest, [name for name in required if f"--{name}" not in named])).as_dict())
    return 0


def with_underscores(words: list[str], names: list[str]) -> list[str]:
    """The arguments, with underscores in the names of options: ``--beside-load`` is ``--beside_load``."""
    known = {f"--{name.replace('_', '-')}": f"--{name}" for name in names}
    known["--from"] = "--from_file"  # a keyword of Python
    parts = (word.partition("=") for word in words)
    return ["".join((known.get(option, option), *rest)) for option, *rest in parts]


def with_names(words: list[str], names: list[str]) -> list[str]:
    """The arguments, with these names before positional values."""
    left, previous, result = iter(names), "", []
    for word in words:
        has_name = word.startswith("-") or (previous.startswith("--") and "=" not in previous)
        name = None if has_name else next(left, None)
        result += [word] if name is None else [f"--{name}", word]
        previous = word
    return result
