"""What README.md tells people to type works."""

import functools
import itertools
import re
import shlex
from pathlib import Path

import pytest

from zoo import verbs
from zoo.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", README, flags=re.S)
COMMANDS = [
    shlex.split(line, comments=True)[1:] for block in BLOCKS for line in block.splitlines() if line[:4] == "zoo "
]
NAMES = [" ".join(words) for words in COMMANDS]


def test_there_are_commands() -> None:
    assert {words[0] for words in COMMANDS} >= {"fit", "sample", "orbit", "evaluate", "leaderboard", "list"}


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_command(words: list[str], tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "fit":
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--print_config"])
        assert stopped.value.code == 0
    elif words[0] == "evaluate":  # parsed, but not run: it renders thousands of cars
        called = []
        stand_in = functools.wraps(verbs.evaluate)(lambda **options: called.append(options))
        monkeypatch.setattr(verbs, "evaluate", stand_in)
        assert main(words) == 0 and called
    else:
        assert main(words) == 0
        out = [word for flag, word in itertools.pairwise(words) if flag in ("--out", "--images")]
        assert all(Path(path).exists() for path in out)


def test_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict = {}
    exec(code, names)
    assert names["rendered"].image.shape == (3, 3, 64, 64)
