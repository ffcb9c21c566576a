"""The site shows the pages of the repository where they are, so that links between them are the same in both.

README.md, CHANGELOG.md, docs and the pages of the systems lie in the site as in the repository, and so does every file
that they link. Links to code lead to the reference, which mkdocstrings makes of the docstrings.
"""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
PAGES = [path for at in ("*.md", "docs/*.md", "docs/comparison/*.md", "configs/*/README.md") for path in ROOT.glob(at)]
PARTS = {  # of the reference: what is public, in the order of its pages
    "Basics": ["zoo.generator", "zoo.draws", "zoo.losses", "zoo.render", "zoo.layers"],
    "Training": ["zoo.training", "datamodules", "callbacks"],
    "Systems": [f"zoo.{path.parent.name}" for path in sorted(ROOT.glob("zoo/*/model.py"))],
    "Weights and scores": ["zoo.weights", "zoo.inversion", "zoo.evaluate", "zoo.export", "zoo.view", "zoo.leaderboard"],
}
REFERENCE = {name: f"docs/api/{name}.md" for names in PARTS.values() for name in names}
GENERATED = re.compile(r"<!-- (?!weights)([\w-]+):start -->(.*?)<!-- \1:end -->", re.S)  # tables of numbers
LINK = re.compile(r"(?<=\]\()[^)\s#:]+")  # a path, without its anchor


def on_config(config: MkDocsConfig) -> None:
    """Add the reference to the navigation."""
    pages = {part: [{name: REFERENCE[name]} for name in names] for part, names in PARTS.items()}
    config.nav.insert(-1, {"Reference": [{part: links} for part, links in pages.items()]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages, the files that they link, and the pages of the reference."""
    linked = {(page.parent / path).resolve() for page in PAGES for path in LINK.findall(page.read_text("utf-8"))}
    for path in sorted({*PAGES, *filter(Path.is_file, linked)}):
        if path.suffix != ".py":
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for name, uri in REFERENCE.items():
        files.append(File.generated(config, uri, content=f"::: {name}\n"))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to code to the reference, or leave their text alone where it has no page; name generated tables."""
    here = ROOT / page.file.src_uri
    if here.name == "leaderboard.md":
        page.meta["hide"] = ["toc"]  # its tables are wide

    def mend(link: re.Match) -> str:
        text, path = link.groups()
        target = (here.parent / path).resolve()
        if not target.is_relative_to(ROOT) or not (target.is_dir() or target.suffix == ".py"):
            return link[0]
        module = ".".join(target.relative_to(ROOT).with_suffix("").parts)
        part = next((name for name in REFERENCE if f"{module}.".startswith(f"{name}.")), None)
        if part is None:
            return text
        return f"[{text}]({get_relative_url(REFERENCE[part], page.file.src_uri)}#{module})"

    markdown = re.sub(r"\[([^]]+)\]\(([^)\s#:]+)\)", mend, markdown)
    return GENERATED.sub(r'<div class="numbers" markdown>\2</div>', markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave source code out of the search."""
    return html.replace(
        '<details class="mkdocstrings-source"', '<details data-search-exclude class="mkdocstrings-source"'
    )


class Brackets(griffe.Extension):
    """In docstrings, ``[B, 1] [rad]`` is a shape and a unit, where Markdown sees a link."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("] [", "] \\[")
