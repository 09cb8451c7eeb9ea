"""Designs and samples: what is swept, even coverage, the moments of distributions, and every refusal."""

import math

import numpy as np
import pytest
from dawndusk.solver import sampling
from dawndusk.solver.case import CaseError
from dawndusk.solver.schema import Uncertain
from scipy import integrate, stats


def test_ranges_and_lists():
    even, by_ratio, listed = sampling.axes(["a=20:40:5", "b=1:100:3:log", "c=3,-1,2.5"])
    assert even.values == (20, 25, 30, 35, 40)
    np.testing.assert_allclose(by_ratio.values, (1, 10, 100), rtol=1e-15)
    assert listed.values == (-1, 2.5, 3) and (listed.low, listed.high) == (-1, 3)
    (open_range,) = sampling.axes(["d=1:100:log"], of_grid=False)
    np.testing.assert_allclose(open_range.at(np.array([0, 0.5, 1])), (1, 10, 100), rtol=1e-15)


def test_grid_is_every_combination_with_the_last_axis_fastest():
    designs = sampling.grid(sampling.axes(["a=1:3:3", "b=5,7"]))
    assert designs.tolist() == [[1, 5], [1, 7], [2, 5], [2, 7], [3, 5], [3, 7]]


@pytest.mark.parametrize(
    ("texts", "of_grid", "message"),
    [
        (["radiator.area_m2"], True, "--vary radiator.area_m2: must be key=low:high:count"),
        (["=1:2:3"], True, "must be key=low:high:count"),
        (["a=1:2"], True, "--vary a=1:2: must be key=low:high:count"),
        (["a=1:2:3:4"], True, "must be key=low:high:count"),
        (["a=3"], True, "must be key=low:high:count"),
        (["a=low:2:3"], True, "--vary a=low:2:3: got 'low'; must be a number"),
        (["a=nan:2:3"], True, "got nan; must be a finite number"),
        (["a=1,inf"], True, "got inf; must be a finite number"),
        (["a=3:2:3"], True, "got 3; must be < 2, the end of the range"),
        (["a=2:2:3"], True, "got 2; must be < 2"),
        (["a=1:2:1"], True, "got '1' values; must be a whole number from 2 to 1,000,000"),
        (["a=1:2:2.5"], True, "got '2.5' values; must be a whole number"),
        (["a=1:2:9999999"], True, "got '9999999' values; must be a whole number"),
        (["a=-1:2:5:log"], True, "got -1; must be > 0 to go through it by its logarithm"),
        (["a=1,2,1"], True, "--vary a=1,2,1: a value is there twice"),
        (["a=1:2:3", "a=4,5"], True, "--vary a=4,5: a varies already"),
        (
            ["a=1:2:3"],
            False,
            "must be key=low:high or key=low:high:log: how many designs there are, --points",
        ),
        (["a=1,2"], False, "must be key=low:high or"),
    ],
)
def test_what_cannot_be_swept_is_said_so(texts, of_grid, message):
    with pytest.raises(CaseError) as caught:
        sampling.axes(texts, of_grid)
    assert message in str(caught.value)


def test_too_many_designs():
    with pytest.raises(CaseError, match="--vary: got 2,000 x 1,000 designs; must be at most 1,000,000"):
        sampling.grid(sampling.axes(["a=0:1:2000", "b=0:1:1000"]))
    with pytest.raises(CaseError, match="points: got 1,000,001 designs; must be at most 1,000,000"):
        sampling.cube("latin", 1_000_001, 2, 0)


@pytest.mark.parametrize("scheme", ["latin", "sobol"])
def test_every_slice_of_every_axis_has_one_point(scheme):
    """By construction of a Latin hypercube; of a Sobol sequence a property of its first 2^m points."""
    points = sampling.cube(scheme, 64, 5, seed=3)
    slices = np.sort(np.floor(64 * points), axis=0)
    np.testing.assert_array_equal(slices, np.arange(64)[:, None].repeat(5, axis=1))


