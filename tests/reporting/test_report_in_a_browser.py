"""The report in Chromium without a network: painted, not wider than the window, no error, nothing fetched."""

import re
import shutil
import subprocess
from html import escape

import numpy as np
import pytest
from PIL import Image
from report_toy import trainer_of_pictures

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = [390, 1280]

pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: install the package `chromium`"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    trainer = trainer_of_pictures(folder)
    trainer.train()
    return trainer.hiding_report(folder / "report.html")


def browse(page, *options):
    """Open a page; what the browser printed."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_painted(page, width, tmp_path):
    shot = tmp_path / "shot.png"
    done = browse(page, f"--window-size={width},3000", f"--screenshot={shot}")
    assert "CONSOLE" not in done.stderr, done.stderr
    with Image.open(shot) as image:
        assert image.width == width
        pixels = np.asarray(image.convert("L"), dtype=np.int16)
    # Letters and charts in each part of the page, and white between them.
    for part in np.array_split(pixels, 5):
        assert (part < 100).mean() > 0.002
        assert (part > 230).mean() > 0.3


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(page, width):
    """Measured by a script in a copy of the page: the page itself has none and would refuse it.

    The copy is in a frame, since a window of Chromium's is never narrower than 500 pixels.
    """
    script = (
        "<script>addEventListener('load', () => { const wide = [...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);"
        "const broken = [...document.images].filter(e => e.naturalWidth === 0).length;"
        "const found = [document.documentElement.scrollWidth, innerWidth, wide.length, broken];"
        "parent.document.title = found.join(' '); })</script>"
    )
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', script, page.read_text(encoding="utf-8"))
    html = html.replace("<details>", "<details open>")
    frame = page.with_name(f"measured-{width}.html")
    style = f"width: {width}px; height: 3000px; border: 0"
    frame.write_text(f'<iframe style="{style}" srcdoc="{escape(html)}"></iframe>', encoding="utf-8")
    done = browse(frame, "--window-size=1400,3000", "--dump-dom", "--virtual-time-budget=5000")
    measured = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", done.stdout)
    assert measured is not None
    scrolled, inner, wide, broken = map(int, measured.groups())
    assert inner == width
    assert scrolled <= inner
    assert (wide, broken) == (0, 0)


def test_the_browser_refuses_what_a_page_like_it_would_fetch(page):
    """The policy in the page holds: an image put into it from elsewhere is refused, and the browser says so."""
    copy = page.with_name("with-image.html")
    text = page.read_text(encoding="utf-8").replace("<main>", '<main><img src="https://example.org/a.png" alt="a">')
    copy.write_text(text, encoding="utf-8")
    done = browse(copy, "--window-size=800,600", "--dump-dom", "--virtual-time-budget=3000")
    assert "Content Security Policy" in done.stderr
