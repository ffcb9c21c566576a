"""Rows that are wrong never get in; only rows measured alike are ranked together."""

import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo import leaderboard
from zoo.evaluate.presets import built
from zoo.leaderboard.migrate import OLD_COLUMNS
from zoo.leaderboard.pages import markers, numbers, overview
from zoo.leaderboard.table import ADDED, COLUMNS, GROUP, headlines, rank_rows, row_id, table
from zoo.utils.errors import UserError
from zoo.weights.catalogue import released

OLD_ROW = {
    "system": "pigan",
    "config": "configs/pigan/cars32.yaml",
    "weights": "runs/demo/weights",
    "weights_sha256": "ab" * 32,
    "dataset": "cars",
    "dataset_digest": "cd" * 32,
    "resolution": 32,
    "metric": "fid-cars-none-1k",
    "value": 12.25,
    "n_real": 5000,
    "n_fake": 1000,
    "truncation": 1.0,
    "draws": "per-sample",
    "seed": 0,
    "extractor_sha256": "ef" * 32,
    "precision": "32",
    "images_seen": 12000,
    "seconds": 480.0,
    "hardware": "cpu",
    "commit": "abc",
    "date": "2030-01-01T00:00:00+00:00",
}
NEW = {"better": "less", "condition": "none", "cameras": "prior", "record": "{}"}
ROW = {column: (OLD_ROW | NEW).get(column, "") for column in COLUMNS}
OBJECTS = {**ROW, "metric": "psnr-64objects-32views", "better": "more", "value": 30.0, "cameras": "uniform"}
OBJECTS |= dict.fromkeys(("dataset_digest", "n_real", "extractor_sha256"), "")


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "results.csv"
    odd = {**ROW, "system": 'a, "b" | c', "value": 1 / 3, "truncation": "", "seed": ""}
    for row in (ROW, odd, OBJECTS):
        leaderboard.append_row(row, path)
    assert leaderboard.read(path) == [ROW, odd, OBJECTS]
    assert [file.name for file in path.parent.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "finite"),
        ({"value": "good"}, "float"),
        ({"resolution": 32.5}, "int"),
        ({"dataset_digest": ""}, "needs a value for 'dataset_digest'"),
        ({"score": 3}, "no column 'score'"),
        ({"system": "two\nlines"}, "one line"),
        ({"better": "higher"}, "'better' of a result must be one of less, more"),
        ({"condition": "any"}, "one of own, fixed, none"),
        ({"record": ""}, "could not be measured again"),
        ({"n_real": ""}, "'fid-cars-none-1k' needs a value for 'n_real'"),
        ({"extractor_sha256": "", "metric": "fid-8objects"}, None),
    ],
)
def test_wrong_rows_are_refused_and_change_nothing(tmp_path, change, message):
    path = tmp_path / "results.csv"
    leaderboard.append_row(ROW, path)
    before = path.read_bytes()
    if message is None:
        leaderboard.append_row({**ROW, **change}, path)
        return
    with pytest.raises(ValueError, match=message):
        leaderboard.append_row({**ROW, **change}, path)
    assert path.read_bytes() == before


DAMAGE = {
    "a cut line": (lambda data: data + b"pigan,half a row\n", "line 3 has 2 values, not 31"),
    "a blank line": (lambda data: data.replace(b"\npigan", b"\n\npigan"), "line 2 is blank; mend or delete it"),
    "a blank end": (lambda data: data + b"\n", "line 3 is blank"),
    "an open quote": (lambda data: data.replace(b"\npigan", b'\n"pigan'), "line 2 has 1 values, not 31"),
    "no number": (lambda data: data.replace(b"12.25", b"good"), "line 2 is wrong: 'value' of a result must be float"),
    "latin-1": (lambda data: data.replace(b"pigan,", b"pig\xe9n,"), "line 2 is not text in UTF-8"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "line 1 is not text in UTF-8"),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n" + data, "line 1 is not text in UTF-8"),
    "other columns": (lambda data: b"a,b\n1,2\n", "line 1 has no column 'system' where it belongs"),
    "semicolons": (lambda data: data.replace(b",", b";"), "line 1 has no column 'system' where it belongs"),
    "a column more": (lambda data: data.replace(b"record\n", b"record,note\n"), "line 1 has 32 columns"),
    "a long cell": (lambda data: data.replace(b"pigan,", b"p" * 200_000 + b","), "line 2 is not CSV: field larger"),
    "nothing in it": (lambda data: data[:0], None),
    "the mark of Excel": (lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), None),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_file_is_named_with_its_line(tmp_path, damage, message):
    path = tmp_path / "results.csv"
    leaderboard.append_row(ROW, path)
    path.write_bytes(damage(path.read_bytes()))
    if message is None:
        leaderboard.append_row(ROW, path)
        assert leaderboard.read(path)[-1] == ROW
        return
    before = path.read_bytes()
    with pytest.raises(UserError) as error:
        leaderboard.append_row(ROW, path)
    assert message in str(error.value) and str(path) in str(error.value) and len(str(error.value)) < 300
    assert path.read_bytes() == before


