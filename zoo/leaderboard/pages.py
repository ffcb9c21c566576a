"""The generated tables of the documentation, between markers such as ``<!-- leaderboard:start -->``."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from zoo.leaderboard import speeds
from zoo.leaderboard.findings import findings, name_of
from zoo.leaderboard.spread import Terms, shared_budgets, spread_texts, terms_of
from zoo.leaderboard.table import (
    RESULTS,
    Row,
    cells,
    costs,
    grid,
    groups,
    heading,
    headlines,
    number_of,
    place_of,
    published,
    read,
    row_id,
    table,
)
from zoo.utils.errors import UserError
from zoo.utils.files import replacing
from zoo.weights.catalogue import NO_LICENCE, released

# Below a system's numbers.
EXPLAINED = (
    "[What the name of a metric says](../../docs/evaluation.md#what-the-name-of-a-metric-says), and "
    "[all systems](../../docs/leaderboard.md)."
)


def markers(name: str) -> tuple[str, str]:
    """The lines before and after a generated part."""
    return f"<!-- {name}:start -->", f"<!-- {name}:end -->"


def update_page(page: Path | str, **parts: str) -> bool:
    """Put texts between the markers of their names in a Markdown file; whether that changed it.

    Raises:
        UserError: the file has no such markers.
    """
    page = Path(page)
    old = new = page.read_text(encoding="utf-8")
    for name, text in parts.items():
        start, end = markers(name)
        if new.count(start) != 1 or new.count(end) != 1 or new.index(start) > new.index(end):
            raise UserError(f"{page} needs the lines {start} and {end}, once each, where the {name} goes.")
        before, rest = new.split(start)
        new = f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    if new != old:
        with replacing(page) as part:
            part.write_text(new, encoding="utf-8")
    return new != old


def update_pages(root: Path | str = ".", results: Path | str = RESULTS) -> list[Path]:
    """``update_page`` for README.md (FID after equal budgets, or else all FIDs), docs/leaderboard.md (the main metrics)
    and each system's page (its own rows, and its published weights); docs/findings.md; and for docs/speed.md, of
    benchmarks/*.csv; which of them changed."""
    rows = headlines(read(results))
    fid = [row for row in rows if number_of(row) == "fid" and row["condition"] != "fixed"]
    if shared := shared_budgets(rows):  # with reference points of the same data
        data = [terms[:2] for terms in shared]
        fid = [row for row in fid if terms_of(row) in shared or (not row["config"] and terms_of(row)[:2] in data)]
    pages = {
        Path(root, "README.md"): {"leaderboard": table(fid, markdown=True)},
        Path(root, "docs/leaderboard.md"): {
            "overview": overview(row for row in rows if row["config"]),  # no reference points
            "leaderboard": "\n\n".join(filter(None, [table(rows, markdown=True), costs(rows, markdown=True)])),
            "published": published(markdown=True),
        },
        Path(root, "docs/findings.md"): findings(rows),
    }
    pages[Path(root, "docs/speed.md")] = speeds.tables(Path(root, "benchmarks"))
    for page in sorted(Path(root).glob("configs/*/README.md")):
        own = [row for row in rows if row["config"].startswith(f"{page.parent.name}/")]
        pages[page] = {"leaderboard": numbers(own), "weights": weights(page.parent.name)}
    return [page for page, parts in pages.items() if update_page(page, **parts)]


def overview(rows: Iterable[Row]) -> str:
    """Values side by side, as Markdown, with a line for what was measured alike; the best of several are bold. A table
    for each data set, resolution and budget that several recipes share, with means over trainings of a recipe, and one
    for all other weights of the same data."""
    rows = [*rows]
    shared = shared_budgets(rows)

    def about(row: Row) -> Terms:
        terms = terms_of(row)
        return terms if terms in shared else (*terms[:2], "")

    def column(row: Row) -> str:
        if about(row)[2]:
            return name_of(row)
        truncated = cells(1, row)["truncation"]
        return Path(row["weights"]).name + (truncated and f", truncation {truncated}")

    sections = []
    by_terms = sorted(rows, key=lambda row: (*about(row)[:2], about(row)[2] == "", about(row)))
    for (dataset, resolution, budget), trained in groupby(by_terms, key=about):
        alike = [[row for _, row in members] for _, members in groups(trained)]
        empty = dict.fromkeys(sorted({column(row) for members in alike for row in members}), "")
        lines = []
        for members in alike:
            by = {name: [*same] for name, same in groupby(sorted(members, key=column), key=column)}
            measured = {"metric": members[0]["metric"], "better": members[0]["better"]}
            lines.append(measured | empty | spread_texts(by))
        terms = f"**{dataset} {resolution}x{resolution}{budget and f', {budget} of training'}**"
        sections.append(f"{terms}\n\n{grid(lines, markdown=True)}")
    return "\n\n".join(sections) or table([])


def numbers(rows: Iterable[Row]) -> str:
    """Rows of one system as Markdown: a table for each of its weights, with a line for each metric."""

    def weights_of(row: Row) -> tuple[str, int, str]:
        return row["dataset"], row["resolution"], cells(1, row)["weights"]

    def line(row: Row) -> dict[str, str]:
        shown = cells(1, row)
        real = {"real images": f"{row['n_real']:,}, data {row['dataset_digest'][:8]}" if row["n_real"] != "" else ""}
        rest = {head: shown[head] for head in ("truncation", "measured", "row")}
        return {"metric": row["metric"], "value": shown[heading(row)], "better": row["better"]} | real | rest

    def order(row: Row) -> tuple:
        return weights_of(row), place_of(row)

    newest = {row_id(row): row for _, members in groups(rows) for _, row in members}
    sections = []
    for (dataset, resolution, name), alike in groupby(sorted(newest.values(), key=order), key=weights_of):
        lines = [*alike]
        shown = cells(1, lines[0])
        seen = shown["images seen"] and f", {shown['images seen']} images seen in {shown['training']} of training"
        text = grid([line(row) for row in lines], markdown=True)
        sections.append(f"**{name} on {dataset} {resolution}x{resolution}{seen}**\n\n{text}")
    return "\n\n".join([*sections, EXPLAINED]) if sections else table([])


def weights(system: str) -> str:
    """The published checkpoints of a system, from the catalogue, as a Markdown table."""
    lines = [
        {
            "name": f"`{entry.name}`",
            "experiment": entry.config.split("/")[1],
            "licence of the weights": entry.weights_licence or NO_LICENCE,
            "licence of the data": entry.data_licence or "not stated",
            "published FID": f"{entry.fid.fid:g} ({entry.fid.source})" if entry.fid else "",
            "note": entry.note,
        }
        for entry in released().values()
        if entry.system == system
    ]
    return grid(lines, markdown=True) if lines else "None are known."
