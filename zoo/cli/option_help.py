"""How the help of a verb shows its options."""

from argparse import SUPPRESS, Action

from jsonargparse import DefaultHelpFormatter


class OptionHelp(DefaultHelpFormatter):
    """The text of each option with its default, where there is one, and without Python's types."""

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").removesuffix(".").replace("``", "'")
        has_default = action.default not in (None, SUPPRESS) and action.default is not False
        return f"{text} (default: %(default)s)" if has_default else text
