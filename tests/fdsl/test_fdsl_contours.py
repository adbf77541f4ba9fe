"""RCDB and VisualAtom: lines as PIL draws them, noise as Perlin's, ink as in the published programs' images."""

import math
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from hf_kakurenbo.fdsl.families.rcdb import RCDB
from hf_kakurenbo.fdsl.families.visualatom import VisualAtom, VisualAtomBest
from hf_kakurenbo.fdsl.kernels.contours import Contours, draw_polygon, perlin_noise, sine_and_cosine, turn
from hf_kakurenbo.fdsl.kernels.drawing import Drawing
from hf_kakurenbo.fdsl.kernels.random_numbers import random_bits

FAMILIES = [RCDB(), VisualAtom()]
by_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

# Measured on the programs of the two papers, with their default values: 160 images of 512 × 512, of 40 categories.
REFERENCE = {
    "rcdb": {"mean": 0.1767, "std": 0.1351, "q10": 0.0232, "q50": 0.1326, "q90": 0.3705, "gray": 128.2, "levels": 73.3},
    "visualatom": {
        "mean": 0.4133,
        "std": 0.2296,
        "q10": 0.0587,
        "q50": 0.4394,
        "q90": 0.7008,
        "gray": 129.8,
        "levels": 69.3,
    },
}
REFERENCE_CATEGORIES, REFERENCE_INSTANCES = 40, 4


def draw(family, category, instance, image_size=512, color=False):
    parameters = family.draw_parameters(family.parameter_key(0, category, 0))
    key = family.instance_key(0, category, instance)
    return family.render(family.draw_instance(parameters, instance, key), Drawing(image_size, color), key)


# Sine and cosine


@given(numerator=st.integers(-(2**59), 2**59), denominator=st.integers(1, 2**59))
def test_sine_and_cosine_of_any_fraction_of_a_turn_lie_on_the_circle(numerator, denominator):
    sine, cosine = sine_and_cosine(numerator, denominator)
    assert abs(sine * sine + cosine * cosine - 1) < 1e-15
    assert math.dist(sine_and_cosine(-numerator, denominator), (-sine, cosine)) < 5e-16


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 12, 200, 997, 1000])
def test_sine_and_cosine_are_those_of_the_library(count):
    for k in range(count):
        sine, cosine = sine_and_cosine(k, count)
        # Its angle is rounded before the sine is taken: at 2π by 4e-16.
        assert abs(sine - math.sin(2 * math.pi * k / count)) < 1.2e-15
        assert abs(cosine - math.cos(2 * math.pi * k / count)) < 1.2e-15


def test_quarters_of_a_turn_are_exact():
    quarters = [sine_and_cosine(k, 4) for k in range(4)]
    assert quarters == [(0, 1), (1, 0), (0, -1), (-1, 0)]


def test_a_turn_of_several_periods_repeats_exactly():
    sines, _ = turn(600, 20)
    assert (sines[:30].tolist() * 20) == sines.tolist()


# Noise

# Ken Perlin, "Improving noise", 2002: the table every implementation has.
PERMUTATION = """
151 160 137 91 90 15 131 13 201 95 96 53 194 233 7 225 140 36 103 30 69 142 8 99 37 240 21 10 23 190 6 148 247
120 234 75 0 26 197 62 94 252 219 203 117 35 11 32 57 177 33 88 237 149 56 87 174 20 125 136 171 168 68 175 74
165 71 134 139 48 27 166 77 146 158 231 83 111 229 122 60 211 133 230 220 105 92 41 55 46 245 40 244 102 143
54 65 25 63 161 1 216 80 73 209 76 132 187 208 89 18 169 200 196 135 130 116 188 159 86 164 100 109 198 173
186 3 64 52 217 226 250 124 123 5 202 38 147 118 126 255 82 85 212 207 206 59 227 47 16 58 17 182 189 28 42
223 183 170 213 119 248 152 2 44 154 163 70 221 153 101 155 167 43 172 9 129 22 39 253 19 98 108 110 79 113
224 232 178 185 112 104 218 246 97 228 251 34 242 193 238 210 144 12 191 179 162 241 81 51 145 235 249 14 239
107 49 192 214 31 181 199 106 157 184 84 204 176 115 121 50 45 127 4 150 254 138 236 205 93 222 114 67 29 24
72 243 141 128 195 78 66 215 61 156 180
"""
HASHES = [int(number) for number in PERMUTATION.split()]


