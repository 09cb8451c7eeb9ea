"""The periodic orbit: found, unique, honest about what it could not find, and independent of the batch."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import march, periodic
from dawndusk.kernels.coolant import Film, tube_conductance
from dawndusk.kernels.satellite import depart, step
from jax import lax

cyclic = jax.jit(march.cyclic, static_argnums=(3, 4))
B = 24


@pytest.fixture
def fleet(design, square_loads):
    """Random designs, structures of 1 to 100 hours among them."""
    params = design(b=B, seed=4)
    hours = jnp.asarray(np.geomspace(1, 100, B))
    capacity = params.network.heat_capacity.at[0].set(hours * 3600 * 30.0)
    return replace(params, network=replace(params.network, heat_capacity=capacity)), square_loads(B, 32)


def test_converges_fast_whatever_the_thermal_mass(fleet, uniform_state):
    params, loads = fleet
    _, cycle, record = cyclic(params, loads, uniform_state(params))
    assert np.all(np.asarray(cycle.status) == march.CONVERGED)
    assert float(cycle.distance.max()) < 0.01
    # Marches that a first form of this method needed: 6 in the median, 18 at most, and one is recorded.
    assert np.median(cycle.iterations) <= 9 and int(cycle.iterations.max()) <= 19
    assert np.all(np.isfinite(record.nodes))


def test_equals_the_plain_march(design, square_loads, uniform_state):
    """Forty revolutions of a light satellite, one after the other, end in the same orbit."""
    params = design(b=2, seed=5)
    light = params.network.heat_capacity.at[0].set(2e4)
    params = replace(params, network=replace(params.network, heat_capacity=light))
    loads = square_loads(2, 32)
    state, _, _ = cyclic(params, loads, uniform_state(params), 1e-6, 60)
    many = jax.jit(
        lambda s: lax.scan(lambda s, _: (march.transient(params, loads, s)[0], None), s, None, length=60)[0]
    )
    plain = many(uniform_state(params))
    np.testing.assert_allclose(state.nodes, plain.nodes, atol=1e-4)
    np.testing.assert_allclose(state.panel, plain.panel, atol=1e-4)


def test_film_is_the_constant_of_its_flow(design, square_loads, uniform_state):
    """Without a valve the flow never changes: film and bond in series are one constant to step and linear model."""
    params, load = design(b=2, seed=5), jax.tree.map(lambda x: x[0], square_loads(2, 32))
    film = Film(*(jnp.full(2, x) for x in (0.006, 1.14e-4, 0.444, 4933.0)))
    filmed = replace(params.coolant, film=film, wall_conductance=jnp.full(2, 40.0))
    constant = tube_conductance(filmed, params.panel)
    assert np.all((constant > 5) & (constant < 30))
    state, found = uniform_state(params), []
    for coolant in (filmed, replace(params.coolant, wall_conductance=constant), params.coolant):
        design_of = replace(params, coolant=coolant)
        after = jax.jit(step)(design_of, depart(design_of, state), load)[0].state
        means = (state.nodes, jnp.full(2, 300.0), jnp.zeros(2), jnp.zeros(2))
        model = jax.jit(march._linear_model)(design_of, means, jnp.full(2, 5800.0))
        found.append((after.nodes, after.panel, model))
    for one, same, other in zip(*found):
        np.testing.assert_allclose(one, same, rtol=1e-12, atol=1e-15)
        assert np.abs(one - other).max() > 1e-7


def test_hot_and_cold_starts_agree(fleet, uniform_state):
    """No false periodic states: two starts 150 K apart, throttled designs among them."""
    params, loads = fleet
    params = replace(params, payload=replace(params.payload, power=params.payload.power * 1.6))
    params = replace(params, array=replace(params.array, area=params.array.area * 2))
    cold, a, record = cyclic(params, loads, uniform_state(params, 230.0))
    hot, b, _ = cyclic(params, loads, uniform_state(params, 380.0))
    assert float(record.payload_throttled.max()) > 0
    both = (np.asarray(a.status) == 0) & (np.asarray(b.status) == 0)
    assert both.mean() > 0.95
    # Each is within its distance of the one periodic state.
    np.testing.assert_allclose(cold.nodes[:, both], hot.nodes[:, both], atol=0.02)
    np.testing.assert_allclose(cold.panel[..., both], hot.panel[..., both], atol=0.02)


def test_batch_mates_do_not_matter(fleet, uniform_state):
    params, loads = fleet
    start = uniform_state(params)
    _, _, together = cyclic(params, loads, start)

    def take(tree):
        return jax.tree.map(lambda x: jnp.flip(x[..., 4:12], -1), tree)

    _, _, apart = cyclic(take(params), take(loads), take(start))
    np.testing.assert_allclose(jnp.flip(apart.nodes, -1), together.nodes[..., 4:12], rtol=1e-13)


def test_a_broken_satellite_is_flagged_and_alone(fleet, uniform_state):
    params, loads = fleet
    start = uniform_state(params)
    _, _, good = cyclic(params, loads, start)
    # No way to lose heat: runaway. A design that is not a number: nothing to solve.
    panel = replace(params.panel, emission=params.panel.emission.at[3].set(jnp.nan))
    _, cycle, record = cyclic(replace(params, panel=panel), loads, start)
    status = np.asarray(cycle.status)
    assert status[3] == march.NOT_FINITE and np.all(np.delete(status, 3) == march.CONVERGED)
    others = np.delete(np.arange(B), 3)
    np.testing.assert_allclose(record.nodes[..., others], good.nodes[..., others], rtol=1e-13)


def test_surplus_ends_full_and_deficit_at_the_floor(design, square_loads, uniform_state):
    """Whatever charge a search starts from; a deficit gives the drift and the curtailed cycle."""
    params = design(b=2, spread=0.0)
    area = params.array.area * jnp.asarray([1.0, 0.6])
    params = replace(params, array=replace(params.array, area=area))
    answers = []
    for charge in (0.35, 0.9):
        _, cycle, record = cyclic(params, square_loads(2, 64), uniform_state(params, charge=charge))
        answers.append(record)
        assert np.all(np.asarray(cycle.status) == march.CONVERGED)
        assert cycle.power_deficit.tolist() == [False, True]
        soc = record.energy / params.battery.capacity[None]
        np.testing.assert_allclose(float(soc[:, 0].max()), 1.0, atol=1e-5)
        np.testing.assert_allclose(float(soc[:, 1].min()), float(params.battery.soc_min[1]), atol=1e-5)
        assert float(record.battery_drift[0]) > 0 > float(record.battery_drift[1])
        assert float(record.payload_curtailed[:, 1].max()) > 0 == float(record.payload_curtailed[:, 0].max())
        # The cycle itself is periodic in charge.
        assert float(jnp.abs(record.heat_residual).max()) < 1e-4
    np.testing.assert_allclose(answers[0].nodes, answers[1].nodes, atol=0.02)


def test_neutral_charge_is_kept_and_named(design, square_loads, uniform_state):
    """Array and load balanced by hand: every charge is periodic, the case's own is kept."""
    params = design(b=1, spread=0.0)
    loads = square_loads(1, 16, eclipse=0.0)
    # No load at all and no light on the cells: the store neither gains nor loses.
    idle = replace(
        params,
        bus=replace(params.bus, base_load=jnp.zeros(1), transmitted=jnp.zeros(1)),
        payload=replace(params.payload, power=jnp.zeros(1)),
        coolant=replace(params.coolant, pump_power=jnp.zeros(1)),
        network=replace(params.network, heater_max=jnp.zeros_like(params.network.heater_max)),
    )
    loads = replace(loads, irradiance=jnp.zeros_like(loads.irradiance))
    _, cycle, record = cyclic(idle, loads, uniform_state(idle, charge=0.66))
    assert bool(cycle.neutral_charge[0]) and not bool(cycle.power_deficit[0])
    np.testing.assert_allclose(record.energy / idle.battery.capacity[0], 0.66, rtol=1e-12)


