"""``zoo completion``."""

from typing import Any, Literal

from zoo.cli.help import TRAINING, VERBS, training_options


def run(shell: Literal["bash", "zsh"]) -> None:
    """Print a script with which a shell completes verbs and options.

    Args:
        shell: bash (put ``eval "$(zoo completion bash)"`` into ~/.bashrc) or zsh (write it to a file _zoo in $fpath).
    """
    print(script(shell))


def script(shell: str) -> str:
    """The script, by the parser's own support for it."""
    import shtab
    from jsonargparse import ArgumentParser

    from zoo.cli.command import parser_of

    parser = ArgumentParser(prog="zoo")
    verbs = parser.add_subcommands(required=False)
    of_first: dict[str, Any] = {"": verbs}  # those of two words are subcommands of the first
    for name, verb in VERBS.items():
        first, _, last = name.rpartition(" ")
        if first not in of_first:
            verbs.add_subcommand(first, several := ArgumentParser(prog=f"zoo {first}", description=f"{first} ..."))
            of_first[first] = several.add_subcommands(required=False)
        if name in TRAINING:  # those of Lightning are hundreds, of every class that could be named
            options = ArgumentParser(prog=f"zoo {name}")
            options.add_argument("-c", "--config").complete = shtab.FILE
            for option in training_options():
                options.add_argument(option).complete = shtab.FILE
        else:
            _, options, _ = parser_of(name)
        of_first[first].add_subcommand(last, options, help=verb.summary)
    return parser.get_completion_script(f"shtab-{shell}")
