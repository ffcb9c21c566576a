"""What zoo --help and zoo completion print."""

import os
import re
import subprocess

import pytest

from zoo.cli.command import main
from zoo.cli.completion import script
from zoo.cli.help import GROUPS, TRAINING, VERBS, overview


def test_every_verb_is_in_one_group_of_the_help_and_has_an_example():
    assert list(GROUPS) == ["train", "look", "measure", "weights", "data", "shell"]
    assert len(VERBS) == sum(len(verbs) for verbs in GROUPS.values())
    for name, verb in VERBS.items():
        assert re.search(f"^  {name} +", overview(), re.MULTILINE)
        assert verb.example.removeprefix('eval "$(').startswith(f"zoo {name} ")


@pytest.mark.parametrize("verb", ["fit", "sample"])
def test_the_help_of_a_verb_ends_with_an_example(verb, capsys):
    try:
        assert main([verb, "--help"]) == 0 and verb in TRAINING
    except SystemExit as stop:
        assert stop.code == 0
    assert capsys.readouterr().out.rstrip().endswith(f"example: {VERBS[verb].example}")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"gan3d-zoo (\d+\.\d+\.\d+|\(not installed\))\n", capsys.readouterr().out)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "zoo.bash"
    file.write_text(script("bash"))
    return file


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["zoo", "ben"], {"benchmark"}),
        (["zoo", "l"], {"list", "leaderboard"}),
        (["zoo", "data", "cam"], {"cameras"}),
        (["zoo", "data", "cameras", "--res"], {"--resolution"}),
        (["zoo", "sample", "--see"], {"--seeds", "--seed"}),
        (["zoo", "orbit", "--path", "w"], {"wobble"}),
        (["zoo", "fit", "--init"], {"--init_from", "--init_fresh"}),
        (["zoo", "completion", "--shell", ""], {"bash", "zsh"}),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else " ".join(value),
)
def test_bash_completes_verbs_and_options(words, found, printed):
    assert subprocess.run(["bash", "-n", printed], capture_output=True).stderr == b""
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"source {printed}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_zoo zoo '{words[-1]}'"
    environment = {**os.environ, "TERM": "dumb"}
    done = subprocess.run(
        ["bash", "-c", code + '; printf "%s\\n" "${COMPREPLY[@]}"'], env=environment, capture_output=True, text=True
    )
    assert found == set(done.stdout.split()), done.stderr


def test_zsh_gets_a_script_of_its_own(capsys):
    assert main(["completion", "zsh"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("#compdef zoo\n") and '"--beside_load[' in said
