"""Nodes: linearisation, fitted implicitness, heaters and the small dense solve."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import network as nodal
from dawndusk.kernels.constants import SIGMA
from dawndusk.kernels.network import fitted_theta


def heat(X, network, space, T, T4):
    """The links' heat, spelled out link by link [W]."""
    out = []
    for k in range(X.shape[0]):
        q = network.heat[k] - SIGMA * network.to_space[k] * (X[k] ** 4 - space**4)
        q = (
            q
            + SIGMA * network.panel_radiative[k] * (T4 - X[k] ** 4)
            + network.panel_conductance[k] * (T - X[k])
        )
        for j in range(X.shape[0]):
            q = q + network.conductance[k, j] * (X[j] - X[k])
            q = q + SIGMA * network.radiative[k, j] * (X[j] ** 4 - X[k] ** 4)
        out.append(q)
    return jnp.stack(out)


def test_linearisation_is_the_tangent(design):
    network = design(b=2).network
    X = jnp.asarray(np.random.default_rng(1).uniform(250, 350, (5, 2)))
    space, T = jnp.full(2, 2.7), jnp.asarray([290.0, 310.0])
    W, c = nodal.linearise(X, network, space, T, T**4)
    value = jnp.einsum("kjb,jb->kb", W, X) + c
    np.testing.assert_allclose(value, heat(X, network, space, T, T**4), rtol=1e-9, atol=1e-8)
    J = jax.jacfwd(heat)(X, network, space, T, T**4)
    expected = jnp.stack([J[:, b, :, b] for b in range(2)], axis=-1)
    np.testing.assert_allclose(W, expected, rtol=1e-10, atol=1e-10)


def test_exchange_among_nodes_sums_to_zero(design):
    network = design().network
    none = jnp.zeros_like(network.to_space)
    network = replace(network, to_space=none, panel_radiative=none, panel_conductance=none)
    X = jnp.asarray([[250.0], [300.0], [310.0], [290.0], [350.0]])
    W, c = nodal.linearise(X, network, jnp.zeros(1), jnp.zeros(1), jnp.zeros(1))
    q = jnp.einsum("kjb,jb->kb", W, X) + c
    assert abs(float(q.sum())) < 1e-9 * float(jnp.abs(q).sum())


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-7), (jnp.float32, 2e-5)])
def test_theta_damps_like_the_exact_solution(dtype, tolerance):
    z = jnp.asarray(np.logspace(-6, 3, 60)[:, None], dtype)
    theta = fitted_theta(z)
    # Both branches; at z = 1/2 the series' next term is z^7/1209600 = 6e-9.
    np.testing.assert_allclose((1 - (1 - theta) * z) / (1 + theta * z), jnp.exp(-z), atol=tolerance)
    assert np.all((theta >= 0.5) & (theta <= 1))
    slope = jax.grad(fitted_theta)
    for at in (0.0, 0.49, 0.51, 1e3):
        assert np.isfinite(slope(jnp.asarray(at, dtype)))


def test_heater(design):
    network = design().network
    X = jnp.full((5, 1), 281.0)
    power, slope = nodal.heater_power(X, network)
    np.testing.assert_allclose(power[3, 0], 100.0)
    np.testing.assert_allclose(slope[3, 0], 50.0)
    assert nodal.heater_power(X - 30, network)[0][3, 0] == 300.0
    assert nodal.heater_power(X + 30, network)[0].sum() == 0.0


def test_dense_solve():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(6, 6, 4)) + 6 * np.eye(6)[:, :, None]
    rhs = rng.normal(size=(6, 2, 4))
    x = nodal.solve_dense(jnp.asarray(A), jnp.asarray(rhs))
    expected = np.linalg.solve(A.transpose(2, 0, 1), rhs.transpose(2, 0, 1)).transpose(1, 2, 0)
    np.testing.assert_allclose(x, expected, rtol=1e-11, atol=1e-12)


def test_fluid_path_mixes():
    e = jnp.asarray([[0.0], [0.3], [0.5]])
    inlets, outlet = nodal.fluid_path(e)
    z = jnp.asarray([[250.0], [300.0], [320.0], [280.0]])
    at = [float((form * z).sum()) for form in (*inlets, outlet)]
    np.testing.assert_allclose(at, [280.0, 280.0, 286.0, 303.0])