def test_a_folder_is_no_file_of_results(tmp_path):
    with pytest.raises(UserError, match="it is a folder"):
        leaderboard.read(tmp_path)


def test_no_row_is_lost_when_many_are_added_at_once(tmp_path):
    path = tmp_path / "results.csv"
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        for i in range(10):
            a.submit(leaderboard.append_row, {**ROW, "seed": i}, path)
            b.submit(leaderboard.append_row, {**ROW, "seed": 100 + i}, path)
    assert sorted(row["seed"] for row in leaderboard.read(path)) == [*range(10), *range(100, 110)]


@pytest.mark.parametrize("column", GROUP)
def test_rows_measured_differently_are_never_ranked_together(tmp_path, column):
    path = tmp_path / "results.csv"
    other = {**ROW, column: 64 if isinstance(ROW[column], int) else "other-" + str(ROW[column])}
    for row in (ROW, {**other, "value": 1.0}):
        leaderboard.append_row(row, path)
    assert table(leaderboard.read(path)).count("less is better") == 2


def ranks(*rows):
    return [(rank, row["value"]) for rank, row in rank_rows({**ROW, **row} for row in rows)]


def test_ties_share_a_rank_and_the_direction_is_the_metrics():
    rows = [{"value": v} for v in (3.0, 2.00001, 2.0, 1.0)]
    assert ranks(*rows) == [(1, 1.0), (2, 2.0), (2, 2.00001), (4, 3.0)]
    assert ranks(*(row | {"better": "more"} for row in rows)) == [(1, 3.0), (2, 2.00001), (2, 2.0), (4, 1.0)]


def test_differences_within_two_standard_errors_are_ties():
    rows = [{"value": v, "standard_error": e} for v, e in ((1.0, 0.1), (1.25, 0.1), (1.5, 0.1), (1.45, 0.3))]
    assert ranks(*rows) == [(1, 1.0), (1, 1.25), (1, 1.45), (2, 1.5)]  # 1.5 is worse than 1.0 alone
    assert ranks(*rows, {"value": 1.1})[1] == (2, 1.1)  # of one nothing is known: as they print


def test_generators_without_a_condition_stand_beside_both_kinds(tmp_path):
    rows = [{**ROW, "condition": c, "system": f"{c}-gan"} for c in ("own", "fixed", "none")]
    for row in rows:
        leaderboard.append_row(row, tmp_path / "r.csv")
    first, second = table(leaderboard.read(tmp_path / "r.csv")).split("\n\n")
    assert "condition own" in first and "own-gan" in first and "none-gan" in first and "fixed-gan" not in first
    assert "condition fixed" in second and "fixed-gan" in second and "none-gan" in second
    (alone,) = table([ROW]).split("\n\n")
    assert "condition" not in alone
    for condition, expected in (("own", first), ("fixed", second)):
        assert leaderboard.show([tmp_path / "r.csv"], metric="fid", condition=condition) == expected


def test_a_row_has_a_name_that_follows_from_what_it_says(tmp_path):
    leaderboard.append_row(ROW, tmp_path / "r.csv")
    (row,) = leaderboard.read(tmp_path / "r.csv")
    assert row_id(row) == row_id(ROW) != row_id({**ROW, "seed": 1}) and row_id(ROW) in table([ROW])


# Files of earlier versions


