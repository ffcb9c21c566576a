"""The leaderboard's folder for a browser; tests/browser opens it."""

import csv
import json
import shlex

import pytest

from tests.test_leaderboard import OBJECTS, ROW
from zoo import leaderboard
from zoo.cli.command import main
from zoo.cli.leaderboard_images import draw_images
from zoo.leaderboard.html_page import IMAGES, PAGE, image_names, page_data, to_draw, write_page
from zoo.leaderboard.table import PUBLISHED, RESULTS, groups, row_id
from zoo.utils.errors import UserError
from zoo.utils.paths import BUNDLED
from zoo.weights.fetch import sha256_of


def table_of(path, *rows):
    for row in rows:
        leaderboard.append_row(row, path)
    return path


def read_data(folder):
    return json.loads((folder / "data.js").read_text().removeprefix("const leaderboard = ").removesuffix(";\n"))


def test_ranks_and_numbers_are_those_of_the_table():
    data, rows = page_data([RESULTS]), {row_id(row): row for row in leaderboard.read(RESULTS)}
    assert data["conditions"] == ["own", "fixed"]
    for condition in data["conditions"]:
        alike = [row for row in rows.values() if row["condition"] in (condition, "none")]
        expected = [(title, [(rank, row_id(row)) for rank, row in members]) for title, members in groups(alike)]
        assert [(t["title"], t["rows"]) for t in data["tables"] if t["condition"] == condition] == expected
    for name, shown in data["rows"].items():
        assert {key: shown[key] for key in shown if key in rows[name]} == {
            key: value for key, value in rows[name].items() if value != "" and key != "record"
        }
        assert shlex.split(shown["again"]) == (["zoo", "evaluate", "--row", name] if rows[name]["record"] else [])
    with open(PUBLISHED, newline="") as file:
        assert data["published"] == [*csv.DictReader(file)]


def test_weights_that_are_here_have_their_licence_config_and_curve():
    by_name = {one["name"]: one for one in page_data([RESULTS])["weights"]}
    conditioned, anchor = by_name["eg3d-cars32-conditioned"], by_name["ellipsoids"]
    assert conditioned["licence"] == "MIT" and conditioned["config"].startswith("class_path: zoo.eg3d.Generator")
    assert conditioned["curve"][0]["fid-cars-none-1k"] > 100 and "EG3D" in conditioned["recipe"]
    assert anchor["licence"] == anchor["config"] == anchor["recipe"] == ""


def test_your_own_rows_stand_beside_and_say_where_they_are(tmp_path):
    own = table_of(tmp_path / "my results.csv", ROW, OBJECTS)
    data = page_data([own, RESULTS])
    row = data["rows"][row_id(ROW)]
    assert shlex.split(row["again"]) == ["zoo", "evaluate", "--row", row_id(ROW), "--results", str(own)]
    assert data["weights"][row["weights_place"]]["licence"] == "not stated"
    assert len(data["rows"]) == len(page_data([RESULTS])["rows"]) + 2


def test_only_its_own_folders_are_written_to(tmp_path, capsys):
    folder = tmp_path / "page"
    (folder / IMAGES).mkdir(parents=True)
    (folder / IMAGES / "mine.webp").touch()
    words = ["leaderboard", "--html", str(folder), "--images", "false"]
    assert main(words) == 2 and "holds other files than a page" in capsys.readouterr().err
    (folder / "index.html").write_text("<p>mine")
    assert main(words) == 2 and (folder / IMAGES / "mine.webp").exists()
    words[2] = str(tmp_path / "new" / "page")
    assert main(words) == main(words) == 0 and capsys.readouterr().out.split() == [f"{words[2]}/index.html"] * 2
    assert {path.name for path in (tmp_path / "new" / "page").iterdir()} == {
        "data.js",
        *(f.name for f in PAGE.iterdir()),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "{}", "--metric", "fid"], "--metric fid changes nothing with --html"),
        (["cars", "--html", "{}"], "--dataset cars changes nothing with --html"),
        (["--images", "false"], "--images False changes nothing without --html"),
        (["--html", "/proc/page"], "--html is '/proc/page', but"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, capsys, words, message):
    assert main(["leaderboard", *(word.format(tmp_path / "page") for word in words)]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "page").exists()


def test_weights_are_drawn_once_and_images_of_others_go(tmp_path):
    sha256 = sha256_of(BUNDLED / "giraffe-cars32" / "model.safetensors")
    known = {"system": "GIRAFFE", "weights": "giraffe-cars32", "weights_sha256": sha256}
    changed = {"weights": "pigan-cars32", "date": "2031-01-01"}  # another file of this name
    tables = [table_of(tmp_path / "results.csv", ROW | known, ROW | changed)]
    write_page(tmp_path / "page", tables)
    files = to_draw(tmp_path / "page", tables)
    assert [*files] == [BUNDLED / "giraffe-cars32"]
    draw_images(files)
    assert to_draw(tmp_path / "page", tables) == {}
    for name in ("0123456789abcdef-grid.webp", "mine.webp"):
        (tmp_path / "page" / IMAGES / name).touch()
    write_page(tmp_path / "page", tables)
    names = image_names(sha256)
    assert [one["images"] for one in read_data(tmp_path / "page")["weights"]] == [names, {}]
    assert {path.name for path in (tmp_path / "page" / IMAGES).iterdir()} == {*names.values(), "mine.webp"}


def test_weights_that_cannot_be_loaded_are_named(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"0")
    draw_images({tmp_path / "mine": {}})
    assert "It is not drawn: " in capsys.readouterr().err


def test_a_curve_that_is_none_is_named(tmp_path, monkeypatch):
    from zoo.leaderboard.html_page import curve_of

    (tmp_path / "curve.csv").write_text("iteration,fid\n1,2.5\n2,\n")
    assert curve_of(tmp_path / "curve.csv") == [{"iteration": 1, "fid": 2.5}, {"iteration": 2}]
    (tmp_path / "curve.csv").write_text("iteration,fid\n1,good\n")
    with pytest.raises(UserError, match=r"curve\.csv' is no curve of a training"):
        curve_of(tmp_path / "curve.csv")


def test_nothing_of_the_page_is_elsewhere():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text
