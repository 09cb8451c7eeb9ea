"""The loop against closed forms and its own heat balance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import coolant as loop


def per_metre(params):
    """Fluid to the first cells' centres: the wall and half a cell of panel in series, half a tube [W/m/K]."""
    half_cell = params.panel.half_pitch / params.panel.ny / 2
    return 1 / (2 / params.coolant.wall_conductance + half_cell / params.panel.kt_y)


def outlet(params, still, response, inlet, share):
    e, exchange = loop.tube_exchange(params.coolant, params.panel, share)
    p, q = loop.tube_response(still, exchange * response, e)
    return p[-1] * inlet + q[-1]


def test_isothermal_wall_is_exponential(design):
    params = design(b=3)
    wall, inlet = jnp.full((6, 3), 300.0), jnp.asarray([320.0, 300.0, 280.0])
    rate = params.coolant.capacity_rate / params.panel.half_strips
    ntu = per_metre(params) * params.panel.length / rate
    exact = 300 + (inlet - 300) * jnp.exp(-ntu)
    np.testing.assert_allclose(outlet(params, wall, 0 * wall, inlet, jnp.zeros(3)), exact, rtol=1e-14)


def test_heat_given_is_heat_taken(design):
    """What the fluid loses is what the walls receive, however they give way."""
    params = design(b=3)
    rng = np.random.default_rng(0)
    still = jnp.asarray(rng.uniform(270, 320, (6, 3)))
    response = jnp.asarray(rng.uniform(0, 0.01, (6, 3)))
    inlet = jnp.asarray([320.0, 300.0, 280.0])
    e, exchange = loop.tube_exchange(params.coolant, params.panel, jnp.zeros(3))
    p, q = loop.tube_response(still, exchange * response, e)
    after = p * inlet[None] + q
    entering = jnp.concatenate([inlet[None], after[:-1]])
    wall = (still + exchange * response * entering) / (1 + exchange * response)
    heat = jnp.sum(exchange * (entering - wall), axis=0)
    cell = params.panel.length / 6 * params.panel.half_pitch / 6
    rate = params.coolant.capacity_rate / params.panel.half_strips
    np.testing.assert_allclose(heat * cell, rate * (inlet - after[-1]), rtol=1e-11)
    # The wall's own law: it rises by the response to the heat.
    np.testing.assert_allclose(wall, still + response * exchange * (entering - wall), rtol=1e-13)


def test_evaporator_wets_the_first_part_only(design):
    params = design(b=2, spread=0.0)
    coolant = replace(params.coolant, evaporator_fraction=jnp.asarray([0.25, 0.5]))
    e, _ = loop.tube_exchange(coolant, params.panel, jnp.zeros(2))
    assert np.all(np.asarray(e[3:]) == 0) and e[1, 0] < e[1, 1]
    # The cells' effectivenesses multiply to that of the wetted length.
    ntu = -jnp.log1p(-e).sum(axis=0)
    rate = coolant.capacity_rate / params.panel.half_strips
    expected = coolant.evaporator_fraction * coolant.wall_conductance / 2 * params.panel.length / rate
    np.testing.assert_allclose(ntu, expected, rtol=1e-12)


def test_second_order_along_the_tube(design):
    """A wall that falls linearly along the flow has a closed form; cells take their own mean of it."""
    params = design(b=1, spread=0.0)
    rate = params.coolant.capacity_rate / params.panel.half_strips
    k = float((per_metre(params) * params.panel.length / rate)[0])
    # F' = k (W - F), W = 300 - 30 s, F(0) = 320, s in 0..1.
    exact = 300 - 30 + 30 / k + (20 - 30 / k) * np.exp(-k)
    errors = []
    for n in (8, 16, 32):
        panel = replace(params.panel, nx=n)
        s = (np.arange(n) + 0.5) / n
        wall = jnp.asarray(300 - 30 * s)[:, None]
        got = outlet(replace(params, panel=panel), wall, 0 * wall, jnp.asarray([320.0]), jnp.zeros(1))
        errors.append(abs(float(got[0]) - exact))
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes - 2) < 0.05), slopes


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-9), (jnp.float32, 1e-3)])
def test_bypass_meets_the_set_point(design, dtype, tolerance):
    params = jax.tree.map(lambda x: x.astype(dtype), design(b=3, bypass=True, spread=0.0))
    still = jnp.broadcast_to(jnp.linspace(285.0, 270.0, 6, dtype=dtype)[:, None], (6, 3))
    response = jnp.full((6, 3), 2e-3, dtype)
    inlet = jnp.asarray([305.0, 289.0, 340.0], dtype)
    share = loop.bypass_fraction(still, response, inlet, params.coolant, params.panel)
    supply = (1 - share) * outlet(params, still, response, inlet, share) + share * inlet
    # Bisection and one secant: f64 to the secant's error, f32 to rounding.
    np.testing.assert_allclose(supply[0], 290.0, atol=max(tolerance, 1e-5))
    # Colder than the set point throughout: all but a trickle passes by. Too warm: nothing does.
    assert share[1] > 0.998 and 0 < share[0] < 1
    hot = loop.bypass_fraction(still + 40, response, inlet + 60, params.coolant, params.panel)
    np.testing.assert_allclose(hot, 0.0, atol=3e-4)
