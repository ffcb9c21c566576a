"""What README.md and the systems' pages tell people to type works, and their tables are up to date."""

import functools
import itertools
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from zoo.cli.command import main
from zoo.leaderboard import update_pages

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted(ROOT.glob("configs/*/README.md")))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```\n(.*?)```", page, flags=re.S)]
LINES = dict.fromkeys(line for block in BLOCKS for line in block.splitlines() if line[:4] == "zoo ")
COMMANDS = [shlex.split(line, comments=True)[1:] for line in LINES]
NAMES = [" ".join(words) for words in COMMANDS]
# Parsed, not run: minutes, files, or network.
TOO_LONG = ("evaluate", "benchmark", "convert", "download", "push", "invert")
# Run with less to do.
LESS = {"orbit": ["--frames", "4"], "mesh": ["--cells", "24"]}


def test_there_are_commands() -> None:
    assert {words[0] for words in COMMANDS} >= {"fit", "sample", "orbit", "evaluate", "leaderboard", "list"}


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_command(words: list[str], tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "fit":
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--print_config"])
        assert stopped.value.code == 0
    elif words[0] in TOO_LONG:
        called = []
        verb = import_module(f"zoo.cli.{words[0]}")
        monkeypatch.setattr(verb, "run", functools.wraps(verb.run)(lambda **options: called.append(options)))
        assert main(words) == 0 and called
    else:
        assert main([*words, *LESS.get(words[0], [])]) == 0
        out = [word for flag, word in itertools.pairwise(words) if flag in ("--out", "--images")]
        assert all(Path(path).exists() for path in out)


def test_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict = {}
    exec(code, names)
    assert names["rendered"].image.shape == (3, 3, 64, 64)


def test_tables_are_up_to_date(tmp_path) -> None:
    for page in [ROOT / "README.md", *ROOT.glob("configs/*/README.md")]:
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(page.read_text())
    assert update_pages(tmp_path) == []
