"""What the published programs draw, slowly, and the figures by which images are compared with it.

Written from the descriptions in the families' modules with NumPy's random numbers and Pillow's lines; none of the
kernels that draw images is used, but for the orbit that is tested against the published program bit for bit. Run as a
program it measures `fdsl_fidelity.json` anew, in some minutes, and named one family, that one:

    python tests/fdsl/published_programs.py > tests/fdsl/fdsl_fidelity.json
    python tests/fdsl/published_programs.py segrcdb > tests/fdsl/fdsl_fidelity_segmentation.json
"""

import json
import math
import sys

import numpy as np
from PIL import Image, ImageDraw

from hf_kakurenbo.fdsl.catalog import category_parameters, find_family
from hf_kakurenbo.fdsl.kernels.contours import NOISE_SLOPES
from hf_kakurenbo.fdsl.kernels.published_fractaldb import _orbit, _to_pixels

IMAGES = {"rcdb": 300, "visualatom": 300, "visualatom_best": 300, "fractaldb": 300}
CROPS = 4


def noise(random, count):
    """Perlin's noise at random positions in 0..10,000, as of the package "noise"."""
    positions = random.uniform(0, 10_000, count)
    cells = positions.astype(np.int64)
    here = positions - cells
    fade = here**3 * (here * (here * 6 - 15) + 10)
    left, right = NOISE_SLOPES[cells % 256] * here, NOISE_SLOPES[cells % 256 + 1] * (here - 1)
    return 0.4 * (left + fade * (right - left))


def contours(random, vertices, lines, radii, centre, background, bracket):
    """Closed polygons that leave an ellipse: uint8, (512, 512)."""
    image = Image.new("L", (512, 512), background)
    for gray, corners in polygons(random, vertices, lines, radii, centre, bracket):
        ImageDraw.Draw(image).line(corners, fill=gray, width=1)
    return np.asarray(image)


def polygons(random, vertices, lines, radii, centre, bracket):
    """Closed polygons that leave an ellipse: of each its gray and its corners."""
    angles = 2 * math.pi / vertices * np.arange(vertices)
    x, y = centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)
    for _ in range(lines):
        gray = int(random.integers(0, 256))
        x = x - np.cos(angles) * bracket(angles)
        y = y - np.sin(angles) * bracket(angles)
        corners = list(zip(x.tolist(), y.tolist(), strict=True))
        yield gray, [*corners, corners[0]]


def rcdb(random, _):
    """The first image of a category of `make_rcdb.py`."""
    vertices = 0
    while not 3 <= vertices <= 200:
        vertices = int(random.exponential(100))
    lines, c, w = int(random.integers(1, 201)), random.uniform(0, 4), random.uniform(0, 0.1)
    radii = random.integers(0, 101) * random.uniform(1, 2, 2)
    centre = (512 + random.integers(-400, 401, 2)) / 2
    return contours(random, vertices, lines, radii, centre, 255, lambda angles: noise(random, vertices) * 2 * c - c - w)


def visualatom(random, _, least_noise=2, smallest_radius=0, most_width=0.01):
    """The first image of a category of `render_VisualAtom.py`, with its defaults."""
    vertices, lines = int(random.integers(200, 1001)), int(random.integers(1, 201))
    c, w = random.uniform(least_noise, least_noise + 4), random.uniform(0, most_width)
    radii = random.integers(smallest_radius, smallest_radius + 51) * random.uniform(1, 2, 2)
    first, second = random.choice(21, 2, replace=False)
    centre = (512 + random.integers(-512, 513, 2)) / 2

    def bracket(angles):
        waves = 0.5 * np.sin(angles * first) + 0.5 * np.sin(angles * second)
        return noise(random, vertices) * c - c - waves - w

    return contours(random, vertices, lines, radii, centre, 0, bracket)


def segrcdb(random, _):
    """An image of `SegRCDB_render.py` and its mask M1, with categories as of `make_SegRCDB.sh` of its own."""
    categories = {}
    image, mask = Image.new("L", (512, 512)), Image.new("L", (512, 512))
    for _ in range(32):
        category = int(random.integers(1, 255))
        if category not in categories:
            categories[category] = segrcdb_category(random)
        centre = (512 + random.integers(-512, 513, 2)) / 2
        vertices, lines, radii, bracket = categories[category]
        for gray, corners in polygons(random, vertices, lines, radii, centre, bracket):
            ImageDraw.Draw(image).line(corners, fill=gray, width=1)
            ImageDraw.Draw(mask).line(corners, fill=category, width=1)
    return np.asarray(image), np.asarray(mask)


def segrcdb_category(random):
    """Vertices, lines, radii and bracket of a category of `SegRCDB_params.py`."""
    vertices = 0
    while not 3 <= vertices <= 500:
        vertices = int(random.exponential(100))
    lines, c, w = int(random.integers(1, 51)), random.uniform(0, 4), random.uniform(0, 0.1)
    radii = random.integers(0, 51) * random.uniform(1, 2, 2)
    return vertices, lines, radii, lambda angles: noise(random, vertices) * 2 * c - c - w


