"""Web pages that a server sends instead of a file: the confirmation form of Google Drive, and error messages."""

import re
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from zoo.utils.errors import printable


class Form(HTMLParser):
    """The first form of a page: its target and hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action, self.fields, self.inside = "", {}, False

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action, self.inside = attributes.get("action", ""), True
        if tag == "input" and self.inside and attributes.get("type") == "hidden" and attributes.get("name"):
            self.fields[attributes["name"]] = attributes.get("value", "")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "form"


def confirmation(page: str, url: str) -> str | None:
    """The target of the button 'download anyway' that Google Drive shows for large files; None for other pages."""
    form = Form()
    form.feed(page)
    if "confirm" not in form.fields or "id" not in form.fields:
        return None
    try:
        target = urljoin(url, form.action)
        own, there = urlsplit(url).netloc, urlsplit(target).netloc
    except ValueError:  # the form leads to no address
        return None
    if there != own and not there.endswith((".google.com", ".googleusercontent.com")):
        return None
    return f"{target}?{urlencode(form.fields)}"


def about_page(page: str) -> str:
    """A short description of a web page."""
    start = re.search(r"<title[^>]{0,200}>", page, re.I)
    title = printable(page[start.end() :].split("<")[0], 90) if start else "no title"
    if re.search(r"quota|too many users|too many (download|request)", page, re.I):
        return f"answers with a web page ('{title}'): its download quota is exceeded; try again in a day"
    return f"answers with a web page ('{title}') instead of the file"
