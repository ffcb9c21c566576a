"""What the rows of results say when they are read together: who is best at what, for how much, and where image quality
and 3D consistency disagree. Sentences and tables of docs/findings.md; none of it is written by hand.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from statistics import mean
from typing import NamedTuple

from zoo.leaderboard.spread import averaged, shared_budgets, terms_of
from zoo.leaderboard.table import (
    Row,
    format_duration,
    format_value,
    grid,
    groups,
    is_better,
    is_of_objects,
    number_of,
    rank_rows,
)

LEFT_OUT = ("camera_error_deg", "camera_floor_deg")  # of the turn of the whole world, and of real images
NONE_YET = "Nothing to compare yet: no two systems were trained and measured alike."


class Contest(NamedTuple):
    """Systems that were trained and measured alike, by one metric, best first, each with its rank and its mean over
    trainings."""

    about: str  # data set, resolution and budget
    metric: str
    ranked: list[tuple[int, Row]]

    @property
    def of_objects(self) -> bool:
        return is_of_objects(self.metric)


def on_equal_terms(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of trainings whose data and budget others share, by these. Reference points are no trainings."""
    rows = [row for row in rows if row["config"]]
    return {
        f"{dataset} {resolution}x{resolution}, {budget} of training": [
            row for row in rows if terms_of(row) == (dataset, resolution, budget)
        ]
        for dataset, resolution, budget in shared_budgets(rows)
    }


def contests(rows: Iterable[Row]) -> list[Contest]:
    """All metrics by which two systems or more were measured alike after trainings of the same budget.

    Generators that have a condition are those with their own one.
    """
    found = []
    for about, alike in on_equal_terms(rows).items():
        systems = [row for row in alike if row["condition"] != "fixed" and number_of(row) not in LEFT_OUT]
        for _, members in groups(systems):
            by = sorted((row for _, row in members), key=name_of)
            ranked = rank_rows(averaged([*trainings]) for _, trainings in groupby(by, key=name_of))
            if len(ranked) > 1:
                found.append(Contest(about, ranked[0][1]["metric"], ranked))
    return found


def name_of(row: Row) -> str:
    """Of a recipe, and how its generator is conditioned where it is."""
    condition = f", condition {row['condition']}" if row["condition"] != "none" else ""
    truncated = f", truncation {row['truncation']:g}" if row["truncation"] not in ("", 1.0) else ""
    return f"{row['config']}{condition}{truncated}"


def by_data(found: Sequence[Contest]) -> Iterator[tuple[str, list[Contest]]]:
    """The contests of each data set and resolution."""
    for about, alike in groupby(found, key=lambda contest: contest.about):
        yield about, [*alike]


def wins(found: Sequence[Contest]) -> str:
    """Who is best by each metric, and who is not, as Markdown."""
    sections = []
    for about, alike in by_data(found):
        lines = [winner(contest) for contest in alike]
        sections.append(f"**{about}**\n\n{counted(alike)}\n\n{grid(lines, markdown=True)}")
    return "\n\n".join(sections) or NONE_YET


def winner(contest: Contest) -> Mapping[str, str]:
    """A line of ``wins``."""
    best = [row for rank, row in contest.ranked if rank == 1]
    others = [row for rank, row in contest.ranked if rank > 1]
    following, last = (others[0], others[-1]) if others else (None, None)
    return {
        "metric": contest.metric,
        "better": best[0]["better"],
        "not beaten": "; ".join(f"{name_of(row)} {format_value(row)}" for row in best),
        "then": f"{name_of(following)} {format_value(following)}" if following else "",
        "last": f"{name_of(last)} {format_value(last)}" if last else "",
    }