def figures_of_masked(image, mask):
    """The figures of an image of 512 × 512 and its mask."""
    classes, pixels = np.unique(mask[mask > 0], return_counts=True)
    middle = mask[128:384, 128:384] > 0
    return {
        "covered": (mask > 0).mean(),
        "covered_in_the_middle": middle.mean(),
        "gray": image[mask > 0].mean(),
        "classes": len(classes),
        "largest_class": pixels.max() / mask.size,
        "border": (np.diff(mask.astype(int), axis=1) != 0).mean(),
    }


def visualatom_best(random, number):
    """The same with the values of `make_VisualAtom.sh`."""
    return visualatom(random, number, 0, 10, 0.1)


def fractaldb(random, number, one_pattern=False, points=200_000, size=362, pad=6):
    """An image of `make_fractaldb.py` as `exe.sh` calls it, of this project's category of that number."""
    family = find_family("fractaldb")
    table = category_parameters(family, 0, number)
    weights = np.ones(6)
    variant = number % 25
    if variant:
        weights[(variant - 1) % 6] = (0.2, 0.6, 1.4, 1.8)[(variant - 1) // 6]
    numbers = np.random.RandomState(100).random_sample(points)
    orbit = _orbit(table[:, :6] * weights, np.cumsum(table[:, 6]), numbers)
    if not np.isfinite(orbit).all() or np.abs(orbit).max() > 1e60:
        return None
    columns, rows = (_to_pixels(coordinates, size, pad).astype(np.int64) for coordinates in orbit)
    patterns = random.integers(1, 512, 1 if one_pattern else points)
    last, lit = np.zeros((9, size + 4, size + 4), dtype=np.int64), np.zeros((9, size + 4, size + 4), dtype=bool)
    for place in range(9):
        covered = rows + 1 + place // 3, columns + 1 + place % 3
        last[place][covered] = np.arange(1, points + 1)  # of several the last stays
        lit[place][covered] = patterns >> (8 - place) & 1
    seen = np.take_along_axis(lit, last.argmax(axis=0)[None], axis=0)[0] & (last.max(axis=0) > 0)
    return (seen[:size, :size][::-1] * 127).astype(np.uint8)


def crop(image, random):
    """A random resized crop: 0.08 to 1 of the area, 3/4 to 4/3 in shape, to 224 × 224 by a bicubic filter."""
    size = len(image)
    while True:
        area, shape = random.uniform(0.08, 1) * size**2, math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if width <= size and height <= size:
            break
    left, top = random.integers(0, size - width + 1), random.integers(0, size - height + 1)
    part = Image.fromarray(image[top : top + height, left : left + width])
    return np.asarray(part.resize((224, 224), Image.Resampling.BICUBIC))


def fine_energy(image):
    """The fraction of an image's energy, its mean apart, above half of the Nyquist frequency; None of a flat image."""
    pixels = image.astype(np.float64)
    energy = np.abs(np.fft.fft2(pixels - pixels.mean())) ** 2
    frequencies = np.fft.fftfreq(len(image))
    fine = np.hypot(frequencies[:, None], frequencies) > 0.25
    return energy[fine].sum() / energy.sum() if energy.sum() > 1 else None


def figures_of(small, drawn, background, random):
    """The figures of an image: small, (224, 224), and as large as it was drawn."""
    ink = small[small != background]
    steps = np.abs(np.diff(small.astype(np.int64), axis=1))
    crops = [energy for energy in (fine_energy(crop(drawn, random)) for _ in range(CROPS)) if energy is not None]
    return {
        "ink": ink.mean() if len(ink) else None,
        "ink_fraction": len(ink) / small.size,
        "gradient": steps.mean(),
        "fine_energy": np.mean(crops) if crops else None,
    }


def summarize(figures):
    """The mean of each figure over images, and its standard error."""
    found = {}
    for name in figures[0]:
        values = np.array([each[name] for each in figures if each[name] is not None])
        found[name] = {"mean": float(values.mean()), "error": float(values.std(ddof=1) / math.sqrt(len(values)))}
    return found


def measure(name, images):
    """The figures of a published program."""
    random = np.random.default_rng(0)
    if name == "segrcdb":
        return {"images": images, **summarize([figures_of_masked(*segrcdb(random, 0)) for _ in range(images)])}
    figures = []
    for number in range(images):
        drawn = globals()[name](random, number)
        if drawn is not None:
            small = np.asarray(Image.fromarray(drawn).resize((224, 224), Image.Resampling.BICUBIC))
            figures.append(figures_of(small, drawn, find_family(name).background if name != "fractaldb" else 0, random))
    return {"images": len(figures), **summarize(figures)}


if __name__ == "__main__":
    names = sys.argv[1:] or list(IMAGES)
    json.dump({name: measure(name, IMAGES.get(name, 300)) for name in names}, sys.stdout, indent=1)
    print()
