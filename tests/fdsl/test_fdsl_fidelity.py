"""The images that a network sees are those of the published programs: how dark, how steep, how fine they are.

`fdsl_fidelity.json` was measured by `published_programs.py`: images made smaller to 224 × 224, and the spectrum of
random resized crops of the images as they were drawn.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from published_programs import figures_of, rcdb, summarize, visualatom

from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.fdsl.catalog import find_family

PUBLISHED = json.loads(Path(__file__).with_name("fdsl_fidelity.json").read_text())
FIGURES = ("ink", "ink_fraction", "gradient", "fine_energy")
IMAGES = 75
# Of the published programs at 512 pixels, from their own images.
INK_FRACTION_AS_DRAWN = {"rcdb": 0.1767, "visualatom": 0.4133}


def ours(name, image_count=IMAGES, drawn_at=None, **options):
    """The figures of images of the first categories, the instances of fractals in turn."""
    family, random, figures = find_family(name), np.random.default_rng(1), []
    background = getattr(family, "background", 0)
    for number in range(image_count):
        instance = number % 25 if name == "fractaldb" else 0
        chosen = {"mode": "L", "as_tensor": True, "categories": [number], "instances": [instance], **options}
        small, drawn = (
            load_fdsl(f"{name}-1k", image_size=size, **chosen)[0]["image"][0].numpy()
            for size in (224, drawn_at or family.draw_size)
        )
        figures.append(figures_of(small, drawn, background, random))
    return summarize(figures)


def distance(one, other):
    """How far two means are apart, in standard errors."""
    return abs(one["mean"] - other["mean"]) / math.hypot(one["error"], other["error"])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_ours_agree_with_the_published_programs(name):
    found = ours(name)
    apart = {figure: round(distance(found[figure], PUBLISHED[name][figure]), 2) for figure in FIGURES}
    assert max(apart.values()) < 3, (apart, found, PUBLISHED[name])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_drawn_at_the_size_of_the_network_they_would_not(name):
    """What the first version did: the test above can fail."""
    points = {"points": 100_000} if name == "fractaldb" else {}
    found = ours(name, drawn_at=224, draw_size=224, **points)
    for figure in ("ink", "fine_energy"):
        assert distance(found[figure], PUBLISHED[name][figure]) > 5


@pytest.mark.parametrize("program", [rcdb, visualatom], ids=lambda program: program.__name__)
def test_the_slow_programs_are_the_published_ones(program):
    """By the ink of images that the published programs themselves drew."""
    random = np.random.default_rng(3)
    background = 255 if program is rcdb else 0
    found = np.array([(program(random, 0) != background).mean() for _ in range(80)])
    expected = INK_FRACTION_AS_DRAWN[program.__name__]
    assert abs(found.mean() - expected) < 3 * found.std() * math.sqrt(1 / 80 + 1 / 40)