def test_sobol_points_are_even_in_pairs_of_axes():
    """A (t, m, s)-net: of the first two axes t = 0, each of the 8 x 8 boxes has one of 64 points."""
    points = sampling.cube("sobol", 64, 2, seed=1)
    boxes = np.floor(8 * points).astype(int) @ (8, 1)
    assert sorted(boxes) == list(range(64))


@pytest.mark.parametrize("scheme", ["latin", "sobol"])
def test_the_same_seed_gives_the_same_points(scheme):
    one, same, other = (sampling.cube(scheme, 20, 3, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.min(np.abs(one - other)) > 0
    assert one.shape == (20, 3) and np.all((one >= 0) & (one < 1))


LAWS = {
    "normal": dict(sigma=0.5),
    "normal of a percentage": dict(sigma_percent=10),
    "uniform": dict(distribution="uniform", low=4, high=9),
    "triangular": dict(distribution="triangular", low=4, high=9),
    "lognormal": dict(distribution="lognormal", sigma_percent=30),
    "lognormal of a sigma": dict(distribution="lognormal", sigma=1.5),
}
VALUE = 5.0


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_moments_are_those_of_what_is_drawn(law):
    """Mean and variance as integrals of the inverse over the shares, by quadrature to 1e-9."""
    d = sampling.distribution(Uncertain(key="a", **law), VALUE, "uncertainty.of.0")
    mean = integrate.quad(d.inverse, 0, 1, epsabs=1e-10)[0]
    square = integrate.quad(lambda u: (d.inverse(u) - mean) ** 2, 0, 1, epsabs=1e-10)[0]
    assert d.mean == pytest.approx(mean, rel=1e-7)
    assert d.sigma == pytest.approx(math.sqrt(square), rel=1e-7)
    np.testing.assert_allclose(d.inverse(np.array([0.0, 1.0])), (d.low, d.high), rtol=1e-12)


def test_distributions_are_the_ones_that_they_are_called():
    u = np.array([0.1, 0.3, 0.5, 0.8])
    cut = lambda u: 0.00134990 + 0.9973002 * u  # of the normal, within 3 sigma  # noqa: E731
    normal = sampling.distribution(Uncertain(key="a", sigma=0.5), VALUE, "")
    np.testing.assert_allclose(normal.inverse(u), VALUE + 0.5 * stats.norm.ppf(cut(u)), rtol=1e-7)
    assert (normal.low, normal.high) == (3.5, 6.5)
    log = sampling.distribution(Uncertain(key="a", distribution="lognormal", sigma_percent=30), VALUE, "")
    s = math.sqrt(math.log(1.09))  # of ln x, where sigma / mean of x is 0.3
    np.testing.assert_allclose(
        np.log(log.inverse(u) / VALUE), s * stats.norm.ppf(cut(u)), rtol=1e-6, atol=1e-12
    )
    uniform = sampling.distribution(Uncertain(key="a", **LAWS["uniform"]), VALUE, "")
    np.testing.assert_allclose(uniform.inverse(u), 4 + 5 * u, rtol=1e-15)
    triangular = sampling.distribution(Uncertain(key="a", **LAWS["triangular"]), VALUE, "")
    # Rising from 4 to 5 over a fifth of the probability, falling to 9.
    expected = np.where(u < 0.2, 4 + np.sqrt(5 * u), 9 - np.sqrt(20 * (1 - u)))
    np.testing.assert_allclose(triangular.inverse(u), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("law", "value", "message"),
    [
        (dict(sigma_percent=5), 0.0, "here.sigma_percent: got 5 of a = 0; give sigma"),
        (
            dict(distribution="lognormal", sigma=1),
            -2.0,
            "here.distribution: got 'lognormal' with a = -2; must",
        ),
        (LAWS["uniform"], 10.0, "here: got low = 4, high = 9; must reach around the case's a = 10"),
        (LAWS["triangular"], 3.0, "here: got low = 4, high = 9; must reach around the case's a = 3"),
    ],
)
def test_distributions_that_do_not_fit_the_case(law, value, message):
    with pytest.raises(CaseError) as caught:
        sampling.distribution(Uncertain(key="a", **law), value, "here")
    assert message in str(caught.value)
