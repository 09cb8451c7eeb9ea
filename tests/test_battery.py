"""Battery against event-exact marches, and its limits."""

import json
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.battery import Battery, battery_step, faded_capacity
from jax.test_util import check_grads

REFERENCE = json.loads((Path(__file__).parent / "reference" / "battery_array.json").read_text())
CASES = REFERENCE["battery"]
WH = 3600.0  # J
FIELDS = (240.0 * WH, 0.1, 0.9, 0.95, 0.97, 300.0, 250.0)
UNLIMITED = 1e9  # W, far beyond every power here


def make_battery(*values, dtype=jnp.float64):
    return Battery(*(jnp.asarray(x, dtype) for x in values))


def reference_battery(case):
    return make_battery(
        case["E_cap_Wh"] * WH,
        case.get("soc_min", 0.0),
        case.get("soc_max", 1.0),
        case["eta_c"],
        case["eta_d"],
        case.get("P_charge_max_W", UNLIMITED),
        UNLIMITED,
    )


def net_energy(case, t0, t1):
    """Integral of array power through the converter minus load over [t0, t1] within one piece [J]."""
    period = case["period_s"]
    middle = (t0 + t1) / 2 % period
    lit = not any(low < middle < high for low, high in case["eclipse"])
    load = case["load_base_W"] + sum(p for low, high, p in case["load_windows"] if low < middle < high)
    if case["array"] == "const":
        array = case["P_array_W"] * (t1 - t0) * lit
    else:
        omega = 2 * np.pi / period
        positive = np.cos(omega * middle) > 0
        array = case["P_array_W"] * (np.sin(omega * t1) - np.sin(omega * t0)) / omega * lit * positive
    return case["eta_pcu"] * array - load * (t1 - t0)


step = jax.jit(battery_step)


def march(case, times):
    """Energies [Wh] at the times, and energy curtailed and unmet in each interval [Wh]."""
    battery = reference_battery(case)
    energy = jnp.asarray(case["soc0"] * case["E_cap_Wh"] * WH)
    energies, curtailed, unmet = [float(energy) / WH], [], []
    for t0, t1 in pairwise(times):
        net = net_energy(case, t0, t1) / (t1 - t0)
        energy, charge, discharge = step(energy, jnp.asarray(net), jnp.asarray(t1 - t0), battery)
        energies.append(float(energy) / WH)
        curtailed.append((max(net, 0) - float(charge)) * (t1 - t0) / WH)
        unmet.append((max(-net, 0) - float(discharge)) * (t1 - t0) / WH)
    return np.array(energies), np.array(curtailed), np.array(unmet)