def write_old(path, *rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, OLD_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_old_files_are_read_and_rewritten(tmp_path):
    path = tmp_path / "results.csv"
    known = OLD_ROW | {"weights": "pigan-cars32", "metric": "kid-cars-none-5k"}
    images = OLD_ROW | {"system": "images", "truncation": "", "draws": "", "seed": ""}
    write_old(path, OLD_ROW, known, images)
    rows = leaderboard.read(path)
    assert rows[0] == ROW | {"record": ""} and rows[2]["cameras"] == ""
    record = json.loads(rows[1]["record"])
    assert record["source"] == "pigan-cars32" and record["extractor"] == "cars" and record["number"] == "kid"
    assert record["real"] == {"class_path": "datamodules.Cars", "init_args": {"resolution": 32}}
    assert built([record["metric"]])[0].name == "kid"
    leaderboard.append_row(ROW, path)
    assert path.read_text().splitlines()[0].split(",") == list(COLUMNS)
    assert leaderboard.read(path) == [*rows, ROW]


def test_costs_are_those_of_the_newest_rows(tmp_path):
    spent = {
        "parameters": 12345,
        "seconds_per_image": 0.5,
        "processor_seconds_per_image": 0.25,
        "peak_memory_mib": 2048,
    }
    path = tmp_path / "results.csv"
    for change in ({}, spent, spent | {"seconds_per_image": 0.125, "date": "2031-01-01T00:00:00+00:00"}):
        leaderboard.append_row(ROW | change, path)
    lines = leaderboard.show([path]).split("\n\n")[-1].splitlines()
    assert lines[0].startswith("What they cost") and len(lines) == 4
    assert lines[-1].split() == ["pigan", "weights", "32", "12,345", "25", "125", "250", "2,048", "cpu"]
    assert "What they cost" not in leaderboard.show([path], metric="fid")
    unknown = spent | {"peak_memory_mib": "", "date": "2032-01-01T00:00:00+00:00"}  # as on Windows
    leaderboard.append_row(ROW | unknown, path)
    assert leaderboard.show([path]).splitlines()[-1].split()[-3:] == ["500", "250", "cpu"]


def test_old_and_new_rows_are_ranked_together(tmp_path):
    write_old(tmp_path / "old.csv", OLD_ROW)
    leaderboard.append_row({**ROW, "value": 1.0}, tmp_path / "new.csv")
    assert leaderboard.show([tmp_path / "old.csv", tmp_path / "new.csv"]).count("less is better") == 1


def test_a_damaged_old_file_is_named_with_its_line(tmp_path):
    write_old(tmp_path / "old.csv", OLD_ROW, OLD_ROW | {"value": "good"})
    with pytest.raises(UserError, match="line 3 is wrong: 'value' of a result must be float"):
        leaderboard.read(tmp_path / "old.csv")


def test_a_row_in_two_files_counts_once(tmp_path):
    for name in ("a.csv", "b.csv"):
        leaderboard.append_row(ROW, tmp_path / name)
    text = leaderboard.show([tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "none.csv"])
    assert text.count("pigan") == 1
    assert "12.25" in text


def test_of_what_was_measured_twice_the_later_row_counts(tmp_path):
    rows = [{**ROW, "date": f"203{i}-01-01", "value": float(v)} for i, v in ((1, 7), (3, 8), (2, 9))]
    text = table(rows)
    assert text.count("2033-01-01") == 1 and "2031" not in text and "2032" not in text
    assert table([*rows, {**rows[0], "weights": "mine"}]).count("\n") == text.count("\n") + 1


def test_filters_and_top(tmp_path):
    path = tmp_path / "results.csv"
    for i in range(5):
        leaderboard.append_row({**ROW, "value": 1.0 + i, "seed": i}, path)
    leaderboard.append_row({**ROW, "metric": "kid-cars-none-1k", "value": 0.0123}, path)
    assert "... and 3 more" in leaderboard.show([path], metric="fid", top=2)
    assert "0.01230" in leaderboard.show([path], metric="kid")
    leaderboard.append_row({**ROW, "resolution": 64, "value": 77.0}, path)
    assert "77.00" in leaderboard.show([path]) and "77.00" not in leaderboard.show([path], resolution=32)
    assert leaderboard.show([tmp_path / "none.csv"], dataset="faces").startswith("No results yet")
    for wanted, message in (
        ({"dataset": "car"}, "no results of the dataset 'car'. Did you mean 'cars'?"),
        ({"dataset": "faces"}, "no results of the dataset 'faces'. There are: cars."),
        ({"metric": "psnr"}, "no results of the metric 'psnr'. There are: fid-cars-none-1k, kid-cars-none-1k."),
        ({"top": 0}, "top is 0: give a number of at least 1"),
        ({"resolution": 48}, "no results of the resolution '48'. There are: 32, 64."),
    ):
        with pytest.raises(UserError) as error:
            leaderboard.show([path], **wanted)
        assert message in str(error.value)


def test_one_number_a_question_is_shown_unless_others_are_asked_for(tmp_path):
    names = ["fid-cars-none-1k", "fid-cars-none-5k", "ssim-64objects-32views", "psnr-64objects-32views"]
    rows = [OBJECTS | {"metric": name} if "objects" in name else ROW | {"metric": name} for name in names]
    for row in rows:
        size = {"n_fake": 5000 if row["metric"].endswith("5k") else 1000}
        leaderboard.append_row(row | size, tmp_path / "r.csv")
    text = leaderboard.show([tmp_path / "r.csv"])
    assert [name in text for name in names] == [False, True, False, True]
    assert "more is better" in text and text.endswith("Not shown: ssim; 'zoo leaderboard --metric NAME' does.")
    assert "fid-cars-none-1k" in leaderboard.show([tmp_path / "r.csv"], metric="fid")
    for change in ({"truncation": 0.7}, {"dataset_digest": "f" * 64, "n_real": 1000}):  # more images, of another kind
        assert "fid-cars-none-1k" in table(headlines([*rows[:1], ROW | change | {"n_fake": 5000, "metric": names[1]}]))


def test_the_page_holds_the_texts_between_their_markers(tmp_path):
    page, (start, end), (first, last) = tmp_path / "README.md", markers("leaderboard"), markers("weights")
    page.write_text(f"# Title\n{start}\nold\n{end}\nmiddle\n{first}\n{last}\ntail\n")
    shown = table([{**ROW, "system": "a|b"}], markdown=True)
    assert leaderboard.update_page(page, leaderboard=shown, weights="mine")
    text = page.read_text()
    assert text.startswith(f"# Title\n{start}\n") and text.endswith(f"{first}\n\nmine\n\n{last}\ntail\n")
    assert "old" not in text and "middle" in text and r"a\|b" in text and "12.25" in text
    assert not leaderboard.update_page(page, leaderboard=shown, weights="mine")
    page.write_text("no markers")
    with pytest.raises(ValueError, match="leaderboard:start"):
        leaderboard.update_page(page, leaderboard=shown)


def test_the_overview_has_all_weights_side_by_side():
    rows = [{**ROW, "weights": name, "value": value} for name, value in (("a", 2.0), ("runs/b", 1.0), ("c", 1.0))]
    text = overview([{**OBJECTS, "weights": "a"}, *rows, {**rows[0], "truncation": 0.5}, {**ROW, "dataset": "faces"}])
    first, second = re.split(r"\n\n(?=\*\*faces)", text)
    cars = [[cell.strip() for cell in line.split("|")[1:-1]] for line in first.splitlines()[2:]]
    assert first.startswith("**cars 32x32**\n\n") and second.startswith("**faces 32x32**\n\n")
    assert cars[0] == ["metric", "better", "a", "a, truncation 0.5", "b", "c"]
    assert cars[2] == ["fid-cars-none-1k", "less", "2.000", "2.000", "**1.000**", "**1.000**"]
    assert cars[3] == ["psnr-64objects-32views", "more", "30.00", "", "", ""]


def test_the_overview_has_trainings_of_equal_budgets_apart_with_their_means():
    trained = {"processor_seconds": 1501.0, "standard_error": 0.1}
    rows = [{**ROW, **trained, "config": "a/x", "weights": f"a{value}", "value": value} for value in (2.0, 4.0)]
    rows += [{**ROW, **trained, "config": "b/x", "weights": "b", "value": 9.0}, {**ROW, "config": "b/x"}]
    rows.append({**ROW, **trained, "config": "a/x", "weights": "a-conditioned", "value": -1.0, "condition": "own"})
    equal, other = re.split(r"\n\n(?=\*\*cars)", overview(rows))
    assert equal.startswith("**cars 32x32, 25 min of training**\n\n") and other.startswith("**cars 32x32**\n\n")
    _, _, line = ([cell.strip() for cell in line.split("|")[1:-1]] for line in equal.splitlines()[2:])
    assert line == ["fid-cars-none-1k", "less", "3.000 (2.000 to 4.000)", "**-1.000**", "9.000"]
    assert "12.25" in other and "a/x" not in other


def test_tables_come_in_the_order_of_the_main_metrics():
    names = ["coverage-64objects-32views", "coverage-cars-none-1k", "fid-cars-none-1k", "psnr-64objects-32views"]
    text = table([{**(OBJECTS if "objects" in name else ROW), "metric": name} for name in names])
    titles = re.findall(r"^cars 32x32: ([\w-]+), ", text, flags=re.MULTILINE)
    assert titles == [
        "fid-cars-none-1k",
        "coverage-cars-none-1k",
        "coverage-64objects-32views",
        "psnr-64objects-32views",
    ]


def test_a_system_has_one_table_for_each_of_its_weights():
    twice = {**ROW, "value": 11.0, "date": "2031-01-01T00:00:00+00:00", "standard_error": 0.5}
    rows = [OBJECTS, {**OBJECTS, "metric": "coverage-64objects-32views"}, {**ROW, "metric": "coverage-cars-none-1k"}]
    text = numbers([*rows, ROW, twice, {**ROW, "weights": "other", "images_seen": ""}])
    other, mine = text.split("\n\n**weights abababab on cars 32x32, 12,000 images seen in 8 min of training**\n\n")
    assert other.startswith("**other abababab on cars 32x32**\n\n| metric") and other.count("\n") == 4
    fid, *others = mine.split("\n\n")[0].splitlines()[2:]
    assert "11.00 ± 0.5 | less   | 5,000, data cdcdcdcd | 2031-01-01" in fid and row_id(twice) in fid
    names = [line.split()[1] for line in others]
    assert names == ["coverage-cars-none-1k", "coverage-64objects-32views", "psnr-64objects-32views"]


def test_published_numbers_stay_in_a_table_of_their_own(tmp_path):
    leaderboard.append_row(ROW, tmp_path / "results.csv")
    text = leaderboard.show([tmp_path / "results.csv"], with_published=True)
    measured, published = text.split("Published numbers")
    assert "GIRAFFE" not in measured and "GIRAFFE" in published


def test_the_catalogue_states_the_published_fids_of_the_table():
    with open(leaderboard.PUBLISHED, newline="") as file:
        table = {
            (line["system"].lower().replace("-", ""), float(line["FID"]), line["source"])
            for line in csv.DictReader(file)
        }
    scores = [(entry.system, entry.fid.fid, entry.fid.source) for entry in released().values() if entry.fid]
    assert scores and set(scores) <= table


def test_the_tracked_table_is_valid():
    leaderboard.read(leaderboard.RESULTS)
    assert "No results" in leaderboard.show([]) and leaderboard.RESULTS.exists()
    named = leaderboard.RESULTS.read_text().splitlines()[0].split(",")
    assert named in (list(COLUMNS), [column for column in COLUMNS if column not in ADDED])


def test_a_file_from_before_a_column_was_added_is_read_and_rewritten(tmp_path):
    path, before = tmp_path / "results.csv", [column for column in COLUMNS if column not in ADDED]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, before, extrasaction="ignore")
        writer.writeheader()
        writer.writerow(ROW)
    assert leaderboard.read(path) == [ROW] and ADDED == ("processor_seconds",)
    counted = ROW | {"processor_seconds": 1500.0, "value": 1.0}
    leaderboard.append_rows([counted, counted | {"seed": 1}], path)
    assert leaderboard.read(path) == [ROW, counted, counted | {"seed": 1}]
    assert "25 min" in table(leaderboard.read(path)) and "processor time" not in table([ROW])
    with pytest.raises(UserError, match="a value for 'record'"):
        leaderboard.append_rows([ROW | {"value": 3.0}, ROW | {"record": ""}], path)
    assert len(leaderboard.read(path)) == 3  # all, or nothing
