"""Vectors by components: products, lengths, and derivatives where a direction is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import vector
from jax.test_util import check_grads


def unit(x):
    return jnp.stack(vector.unit(x))


def test_products_are_numpys():
    a, b = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, 3, 7)))
    np.testing.assert_allclose(vector.dot(a, b), np.sum(a * b, axis=0), rtol=1e-14)
    np.testing.assert_allclose(vector.cross(a, b), np.cross(a, b, axis=0), rtol=1e-14)
    np.testing.assert_allclose(vector.combination((2.0, a), (-b[0], b)), 2 * a - b[:1] * b, rtol=1e-14)
    across = vector.without(a, unit(b))
    np.testing.assert_allclose(vector.dot(across, b), 0, atol=1e-14)


@pytest.mark.parametrize("f", [vector.norm, lambda x: unit(x).sum()])
def test_zero_vector_has_zero_gradient(f):
    zero = jnp.zeros(3)
    assert f(zero) == 0
    np.testing.assert_array_equal(jax.grad(f)(zero), zero)
    np.testing.assert_array_equal(jax.jacfwd(f)(zero), zero)


def test_unit_and_norm():
    x = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]]).T
    np.testing.assert_allclose(vector.norm(x), [5, 2])
    np.testing.assert_allclose(vector.unit(x), np.array([[0.6, 0.8, 0], [0, 0, -1]]).T)
    check_grads(jax.jit(unit), (x,), 2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1.0, np.pi - 1e-6, np.pi])
def test_angle_between_keeps_its_digits_at_both_ends(angle):
    # arccos(dot) would lose 1e-6 rad altogether in float32, and half its digits in float64.
    for dtype, tolerance in ((jnp.float64, 1e-15), (jnp.float32, 2e-7)):
        a = jnp.array([2.0, 0.0, 0.0], dtype)
        b = jnp.array([3 * np.cos(angle), 3 * np.sin(angle), 0.0], dtype)
        got = vector.angle_between(a, b)
        assert got.dtype == dtype
        assert abs(float(got) - angle) <= tolerance
        assert all(jnp.isfinite(g).all() for g in jax.grad(vector.angle_between, (0, 1))(a, b))
