"""The loop against closed forms and its own heat balance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import coolant as loop
from jax.test_util import check_grads


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


# --------------------------------------------------------------------------------------------------- film


def with_film(params, diameter=0.006, bond=jnp.inf, flow=1.0):
    """The loop of a design with ammonia of 40 C in tubes of a bore, its flow times a factor."""
    b, dtype = params.panel.length.shape[0], params.panel.length.dtype

    def const(x):
        return jnp.full(b, x, dtype)

    film = loop.Film(const(diameter), const(1.14e-4), const(0.444), const(4933.0))
    coolant = replace(
        params.coolant,
        capacity_rate=flow * params.coolant.capacity_rate,
        wall_conductance=const(bond),
        film=film,
    )
    return replace(params, coolant=coolant)


def test_friction_of_smooth_tubes():
    """64/Re, and Prandtl's implicit law of smooth tubes, which Konakov's explicit one follows within 3 %."""
    assert loop.friction_factor(jnp.asarray(1000.0)) == 0.064
    for reynolds in (4e3, 1e4, 1e5, 1e6):
        f = 0.02
        for _ in range(50):
            f = (2 * np.log10(reynolds * np.sqrt(f)) - 0.8) ** -2
        assert loop.friction_factor(jnp.asarray(reynolds)) == pytest.approx(f, rel=0.03)


@pytest.mark.parametrize(
    ("reynolds", "prandtl", "expected"),
    [
        (10.0, 5.0, 48 / 11),
        (2300.0, 5.0, 48 / 11),
        # By hand: f/8 = 5.7^-2/8, Pr^(2/3) = 1 and 4.
        (1e4, 1.0, 5.7**-2 / 8 * 9000),
        (1e4, 8.0, 5.7**-2 / 8 * 9000 * 8 / (1 + 12.7 * (1 / 5.7 / 8**0.5) * 3)),
    ],
)
def test_nusselt_by_hand(reynolds, prandtl, expected):
    assert loop.nusselt(jnp.asarray(reynolds), jnp.asarray(prandtl)) == pytest.approx(expected, rel=1e-13)


def test_nusselt_lies_near_dittus_and_boelter():
    """0.023 Re^0.8 Pr^0.4, which is known to be off by 25 %, in its range."""
    re, pr = (a.ravel() for a in np.meshgrid([1e4, 3e4, 1e5], [0.7, 1.3, 4.0, 10.0]))
    ratio = loop.nusselt(jnp.asarray(re), jnp.asarray(pr)) / (0.023 * re**0.8 * pr**0.4)
    assert np.all((ratio > 0.8) & (ratio < 1.25)), ratio


def test_nusselt_between_laminar_and_turbulent():
    """Continuous, a straight line from Re 2300 to 4000, rising for every liquid, with finite slopes at the kinks."""
    pr = jnp.asarray(1.5)
    low, middle, high = (float(loop.nusselt(jnp.asarray(re), pr)) for re in (2300.0, 3150.0, 4000.0))
    assert middle == pytest.approx((low + high) / 2, rel=1e-13) and high > 2 * low
    edges, nusselt = jnp.asarray([2300.0, 4000.0]), jax.vmap(loop.nusselt, in_axes=(0, None))
    np.testing.assert_allclose(nusselt(edges - 1e-6, pr), nusselt(edges + 1e-6, pr), rtol=1e-8)
    slope = jax.vmap(jax.grad(loop.nusselt), in_axes=(0, None))
    assert np.all(np.asarray(slope(jnp.linspace(2301.0, 2e5, 500), pr)) > 0)
    at_kinks = slope(jnp.asarray([1e-3, 1.0, 2300.0, 4000.0]), pr)
    assert np.all(np.isfinite(at_kinks)), at_kinks


@pytest.mark.parametrize("reynolds", [500.0, 3000.0, 2e4])
def test_gradients_of_the_film(design, reynolds):
    params = with_film(design(b=1, spread=0.0))
    reached = loop.tube_reynolds(params.coolant, params.coolant.film, params.panel)
    flow = reynolds / reached[0]

    def effectiveness(scale, bypassed, bond):
        coolant = replace(
            params.coolant,
            capacity_rate=params.coolant.capacity_rate * flow * scale,
            wall_conductance=bond,
            film=replace(params.coolant.film, diameter=params.coolant.film.diameter * scale**2),
        )
        return loop.tube_exchange(coolant, params.panel, bypassed)[0]

    at = (jnp.ones(1), jnp.full(1, 0.01), jnp.full(1, 40.0))
    check_grads(jax.jit(effectiveness), at, order=1, modes=("fwd", "rev"), rtol=1e-6)
    # Nothing in series is an infinite conductance, and no reason for a gradient that is none.
    slope = jax.grad(lambda *at: effectiveness(*at).sum(), argnums=(0, 1, 2))(*at[:2], jnp.full(1, jnp.inf))
    assert all(np.all(np.isfinite(s)) for s in slope) and slope[2][0] == 0


def test_conductance_of_a_tube_by_hand(design):
    """42 m2 in tubes of 4 m at 0.2 m: 52.5 tubes; 2250 W/K of ammonia is 8.69 g/s in each."""
    params = with_film(design(b=1, spread=0.0), diameter=0.006)
    coolant, panel = params.coolant, params.panel
    reynolds = 4 * (2250 / 4933 / 52.5) / (np.pi * 0.006 * 1.14e-4)
    share = jnp.asarray([0.25])
    np.testing.assert_allclose(loop.tube_reynolds(coolant, coolant.film, panel), reynolds)
    np.testing.assert_allclose(loop.tube_reynolds(coolant, coolant.film, panel, share), 0.75 * reynolds)
    prandtl = 1.14e-4 * 4933 / 0.444
    expected = np.pi * 0.444 * loop.nusselt(jnp.asarray(0.75 * reynolds), jnp.asarray(prandtl))
    alone = loop.tube_conductance(coolant, panel, share)
    np.testing.assert_allclose(alone, expected, rtol=1e-13)
    bonded = with_film(design(b=1, spread=0.0), bond=40.0)
    both = loop.tube_conductance(bonded.coolant, panel, share)
    np.testing.assert_allclose(1 / both, 1 / expected + 1 / 40, rtol=1e-13)
    # A bypass that leaves the flow laminar leaves 48/11; the constant knows of no flow.
    slow = loop.tube_conductance(coolant, panel, jnp.asarray([0.95]))
    np.testing.assert_allclose(slow, np.pi * 0.444 * 48 / 11, rtol=1e-13)
    given = design(b=1, spread=0.0).coolant
    assert loop.tube_conductance(given, panel, share) is given.wall_conductance


def test_pressure_drop_is_hagen_and_poiseuilles(design):
    """128 mu L V/(pi d^4) in laminar flow; above Re 4000 with the square of the flow, less what f falls by."""

    def drop(flow):
        params = with_film(design(b=1, spread=0.0), flow=flow)
        return loop.tube_pressure_drop(params.coolant, params.coolant.film, params.panel, jnp.full(1, 580.0))

    volume = 0.1 * 2250 / 4933 / 52.5 / 580
    np.testing.assert_allclose(drop(0.1), 128 * 1.14e-4 * 4 * volume / (np.pi * 0.006**4), rtol=1e-12)
    assert 1.7 < np.log2(drop(2.0) / drop(1.0))[0] < 1.85


def test_film_and_bypass_exchange_exactly(design):
    """An isothermal wall behind a film, part of the flow led past: the exponential of what is left."""
    params = with_film(design(b=3), bond=40.0)
    share = jnp.asarray([0.0, 0.3, 0.9])
    wall, inlet = jnp.full((6, 3), 300.0), jnp.asarray([320.0, 300.0, 280.0])
    half_cell = params.panel.half_pitch / params.panel.ny / 2 / params.panel.kt_y
    metre = 1 / (2 / loop.tube_conductance(params.coolant, params.panel, share) + half_cell)
    rate = (1 - share) * params.coolant.capacity_rate / params.panel.half_strips
    exact = 300 + (inlet - 300) * jnp.exp(-metre * params.panel.length / rate)
    np.testing.assert_allclose(outlet(params, wall, 0 * wall, inlet, share), exact, rtol=1e-13)


@pytest.mark.parametrize("flow", [0.3, 1.0, 3.0])
def test_bypass_meets_the_set_point_through_the_regimes(design, flow):
    """What is left to the tubes may be laminar, turbulent or between: the supply rises with the share all the way."""
    params = with_film(design(b=1, bypass=True, spread=0.0), flow=flow)
    still, response, inlet = jnp.full((6, 1), 275.0), jnp.full((6, 1), 2e-3), jnp.asarray([305.0])

    @jax.vmap
    def supply(share):
        return (1 - share) * outlet(params, still, response, inlet, share[None]) + share * inlet

    assert np.all(np.diff(supply(jnp.linspace(0, 0.99, 200))[:, 0]) > 0)
    for share in (0.1, 0.5, 0.9):
        coolant = replace(params.coolant, setpoint=supply(jnp.asarray([share]))[0])
        found = loop.bypass_fraction(still, response, inlet, coolant, params.panel)
        # The secant's error within a bracket of 2^-12.
        np.testing.assert_allclose(found, share, atol=1e-6)


def test_film_in_float32(design):
    """Rounding only: 1e-7 in the logarithm, a few times that in the power -2."""
    double = with_film(design(b=8, seed=3), bond=40.0)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), double)
    for share in (0.0, 0.4, 0.9):
        a, b = (
            loop.tube_conductance(p.coolant, p.panel, jnp.full(8, share, p.panel.length.dtype))
            for p in (double, single)
        )
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=5e-6)