def slow_noise(position):
    """Perlin's improved noise in one dimension, with the gradients and the period of the package "noise"."""

    def gradient(corner):
        hashed = HASHES[(corner % 1024) % 256]
        return -1 if hashed & 8 else 1 + hashed % 8

    corner = math.floor(position)
    distance = position - corner
    weight = 6 * distance**5 - 15 * distance**4 + 10 * distance**3
    left, right = gradient(corner) * distance, gradient(corner + 1) * (distance - 1)
    return 0.4 * ((1 - weight) * left + weight * right)


def test_the_table_is_a_permutation():
    assert sorted(HASHES) == list(range(256))


@given(bits=st.integers(0, 2**32 - 1))
def test_the_noise_is_perlins(bits):
    assert perlin_noise(np.uint64(bits)) == pytest.approx(slow_noise(bits * 10_000 / 2**32), abs=1e-11)


@pytest.mark.parametrize("corner", [0, 1, 254, 255, 256, 1023, 1024, 9_999])
def test_the_noise_on_both_sides_of_a_whole_number(corner):
    first = math.ceil(corner * 2**32 / 10_000)
    for bits in (first, first + 1, first + 200_000):
        assert perlin_noise(np.uint64(bits)) == pytest.approx(slow_noise(bits * 10_000 / 2**32), abs=1e-11)


# Lines


def outline(size, corners):
    canvas = np.zeros((size, size), dtype=np.uint8)
    x, y = np.array(corners, dtype=np.int64).T.copy()
    draw_polygon(canvas.reshape(-1), size, x, y, np.uint8(255))
    return canvas


def outline_by_pil(size, corners):
    image = Image.new("L", (size, size))
    canvas = ImageDraw.Draw(image)
    for start, end in zip([corners[-1], *corners[:-1]], corners, strict=True):
        canvas.line([start, end], fill=255, width=1)
    return np.asarray(image)


def corners_within(margin, most=6):
    return st.lists(st.tuples(*[st.integers(-margin, 64 + margin)] * 2), min_size=2, max_size=most)


@given(
    size=st.sampled_from([1, 7, 64]), corners=st.one_of(corners_within(0), corners_within(80), corners_within(2**17))
)
def test_lines_are_those_of_pil_pixel_by_pixel(size, corners):
    np.testing.assert_array_equal(outline(size, corners), outline_by_pil(size, corners))


def test_every_slope_is_that_of_pil():
    for x in range(41):
        for y in range(41):
            corners = [(20, 20), (x, y)]
            np.testing.assert_array_equal(outline(41, corners), outline_by_pil(41, corners))


@pytest.mark.parametrize("corner", [(-(2**18), 2**18), (2**18, 2**18 - 1), (-(2**18), -(2**18) + 1), (7, -(2**18))])
def test_lines_to_the_furthest_corner_are_those_of_pil(corner):
    for far in (corner, corner[::-1]):
        corners = [far, (-far[0] + 20, -far[1] + 20), (30, 31)]
        np.testing.assert_array_equal(outline(64, corners), outline_by_pil(64, corners))


coordinates = st.integers(-(2**18), 2**18)


@given(corners=st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=8), size=st.integers(1, 40))
def test_nothing_is_written_outside_the_image(corners, size):
    guarded = np.zeros(3 * size * size, dtype=np.uint8)
    x, y = np.array(corners, dtype=np.int64).T.copy()
    draw_polygon(guarded[size * size : -size * size], size, x, y, np.uint8(1))
    assert not guarded[: size * size].any()
    assert not guarded[-size * size :].any()


# Drawings


