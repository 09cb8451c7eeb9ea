"""Gradient-safe functions at their edges, and the implicit root solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import numerics
from jax.test_util import check_grads

EDGES = {
    "sqrt": (numerics.safe_sqrt, jnp.array([-1.0, 0.0, 4.0]), [0.0, 0.0, 2.0], [0.0, 0.0, 0.25]),
    "arccos": (
        numerics.safe_arccos,
        jnp.array([-2.0, -1.0, 0.0, 1.0, 1.5]),
        [np.pi, np.pi, np.pi / 2, 0.0, 0.0],
        [0.0, 0.0, -1.0, 0.0, 0.0],
    ),
    "wrap": (
        numerics.wrap_angle,
        jnp.array([0.5, 7.0, -40.0]),
        [0.5, 7 - 2 * np.pi, -40 + 12 * np.pi],
        [1.0] * 3,
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_value_and_gradient_at_the_edges(name):
    f, x, value, slope = EDGES[name]
    np.testing.assert_allclose(f(x), value, atol=1e-14)
    np.testing.assert_allclose(jax.grad(lambda x: f(x).sum())(x), slope, atol=1e-14)
    assert f(x.astype(jnp.float32)).dtype == jnp.float32


def angles(n, turns):
    return np.random.default_rng(0).uniform(-turns, turns, n) * 2 * np.pi


def test_sine_and_cosine_of_single_precision():
    """Polynomials after a reduction in three parts: rounding of the results, also after 200 turns."""
    for turns in (1, 200):
        x = np.append(angles(10_000, turns), np.arange(-8, 9) * np.pi / 4).astype(np.float32)
        s, c = numerics.sincos(jnp.asarray(x))
        assert s.dtype == c.dtype == jnp.float32
        np.testing.assert_allclose(s, np.sin(x.astype(float)), rtol=0, atol=1.2e-7)
        np.testing.assert_allclose(c, np.cos(x.astype(float)), rtol=0, atol=1.2e-7)
    check_grads(jax.jit(numerics.sincos), (jnp.asarray(angles(5, 1)),), 2, atol=1e-6, rtol=1e-6)


def test_arc_tangent_of_single_precision():
    """A few units in the last place in every octant and at its borders, however long the vector."""
    angle = np.append(angles(10_000, 0.5), np.arange(-7, 9) * np.pi / 8)
    length = 10 ** np.random.default_rng(1).uniform(-12, 12, len(angle))
    y, x = (np.asarray(length * f(angle), np.float32) for f in (np.sin, np.cos))
    found = numerics.arctan2(jnp.asarray(y), jnp.asarray(x))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.arctan2(y.astype(float), x.astype(float)), rtol=2.5e-7)
    axes = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]], jnp.float32)
    np.testing.assert_allclose(numerics.arctan2(*axes.T), [0, np.pi / 2, np.pi, -np.pi / 2], rtol=1e-7)
    near = [jnp.asarray(f(angle[:5])) for f in (np.sin, np.cos)]
    check_grads(jax.jit(numerics.arctan2), near, 2, rtol=1e-5)


def test_slopes_of_an_arc_tangent_of_lengths_in_metres():
    """The Sun's radius and distance: their fourth powers leave float32's range."""
    y, x = 6.957e8, 1.496e11
    for dtype, rtol in ((jnp.float64, 1e-12), (jnp.float32, 1e-6)):
        args = jnp.asarray(y, dtype), jnp.asarray(x, dtype)
        first = jax.grad(numerics.arctan2, (0, 1))(*args)
        np.testing.assert_allclose(first, [x / (x * x + y * y), -y / (x * x + y * y)], rtol=rtol)
        second = jax.grad(jax.grad(numerics.arctan2))(*args)
        np.testing.assert_allclose(second, -2 * x * y / (x * x + y * y) ** 2, rtol=10 * rtol)


def cube_root(a):
    return numerics.find_root(lambda x: x**3 - a, jnp.zeros_like(a), jnp.full_like(a, 3.0))


def test_root_and_its_derivatives():
    a = jnp.array([0.1, 1.0, 8.0, 20.0])
    np.testing.assert_allclose(cube_root(a), jnp.cbrt(a), rtol=1e-15)
    # Forward, reverse and mixed, to second order, against differences (which are good to 1e-5).
    check_grads(cube_root, (a,), 2, atol=1e-5, rtol=1e-5)
    one = jax.grad(lambda a: cube_root(a[None])[0])
    np.testing.assert_allclose(jax.vmap(jax.grad(one))(a), -2 / 9 * a ** (-5 / 3), rtol=1e-12)


def test_root_of_a_kink_is_found_by_halving():
    # Newton's method leaves the bracket at every step of a signed square root.
    f = lambda x: jnp.sign(x - 0.3) * jnp.sqrt(jnp.abs(x - 0.3) + 1e-30)  # noqa: E731
    assert abs(float(numerics.find_root(f, jnp.array(-1.0), jnp.array(1.0))) - 0.3) <= 2 * 2.0**-16


def test_bracket_may_be_given_in_either_order_and_without_change_of_sign():
    falling = numerics.find_root(lambda x: 0.5 - x, jnp.array(2.0), jnp.array(0.0))
    assert abs(float(falling) - 0.5) < 1e-15
    lo, hi = jnp.array(1.0), jnp.array(2.0)
    nowhere = lambda c: numerics.find_root(lambda x: x**2 + c, lo, hi)  # noqa: E731
    assert 1 <= float(nowhere(jnp.array(1.0))) <= 2
    assert jnp.isfinite(jax.grad(nowhere)(jnp.array(1.0)))


def test_double_root_has_a_finite_derivative():
    f = lambda c: numerics.find_root(lambda x: (x - c) ** 3, jnp.array(-1.0), jnp.array(2.0))  # noqa: E731
    for mode in (jax.jacfwd, jax.jacrev):
        assert jnp.isfinite(mode(f)(jnp.array(0.5)))
