"""Throttling: one power consistent with the temperature it causes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.payload import Payload, throttle, throttled_power
from jax.test_util import check_grads

FIELDS = (100e3, 358.15, 368.15, 0.2)  # W, K, K, -


def make_payload(*values, dtype=jnp.float64):
    return Payload(*(jnp.asarray(x, dtype) for x in values))


def test_throttle_line():
    payload = make_payload(*(np.full(5, x) for x in FIELDS))
    T = jnp.asarray([200.0, 358.15, 363.15, 368.15, 500.0])
    np.testing.assert_allclose(throttle(T, payload), [1, 1, 0.6, 0.2, 0.2], rtol=1e-13)


def test_power_is_consistent_with_its_temperature():
    rng = np.random.default_rng(3)
    n = 5000
    payload = Payload(
        jnp.asarray(rng.uniform(1e2, 2e5, n)),
        jnp.asarray(rng.uniform(330, 360, n)),
        jnp.asarray(360 + 10 ** rng.uniform(-2, 1.5, n)),
        jnp.asarray(rng.uniform(0, 1, n)),
    )
    demand = jnp.asarray(rng.uniform(0, 1, n))
    a = jnp.asarray(rng.uniform(280, 400, n))
    b = jnp.asarray(10 ** rng.uniform(-8, -1, n))
    P = throttled_power(a, b, demand, payload)
    asked = demand * payload.power
    right = asked * throttle(a + b * P, payload)
    # Rounding of T ~ 400 K (5e-14 K), times the steepest slope asked/width of a 0.01 K ramp: 1e-12 relative.
    np.testing.assert_allclose(P, right, rtol=1e-11, atol=1e-9)
    assert (P <= asked).all() and (P >= payload.throttle_floor * asked * (1 - 1e-14)).all()
    on_ramp = (P < asked * (1 - 1e-9)) & (P > payload.throttle_floor * asked * (1 + 1e-9))
    assert 500 < on_ramp.sum() < n  # all three branches are met


def test_matches_a_root_found_by_bisection():
    payload = make_payload(*FIELDS)
    for a in (300.0, 352.0, 357.0, 366.0, 390.0):
        a, b, demand = jnp.asarray(a), jnp.asarray(2e-4), jnp.asarray(0.8)
        low, high = 0.0, 8e4
        for _ in range(60):
            middle = (low + high) / 2
            over = middle > 8e4 * float(throttle(a + b * middle, payload))
            low, high = (low, middle) if over else (middle, high)
        assert abs(throttled_power(a, b, demand, payload) - high) < 1e-6


def test_steep_throttle_settles():
    # One chip of 2 kJ/K on 0.5 K/kW to 350 K, with a ramp of 0.1 K. Throttled with the last step's
    # temperature this switches between full and floor for ever; solved together it falls into place.
    payload = make_payload(100e3, 380.0, 380.1, 0.1)
    capacity, conductance, sink, dt = 2e3, 2e3, 350.0, 5.0
    denominator = capacity / dt + conductance
    T, powers = 350.0, []
    for _ in range(60):
        a = (capacity / dt * T + conductance * sink) / denominator  # backward Euler, linear in P
        P = throttled_power(jnp.asarray(a), jnp.asarray(1 / denominator), jnp.asarray(1.0), payload)
        T = a + float(P) / denominator
        powers.append(float(P))
    assert (np.diff(powers) <= 0).all()
    # Steady state in closed form: conductance (T - sink) = power throttle(T) on the ramp.
    slope = 0.9 / 0.1
    T_steady = (conductance * sink + 100e3 * (1 + slope * 380)) / (conductance + 100e3 * slope)
    assert abs(T - T_steady) < 1e-9


@pytest.mark.parametrize("a", [300.0, 350.0, 360.0, 420.0])
def test_gradients(a):
    def f(a, b, demand, power, start, end, floor):
        return throttled_power(a, b * 1e-4, demand, Payload(power * 1e5, start, end, floor)) / 1e5

    arguments = tuple(jnp.asarray(x) for x in (a, 1.0, 0.8, 1.0, 358.15, 368.15, 0.2))
    check_grads(jax.jit(f), arguments, order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-8)


def test_gradient_on_the_ramp_is_implicit():
    # dP/da = asked s' / (1 - asked s' b) from differentiating P = asked s(a + b P).
    payload = make_payload(*FIELDS)
    b, slope = 1e-4, -0.8 / 10
    got = jax.grad(throttled_power)(jnp.asarray(352.0), jnp.asarray(b), jnp.asarray(1.0), payload)
    assert np.isclose(got, 1e5 * slope / (1 - 1e5 * slope * b), rtol=1e-12)


def test_gradients_are_finite_at_the_corners():
    gradient = jax.grad(throttled_power, argnums=(0, 1, 2, 3))
    for demand in (0.0, 1.0):
        for b in (0.0, 1e-4):
            for floor in (0.0, 0.2, 1.0):
                for a in (358.15, 368.15, 358.15 - b * demand * 1e5, 368.15 - b * floor * demand * 1e5):
                    arguments = (jnp.asarray(a), jnp.asarray(b), jnp.asarray(demand))
                    for leaf in jax.tree.leaves(gradient(*arguments, make_payload(*FIELDS[:3], floor))):
                        assert np.isfinite(leaf)


def test_float32():
    a = np.linspace(300, 400, 201)
    rest = [np.full(201, x) for x in (1e-4, 0.9)]
    fields = [np.full(201, x) for x in FIELDS]
    double = throttled_power(*(jnp.asarray(x) for x in (a, *rest)), make_payload(*fields))
    single = throttled_power(
        *(jnp.asarray(x, jnp.float32) for x in (a, *rest)), make_payload(*fields, dtype=jnp.float32)
    )
    assert single.dtype == jnp.float32
    # 3e-5 K of rounding on 360 K, over a 10 K ramp: 3e-6 of the power.
    np.testing.assert_allclose(single, double, rtol=0, atol=1e5 * 1e-5)