def slow_render(contours, size, key):
    """The formula with math's functions and PIL's lines, from the same random numbers."""
    noise_key, ink_key = (np.uint64(random_bits(key, counter)) for counter in (16, 17))
    background = 0 if contours.frequencies else 255
    image = Image.new("L", (size, size), background)
    canvas = ImageDraw.Draw(image)
    angles = [2 * math.pi * k / contours.vertices for k in range(contours.vertices)]
    x = [contours.center_x + contours.radius_x * math.cos(angle) for angle in angles]
    y = [contours.center_y + contours.radius_y * math.sin(angle) for angle in angles]
    for line in range(contours.lines):
        for k, angle in enumerate(angles):
            bits = random_bits(noise_key, line * contours.vertices + k)
            waves = sum(0.5 * math.sin(frequency * angle) for frequency in contours.frequencies)
            for axis, position, direction in ((x, bits >> 32, math.cos(angle)), (y, bits % 2**32, math.sin(angle))):
                noise = slow_noise(position * 10_000 / 2**32)
                axis[k] -= direction * (contours.noise_gain * noise - contours.outward - waves)
        corners = [(column * size / 512, row * size / 512) for column, row in zip(x, y, strict=True)]
        canvas.line([*corners, corners[0]], fill=int(random_bits(ink_key, line) % 256), width=1)
    return np.asarray(image)


@by_family
@pytest.mark.parametrize("size", [224, 512])
def test_images_are_those_of_the_formula(family, size):
    """A vertex within a rounding of the edge of a pixel may fall on either side: 1 in 10^10."""
    for category in range(3):
        parameters = family.draw_parameters(family.parameter_key(0, category, 0))
        key = family.instance_key(0, category, 5)
        contours = family.draw_instance(parameters, 5, key)._replace(lines=12)
        np.testing.assert_array_equal(
            family.render(contours, Drawing(size), key), slow_render(contours, size, key), strict=True
        )


def ink_statistics(images):
    """Of rows (ink fraction, mean gray of the ink, number of grays)."""
    ink = images[:, 0]
    quantiles = dict(zip(("q10", "q50", "q90"), np.quantile(ink, [0.1, 0.5, 0.9]), strict=True))
    gray, levels = np.nanmean(images[:, 1]), images[:, 2].mean()
    return {"mean": ink.mean(), "std": ink.std(), **quantiles, "gray": gray, "levels": levels}


@by_family
def test_the_ink_is_that_of_the_published_program(family):
    """Within 3.5 standard errors of 40 categories of 4 images, which are estimated by drawing such sets from ours."""
    categories, rows = 250, []
    for category in range(categories):
        for instance in range(REFERENCE_INSTANCES):
            image = draw(family, category, instance)
            ink = image[image != family.background]
            rows.append((ink.size / image.size, ink.mean() if ink.size else np.nan, len(np.unique(ink))))
    images = np.array(rows).reshape(categories, REFERENCE_INSTANCES, 3)
    ours = ink_statistics(images.reshape(-1, 3))
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, categories, (400, REFERENCE_CATEGORIES))
    resampled = [ink_statistics(images[indices].reshape(-1, 3)) for indices in chosen]
    # Ours are estimated too, from more categories.
    widened = math.sqrt(1 + REFERENCE_CATEGORIES / categories)
    for name, expected in REFERENCE[family.name].items():
        error = np.std([one[name] for one in resampled]) * widened
        assert abs(ours[name] - expected) < 3.5 * error, (name, ours[name], expected, error)


@by_family
@pytest.mark.parametrize("size", [1, 7, 64, 512])
def test_images_of_all_sizes(family, size):
    gray, colour = draw(family, 3, 1, size), draw(family, 3, 1, size, color=True)
    assert (gray.shape, gray.dtype) == ((size, size), np.uint8)
    assert (colour.shape, colour.dtype) == ((size, size, 3), np.uint8)
    assert colour.flags.c_contiguous
    assert colour.flags.writeable


