"""The page that other tests open complains of what no page should have."""

import pytest

pytestmark = pytest.mark.xdist_group("browser")

BAD = {
    "a request that leaves": ("<img src='http://zoo.invalid/a.png'>", "outside: http://zoo.invalid/a.png"),
    "a socket that leaves": ("<script>new WebSocket('ws://zoo.invalid/')</script>", "outside: ws://zoo.invalid/"),
    "an error in the console": ("<script>console.error('no')</script>", "console: no"),
    "an exception": ("<script>throw new Error('never')</script>", "exception: never"),
    "a missing file": ("<img src='nothing.png'>", "failed: file://"),
}


@pytest.mark.parametrize(("html", "complaint"), BAD.values(), ids=list(BAD))
def test_a_bad_page_is_told_from_a_good_one(tmp_path, page, complaints, html, complaint):
    file = tmp_path / "index.html"
    file.write_text("<!doctype html><link rel=icon href='data:,'><p>good")
    page.goto(file.as_uri())
    assert complaints == []
    file.write_text(f"<!doctype html><link rel=icon href='data:,'>{html}")
    page.goto(file.as_uri())
    page.wait_for_timeout(200)
    assert any(said.startswith(complaint) for said in complaints), complaints
    complaints.clear()
