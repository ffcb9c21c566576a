"""What the page of findings says of rows: winners, ties, disagreements, costs."""

from tests.test_leaderboard import OBJECTS, ROW
from zoo.leaderboard.findings import NONE_YET, contests, findings

TRAINED = {"standard_error": 0.1, "processor_seconds": 1500.5}
METRICS = {"fid-cars-none-5k": ROW | TRAINED, "psnr-64objects-32views": OBJECTS | TRAINED}


def row(config: str, metric: str, value: float, **change) -> dict:
    about = {"config": config, "weights": config, "weights_sha256": config, "metric": metric, "value": value}
    return METRICS[metric] | about | change


def cells(text: str) -> dict[str, list[str]]:
    """The lines of tables in Markdown, by their first cells."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in lines}


def rows_of(fids: dict[str, float], psnrs: dict[str, float]) -> list[dict]:
    pairs = zip(METRICS, (fids, psnrs), strict=True)
    return [row(config, metric, value) for metric, of in pairs for config, value in of.items()]


ROWS = rows_of({"a/x": 4.0, "b/x": 4.1, "c/x": 9.0}, {"a/x": 30.0, "b/x": 40.0, "c/x": 41.0})


def test_all_that_are_not_beaten_win():
    said = cells(findings(ROWS)["wins"])
    assert said["fid-cars-none-5k"] == ["less", "a/x 4.000; b/x 4.100", "c/x 9.000", "c/x 9.000"]
    assert said["psnr-64objects-32views"] == ["more", "c/x 41.00", "b/x 40.00", "a/x 30.00"]
    assert said["a/x"] == ["1 of 1", "1.0", "0 of 1", "3.0"] and said["b/x"] == ["1 of 1", "1.0", "0 of 1", "2.0"]
    assert said["c/x"] == ["0 of 1", "3.0", "1 of 1", "1.0"]


def test_pairs_that_two_metrics_order_differently_are_counted_and_the_worst_is_named():
    text = findings(ROWS)["disagreements"]
    more, alike, opposite, undecided, worst = cells(text)["psnr-64objects-32views"]
    assert (more, alike, opposite, undecided) == ("more", "0", "2", "1")  # FID ties a and b
    assert worst == "c/x 41.00, FID 9.000; a/x 30.00, FID 4.000"
    agreeing = rows_of({"a/x": 4.0, "b/x": 5.0}, {"a/x": 31.0, "b/x": 30.0})
    assert cells(findings(agreeing)["disagreements"])["psnr-64objects-32views"][1:4] == ["1", "0", "0"]


def test_seeds_of_a_recipe_count_as_their_mean():
    seeds = [row("a/x", "fid-cars-none-5k", value, weights=f"a{value}") for value in (3.0, 5.0)]
    (contest,) = contests([*seeds, row("b/x", "fid-cars-none-5k", 9.0)])
    assert [(rank, one["value"]) for rank, one in contest.ranked] == [(1, 4.0), (2, 9.0)]
    assert contest.ranked[0][1]["standard_error"] == 1.0  # of the two seeds, more than that of samples


def test_only_trainings_of_equal_budgets_are_compared():
    longer = [row(config, "fid-cars-none-5k", 1.0, processor_seconds=2400.0) for config in ("a/x", "d/x")]
    unknown = row("e/x", "fid-cars-none-5k", 0.1, processor_seconds="")
    single = row("f/x", "fid-cars-none-5k", 0.1, processor_seconds=600.0)
    said = findings([*ROWS, *longer, unknown, single])["wins"]
    one, other = said.split("\n\n**cars 32x32, 40 min of training**\n\n")
    assert one.startswith("**cars 32x32, 25 min of training**\n\n")
    assert cells(one)["fid-cars-none-5k"][1] == "a/x 4.000; b/x 4.100"
    assert cells(other)["fid-cars-none-5k"][1] == "a/x 1.000; d/x 1.000" and "e/x" not in said and "f/x" not in said


def test_reference_points_and_single_systems_are_no_contest():
    assert contests([row("a/x", "fid-cars-none-5k", 4.0), row("", "fid-cars-none-5k", 0.5)]) == []
    said = findings([])
    assert said["wins"] == said["disagreements"] == NONE_YET and said["spending"] == "No costs were measured yet."


def test_conditioned_generators_take_part_with_their_own_condition():
    own = row("e/x", "fid-cars-none-5k", 3.0, condition="own")
    fixed = row("e/x", "fid-cars-none-5k", 5.0, condition="fixed")
    text = findings([own, fixed, row("a/x", "fid-cars-none-5k", 4.0)])["wins"]
    assert "e/x, condition own 3.000" in text and "fixed" not in text


def test_costs_are_compared_with_the_least():
    spent = {"parameters": 1000, "processor_seconds_per_image": 0.01}
    rows = [row("a/x", "fid-cars-none-5k", 4.0, **spent)]
    rows.append(row("b/x", "fid-cars-none-5k", 4.0, **spent | {"processor_seconds_per_image": 0.025}))
    rows += [row("b/x", "fid-cars-none-5k", 4.0, **spent, condition=told) for told in ("own", "fixed")]
    said = cells(findings(rows)["spending"])
    assert [name for name in said if "condition" in name] == ["b/x, condition own"]  # a system of its own, once
    assert said["a/x"] == ["1,000", "12,000", "8 min", "25 min", "10", "1.0"]
    assert said["b/x"][-2:] == ["25", "2.5"]
