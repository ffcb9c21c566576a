"""What the documentation tells people to type works, its links lead somewhere, and its tables are up to date."""

import ast
import csv
import functools
import itertools
import re
import shlex
from importlib import import_module
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from zoo.cli.command import main
from zoo.cli.help import TRAINING, VERBS
from zoo.leaderboard import PUBLISHED, RESULTS, read, update_pages
from zoo.utils.paths import config_path
from zoo.weights.catalogue import released

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("configs/*/README.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SYSTEMS = {entry.system for entry in released().values()}
TUTORIALS = [ROOT / f"docs/{name}.md" for name in ("adding-a-system", "adding-a-renderer", "extending")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, *languages: str) -> list[str]:
    """What the fences of these languages hold."""
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def commands(page: Path) -> list[list[str]]:
    """Words of all commands of ``zoo`` in the shell blocks of a page, without ``zoo``."""
    lines = (line for block in blocks(page, "bash", "") for line in block.splitlines())
    found = [
        re.sub(r"^(srun zoo|torchrun .*-m zoo|python -m zoo|zoo) ", "zoo ", line.partition(" > ")[0]) for line in lines
    ]
    return [shlex.split(line, comments=True)[1:] for line in found if line.startswith("zoo ")]


def write_files(folder: Path) -> None:
    """The files of the tutorials, whose first lines are their names."""
    for text in (text for page in TUTORIALS for text in blocks(page, "python", "yaml")):
        (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)


COMMANDS = {" ".join(words): words for page in PAGES for words in commands(page)}
FITS = [words for words in COMMANDS.values() if words[0] in TRAINING]
OTHERS = [words for words in COMMANDS.values() if words[0] not in TRAINING]


def verb_of(words: list[str]) -> str:
    """The first word, or both of a verb of two words."""
    return " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]


def merged(all_words: list[list[str]]) -> list[list[str]]:
    """Commands that have all options of these; those of one experiment that do not change the data are one command.

    All experiments and overlays are parsed by tests/test_configs.py.
    """
    chosen, seen, together = [], {"fit", "-c"}, ["fit", "-c", "pigan/cars32"]
    for words in sorted(all_words, key=lambda words: -len(words)):
        options = {words[0], *(word.split("=")[0] for word in words if word.startswith("-"))}
        if not options - seen:
            continue
        seen |= options
        if words[:3] == together[:3] and "--data" not in words:
            together += words[3:]
        else:
            chosen.append(words)
    return [together, *chosen]


# Run, with less to do; all others are parsed by the real parser.
RUN = {"list": [], "leaderboard": [], "sample": ["--seeds", "0"], "orbit": ["--frames", "3"], "mesh": ["--cells", "24"]}


def test_there_are_commands_of_every_verb() -> None:
    assert {verb_of(words) for words in COMMANDS.values()} == {*VERBS}


@pytest.mark.parametrize("words", FITS, ids=" ".join)
def test_the_configs_of_a_command_exist(words: list[str]) -> None:
    names = [name for flag, name in itertools.pairwise(words) if flag == "-c"]
    assert names and all(config_path(name) or name in ("toy.yaml", "splats.yaml", "config.yaml") for name in names)


@pytest.mark.parametrize("words", merged(FITS), ids=" ".join)
def test_training_command(words: list[str], beside) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--print_config"])
    assert stopped.value.code in (0, None)


def test_other_commands_parse(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for words in OTHERS:
        module, called = import_module(f"zoo.cli.{words[0]}"), []
        name = verb_of(words).partition(" ")[2] or "run"
        with monkeypatch.context() as patched:
            run = functools.wraps(getattr(module, name))(lambda called=called, **options: called.append(options))
            patched.setattr(module, name, run)
            assert main(words) == 0 and called, words


@pytest.mark.parametrize("verb", RUN)
def test_the_first_command_of_a_verb_runs(verb: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = next(words for words in commands(ROOT / "README.md") + OTHERS if words[0] == verb)
    assert main([*words, *RUN[verb]]) == 0
    assert all(Path(name).exists() for flag, name in itertools.pairwise(words) if flag == "--out")


def test_the_pages_of_the_systems_have_one_shape() -> None:
    pages = [page for page in PAGES if page.parent.parent.name == "configs"]
    shapes = {tuple(re.findall(r"^## (.+)$", FENCE.sub("", page.read_text()), flags=re.M)) for page in pages}
    assert {page.parent.name for page in pages} == SYSTEMS and len(shapes) == 1


@pytest.mark.parametrize("name", ["README.md", "docs/rendering.md", "docs/cameras.md"])
def test_python_runs(name: str) -> None:
    codes = blocks(ROOT / name, "python")
    assert codes
    for code in codes:
        names: dict = {}
        exec(code, names)
        if "rendered" in names:
            assert names["rendered"].image.shape[0] == len(names["latents"][0])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_imports_what_exists(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("zoo", "callbacks", "datamodules"):
                assert all(hasattr(import_module(node.module), alias.name) for alias in node.names), code


def test_the_system_of_the_documentation_trains(beside) -> None:
    config = yaml.safe_load((beside / "toy.yaml").read_text())
    config["data"] = {"class_path": "stripes.Stripes"}
    config["trainer"] |= {"max_steps": 2, "accelerator": "cpu"}
    config["model"]["init_args"]["generator"]["init_args"]["renderer"]["init_args"]["quadrature"]["density"] = (
        "parts.squared"
    )
    (beside / "toy.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "-c", "toy.yaml"]) == 0
    assert (beside / "runs/toy/checkpoints/last.ckpt").is_file()
    assert len(list((beside / "runs/toy/samples").glob("*.png"))) == 2


# Links and tables


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [page for page in NAMES[1:] if f"({page})" not in text] == []


def test_every_page_is_on_the_site() -> None:
    text = (ROOT / "docs/site/mkdocs.yml").read_text()
    assert [page for page in NAMES if f": {page}\n" not in text] == []


def test_tables_are_up_to_date(tmp_path) -> None:
    for path in [*PAGES, *ROOT.glob("benchmarks/*.csv")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    assert update_pages(tmp_path) == []


def test_the_table_of_systems_has_the_numbers_of_the_tables() -> None:
    rows = [
        row
        for row in read(RESULTS)
        if row["metric"] == "fid-cars-none-5k" and row["config"] and row["condition"] != "fixed"
    ]
    trained = sorted(rows, key=lambda row: row["weights"].partition("-seed")[0])
    seeds = itertools.groupby(trained, key=lambda row: row["weights"].partition("-seed")[0])
    measured = {f"{fmean(row['value'] for row in of):#.4g}" for _, of in seeds}
    measured |= {f"{row['value']:#.4g}" for row in rows}
    with open(PUBLISHED, newline="") as file:
        published = {(f"{float(line['FID']):g}", line["source"]) for line in csv.DictReader(file)}
    systems = [
        line.split(" | ")
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("| [") and "arxiv" in line
    ]
    assert sorted(re.search(r"configs/(\w+)/README", row[0])[1] for row in systems) == sorted(SYSTEMS)
    for *_, theirs, ours in systems:
        assert ours == "not trained yet |" or {*re.findall(r"\d+\.\d+", ours)} <= measured
        if found := re.match(r"([\d.]+) on .*\((.*)\)$", theirs):
            assert found.groups() in published