def test_closure_is_reported_as_measured(fleet, uniform_state):
    params, loads = fleet
    state, cycle, _ = cyclic(params, loads, uniform_state(params))
    end, _ = jax.jit(march.transient)(params, loads, state)
    change = jnp.maximum(
        jnp.abs(end.panel - state.panel).max((0, 1)), jnp.abs(end.nodes - state.nodes).max(0)
    )
    np.testing.assert_allclose(cycle.closure, change, atol=1e-9)
    # A node of 100 hours closes long before it is periodic: the distance says so.
    assert float((cycle.distance / cycle.closure).max()) > 10
    assert float(cycle.slowest.max()) > 30 * 3600


def test_what_changes_nothing_for_one_satellite_has_no_slope_there():
    """A heater that works in one satellite and not in another: the right-hand side of the second is zero."""
    r = jnp.array([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    factors = jnp.array([[2.0], [3.0], [4.0]])
    x = periodic._approached(lambda v: v - factors * v, lambda v: v, r, jnp.zeros(2))
    np.testing.assert_allclose(x, r / factors, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("deficit", [False, True])
def test_gradients_of_the_periodic_orbit(design, square_loads, uniform_state, deficit):
    """Implicit derivatives in both modes against central differences of solves to 1e-9 K."""
    base = design(b=2, cells=(4, 4), seed=7)
    if deficit:
        base = replace(base, array=replace(base.array, area=base.array.area * 0.6))
    loads, start = square_loads(2, 12), uniform_state(base)

    def figure(x):
        params = replace(
            base,
            panel=replace(base.panel, emission=base.panel.emission * x[0], kt_y=base.panel.kt_y * x[1]),
            network=replace(base.network, heat_capacity=base.network.heat_capacity * x[2]),
            payload=replace(base.payload, power=base.payload.power * x[3]),
        )
        state, _, record = march.cyclic(params, loads, start, 1e-9, 80)
        return jnp.sum(state.nodes) + jnp.sum(record.panel_max[-1]) + jnp.mean(record.energy) / 1e6

    x = jnp.ones(4)
    reverse = jax.jit(jax.grad(figure))(x)
    forward = jax.jit(jax.jacfwd(figure))(x)
    f, h = jax.jit(figure), 1e-4
    central = jnp.stack([(f(x.at[k].add(h)) - f(x.at[k].add(-h))) / (2 * h) for k in range(4)])
    np.testing.assert_allclose(reverse, forward, rtol=1e-7)
    # Differences of h = 1e-4 are good to h^2 and to 1e-9/h.
    np.testing.assert_allclose(reverse, central, rtol=1e-5, atol=1e-4)
