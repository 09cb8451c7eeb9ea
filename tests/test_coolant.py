"""The loop against exponentials, dense algebra and its own heat balance."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import coolant as loop


def test_isothermal_wall_is_exponential(design):
    params = design(b=3)
    e, rate = loop.tube_effectiveness(params.coolant, params.panel, jnp.zeros(3))
    wall, inlet = jnp.full((6, 3), 300.0), jnp.asarray([320.0, 300.0, 280.0])
    ntu = params.coolant.wall_conductance / 2 * params.panel.length / rate
    exact = 300 + (inlet - 300) * jnp.exp(-ntu)
    # The guard of the logarithm at full effectiveness costs 1e-7 of the difference.
    np.testing.assert_allclose(loop.radiator_outlet(wall, inlet, e), exact, atol=1e-9)


def test_evaporator_wets_the_first_part_only(design):
    params = design(b=2, spread=0.0)
    coolant = replace(params.coolant, evaporator_fraction=jnp.asarray([0.25, 0.5]))
    e, rate = loop.tube_effectiveness(coolant, params.panel, jnp.zeros(2))
    assert np.all(np.asarray(e[3:]) == 0) and e[1, 0] < e[1, 1]
    # The cells' effectivenesses multiply to that of the wetted length.
    ntu = -jnp.log1p(-e).sum(axis=0)
    expected = coolant.evaporator_fraction * coolant.wall_conductance / 2 * params.panel.length / rate
    np.testing.assert_allclose(ntu, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-12), (jnp.float32, 5e-6)])
def test_elimination_against_dense(dtype, tolerance):
    """Tube and fluid unknowns in one dense system, against the carried forms."""
    rng = np.random.default_rng(3)
    n, b = 7, 2
    u = lambda lo, hi, *s: jnp.asarray(rng.uniform(lo, hi, s), dtype)  # noqa: E731
    before = u(1, 5, n, b).at[0].set(0)
    after = u(1, 5, n, b).at[-1].set(0)
    diag = before + after + u(1, 3, n, b)
    rhs, exchange, e = u(300, 900, n, b), u(0, 40, n, b), u(0, 0.9, n, b)
    inlet = u(280, 320, b)
    rows, a, slope = loop.tube_elimination(diag, rhs, before, after, exchange, e)
    T, entering = loop.tube_substitution(rows, inlet)
    diag, rhs, before, after, exchange, e = (np.asarray(x) for x in (diag, rhs, before, after, exchange, e))
    inlet = np.asarray(inlet)
    for k in range(b):
        A, r = np.zeros((2 * n, 2 * n)), np.zeros(2 * n)
        for i in range(n):
            A[i, i] = diag[i, k] + exchange[i, k]
            r[i] = rhs[i, k]
            if i:
                A[i, i - 1] -= before[i, k]
                A[i, n + i - 1] -= exchange[i, k]
                A[n + i, n + i - 1] -= 1 - e[i, k]
            else:
                r[i] += exchange[i, k] * inlet[k]
                r[n + i] += (1 - e[i, k]) * inlet[k]
            if i < n - 1:
                A[i, i + 1] -= after[i, k]
            A[n + i, n + i] += 1
            A[n + i, i] -= e[i, k]
        x = np.linalg.solve(A, r)
        np.testing.assert_allclose(T[:, k], x[:n], rtol=tolerance)
        np.testing.assert_allclose(entering[:, k], np.r_[inlet[k], x[n:-1]], rtol=tolerance)
        np.testing.assert_allclose(a[k] + slope[k] * inlet[k], x[-1], rtol=tolerance)


def test_bypass_meets_the_set_point(design):
    params = design(b=3, bypass=True, spread=0.0)
    wall = jnp.broadcast_to(jnp.linspace(285.0, 270.0, 6)[:, None], (6, 3))
    inlet = jnp.asarray([305.0, 289.0, 340.0])
    share = loop.bypass_fraction(wall, inlet, params.coolant, params.panel)
    e, _ = loop.tube_effectiveness(params.coolant, params.panel, share)
    supply = (1 - share) * loop.radiator_outlet(wall, inlet, e) + share * inlet
    np.testing.assert_allclose(supply[0], 290.0, atol=1e-5)
    # Colder than the set point throughout: all but a trickle passes by. Too warm: nothing does.
    assert share[1] > 0.998 and 0 < share[0] < 1
    hot = loop.bypass_fraction(wall + 40, inlet + 60, params.coolant, params.panel)
    np.testing.assert_allclose(hot, 0.0, atol=1e-4)
