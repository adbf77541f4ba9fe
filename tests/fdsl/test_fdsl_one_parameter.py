"""1p-frac: one fractal for each seed, whose coefficients every category varies by a tenth at most."""

import numpy as np

from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters, find_family
from hf_kakurenbo.fdsl.families.one_parameter import OnePFrac

FAMILY = OnePFrac()


def test_the_fractals_have_the_published_sigma_factor():
    factors, reflections = [], []
    for number in range(300):
        parameters = FAMILY.draw_parameters(np.uint64(number))
        matrices = parameters[:, :4].reshape(2, 2, 2)
        values = np.linalg.svd(matrices, compute_uv=False)
        factors.append(values[:, 0].sum() + 2 * values[:, 1].sum())
        determinants = np.linalg.det(matrices)
        reflections += (determinants < 0).tolist()
        np.testing.assert_allclose(parameters[:, 6], np.abs(determinants) / np.abs(determinants).sum())
        assert (np.abs(parameters[:, 4:6]) <= 1).all()
    assert 3.9 <= min(factors) < 3.91
    assert 4.09 < max(factors) <= 4.1
    assert abs(np.mean(reflections) - 0.5) < 0.07


def test_a_category_is_the_fractal_of_the_seed_a_tenth_away():
    fractal = FAMILY.fractal(0)
    factors = np.array([category_parameters(FAMILY, 0, number)[:, :6] / fractal[:, :6] for number in range(60)])
    assert 0.9 <= factors.min() < 0.91
    assert 1.09 < factors.max() <= 1.1
    assert (category_parameters(FAMILY, 0, 3)[:, 6] == fractal[:, 6]).all()
    assert len(np.unique(factors.reshape(60, -1), axis=0)) == 60
    assert (FAMILY.fractal(1) != fractal).any()


def test_every_image_is_lit_enough_and_like_the_others():
    images = np.array(
        [load_fdsl("1pfrac-1k", image_size=512, mode="L", as_tensor=True)[k]["image"][0] for k in range(12)]
    )
    assert ((images > 0).mean(axis=(1, 2)) > 0.05).all()
    afar = images.reshape(12, 8, 64, 8, 64).mean(axis=(2, 4)).reshape(12, -1)
    alike = np.corrcoef(afar)
    other = load_fdsl("1pfrac-test", image_size=512, mode="L", as_tensor=True, seed=1)[0]["image"][0].numpy()
    strange = np.corrcoef(np.vstack([afar, other.reshape(8, 64, 8, 64).mean(axis=(1, 3)).ravel()]))[-1, :-1]
    assert np.median(alike[np.triu_indices(12, 1)]) > np.median(strange)


def test_a_category_has_one_image_and_validation_another_drawing_of_it():
    train, validation = load_fdsl("1pfrac-test", mode="L"), load_fdsl("1pfrac-test", "validation", mode="L")
    assert len(train) == len(validation) == 4
    one, other = (
        np.asarray(images[2]["image"], dtype=float).reshape(14, 16, 14, 16).mean((1, 3))
        for images in (train, validation)
    )
    assert train[2]["image"].tobytes() != validation[2]["image"].tobytes()
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99
    assert find_family("1pfrac").draw_instance(FAMILY.fractal(0), 5, np.uint64(9)).variation.factor == 1
