"""Rows that are wrong never get in; only rows measured alike are ranked together."""

import csv
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo import leaderboard
from zoo.leaderboard.pages import markers
from zoo.leaderboard.table import GROUP, rank_rows, table
from zoo.utils.errors import UserError
from zoo.weights.catalogue import released

ROW = {
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


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "results.csv"
    odd = {**ROW, "system": 'a, "b" | c', "value": 1 / 3, "truncation": "", "seed": ""}
    for row in (ROW, odd):
        leaderboard.append_row(row, path)
    assert leaderboard.read(path) == [ROW, odd]
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
    ],
)
def test_wrong_rows_are_refused_and_change_nothing(tmp_path, change, message):
    path = tmp_path / "results.csv"
    leaderboard.append_row(ROW, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        leaderboard.append_row({**ROW, **change}, path)
    assert path.read_bytes() == before


DAMAGE = {
    "a cut line": (lambda data: data + b"pigan,half a row\n", "line 3 has 2 values, not 21"),
    "a blank line": (lambda data: data.replace(b"\npigan", b"\n\npigan"), "line 2 is blank; mend or delete it"),
    "a blank end": (lambda data: data + b"\n", "line 3 is blank"),
    "an open quote": (lambda data: data.replace(b"\npigan", b'\n"pigan'), "line 2 has 1 values, not 21"),
    "no number": (lambda data: data.replace(b"12.25", b"good"), "line 2 is wrong: 'value' of a result must be float"),
    "latin-1": (lambda data: data.replace(b"pigan,", b"pig\xe9n,"), "line 2 is not text in UTF-8"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "line 1 is not text in UTF-8"),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n" + data, "line 1 is not text in UTF-8"),
    "other columns": (lambda data: b"a,b\n1,2\n", "line 1 has no column 'system' where it belongs"),
    "semicolons": (lambda data: data.replace(b",", b";"), "line 1 has no column 'system' where it belongs"),
    "a column more": (lambda data: data.replace(b"date\n", b"date,note\n"), "line 1 has 22 columns"),
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
    other = {**ROW, column: 64 if isinstance(ROW[column], int) else "other" + str(ROW[column])}
    for row in (ROW, {**other, "value": 1.0}):
        leaderboard.append_row(row, path)
    assert leaderboard.show([path]).count("less is better") == 2


def test_ties_share_a_rank_and_less_is_better():
    rows = [{**ROW, "value": v} for v in (3.0, 2.00001, 2.0, 1.0)]
    assert [(rank, row["value"]) for rank, row in rank_rows(rows)] == [(1, 1.0), (2, 2.0), (2, 2.00001), (4, 3.0)]


def test_a_row_in_two_files_counts_once(tmp_path):
    for name in ("a.csv", "b.csv"):
        leaderboard.append_row(ROW, tmp_path / name)
    text = leaderboard.show([tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "none.csv"])
    assert text.count("pigan") == 1
    assert "12.25" in text


def test_filters_and_top(tmp_path):
    path = tmp_path / "results.csv"
    for i in range(5):
        leaderboard.append_row({**ROW, "value": 1.0 + i}, path)
    leaderboard.append_row({**ROW, "metric": "kid-cars-none-1k", "value": 0.0123}, path)
    assert "... and 3 more" in leaderboard.show([path], metric="fid", top=2)
    assert "0.01230" in leaderboard.show([path], metric="kid")
    assert leaderboard.show([tmp_path / "none.csv"], dataset="faces").startswith("No results yet")
    for wanted, message in (
        ({"dataset": "car"}, "no results of the dataset 'car'. Did you mean 'cars'?"),
        ({"dataset": "faces"}, "no results of the dataset 'faces'. There are: cars."),
        ({"metric": "psnr"}, "no results of the metric 'psnr'. There are: fid-cars-none-1k, kid-cars-none-1k."),
        ({"top": 0}, "top is 0: give a number of at least 1"),
    ):
        with pytest.raises(UserError) as error:
            leaderboard.show([path], **wanted)
        assert message in str(error.value)


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
