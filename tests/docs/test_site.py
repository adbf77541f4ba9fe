"""The built site as a browser shows it."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = {
    "index.html": "Swap Trainer for KakurenboTrainer",
    "quickstart.html": "kakurenbo/hidden_fraction",
    "api/trainer.html": "hf_kakurenbo.KakurenboTrainer",
}

pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the pages with (apt install chromium)"),
    pytest.mark.skipif(not SITE.is_dir(), reason="not built: sphinx-build -W -n -b html docs docs/_build/html"),
]


def chromium(page, folder, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *options, page.as_uri()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown_text(document):
    """The text between the tags, spaces made one."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", document, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_renders(name, tmp_path):
    document = chromium(SITE / name, tmp_path, "--dump-dom")
    assert re.search(r"<title>[^<]*hf_kakurenbo", document)
    assert PAGES[name] in shown_text(document)
    chromium(SITE / name, tmp_path, "--window-size=1280,900", "--screenshot=shown.png")
    with Image.open(tmp_path / "shown.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape == (900, 1280)
    # Of a page of text, most is background, and a good part is not.
    background = np.bincount(pixels.ravel()).argmax()
    assert 0.01 < (abs(pixels.astype(int) - background) > 60).mean() < 0.5
    assert len(np.unique(pixels)) > 30


def test_every_page_is_two_clicks_from_the_first():
    def links(page):
        hrefs = re.findall(r'href="([^"#:]+\.html)[#"]', page.read_text(encoding="utf-8"))
        return {(page.parent / href).resolve() for href in hrefs}

    once = links(SITE / "index.html")
    reached = once | {page for first in once if first.is_file() for page in links(first)}
    made_by_sphinx = {"genindex.html", "search.html", "py-modindex.html"}
    pages = {
        page.resolve()
        for page in SITE.rglob("*.html")
        if page.name not in made_by_sphinx and "_static" not in page.parts
    }
    assert len(pages) > 25
    assert not pages - reached
