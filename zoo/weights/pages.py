"""Web pages that come instead of a file: where they lead, and what they say."""

import re
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit


class Form(HTMLParser):
    """The first form of a page: where it leads, and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action, self.fields, self.inside = "", {}, False

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action, self.inside = given.get("action", ""), True
        if tag == "input" and self.inside and given.get("type") == "hidden" and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "form"


def confirmation(page: str, url: str) -> str | None:
    """Where the button 'download anyway' leads that Google Drive shows for large files; None for other pages."""
    form = Form()
    form.feed(page)
    if "confirm" not in form.fields or "id" not in form.fields:
        return None
    target = urljoin(url, form.action)
    own, there = urlsplit(url).netloc, urlsplit(target).netloc
    if there != own and not there.endswith((".google.com", ".googleusercontent.com")):
        return None
    return f"{target}?{urlencode(form.fields)}"


def about_page(page: str) -> str:
    """What a web page says, in a few words."""
    found = re.search(r"<title[^>]*>(.*?)</title", page, re.S | re.I)
    title = " ".join("".join(c if c.isprintable() else " " for c in found[1]).split())[:90] if found else "no title"
    if re.search(r"quota|too many users|too many (download|request)", page, re.I):
        return f"answers with a web page ('{title}'): too many have fetched it; try again in a day"
    return f"answers with a web page ('{title}') instead of the file"
