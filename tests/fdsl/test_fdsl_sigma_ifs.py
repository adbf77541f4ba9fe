"""σ-factor fractals: every category and every instance is of contractions, and categories have the σ-factor."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters
from hf_kakurenbo.fdsl.families.contractions import largest_singular_value, matrix, singular_values
from hf_kakurenbo.fdsl.families.sigma_ifs import SigmaIFS
from hf_kakurenbo.fdsl.kernels.drawing import Drawing

FAMILY = SigmaIFS()
unit = st.floats(0, 1, exclude_max=True)
keys = st.integers(0, 2**64 - 1).map(np.uint64)


def values_of(maps):
    return np.linalg.svd(maps[:, :4].reshape(-1, 2, 2), compute_uv=False)


@given(count=st.integers(1, 8), fraction=st.floats(0, 1), data=st.data())
def test_singular_values_are_of_contractions_and_add_up(count, fraction, data):
    uniforms = np.array(data.draw(st.lists(unit, min_size=2 * count - 1, max_size=2 * count - 1)))
    values = singular_values(3 * count * fraction, uniforms)
    assert (values >= -1e-12).all()
    assert (values <= 1 + 1e-12).all()
    assert (values[:, 0] >= values[:, 1] - 1e-12).all()
    assert values[:, 0].sum() + 2 * values[:, 1].sum() == pytest.approx(3 * count * fraction, abs=1e-12)


@given(large=unit, small=unit, turns=st.tuples(unit, unit, unit))
def test_a_matrix_has_its_singular_values(large, small, turns):
    small, large = sorted((small, large))
    made = matrix(large, small, np.array(turns))
    np.testing.assert_allclose(np.linalg.svd(made, compute_uv=False), [large, small], atol=1e-12)
    assert largest_singular_value(made.reshape(1, 4)) == pytest.approx(large, abs=1e-12)
    assert (turns[2] < 0.5) == (np.linalg.det(made) < 0) or small * large < 1e-12


@given(key=keys)
def test_every_category_contracts_and_has_the_sigma_factor(key):
    parameters = FAMILY.draw_parameters(key)
    count, values = len(parameters), values_of(parameters)
    assert 2 <= count <= 4
    assert values.max() < 1
    assert (5 + count) / 2 - 1e-9 <= values[:, 0].sum() + 2 * values[:, 1].sum() <= (6 + count) / 2 + 1e-9
    assert (np.abs(parameters[:, 4:6]) <= 1).all()
    determinants = np.abs(np.linalg.det(parameters[:, :4].reshape(-1, 2, 2)))
    np.testing.assert_allclose(parameters[:, 6], determinants / determinants.sum(), atol=1e-12)
    FAMILY.check_parameters(parameters)


def test_the_whole_of_each_range_is_drawn_from():
    drawn = [FAMILY.draw_parameters(np.uint64(number)) for number in range(600)]
    for count in (2, 3, 4):
        factors = [values_of(table) @ [1, 2] for table in drawn if len(table) == count]
        places = np.array([factor.sum() for factor in factors]) - (5 + count) / 2
        assert 0.25 < len(places) / 600 < 0.42
        assert places.min() < 0.02
        assert places.max() > 0.48
    reflections = np.concatenate([np.linalg.det(table[:, :4].reshape(-1, 2, 2)) < 0 for table in drawn])
    assert abs(reflections.mean() - 0.5) < 0.05


@given(key=keys, number=st.integers(0, 999))
def test_every_instance_contracts_and_scales_one_map_alone(key, number):
    parameters = category_parameters(FAMILY, 0, number)
    placed = FAMILY.draw_instance(parameters, 0, key)
    assert largest_singular_value(placed.maps) <= 1
    ratios = placed.maps / parameters[:, :6]
    others = [row for row in ratios if not np.allclose(row, 1, atol=1e-12)]
    assert len(others) <= 1
    for row in others:
        np.testing.assert_allclose(row, row[0])
        assert 0.8 <= row[0] <= 1.1
    determinants = np.abs(np.linalg.det(placed.maps[:, :4].reshape(-1, 2, 2)))
    np.testing.assert_allclose(placed.probabilities, determinants / determinants.sum(), atol=1e-9)


def test_what_an_instance_draws_is_in_its_range():
    parameters = category_parameters(FAMILY, 0, 0)
    drawn = [FAMILY.draw_instance(parameters, 0, np.uint64(key)) for key in range(400)]
    for ends, values in {
        (-0.2, 0.2): [each for placed in drawn for each in placed.shift],
        (0.5, 2.0): [each for placed in drawn for each in placed.zoom],
        (0.0, 255.0): [placed.hue for placed in drawn],
        (0.3 * 255 - 1, 255.0): [placed.saturation for placed in drawn],
        (0.5 * 255 - 1, 255.0): [placed.value for placed in drawn],
        (0.5, 1.0): [placed.blurred for placed in drawn if placed.blurred],
        (0.4, 0.8): [placed.background.decay for placed in drawn],
    }.items():
        margin = (ends[1] - ends[0]) / 30
        assert ends[0] <= min(values) < ends[0] + margin
        assert ends[1] - margin < max(values) <= ends[1]
    assert {placed.pattern for placed in drawn} <= set(range(1, 512))
    fractions = np.mean([[*placed.flips, placed.blurred > 0] for placed in drawn], axis=0)
    assert (np.abs(fractions - 0.5) < 0.09).all()


def published_values(random, count, sigma):
    """Singular values as `sample_svs` draws them: (count, 2)."""
    pairs, left = [], sigma
    for later in range(count - 1, 0, -1):
        large = random.uniform(max(0, (left - 3 * later) / 3), min(1, left))
        small = random.uniform(max(0, (left - 3 * later - large) / 2), min(large, (left - large) / 2))
        pairs.append((large, small))
        left -= large + 2 * small
    small = random.uniform(max(0, (left - 1) / 2), left / 3)
    return np.array([*pairs, (left - 2 * small, small)])


def published_system(random):
    """A system as `sample_system` draws it: matrices (maps, 2, 2) and shifts (maps, 2)."""
    count = random.integers(2, 5)
    values = published_values(random, count, random.uniform((5 + count) / 2, (6 + count) / 2))
    sides = []
    for angle in random.uniform(-np.pi, np.pi, (2, count)):
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
        sides.append(turned * random.choice([-1, 1], (count, 1, 2)))
    return (sides[0] * values[:, None]) @ sides[1], random.uniform(-1, 1, (count, 2))


def published_image(random, matrices, shifts):
    """Whether each pixel is lit in an image of `IFSGenerator`, before flips and blur: bool, (224, 224)."""
    for _ in range(4):
        number, factor = random.integers(len(matrices)), random.uniform(0.8, 1.1)
        scaled, moved = matrices.copy(), shifts.copy()
        scaled[number] *= factor
        moved[number] *= factor
        if np.linalg.svd(scaled, compute_uv=False).max() <= 1:
            matrices, shifts = scaled, moved
            break
    weights = np.abs(np.linalg.det(matrices))
    places, points = np.zeros((2000, 2)), []
    for move in range(100):
        which = random.choice(len(matrices), len(places), p=weights / weights.sum())
        places = np.einsum("nij,nj->ni", matrices[which], places) + shifts[which]
        points += [places] if move >= 50 else []
    points = np.concatenate(points)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2 + (high - low) * random.uniform(-0.2, 0.2, 2)
    half = (high - low) * random.uniform(0.5, 2, 2) / 2
    pixels = np.floor((points - middle + half) / (2 * half) * 223).astype(int)
    lit = np.zeros((226, 226), dtype=bool)
    for row, column in np.argwhere(random.integers(0, 2, (3, 3))):
        # The canvas has a margin of one pixel, in which there is nothing to see.
        at = pixels + np.array([row, column])
        at = at[((at >= 1) & (at <= 224)).all(axis=1)]
        lit[at[:, 0], at[:, 1]] = True
    return lit[1:-1, 1:-1]


def test_categories_are_distributed_as_those_of_the_published_program():
    random = np.random.default_rng(0)
    ours = [values_of(FAMILY.draw_parameters(np.uint64(key))) for key in range(1500)]
    published = [np.linalg.svd(published_system(random)[0], compute_uv=False) for _ in range(1500)]
    for count in (2, 3, 4):
        for place in np.ndindex(count, 2):
            sides = [[values[place] for values in all_ if len(values) == count] for all_ in (ours, published)]
            assert kstest(*sides).pvalue > 1e-4


def test_images_are_lit_as_those_of_the_published_program():
    random = np.random.default_rng(0)
    published = [published_image(random, *published_system(random)).mean() for _ in range(120)]
    ours = []
    for category in range(120):
        key = FAMILY.instance_key(0, category, 0)
        placed = FAMILY.draw_instance(category_parameters(FAMILY, 0, category), 0, key)._replace(blurred=0.0)
        ours.append((FAMILY.render(placed, Drawing(224), key) > 0).mean())
    assert abs(np.mean(ours) - np.mean(published)) < 3 * np.hypot(np.std(ours), np.std(published)) / 120**0.5
    assert kstest(ours, published).pvalue > 0.01


@pytest.mark.parametrize("color", [False, True])
def test_an_image_is_of_its_numbers_in_any_order(color):
    images = load_fdsl("sigma_ifs-test", color=color, image_size=64, draw_size=64)
    forwards = [images[index]["image"].tobytes() for index in range(12)]
    again = load_fdsl("sigma_ifs-test", color=color, image_size=64, draw_size=64)
    assert [again[index]["image"].tobytes() for index in range(11, -1, -1)] == forwards[::-1]
    assert len(set(forwards)) == 12
    assert load_fdsl("sigma_ifs-test", color=color, seed=1)[0]["image"].tobytes() not in forwards


def test_gray_is_on_black_and_color_on_a_texture():
    gray, color = (load_fdsl("sigma_ifs-1k", color=color) for color in (False, True))
    for index in range(0, 20_000, 1000):
        image = np.asarray(gray[index]["image"])
        assert 0.005 < (image > 0).mean() < 1
        assert image.max() <= 127
        assert (np.asarray(color[index]["image"]).max(axis=2) > 0).mean() > 0.99


def test_an_image_is_turned_as_a_whole():
    key = np.uint64(5)
    placed = FAMILY.draw_instance(category_parameters(FAMILY, 0, 2), 0, key)._replace(flips=(False,) * 3, blurred=0.8)
    plain = FAMILY.render(placed, Drawing(60), key)
    for flips, turned in {
        (True, False, False): plain.T,
        (False, True, False): plain[::-1],
        (False, False, True): plain[:, ::-1],
        (True, True, False): plain.T[::-1],
    }.items():
        np.testing.assert_array_equal(FAMILY.render(placed._replace(flips=flips), Drawing(60), key), turned)


def test_a_larger_window_shows_a_smaller_fractal():
    key = np.uint64(1)
    placed = FAMILY.draw_instance(category_parameters(FAMILY, 0, 1), 0, key)._replace(shift=(0.0, 0.0))
    lit = [
        (FAMILY.render(placed._replace(zoom=(zoom, zoom)), Drawing(224), key) > 0).mean() for zoom in (1.0, 1.5, 2.0)
    ]
    assert all(more > less for more, less in pairwise(lit))


def test_maps_of_ones_own_that_stay_no_contractions_are_left_as_they_are():
    parameters = np.array([[1.5, 0, 0, 0.2, 0.1, 0, 0.3], [0.5, 0, 0, 0.5, 0.5, 0.2, 0.7]])
    FAMILY.check_parameters(parameters)
    placed = FAMILY.draw_instance(parameters, 0, np.uint64(0))
    assert (placed.maps == parameters[:, :6]).all()
    assert (placed.probabilities == parameters[:, 6]).all()
    assert FAMILY.render(placed, Drawing(32), np.uint64(0)).any()


def test_points_that_run_off_leave_the_background():
    infinite = np.array([[1.9, 0, 0, 1.9, 1.0, 1.0, 1.0]])
    placed = FAMILY.draw_instance(infinite, 0, np.uint64(3))
    assert not FAMILY.render(placed, Drawing(16), np.uint64(3)).any()
    assert FAMILY.render(placed, Drawing(16, color=True), np.uint64(3)).any()
    with pytest.raises(ValueError, match="drive points to infinity"):
        FAMILY.check_parameters(infinite)


@pytest.mark.parametrize("wrong", [(1, 4), (2, 17), (4, 2)])
def test_numbers_of_maps_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="map_range of Wrong must be"):
        type("Wrong", (SigmaIFS,), {"map_range": wrong})


def test_more_maps_have_their_sigma_factor():
    many = type("Many", (SigmaIFS,), {"map_range": (16, 16)})()
    values = values_of(many.draw_parameters(np.uint64(0)))
    assert len(values) == 16
    assert 10.5 <= values[:, 0].sum() + 2 * values[:, 1].sum() <= 11