@by_family
def test_colours_are_where_the_grays_are(family):
    gray, colour = draw(family, 3, 1), draw(family, 3, 1, color=True)
    np.testing.assert_array_equal(gray, colour[..., 0])
    assert len(np.unique(colour.reshape(-1, 3), axis=0)) > 10
    assert (colour[..., 0] != colour[..., 1]).any()


@by_family
def test_a_smaller_image_is_the_same_drawing(family):
    for category in range(4):
        large, small = (draw(family, category, 1, size) != family.background for size in (512, 128))
        shrunk = large.reshape(128, 4, 128, 4).any(axis=(1, 3))
        # Half a pixel of rounding at both sizes: what one has is in the other, or beside it.
        padded = np.pad(shrunk, 1)
        near = np.any([padded[i : i + 128, j : j + 128] for i in range(3) for j in range(3)], axis=0)
        assert small.any()
        assert near[small].mean() > 0.99


@by_family
def test_an_image_is_the_same_in_any_order_and_thread(family):
    numbers = [(category, instance) for category in range(3) for instance in range(4)]
    expected = [draw(family, *number, 64).tobytes() for number in numbers]
    assert len(set(expected)) == len(numbers)
    assert [draw(family, *number, 64).tobytes() for number in reversed(numbers)] == expected[::-1]
    with ThreadPoolExecutor(4) as pool:
        assert [image.tobytes() for image in pool.map(lambda number: draw(family, *number, 64), numbers)] == expected


GOLDEN = {
    "rcdb": {
        "gray": "b92679997fe1d364d2f376f058f0d3ad65dbccf54843f49d03a5035bec2d4f58",
        "colour": "8f2e55b769fa22b05d7e8e844ca890bfdaf0403806f57759ed05af6909132d95",
    },
    "visualatom": {
        "gray": "9916612586d2814d13d873d73bf4b4a6ac8bb5caeb4f2270578fde649ecba440",
        "colour": "7962d15914298df73342fc7625419a40cd5478a918fbbfc2f1f4ad00700f9535",
    },
}


@by_family
def test_images_are_those_of_the_version(family):
    """If this fails on purpose, raise the family's version: caches hold images under it."""
    found = {}
    for name, color in (("gray", False), ("colour", True)):
        images = [draw(family, category, 1, 224, color) for category in range(4)]
        found[name] = sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    assert (family.version, found) == (2, GOLDEN[family.name])


# Parameters


def parameters_of(family, count):
    return np.concatenate([family.draw_parameters(family.parameter_key(0, category, 0)) for category in range(count)])


def test_the_categories_of_rcdb_are_distributed_as_in_the_paper():
    vertices, lines, coefficient, width = parameters_of(RCDB(), 4000).T
    weights = np.exp(-np.arange(3, 201) / 100)
    for limit in (3, 20, 50, 100, 150, 200):
        share = weights[: limit - 2].sum() / weights.sum()
        assert abs((vertices <= limit).mean() - share) <= 4 * math.sqrt(share * max(1 - share, 0) / 4000) + 1e-12
    assert (vertices.min(), vertices.max(), lines.min(), lines.max()) == (3, 200, 1, 200)
    for values, high in ((lines, 201), (coefficient, 4), (width, 0.1)):
        assert values.mean() == pytest.approx(high / 2, rel=4 / math.sqrt(3 * 4000))


def test_the_categories_of_visualatom_are_distributed_as_in_the_paper():
    rows = parameters_of(VisualAtom(), 4000)
    limits = [(200, 1000), (1, 200), (0, 50), (2, 6), (0, 0.01), (1, 2), (1, 2), (0, 20), (0, 20)]
    for column, (low, high) in zip(rows.T, limits, strict=True):
        assert low <= column.min() <= column.max() <= high
        assert column.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low + 1) / math.sqrt(12 * 4000))
    first, second = rows[:, 7], rows[:, 8]
    assert (first != second).all()
    pairs = np.unique(np.stack([first, second]), axis=1)
    assert pairs.shape[1] == 21 * 20
    assert (first > second).mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))