def counted(alike: Sequence[Contest]) -> str:
    """By how many metrics each system is not beaten, and its mean rank."""
    lines = []
    for name in sorted({name_of(row) for contest in alike for _, row in contest.ranked}):
        line = {"system": name}
        for title, of_objects in (("of images", False), ("of objects", True)):
            kind = [contest for contest in alike if contest.of_objects == of_objects]
            ranks = [rank for contest in kind for rank, row in contest.ranked if name_of(row) == name]
            line[f"not beaten by metrics {title}"] = f"{ranks.count(1)} of {len(ranks)}"
            line[f"mean rank {title}"] = f"{mean(ranks):.1f}" if ranks else ""
        lines.append(line)
    return grid(lines, markdown=True)


def disagreements(found: Sequence[Contest]) -> str:
    """How often each metric of objects orders two systems as FID does, and the pair it differs most on."""
    sections = []
    for about, alike in by_data(found):
        fids = [contest for contest in alike if contest.metric.startswith("fid-")]
        objects = [contest for contest in alike if contest.of_objects]
        lines = [line for contest in objects for fid in fids[:1] if (line := compared(fid, contest))]
        if lines:
            text = f"Pairs of systems, by {fids[0].metric} and by each metric of objects."
            sections.append(f"**{about}**\n\n{text}\n\n{grid(lines, markdown=True)}")
    return "\n\n".join(sections) or NONE_YET


def compared(fid: Contest, other: Contest) -> dict[str, str]:
    """A line of ``disagreements``; differences within two standard errors are no order."""
    places = {name_of(row): (rank, row) for rank, row in fid.ranked}
    both = [(rank, row, *places[name_of(row)]) for rank, row in other.ranked if name_of(row) in places]
    alike, opposite, pairs = 0, [], [*combinations(both, 2)]
    for (rank_a, a, fid_rank_a, fid_a), (rank_b, b, fid_rank_b, fid_b) in pairs:  # a stands before b
        if not is_better(a, b):
            continue
        if is_better(fid_a, fid_b):
            alike += 1
        elif is_better(fid_b, fid_a):
            distance = rank_b - rank_a + fid_rank_a - fid_rank_b
            text = (
                f"{name_of(a)} {format_value(a)}, FID {format_value(fid_a)}; "
                f"{name_of(b)} {format_value(b)}, FID {format_value(fid_b)}"
            )
            opposite.append((distance, text))
    if not pairs:
        return {}
    return {
        "metric": other.metric,
        "better": other.ranked[0][1]["better"],
        "as FID": str(alike),
        "opposite": str(len(opposite)),
        "undecided": str(len(pairs) - alike - len(opposite)),
        "most opposed": max(opposite, default=(0, ""))[1],
    }


def spending(rows: Iterable[Row]) -> str:
    """What training and images of each system cost, with the least as the measure, as Markdown."""
    sections = []
    for about, alike in on_equal_terms(rows).items():
        measured = sorted((row for row in alike if row["processor_seconds_per_image"] != ""), key=lambda r: r["date"])
        newest = {name_of(row): row for row in measured if row["condition"] != "fixed"}
        least = min((row["processor_seconds_per_image"] for row in newest.values()), default=0)
        lines = [
            {
                "system": name,
                "parameters": f"{row['parameters']:,}",
                "images seen": f"{row['images_seen']:,}" if row["images_seen"] != "" else "",
                "training": format_duration(row["seconds"]),
                "processor time": format_duration(row["processor_seconds"]),
                "processor ms/image": f"{row['processor_seconds_per_image'] * 1000:.3g}",
                "times the least": f"{row['processor_seconds_per_image'] / least:.1f}",
                "MiB": f"{row['peak_memory_mib']:,}" if row["peak_memory_mib"] != "" else "",
            }
            for name, row in sorted(newest.items())
        ]
        sections += [f"**{about}**\n\n{grid(lines, markdown=True)}"] if lines else []
    return "\n\n".join(sections) or "No costs were measured yet."


def findings(rows: Sequence[Row]) -> dict[str, str]:
    """The parts of the page, by the names of their markers."""
    found = contests(rows)
    return {"wins": wins(found), "disagreements": disagreements(found), "spending": spending(rows)}