@pytest.mark.parametrize("at_events", [True, False], ids=["split_at_limits", "limit_inside_step"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_march(case, at_events):
    # "segment" events are where the net power jumps or changes sign. "full" and "empty" events are found by
    # the reference; without them the limit is met inside a step, which must not change any energy.
    events = [e for e in case["events"] if at_events or e["what"] in ("start", "segment")]
    times = np.array([e["t_s"] for e in events])
    energies, curtailed, unmet = march(case, times)
    # Event-exact reference, written with 1e-6 Wh to demand; the means of each piece are exact here too.
    np.testing.assert_allclose(energies, [e["E_Wh"] for e in events], rtol=0, atol=1e-6)

    # The file ends at the end of its last revolution or just before it.
    orbit = ((times[1:] + times[:-1]) / 2 // case["period_s"]).astype(int)
    for k, totals in enumerate(case["per_orbit"]):
        assert abs(curtailed[orbit == k].sum() - totals["curtailed"]) < 1e-6
        assert abs(unmet[orbit == k].sum() - totals["unmet"]) < 1e-6


def test_sampled_power_is_second_order():
    # With the cosine array sampled at mid-step instead of averaged, only the net power is wrong, by O(dt^2).
    case = next(c for c in CASES if c["array"] == "cos")
    battery = reference_battery(case)
    omega = 2 * np.pi / case["period_s"]
    edges = [e["t_s"] for e in case["events"][:9] if e["what"] in ("start", "segment")]
    expected = case["events"][8]["E_Wh"] * WH

    def error(n):
        times = np.concatenate([np.linspace(a, b, n, endpoint=False) for a, b in pairwise(edges)])
        times = np.append(times, edges[-1])
        middle = (times[1:] + times[:-1]) / 2
        lit = ~((middle > 1830) & (middle < 3870))
        array = case["P_array_W"] * np.maximum(np.cos(omega * middle), 0) * lit
        net = case["eta_pcu"] * array - case["load_base_W"]
        energy = jnp.asarray(case["soc0"] * case["E_cap_Wh"] * WH)
        for p, dt in zip(net, np.diff(times)):
            energy, _, _ = step(energy, jnp.asarray(p), jnp.asarray(dt), battery)
        return abs(float(energy) - expected)

    slopes = np.log2([error(4) / error(8), error(8) / error(16)])
    np.testing.assert_allclose(slopes, 2, atol=0.05)


def test_energy_balance_and_bounds():
    rng = np.random.default_rng(1)
    n = 2000
    battery = make_battery(*(np.full(n, x) for x in FIELDS))
    energy = jnp.asarray(rng.uniform(0.1, 0.9, n) * FIELDS[0])
    net = jnp.asarray(rng.normal(0, 400, n))
    dt = jnp.asarray(rng.uniform(0, 4000, n))
    new, charge, discharge = battery_step(energy, net, dt, battery)
    assert (charge >= 0).all() and (discharge >= 0).all()
    assert (charge <= np.maximum(net, 0)).all() and (discharge <= np.maximum(-net, 0)).all()
    assert (charge <= 300).all() and (discharge <= 250).all() and (charge * discharge == 0).all()
    stored = (0.95 * charge - discharge / 0.97) * dt
    np.testing.assert_allclose(new - energy, stored, atol=1e-6)  # rounding of 9e5 J
    assert (new <= 0.9 * FIELDS[0] * (1 + 1e-14)).all() and (new >= 0.1 * FIELDS[0] * (1 - 1e-14)).all()


@pytest.mark.parametrize("net", [200.0, -200.0, 500.0])
def test_one_step_equals_many(net):
    battery = make_battery(*FIELDS)
    start = jnp.asarray(0.5 * FIELDS[0])
    whole, charge, discharge = battery_step(start, jnp.asarray(net), jnp.asarray(5000.0), battery)
    energy, taken, given = start, 0.0, 0.0
    for _ in range(13):
        energy, c, d = battery_step(energy, jnp.asarray(net), jnp.asarray(5000.0 / 13), battery)
        taken, given = taken + c / 13, given + d / 13
    # The same piecewise linear motion: rounding only.
    np.testing.assert_allclose([energy, taken, given], [whole, charge, discharge], rtol=1e-12)


def test_outside_its_limits_it_is_not_pumped():
    battery = make_battery(*FIELDS)
    above, below = jnp.asarray(0.95 * FIELDS[0]), jnp.asarray(0.05 * FIELDS[0])
    offer, ask, dt = jnp.asarray(200.0), jnp.asarray(-200.0), jnp.asarray(60.0)
    assert battery_step(above, offer, dt, battery) == (above, 0, 0)
    assert battery_step(below, ask, dt, battery) == (below, 0, 0)
    assert battery_step(above, ask, dt, battery)[2] == 200
    assert battery_step(below, offer, dt, battery)[1] == 200


def test_step_of_zero_length():
    battery = make_battery(*FIELDS)
    dt = jnp.asarray(0.0)
    for soc in (0.1, 0.5, 0.9):
        energy = jnp.asarray(soc * FIELDS[0])
        for net in (-100.0, 0.0, 100.0):
            new, charge, discharge = battery_step(energy, jnp.asarray(net), dt, battery)
            assert new == energy and np.isfinite(charge) and np.isfinite(discharge)
            gradient = jax.grad(lambda *a: battery_step(*a)[0], argnums=(0, 1, 2, 3))
            for leaf in jax.tree.leaves(gradient(energy, jnp.asarray(net), dt, battery)):
                assert np.isfinite(leaf)


@pytest.mark.parametrize(
    "soc, net, dt",
    [
        (0.5, 100.0, 60.0),  # free
        (0.5, -100.0, 60.0),
        (0.5, 400.0, 60.0),  # power limits
        (0.5, -400.0, 60.0),
        (0.89, 200.0, 600.0),  # charge limits met inside the step
        (0.11, -200.0, 600.0),
        (0.95, 100.0, 60.0),  # outside
        (0.05, -100.0, 60.0),
    ],
)
def test_gradients(soc, net, dt):
    def f(energy, net, dt, *fields):
        # Scaled to kWh, so that finite differences see every argument.
        new, charge, discharge = battery_step(energy * 1e6, net, dt, Battery(fields[0] * 1e6, *fields[1:]))
        return new / 1e6, charge, discharge

    capacity = FIELDS[0] / 1e6
    arguments = tuple(jnp.asarray(x) for x in (soc * capacity, net, dt, capacity, *FIELDS[1:]))
    check_grads(jax.jit(f), arguments, order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)


def test_gradient_holds_the_active_limit():
    # Full, and offered more: it stays full whatever the start, and follows the limit alone.
    capacity = 2.0**20  # so that soc_max times capacity is exact
    battery = make_battery(capacity, 0.25, 1.0, 0.95, 0.97, 300.0, 250.0)

    def end(energy, battery, net):
        return battery_step(energy, net, jnp.asarray(60.0), battery)[0]

    slope = jax.grad(end, argnums=(0, 1))
    dE, db = slope(jnp.asarray(capacity), battery, jnp.asarray(100.0))
    np.testing.assert_allclose([dE, db.capacity], [0, 1], atol=1e-12)
    dE, db = slope(jnp.asarray(0.25 * capacity), battery, jnp.asarray(-100.0))
    np.testing.assert_allclose([dE, db.capacity], [0, 0.25], atol=1e-12)
    # Every corner at once: at the limit with exactly no power.
    for leaf in jax.tree.leaves(slope(jnp.asarray(capacity), battery, jnp.asarray(0.0))):
        assert np.isfinite(leaf)


def test_float32():
    rng = np.random.default_rng(2)
    n = 500
    energy, net, dt = rng.uniform(0.1, 0.9, n) * FIELDS[0], rng.normal(0, 300, n), rng.uniform(0, 300, n)
    fields = [np.full(n, x) for x in FIELDS]
    double = battery_step(jnp.asarray(energy), jnp.asarray(net), jnp.asarray(dt), make_battery(*fields))
    single = battery_step(
        *(jnp.asarray(x, jnp.float32) for x in (energy, net, dt)), make_battery(*fields, dtype=jnp.float32)
    )
    assert all(x.dtype == jnp.float32 for x in single)
    # 8.6e5 J carries 0.06 J of float32 rounding.
    np.testing.assert_allclose(single[0], double[0], rtol=0, atol=0.2)


def test_faded_capacity():
    fade = tuple(jnp.asarray(x) for x in (100.0, 0.02, 1e-5, 5.0, 5e3))
    assert np.isclose(faded_capacity(*fade), 100 * (1 - 0.1 - 0.05), rtol=1e-14)
    assert faded_capacity(*fade[:3], jnp.asarray(5.0), jnp.asarray(1e6)) == 0
    check_grads(jax.jit(faded_capacity), fade, order=1, modes=("fwd", "rev"), rtol=1e-6)
