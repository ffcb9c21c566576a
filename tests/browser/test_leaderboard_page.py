"""The leaderboard's page in a browser: sorting, filters, images, plots, details, side by side."""

import csv
import time

import pytest

from tests.test_leaderboard import ROW
from zoo import leaderboard
from zoo.cli.leaderboard_images import draw_images
from zoo.leaderboard.html_page import page_data, to_draw, write_page
from zoo.leaderboard.table import PUBLISHED, RESULTS, row_id

pytestmark = pytest.mark.xdist_group("browser")

DRAWN = ("giraffe-cars32", "eg3d-cars32")  # two are enough here
MARKUP = "<img src=x onerror=document.title='hacked'>"
HOSTILE = ROW | {
    "system": f"{MARKUP}</script><script>document.title='hacked'</script>",
    "weights": f"javascript:document.title='hacked'//{MARKUP}",
    "weights_sha256": "__proto__",
    "metric": f"fid-{MARKUP}",
    "dataset": f"\"'>{MARKUP}",
    "config": f"a/{MARKUP}",
    "hardware": MARKUP,
    "commit": MARKUP,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The rows of the table until November 2026: what is counted and ranked here does not change with new ones."""
    path = tmp_path_factory.mktemp("table") / "results.csv"
    with open(RESULTS, newline="") as table, open(path, "w", newline="") as file:
        reader = csv.DictReader(table)
        writer = csv.DictWriter(file, reader.fieldnames)
        writer.writeheader()
        writer.writerows(row for row in reader if row["date"] < "2026-12")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, results):
    folder = tmp_path_factory.mktemp("html") / "page"
    write_page(folder, [results])
    draw_images({source: files for source, files in to_draw(folder, [results]).items() if source.name in DRAWN})
    write_page(folder, [results])
    return folder


@pytest.fixture
def opened(page, folder):
    page.goto((folder / "index.html").as_uri())
    return page


def column(page, number):
    """Texts of a column of the first table."""
    return page.locator(f"#table tbody >> nth=0 >> tr[data-row] > :nth-child({number})").all_inner_texts()


def until(page, expression):
    """Wait for something to be true of a page whose policy denies ``wait_for_function`` its eval."""
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def details(page):
    """The dialog, which opens a moment after the address has changed."""
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    return dialog


def values(page):
    return [float(text.split()[0]) for text in column(page, 4)]


def test_the_table_is_sorted_by_what_is_clicked(opened):
    systems = [text.split()[0] for text in column(opened, 3)]
    assert systems[0] == "images" and systems[1] == "GIRAFFE" and len(systems) == 9
    heads = opened.locator("#table thead th")
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"
    opened.get_by_role("button", name="Value").click()
    assert values(opened) == sorted(values(opened))
    opened.get_by_role("button", name="Value").press("Enter")  # where the focus still is
    assert values(opened) == sorted(values(opened), reverse=True)
    assert [heads.nth(i).get_attribute("aria-sort") for i in (0, 3)] == [None, "descending"]
    opened.get_by_role("button", name="Training").click()
    assert column(opened, 7)[0] == "23.5 min" and column(opened, 7)[-2:] == ["", ""]  # without a value: last
    opened.get_by_role("button", name="Training").click()
    assert column(opened, 7)[0] == "86.1 min" and column(opened, 7)[-2:] == ["", ""]


def test_filters_leave_what_was_measured_so(opened, results):
    found, titles = opened.locator("#found"), opened.locator("#table tr.title")
    assert found.inner_text() == "12 rows in 2 tables, each sorted by rank."
    opened.locator("[name=resolution]").select_option("64")
    assert titles.all_inner_texts()[0].startswith("cars 64x64: fid-cars-none-5k, less is better")
    opened.locator("[name=resolution]").select_option("32")
    opened.locator("[name=condition]").select_option("fixed")
    assert "condition fixed" in titles.inner_text() and "21.24 ± 0.39" in column(opened, 4)
    opened.get_by_label("System or weights").fill("eg3D cond")
    assert found.inner_text() == "1 row in 1 table, each sorted by rank."
    opened.locator("[name=cameras]").select_option("uniform")
    assert found.inner_text().startswith("No row is like that")
    opened.get_by_role("button", name="Reset").click()
    until(opened, "document.getElementById('found').textContent.startsWith('12 rows')")
    opened.locator("[name=metric]").select_option("")
    own = [table["title"] for table in page_data([results])["tables"] if table["condition"] == "own"]
    assert titles.all_inner_texts() == own


def test_images_are_there_and_stand_still_when_asked_to(opened):
    opened.locator("#plots").scroll_into_view_if_needed()
    until(opened, "[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth >= 64)")
    assert opened.locator("#table img.orbit").count() == 2 and opened.locator("#beside img").count() == 2
    sources = "[...document.querySelectorAll('img.orbit')].map(i => i.src.match(/-(\\w+)[.]webp$/)[1])"
    assert opened.evaluate(sources) == ["orbit", "orbit"]
    opened.get_by_role("button", name="Still images").click()
    assert opened.evaluate(sources) == ["still", "still"]


def test_details_open_by_keyboard_and_give_the_focus_back(opened, results):
    name = row_id(
        next(r for r in leaderboard.read(results) if r["weights"] == "eg3d-cars32" and r["metric"][:4] == "fid-")
    )
    opened.locator("[name=metric]").select_option("")
    opened.locator(f"a[href='#row-{name}'] >> nth=0").press("Enter")
    dialog = details(opened)
    shown = dialog.inner_text()
    assert f"zoo evaluate --row {name}" in shown and "zoo fit -c eg3d/cars32" in shown and "MIT" in shown
    assert "Intel(R) Xeon(R) Processor" in shown and "41.7 min" in shown and "Commit" in shown
    assert dialog.locator("svg .dot").count() == 13
    until(opened, "document.querySelector('dialog img').naturalWidth > 300")
    dialog.get_by_text("Config of the generator").click()
    assert "class_path: zoo.eg3d.Generator" in dialog.inner_text()
    dialog.get_by_text("other scores").click()
    dialog.locator("li a", has_text="psnr-64objects").first.click()
    until(opened, "document.getElementById('details-title').textContent.startsWith('EG3D: psnr-64objects')")
    opened.keyboard.press("Escape")
    assert not dialog.is_visible() and opened.evaluate("location.hash") == ""
    assert opened.evaluate("document.activeElement.getAttribute('href')") == f"#row-{name}"


def test_a_click_opens_a_row_and_an_address_does_so_too(opened, folder):
    row = opened.locator("#table tr[data-row]").nth(1)
    row.locator("td").last.click()
    assert details(opened).get_by_role("heading").first.inner_text().startswith("GIRAFFE: fid-cars-none-5k 3.661")
    address = opened.url
    opened.go_back()
    opened.locator("dialog").wait_for(state="hidden")
    opened.goto("about:blank")
    opened.goto(address)
    assert details(opened).get_by_role("heading").first.inner_text().startswith("GIRAFFE")
    opened.get_by_role("button", name="Close").click()
    assert not opened.locator("dialog").is_visible()


def test_two_systems_stand_side_by_side(opened):
    left, right = opened.locator("#left-grid"), opened.locator("#right-grid")
    assert left.get_attribute("src") != right.get_attribute("src")
    opened.get_by_label("Right").select_option(label="eg3d-cars32 (EG3D)")
    opened.get_by_label("Left").select_option(label="giraffe-cars32 (GIRAFFE)")
    command = "zoo sample giraffe-cars32,eg3d-cars32 --seeds 0-3 --views 6 --out both.png"
    assert opened.locator("#beside-command").inner_text() == command
    until(opened, "['left-grid', 'right-grid'].every(id => document.getElementById(id).naturalWidth === 394)")


def test_plots_say_what_a_mark_is_and_link_to_its_row(opened):
    cost, consistency = opened.locator("#against-cost svg"), opened.locator("#against-consistency svg")
    assert (
        cost.get_attribute("aria-label")
        == "fid-cars-none-5k, less is better ↓; across: training [min], less is better ←"
    )
    assert "psnr-64objects-32views, more is better →" in consistency.get_attribute("aria-label")
    assert cost.locator("a.mark").count() == 8 and consistency.locator("a.mark").count() == 6
    mark = consistency.locator("a.mark[aria-label^='CIPS3D']")
    mark.focus()
    said = opened.locator(".said").nth(1).inner_text()
    assert said.startswith("CIPS3D, cips3d-cars32: fid-cars-none-5k 5.904 ± 0.21, psnr-64objects-32views 47.98 ± ")
    cost.locator("a.mark[aria-label^='GIRAFFE'] .target").hover()
    assert opened.locator(".said").nth(0).inner_text().endswith("training [min]: 23.5")
    opened.locator("[name=cost]").select_option("parameters")
    assert "parameters, less" in opened.locator("#against-cost svg").get_attribute("aria-label")
    opened.locator("[name=images]").select_option("cars 64x64")
    assert opened.locator("#against-cost a.mark").count() == 1
    opened.locator("#against-cost a.mark").press("Enter")
    assert details(opened).get_by_role("heading").first.inner_text().startswith("GRAF: fid-cars-none-5k")


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_page(opened, width):
    opened.set_viewport_size({"width": width, "height": 800})
    until(opened, "document.documentElement.scrollWidth <= innerWidth")
    until(opened, "(table => table.scrollWidth <= table.clientWidth)(document.querySelector('.wide'))")
    until(opened, "document.querySelector('#plots svg').getBoundingClientRect().right <= innerWidth")
    opened.locator("#table tbody a").nth(5).click()
    details(opened)
    until(opened, "(dialog => dialog.scrollWidth <= dialog.clientWidth)(document.querySelector('dialog'))")


def test_colours_are_those_of_the_system_or_the_switch(opened):
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    opened.emulate_media(color_scheme="light")
    assert opened.evaluate(ground) == "rgb(255, 255, 255)"
    opened.emulate_media(color_scheme="dark")
    assert opened.evaluate(ground) == "rgb(20, 23, 28)"
    opened.get_by_role("button", name="Dark", pressed=True).click()
    assert opened.evaluate(ground) == "rgb(255, 255, 255)"


def test_published_numbers_have_a_table_with_protocol_and_source(opened):
    table = opened.locator("#papers")
    assert table.locator("tbody tr").count() == len(PUBLISHED.read_text().splitlines()) - 1
    assert table.locator("th").all_inner_texts() == ["Dataset", "Resolution", "System", "FID", "Source", "Protocol"]


def test_a_page_without_images_has_no_place_for_them(page, tmp_path, results):
    write_page(tmp_path, [results])
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator("#table tr[data-row]").count() == 12 and not page.locator("#beside").is_visible()
    assert not page.get_by_role("button", name="Still images").is_visible()


def test_a_hostile_row_is_shown_as_text(page, tmp_path):
    leaderboard.append_row(HOSTILE, tmp_path / "results.csv")
    write_page(tmp_path / "page", [tmp_path / "results.csv"])
    page.goto((tmp_path / "page" / "index.html").as_uri())
    assert page.locator("#table tbody th").nth(1).inner_text().startswith(HOSTILE["system"])
    page.locator("#table tbody a").click()
    assert MARKUP in details(page).inner_text()
    page.keyboard.press("Escape")
    page.locator("#against-cost a.mark").focus()
    assert MARKUP in page.locator(".said").first.inner_text()
    page.wait_for_timeout(100)
    assert page.title() == "Leaderboard of 3D-aware GANs" and page.locator("main img[src=x]").count() == 0


def test_without_any_rows_it_says_so(page, tmp_path):
    write_page(tmp_path, [])
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator("#found").inner_text() == "No row is like that: set some filters to all, or reset them."
