"""Batched tridiagonal solves against dense ones, with derivatives in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.tridiagonal import solve
from jax.test_util import check_grads


def system(n, b, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    lower, upper = rng.uniform(-1, 0, (2, n, b))
    diag = 0.5 - lower - upper
    return [jnp.asarray(a, dtype) for a in (lower, diag, upper, rng.normal(size=(n, b)))]


def dense(lower, diag, upper):
    n, b = diag.shape
    out = np.zeros((b, n, n))
    i = np.arange(n)
    out[:, i, i] = np.asarray(diag).T
    out[:, i[1:], i[:-1]] = np.asarray(lower).T[:, 1:]
    out[:, i[:-1], i[1:]] = np.asarray(upper).T[:, :-1]
    return out


# Diagonally dominant systems amplify rounding by at most the inverse of the dominance, 2.
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 3e-6)])
def test_against_dense(dtype, tolerance):
    lower, diag, upper, rhs = system(24, 5, dtype)
    x = solve(lower, diag, upper, rhs)
    assert x.dtype == dtype
    expected = np.linalg.solve(dense(lower, diag, upper), np.asarray(rhs, np.float64).T[..., None])[..., 0].T
    np.testing.assert_allclose(x, expected, atol=tolerance * np.abs(expected).max())


def test_single_row():
    np.testing.assert_allclose(solve(*[jnp.full((1, 2), v) for v in (9.0, 4.0, 9.0, 2.0)]), 0.5)


def test_derivatives():
    # check_grads perturbs with numpy arrays, which the shape checks refuse.
    check_grads(
        lambda *a: solve(*map(jnp.asarray, a)),
        system(6, 2),
        order=1,
        modes=("fwd", "rev"),
        atol=1e-7,
        rtol=1e-7,
    )


def test_ends_outside_the_matrix_do_not_count():
    lower, diag, upper, rhs = system(7, 2)
    g = jax.grad(lambda lo, up: jnp.sum(solve(lo, diag, up, rhs)), argnums=(0, 1))(lower, upper)
    assert np.all(g[0][0] == 0) and np.all(g[1][-1] == 0)
