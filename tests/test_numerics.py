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


@pytest.mark.parametrize("f", [numerics.safe_norm, lambda x: numerics.unit(x).sum()])
def test_zero_vector_has_zero_gradient(f):
    zero = jnp.zeros(3)
    assert f(zero) == 0
    np.testing.assert_array_equal(jax.grad(f)(zero), zero)
    np.testing.assert_array_equal(jax.jacfwd(f)(zero), zero)


def test_unit_and_norm():
    x = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]])
    np.testing.assert_allclose(numerics.safe_norm(x), [5, 2])
    np.testing.assert_allclose(numerics.unit(x), [[0.6, 0.8, 0], [0, 0, -1]])
    check_grads(jax.jit(numerics.unit), (x,), 2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1.0, np.pi - 1e-6, np.pi])
def test_angle_between_keeps_its_digits_at_both_ends(angle):
    # arccos(dot) would lose 1e-6 rad altogether in float32, and half its digits in float64.
    for dtype, tolerance in ((jnp.float64, 1e-15), (jnp.float32, 2e-7)):
        a = jnp.array([2.0, 0.0, 0.0], dtype)
        b = jnp.array([3 * np.cos(angle), 3 * np.sin(angle), 0.0], dtype)
        got = numerics.angle_between(a, b)
        assert got.dtype == dtype
        assert abs(float(got) - angle) <= tolerance
        assert all(jnp.isfinite(g).all() for g in jax.grad(numerics.angle_between, (0, 1))(a, b))


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
