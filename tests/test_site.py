"""The site of the documentation: it builds without a warning, and its pages load nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_documentation import NAMES

ROOT = Path(__file__).parent.parent
pytest.importorskip("mkdocstrings", reason="make site needs the extra site: pip install -e '.[site]'")
pytest.importorskip("material", reason="make site needs the extra site: pip install -e '.[site]'")
# What a browser fetches by itself, not what a reader may follow.
TAGS = r"<(?:script|img|iframe|source|link(?! rel=\"?(?:canonical|prev|next)))\b"
LOADED = re.compile(TAGS + r"[^>]*\b(?:src|href)=\"?([^\"\s>]+)")
IN_STYLES = re.compile(r"(?:@import|url\()\s*[\"']?([^\"')\s]+)")


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path) -> None:
    words = ["-m", "mkdocs", "build", "--strict", "-f", "docs/site/mkdocs.yml", "--site-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted(tmp_path.rglob("*.html"))
    names = {page.relative_to(tmp_path).as_posix() for page in pages}
    assert {name.replace("README.md", "index.md").replace(".md", ".html") for name in NAMES} <= names
    loaded = {link for page in pages for link in LOADED.findall(page.read_text())}
    loaded |= {link for style in tmp_path.rglob("*.css") for link in IN_STYLES.findall(style.read_text())}
    assert any(link.endswith(".css") for link in loaded) and any(link.endswith(".js") for link in loaded)
    assert {link for link in loaded if re.match(r"(\w+:)?//", link)} == set()
    assert 'id="zoo.render.renderer.VolumeRenderer"' in (tmp_path / "docs/api/zoo.render.html").read_text()
    assert 'href="../../docs/api/zoo.pigan.html#zoo.pigan"' in (tmp_path / "configs/pigan/index.html").read_text()
