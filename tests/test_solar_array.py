"""Solar array against orbit energies integrated by hand, and its limits."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.solar_array import SolarArray, array_power, degraded_efficiency
from jax.test_util import check_grads

REFERENCE = json.loads((Path(__file__).parent / "reference" / "battery_array.json").read_text())
EARTH_RADIUS_KM = 6378.137


def make_array(area, efficiency, coefficient, reference, dtype=jnp.float64):
    return SolarArray(*(jnp.asarray(x, dtype) for x in (area, efficiency, coefficient, reference)))


def gauss_nodes(edges, n=24):
    """Nodes and weights on every interval between the sorted edges."""
    x, w = np.polynomial.legendre.leggauss(n)
    low, high = edges[:-1, None], edges[1:, None]
    return (
        ((low + high) / 2 + (high - low) / 2 * x).ravel(),
        ((high - low) / 2 * w).ravel(),
    )


@pytest.mark.parametrize("case", REFERENCE["array"], ids=lambda c: f"beta{c['beta_deg']:.0f}")
def test_orbit_energy(case):
    beta = np.deg2rad(case["beta_deg"])
    # Cylindrical shadow: dark where cos(u) cos(beta) is below minus the cosine of the Earth's edge.
    edge = np.arccos(-np.sqrt(1 - (EARTH_RADIUS_KM / case["a_km"]) ** 2) / np.cos(beta))
    assert np.isclose(1 - edge / np.pi, case["eclipse_fraction_cylindrical"], rtol=0, atol=1e-12)
    u, weight = gauss_nodes(np.array([-edge, -np.pi / 2, 0, np.pi / 2, edge]))
    incidence = {
        "sun_tracking": np.ones_like(u),
        "zenith": np.maximum(np.cos(beta) * np.cos(u), 0),
        "ram": np.maximum(-np.cos(beta) * np.sin(u), 0),
        "single_axis": np.full_like(u, np.cos(beta)),
    }
    cells = (case["A_m2"], case["eta"], case["kappa"], case["Tref_K"])
    array = make_array(*(np.full_like(u, x) for x in cells))
    T = jnp.asarray(case["T0_K"] + case["T1_K"] * np.cos(u))
    for name, expected in case["E_orbit_Wh"].items():
        power = array_power(jnp.asarray(case["S"] * incidence[name]), T, array)
        energy = np.sum(weight * np.asarray(power)) / (2 * np.pi) * case["period_s"] / 3600
        # The file gives energies exact to 1e-6 Wh; the quadrature converges far below that.
        assert abs(energy - expected) < 1e-6, name


def test_noon_power():
    for case in REFERENCE["array"]:
        array = make_array(case["A_m2"], case["eta"], case["kappa"], case["Tref_K"])
        power = array_power(jnp.asarray(case["S"]), jnp.asarray(case["T0_K"] + case["T1_K"]), array)
        assert abs(power - case["P_noon_sun_tracking_W"]) < 1e-9


def test_power_never_turns_negative():
    # 1/0.0025 = 400 K above the reference the linear law reaches zero.
    array = make_array(2.0, 0.3, -0.0025, 300.0)
    assert array_power(jnp.asarray(1361.0), jnp.asarray(900.0), array) == 0
    gradient = jax.grad(lambda T: array_power(jnp.asarray(1361.0), T, array))
    for T in (300.0, 700.0, 900.0):
        assert np.isfinite(gradient(jnp.asarray(T)))


def test_degradation_compounds():
    # Two successive spans equal their sum; none is lost at year 0.
    eta, loss = jnp.asarray(0.3), jnp.asarray(0.02)
    half = degraded_efficiency(degraded_efficiency(eta, loss, jnp.asarray(2.0)), loss, jnp.asarray(3.0))
    assert np.isclose(half, degraded_efficiency(eta, loss, jnp.asarray(5.0)), rtol=1e-14)
    assert degraded_efficiency(eta, loss, jnp.asarray(0.0)) == eta
    assert np.isclose(degraded_efficiency(eta, loss, jnp.asarray(1.0)), 0.3 * 0.98, rtol=1e-14)


def test_gradients():
    def power(G, T, area, efficiency, coefficient, reference):
        return array_power(G, T, SolarArray(area, efficiency, coefficient, reference))

    arguments = tuple(jnp.asarray(x) for x in (1361.0, 340.0, 2.0, 0.3, -0.0025, 301.0))
    check_grads(jax.jit(power), arguments, order=2, modes=("fwd", "rev"), rtol=1e-4)
    check_grads(jax.jit(power), (jnp.asarray(0.0), *arguments[1:]), order=1, modes=("fwd", "rev"), rtol=1e-6)
    ageing = tuple(jnp.asarray(x) for x in (0.3, 0.02, 5.0))
    check_grads(jax.jit(degraded_efficiency), ageing, order=2, modes=("fwd", "rev"), rtol=1e-4)
    at_zero = tuple(jnp.asarray(x) for x in (0.3, 0.0, 0.0))
    check_grads(jax.jit(degraded_efficiency), at_zero, order=1, modes=("fwd", "rev"), rtol=1e-6)


def test_float32():
    G, T = np.linspace(0, 1423, 50), np.linspace(180, 400, 50)
    cells = [np.full(50, x) for x in (600.0, 0.22, -0.0028, 301.15)]
    double = array_power(jnp.asarray(G), jnp.asarray(T), make_array(*cells))
    single = array_power(
        jnp.asarray(G, jnp.float32), jnp.asarray(T, jnp.float32), make_array(*cells, dtype=jnp.float32)
    )
    assert single.dtype == jnp.float32
    # A handful of roundings of 6e-8, the largest on T - T_ref.
    np.testing.assert_allclose(single, double, rtol=1e-6)
