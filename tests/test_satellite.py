"""The coupled step: order, conservation, steady states, limits and derivatives."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import march
from dawndusk.kernels.satellite import depart, step
from jax import lax

transient = jax.jit(march.transient)
cyclic = jax.jit(march.cyclic)


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def row(loads, k, **changes):
    return replace(jax.tree.map(lambda x: x[k], loads), **changes)


def test_second_order_through_shadow_edges(design, square_loads, uniform_state):
    """Everything on; state after one orbit with steps laid at the edges, against a fine one."""
    params = design(b=2)
    ends = []
    for n in (128, 256, 512, 2048):
        state, _record = transient(params, square_loads(2, n), uniform_state(params))
        ends.append(np.concatenate([np.asarray(state.nodes), np.asarray(state.panel).reshape(-1, 2)]))
    errors = [np.abs(e - ends[-1]).max() for e in ends[:-1]]
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(slopes > 1.6) and slopes[-1] > 1.85, (errors, slopes)
    # The default step's error at the orbit's end.
    assert errors[0] < 0.1


@pytest.mark.parametrize("bypass", [False, True])
def test_energy_closes_and_falls_with_the_step(design, square_loads, uniform_state, bypass):
    params = design(b=2, bypass=bypass)
    residuals = []
    for n in (64, 128, 256):
        _, record = transient(params, square_loads(2, n), uniform_state(params))
        residuals.append(float(jnp.abs(record.heat_residual).max()))
        assert float(jnp.abs(record.bus_residual).max()) < 1e-12
    assert residuals[1] < 1e-4
    assert residuals[0] > 3.5 * residuals[1] > 3.5**2 * residuals[2], residuals


def test_energy_closes_in_float32(design, square_loads, uniform_state):
    params = cast(design(b=4), jnp.float32)
    loads = square_loads(4, 128, dtype=jnp.float32)
    _, record = transient(params, loads, uniform_state(params))
    assert record.heat_residual.dtype == jnp.float32
    assert float(jnp.abs(record.heat_residual).max()) < 1e-4
    assert float(jnp.abs(record.bus_residual).max()) < 1e-5


def test_float32_agrees_with_float64(design, square_loads, uniform_state):
    params = design(b=4)
    double = cyclic(params, square_loads(4, 64), uniform_state(params))[2]
    single32 = cast(params, jnp.float32)
    single = cyclic(single32, square_loads(4, 64, dtype=jnp.float32), uniform_state(single32))[2]
    # The house's promise for a whole run.
    np.testing.assert_allclose(single.nodes, double.nodes, atol=0.05)
    np.testing.assert_allclose(single.panel_max, double.panel_max, atol=0.05)
    np.testing.assert_allclose(single.payload_power, double.payload_power, rtol=1e-3)


def test_steady_state_does_not_depend_on_the_step(design, square_loads, uniform_state):
    """Constant loads: the state that the longest steps settle on is left alone by the shortest."""
    params = design(b=2)
    loads = row(square_loads(2, 8, eclipse=0.0), 0)
    fixed = {}
    for dt in (300.0, 20.0):
        load = replace(loads, dt=jnp.full(2, dt))

        def body(carry, _, load=load):
            return step(params, carry, load)[0], None

        state = uniform_state(params, charge=1.0)
        run = jax.jit(
            lambda s, body=body, n=int(2e6 / dt): lax.scan(body, depart(params, s), None, n)[0].state
        )
        fixed[dt] = run(state)
    np.testing.assert_allclose(fixed[300.0].nodes, fixed[20.0].nodes, atol=1e-7)
    np.testing.assert_allclose(fixed[300.0].panel, fixed[20.0].panel, atol=1e-7)


def test_stable_at_a_thousand_times_the_step(design, square_loads, uniform_state):
    params = design(b=1)
    load = row(square_loads(1, 8, eclipse=0.0), 0, dt=jnp.full(1, 45_000.0))
    state = uniform_state(params, charge=1.0)
    now = depart(params, state)
    one = jax.jit(step)
    for _ in range(200):
        now, _ = one(params, now, load)
        state = now.state
        assert float(state.panel.min()) > 100 and float(state.panel.max()) < 600
        assert float(state.nodes.min()) > 100 and float(state.nodes.max()) < 600


def test_no_time_no_change(design, square_loads, uniform_state):
    params = design(b=2)
    state = uniform_state(params)
    load = row(square_loads(2, 8), 0, dt=jnp.zeros(2))
    now, report = step(params, depart(params, state), load)
    for a, b in zip(jax.tree.leaves(now.state), jax.tree.leaves(state)):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(report))


def test_stiff_chip_does_not_ring(design, square_loads, uniform_state):
    """Demand jumps beside a chip of 10 s: its temperature approaches the new level without passing it."""
    params = design(b=1, spread=0.0)
    network = params.network
    light = network.heat_capacity.at[1].set(10.0 * network.conductance[1, 2])
    params = replace(params, network=replace(network, heat_capacity=light))
    loads = square_loads(1, 128, eclipse=0.0)
    demand = jnp.where(jnp.arange(128) < 64, 0.2, 0.9)[:, None]
    _, record = transient(params, replace(loads, demand=demand), uniform_state(params))
    rise = record.nodes[:, 1, 0] - record.nodes[:, 2, 0]
    level = 0.9 * 0.8 * params.payload.power[0] / network.conductance[1, 2, 0]
    # From below, as the cold plate still warms: never above the level, never back.
    assert np.all(np.diff(rise[63:]) > 0) and float(rise[-1]) < level
    np.testing.assert_allclose(rise[-1], level, rtol=0.02)


def test_unused_array_power_stays_in_the_cells(design, square_loads, uniform_state):
    """A full battery and no load: the array runs as hot as one without cells."""
    params = design(b=1)
    idle = replace(params, bus=replace(params.bus, base_load=jnp.zeros(1), transmitted=jnp.zeros(1)))
    idle = replace(
        idle,
        payload=replace(idle.payload, power=jnp.zeros(1)),
        coolant=replace(idle.coolant, pump_power=jnp.zeros(1)),
        network=replace(idle.network, heater_max=jnp.zeros_like(idle.network.heater_max)),
    )
    blank = replace(idle, array=replace(idle.array, efficiency=jnp.zeros(1)))
    loads = square_loads(1, 32, eclipse=0.0)
    records = [transient(p, loads, uniform_state(p, charge=1.0))[1] for p in (idle, blank)]
    assert float(records[0].array_available.min()) > 1e4 and float(records[0].array_taken.max()) == 0
    np.testing.assert_allclose(records[0].nodes, records[1].nodes, rtol=1e-12)


def test_throttle_holds_the_stage_exactly(design, square_loads, uniform_state):
    """Delivered power equals the throttle's curve of the chip's own temperature in a throttled steady state."""
    params = design(b=1)
    hot = replace(params, payload=replace(params.payload, power=jnp.asarray([40e3])))
    hot = replace(hot, array=replace(hot.array, area=jnp.asarray([300.0])))
    loads = square_loads(1, 64, eclipse=0.0)
    loads = replace(loads, panel=jnp.full_like(loads.panel, 150.0))
    _, _cycle, record = cyclic(hot, loads, uniform_state(hot, charge=1.0))
    T = record.nodes[-1, 1, 0]
    pay = hot.payload
    share = 1 - (1 - pay.throttle_floor) * (T - pay.throttle_start) / (pay.throttle_end - pay.throttle_start)
    assert 0.1 < float(share[0]) < 1
    np.testing.assert_allclose(record.payload_power[-1], 40e3 * share, rtol=1e-5)
    np.testing.assert_allclose(record.payload_throttled[-1], 40e3 * (1 - share), rtol=1e-4)


def test_power_runs_short_in_the_right_order(design, square_loads, uniform_state):
    """In the dark with an empty battery: compute goes first, then what is left of the loads."""
    params = design(b=1)
    loads = square_loads(1, 16)
    loads = replace(loads, irradiance=jnp.zeros_like(loads.irradiance))
    floor = params.battery.soc_min[0]
    _, record = transient(params, loads, uniform_state(params, charge=floor))
    assert float(record.payload_power.max()) == 0
    np.testing.assert_allclose(record.payload_curtailed, record.payload_asked - record.payload_throttled)
    assert float(record.base_power.max()) < 1e-9 * float(record.unmet.max())
    assert np.all(np.isfinite(record.nodes))


def test_bypass_holds_the_supply(design, square_loads, uniform_state):
    params = design(b=2, bypass=True)
    _, cycle, record = cyclic(params, square_loads(2, 64), uniform_state(params))
    assert np.all(np.asarray(cycle.status) == march.CONVERGED)
    held = (np.asarray(record.bypass) > 0.001) & (np.asarray(record.bypass) < 0.998)
    assert held.any()
    # Where the valve can hold the set point the nodes are solved with it.
    np.testing.assert_allclose(np.asarray(record.fluid_supply)[held], 290.0, atol=0.05)


def test_a_node_in_contact_with_the_panel(design, square_loads, uniform_state):
    """No loop: payload heat reaches the panel by conduction, and the balances still close."""
    params = design(b=1)
    contact = params.network.panel_conductance.at[2].set(2000.0)
    params = replace(params, coolant=None, network=replace(params.network, panel_conductance=contact))
    _, cycle, record = cyclic(params, square_loads(1, 128), uniform_state(params))
    assert int(cycle.status[0]) == march.CONVERGED
    assert float(jnp.abs(record.heat_residual[0])) < 1e-4 and float(jnp.abs(record.bus_residual[0])) < 1e-9


POINTS = {
    "ordinary": {},
    "zero load": {"payload": 0.0},
    "full battery": {"charge": 1.0},
    "empty battery": {"charge": 0.0},
    "full sun": {"eclipse": 0.0},
}


FAST = ("ordinary",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in POINTS]
)
def test_gradients_of_a_transient(design, square_loads, uniform_state, name):
    """Both modes against central differences, everything coupled, also with charge limits active."""
    point = POINTS[name]
    base = design(b=1, cells=(4, 4))
    loads = square_loads(1, 12, eclipse=point.get("eclipse", 1100.0))
    state = uniform_state(base, charge=point.get("charge", 0.8))

    def figure(emission, capacity_rate, power, efficiency):
        params = replace(
            base,
            panel=replace(base.panel, emission=base.panel.emission * emission),
            coolant=replace(base.coolant, capacity_rate=base.coolant.capacity_rate * capacity_rate),
            payload=replace(base.payload, power=base.payload.power * power),
            array=replace(base.array, efficiency=base.array.efficiency * efficiency),
        )
        end, record = march.transient(params, loads, state)
        return jnp.sum(end.nodes) + jnp.sum(end.panel) / 16 + jnp.mean(record.payload_power) / 1e3

    x = [jnp.asarray(v) for v in (1.0, 1.0, point.get("payload", 1.0), 1.0)]
    reverse = np.array(jax.jit(jax.grad(figure, argnums=range(4)))(*x))
    forward = np.array(jax.jit(jax.jacfwd(figure, argnums=range(4)))(*x))
    f = jax.jit(figure)
    h = 1e-5
    shift = lambda k, s: [v + s * (i == k) for i, v in enumerate(x)]  # noqa: E731
    # A demand of zero is the edge of its range: from above only.
    central = np.array(
        [
            (f(*shift(k, h)) - f(*shift(k, -h))) / (2 * h)
            if float(x[k]) > 0
            else (4 * f(*shift(k, h)) - 3 * f(*x) - f(*shift(k, 2 * h))) / (2 * h)
            for k in range(4)
        ]
    )
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(reverse, central, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_second_order_in_the_cells(design, square_loads, uniform_state):
    """Steady chip and hot spot on four grids: heat enters at the cells' edge, and the edges count as extremes."""
    values = []
    for cells in ((4, 4), (8, 8), (16, 16), (32, 32)):
        params = design(b=1, spread=0.0, cells=cells)
        loads = square_loads(1, 8, eclipse=0.0)
        loads = replace(loads, panel=jnp.full_like(loads.panel, 120.0))
        _, _, record = cyclic(params, loads, uniform_state(params, charge=1.0))
        values.append([float(record.nodes[-1, 1, 0]), float(record.panel_max[-1, 0])])
    steps = np.abs(np.diff(values, axis=0))
    # The chip's successive differences fall fourfold. The hot spot, in the corner where the pipe begins, is left with
    # less than 0.1 K.
    assert np.all(np.log2(steps[:-1, 0] / steps[1:, 0]) > 1.7), steps
    assert steps[-1, 0] < 0.02 and steps[-1, 1] < 0.1, steps