@by_family
def test_instances_are_distributed_as_in_the_paper(family):
    parameters = family.draw_parameters(family.parameter_key(0, 0, 0))
    keys = [family.instance_key(0, 0, instance) for instance in range(4000)]
    contours = [family.draw_instance(parameters, instance, key) for instance, key in enumerate(keys)]
    reach = 400 if family.name == "rcdb" else 512
    for centers in ([one.center_x for one in contours], [one.center_y for one in contours]):
        assert min(centers) >= (512 - reach) / 2
        assert max(centers) <= (512 + reach) / 2
        assert np.mean(centers) == pytest.approx(256, abs=4 * reach / math.sqrt(12 * 4000))
    radii = np.array([one.radius_x for one in contours])
    if family.name == "visualatom":
        assert np.ptp(radii) == 0
    else:
        assert radii.mean() == pytest.approx(75, abs=3.5)
        assert radii.max() <= 200


@by_family
def test_the_parameters_of_categories_are_valid(family):
    for category in range(300):
        family.check_parameters(family.draw_parameters(family.parameter_key(0, category, 0)))


@by_family
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_parameters_that_are_not_finite_are_refused(family, value):
    for index, column in enumerate(family.columns):
        parameters = family.draw_parameters(family.parameter_key(0, 0, 0))
        parameters[0, index] = value
        with pytest.raises(ValueError, match=rf"{column} of {family.name} must be in \["):
            family.check_parameters(parameters)


@by_family
def test_parameters_of_another_shape_are_refused(family):
    for shape in ((2, len(family.columns)), (1, 3), (len(family.columns),)):
        with pytest.raises(
            ValueError, match=rf"one row of {len(family.columns)} numbers \(vertices, lines, .*got shape"
        ):
            family.check_parameters(np.ones(shape))


def test_parameters_between_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r"vertices of rcdb must be a whole number, got 3\.5\."):
        RCDB().check_parameters(np.array([[3.5, 2, 1, 0.1]]))
    with pytest.raises(ValueError, match=r"vertices of rcdb must be in \[3, 100000\], got 2\.0\."):
        RCDB().check_parameters(np.array([[2.0, 2, 1, 0.1]]))


sensible = st.floats(-1e6, 1e6)
frequencies = st.integers(0, 10**6)


@given(
    size=st.integers(1, 20),
    contours=st.builds(
        Contours,
        vertices=st.integers(3, 50),
        lines=st.integers(1, 20),
        radius_x=st.floats(0, 1e12),
        radius_y=st.floats(0, 1e12),
        center_x=sensible,
        center_y=sensible,
        noise_gain=sensible,
        outward=sensible,
        frequencies=st.tuples(frequencies, frequencies),
    ),
)
def test_any_parameters_that_are_accepted_can_be_drawn(size, contours):
    image = VisualAtom().render(contours, Drawing(size), np.uint64(7))
    assert image.shape == (size, size)


# The two sets of values of VisualAtom's program


@pytest.mark.parametrize(
    ("family", "radius", "noise", "width"),
    [(VisualAtom(), (0, 50), (2, 6), 0.01), (VisualAtomBest(), (10, 60), (0, 4), 0.1)],
    ids=["defaults", "best practice"],
)
def test_the_parameters_of_visualatom_are_drawn_as_published(family, radius, noise, width):
    drawn = [family.draw_parameters(family.parameter_key(0, category, 0))[0] for category in range(4000)]
    columns = dict(zip(family.columns, np.array(drawn).T, strict=True))
    assert (columns["radius"].min(), columns["radius"].max()) == radius
    assert set(np.unique(columns["radius"])) == set(range(radius[0], radius[1] + 1))
    for name, (low, high) in {"noise_coefficient": noise, "line_width": (0, width)}.items():
        values = (columns[name] - low) / (high - low)
        assert 0 <= values.min() < 0.005
        assert 0.995 < values.max() < 1
        # 4000 uniform numbers: the standard error of their mean is 0.0046.
        assert abs(values.mean() - 0.5) < 0.016
    assert (columns["vertices"].min(), columns["vertices"].max()) == (200, 1000)
    assert (columns["lines"].min(), columns["lines"].max()) == (1, 200)
