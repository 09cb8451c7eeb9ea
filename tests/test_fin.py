"""Fin against the first integral, spectral marches and closed forms; its orders and derivatives."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.constants import SIGMA
from dawndusk.kernels.fin import (
    Fin,
    base_heat,
    face_temperatures,
    fin_efficiency,
    fin_residual,
    fin_steady,
    fin_step,
    fin_transient,
)
from jax.test_util import check_grads

REFERENCE = Path(__file__).parent / "reference"
STEADY = json.loads((REFERENCE / "fin_steady_dim.json").read_text())["cases"]
TRANSIENT = json.loads((REFERENCE / "fin_transient.json").read_text())["cases"]

steady = jax.jit(fin_steady)
march = jax.jit(fin_transient)


def make_fin(length, kt, emissivity, heat_capacity=1.0, root="temperature", n_cells=64, dtype=jnp.float64):
    numbers = (jnp.asarray(x, dtype) for x in (length, np.ones_like(kt), kt, emissivity, heat_capacity))
    return Fin(*numbers, root, n_cells)


def richardson(values, first=2):
    """Limit of values on grids each twice as fine, errors in powers first, first + 2, ... of the cell."""
    while len(values) > 1:
        values = [(2**first * b - a) / (2**first - 1) for a, b in pairwise(values)]
        first += 2
    return values[0]


# --- steady -----------------------------------------------------------------------------------------------


def read_nd():
    with (REFERENCE / "fin_steady_nd.csv").open() as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    return np.array(rows[1:], float)


def nd_fins(N, sink, n_cells):
    """Fins of length 1 m with theta'' = N (theta^4 - sink^4), root at 300 K, and their loads."""
    emissivity, T_root = np.full_like(N, 1.7), np.full_like(N, 300.0)
    kt = emissivity * SIGMA * T_root**3 / N
    fin = make_fin(np.ones_like(N), kt, emissivity, np.ones_like(N), n_cells=n_cells)
    return jnp.asarray(T_root), jnp.asarray(emissivity * SIGMA * (sink * T_root) ** 4), fin


def nd_columns(rows, n):
    """Tip, minus slope, efficiency and four inner temperatures, as the file's columns."""
    root, q_abs, fin = nd_fins(rows[:, 0], rows[:, 1], n)
    T = steady(root, q_abs, fin)
    theta = face_temperatures(T, root, fin) / 300
    slope = base_heat(T, root, fin) / (fin.conductivity * fin.thickness * 300)
    eta = fin_efficiency(T, root, q_abs, fin)
    inner = [theta[i * n // 5] for i in (1, 2, 3, 4)]
    return np.stack([theta[-1], slope, eta, *inner], axis=-1)


def test_nondimensional_table():
    rows = read_nd()
    grids = [nd_columns(rows, n) for n in (100, 200, 400)]
    # The table is trusted to 1e-9 and printed to 1e-12.
    np.testing.assert_allclose(richardson(grids), rows[:, 2:], rtol=0, atol=1e-9)
    # One grid alone: N = 20 is a boundary layer of a few cells, N <= 1 is what radiators are built with.
    error = np.abs(grids[0] - rows[:, 2:]).max(axis=1)
    assert error[rows[:, 0] <= 1].max() < 3e-5 and error.max() < 3e-3


def test_dimensional_cases():
    # Cases as a batch: the two root conditions, extrapolated from three grids.
    for kind in ("temperature", "flux"):
        grids = []
        for n in (160, 320, 640):
            fin = make_fin(
                *(np.array([c[key] for c in STEADY]) for key in ("L_m",)),
                np.array([c["k"] * c["t_m"] for c in STEADY]),
                np.array([c["eps_sum"] for c in STEADY]),
                np.ones(len(STEADY)),
                root=kind,
                n_cells=n,
            )
            key = "Tb_K" if kind == "temperature" else "Q_base_W_per_m"
            root = jnp.asarray([c[key] for c in STEADY])
            q_abs = jnp.asarray([c["q_abs_W_m2"] for c in STEADY])
            T = steady(root, q_abs, fin)
            faces = face_temperatures(T, root, fin)[:: n // 10]
            extra = jnp.stack([base_heat(T, root, fin), fin_efficiency(T, root, q_abs, fin)])
            grids.append(np.concatenate([faces, extra]))
        expected = np.array([[*c["T_K"], c["Q_base_W_per_m"], c["eta"]] for c in STEADY]).T
        # Trusted to 1e-8 relative; the flow that enters is itself printed to 1e-13.
        np.testing.assert_allclose(richardson(grids), expected, rtol=1e-9)


def test_minimum_mass_fin():
    # At a given heat and root temperature the mass of a rectangular fin varies as 1/(N eta^3); the minimum is
    # known at N = 0.84642 with efficiency 0.565334 and tip 0.798049. Found by Newton, whose second derivative
    # goes through the implicit one twice.
    def columns(N):
        T_root, emissivity, one = jnp.asarray(300.0), jnp.asarray(1.7), jnp.asarray(1.0)
        fin = Fin(one, one, emissivity * SIGMA * T_root**3 / N, emissivity, one, "temperature", 800)
        T = fin_steady(T_root, jnp.asarray(0.0), fin)
        return fin_efficiency(T, T_root, jnp.asarray(0.0), fin), T[-1] / 300

    def log_mass(N):
        return -jnp.log(N) - 3 * jnp.log(columns(N)[0])

    slope_and_curvature = jax.jit(jax.value_and_grad(jax.grad(log_mass)))
    N = jnp.asarray(1.0)
    for _ in range(5):
        slope, curvature = slope_and_curvature(N)
        N = N - slope / curvature
    assert abs(slope) < 1e-7
    # Half a digit of the published numbers; 800 cells are off by 2e-7.
    assert abs(N - 0.84642) < 5e-6
    np.testing.assert_allclose(jax.jit(columns)(N), [0.565334, 0.798049], rtol=0, atol=7e-7)


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_steady_is_second_order(kind):
    # Mean temperature of the "long_thin" case, against its own fine grid extrapolated.
    case = next(c for c in STEADY if c["name"] == "long_thin")
    root = jnp.asarray(case["Tb_K"] if kind == "temperature" else case["Q_base_W_per_m"])

    def mean(n):
        fin = make_fin(case["L_m"], case["k"] * case["t_m"], case["eps_sum"], root=kind, n_cells=n)
        return float(steady(root, jnp.asarray(case["q_abs_W_m2"]), fin).mean())

    limit = richardson([mean(n) for n in (256, 512, 1024)])
    errors = np.array([mean(n) - limit for n in (16, 32, 64, 128)])
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2, atol=0.05)


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_any_start_reaches_the_same_state(kind):
    fin = make_fin(0.3, 0.167, 1.7, root=kind)
    root, q_abs = jnp.asarray(340.0 if kind == "temperature" else 90.0), jnp.asarray(120.0)
    rng = np.random.default_rng(4)
    expected = steady(root, q_abs, fin)
    starts = [np.full(64, 100.0), np.full(64, 600.0), np.linspace(100, 600, 64), rng.uniform(100, 600, 64)]
    for start in starts:
        got = steady(root, q_abs, fin, jnp.asarray(start))
        # Newton stops within a rounding of 300 K.
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
    # 1e-13 K of rounding on k t/dx^2 = 7600 W/m2/K.
    assert np.abs(fin_residual(expected, root, q_abs, fin)).max() < 5e-9


def test_heat_balance_closes():
    # The sum of the discrete equations: what enters at the root and the faces leaves as radiation.
    for kind, root in (("temperature", 340.0), ("flux", 90.0)):
        fin = make_fin(0.3, 0.167, 1.7, root=kind, n_cells=24)
        root, q_abs = jnp.asarray(root), jnp.asarray(120.0)
        T = steady(root, q_abs, fin)
        radiated = (1.7 * SIGMA * T**4).mean() * 0.3
        assert np.isclose(base_heat(T, root, fin) + 120 * 0.3, radiated, rtol=1e-12)


def test_no_conduction_needed_at_the_sink_temperature():
    # Root at the temperature of a plate in balance with its load: uniform for any length, no heat enters.
    q_abs = jnp.asarray(1.7 * SIGMA * 280.0**4)
    fin = make_fin(0.2, 0.1, 1.7)
    T = steady(jnp.asarray(280.0), q_abs, fin)
    np.testing.assert_allclose(T, 280, rtol=0, atol=1e-10)
    assert abs(base_heat(T, jnp.asarray(280.0), fin)) < 1e-9


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_steady_gradients(kind):
    def tip_mean_heat(root, q_abs, length, thickness, k, emissivity):
        fin = Fin(length, thickness, k, emissivity, jnp.ones_like(k), kind, 24)
        T = fin_steady(root, q_abs, fin)
        return T[-1], T.mean(), base_heat(T, root, fin)

    compiled = jax.jit(tip_mean_heat)

    root = 330.0 if kind == "temperature" else 100.0
    arguments = tuple(jnp.asarray(x) for x in (root, 120.0, 0.15, 1.0, 0.167, 1.7))
    # Central differences of a smooth function, their own error about 1e-8 here.
    check_grads(compiled, arguments, order=1, modes=("fwd", "rev"), rtol=1e-6, eps=1e-5)
    # Edge: no absorbed load at all; and the two modes agree far better than differences can show.
    arguments = (*arguments[:1], jnp.asarray(0.0), *arguments[2:])
    check_grads(compiled, arguments, order=1, modes=("fwd", "rev"), rtol=1e-6, eps=1e-5)
    which = tuple(range(6))
    forward = jax.jacfwd(compiled, argnums=which)(*arguments)
    reverse = jax.jacrev(compiled, argnums=which)(*arguments)
    for f, r in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse)):
        np.testing.assert_allclose(f, r, rtol=1e-10, atol=1e-12)


def test_steady_gradient_of_a_batch_is_that_of_its_fins():
    lengths = jnp.asarray([0.1, 0.2, 0.4])

    def tips(lengths):
        fill = jnp.ones_like(lengths)
        fin = Fin(lengths, fill, 0.167 * fill, 1.7 * fill, fill, "temperature", 16)
        return fin_steady(330 * fill, 100 * fill, fin)[-1]

    jacobian = jax.jacrev(tips)(lengths)
    alone = [jax.grad(lambda L: tips(L[None])[0])(L) for L in lengths]
    np.testing.assert_allclose(jacobian, np.diag(alone), rtol=1e-10, atol=1e-9)


# --- transient --------------------------------------------------------------------------------------------


def transient_fin(case, n):
    kind = "temperature" if "Tb_K" in case else "flux"
    return make_fin(case["L_m"], case["kt_W_K"], case["eps_sum"], case["C_J_m2K"], root=kind, n_cells=n)


def march_over(T, root, q, start, end, m, power, fin):
    """m steps from start to end that grow from the start, where a load has jumped."""
    dt = np.diff(start + (end - start) * np.linspace(0, 1, m + 1) ** power)
    return march(T, jnp.full(m, root), jnp.full(m, float(q)), jnp.asarray(dt), fin)


def quarter_points(T, root, fin):
    return np.asarray(face_temperatures(T, root, fin))[:: fin.n_cells // 4]


def run_step_case(case, n, m):
    fin = transient_fin(case, n)
    if "T0_K" in case:
        root = jnp.asarray(case["Tb_K"])
        T, before = jnp.full(n, case["T0_K"]), root
    else:
        root, before = jnp.asarray(case["qb_after"]), jnp.asarray(case["qb_before"])
        T = steady(before, jnp.asarray(case["q_before"]), fin)
    found = [quarter_points(T, before, fin)]
    for start, end in pairwise(case["t_s"]):
        T = march_over(T, root, case["q_after"], start, end, m, 3 if start == 0 else 2, fin)
        found.append(quarter_points(T, root, fin))
    return np.array(found)


def run_cyclic_case(case, n, m):
    fin = transient_fin(case, n)
    root = jnp.asarray(case["Tb_K"] if "Tb_K" in case else case["qb"])
    dusk = case["period_s"] - case["eclipse_s"]
    edges = sorted({*case["t_s"], dusk})
    T = steady(root, jnp.asarray(case["q_sun"]), fin)
    # The slowest time constant is some 400 s, so each revolution of 5800 s gains six digits.
    for _ in range(4):
        start, found = T, [quarter_points(T, root, fin)]
        for a, b in pairwise(edges):
            q = case["q_sun"] if b <= dusk else case["q_ecl"]
            T = march_over(T, root, q, a, b, m, 2 if a in (0, dusk) else 1, fin)
            if b in case["t_s"]:
                found.append(quarter_points(T, root, fin))
    assert np.abs(T - start).max() < 1e-9
    return np.array(found)


@pytest.mark.parametrize("case", TRANSIENT, ids=lambda c: c["name"])
def test_transient(case):
    run = run_step_case if case["kind"] == "step" else run_cyclic_case
    cells, steps = (32, 64, 128), (16, 32, 64)
    grids = {(n, m): run(case, n, m) for n in cells for m in steps}
    expected = np.array(case["T_K"])

    # Extrapolated in time (the error of TR-BDF2 holds all powers from the second) and then in space, three
    # grids each: within the 1e-6 K that the reference is trusted to.
    in_time = []
    for n in cells:
        first, second = ((4 * grids[n, b] - grids[n, a]) / 3 for a, b in pairwise(steps))
        in_time.append((8 * second - first) / 7)
    np.testing.assert_allclose(richardson(in_time), expected, rtol=0, atol=1e-6)

    # Plain, on the finest: O(dx^2) + O(dt^2).
    assert np.abs(grids[128, 64] - expected).max() < 2e-3

    # Measured orders, from differences of successive grids with the other direction held.
    time = np.log2(
        np.abs(grids[128, 16] - grids[128, 32]).max() / np.abs(grids[128, 32] - grids[128, 64]).max()
    )
    space = np.log2(
        np.abs(grids[32, 64] - grids[64, 64]).max() / np.abs(grids[64, 64] - grids[128, 64]).max()
    )
    assert abs(time - 2) < 0.06 and abs(space - 2) < 0.01


def test_steady_state_is_a_fixed_point_of_the_step():
    for kind, root in (("temperature", 340.0), ("flux", 90.0)):
        fin = make_fin(0.3, 0.167, 1.7, 2430.0, root=kind)
        root, q_abs = jnp.asarray(root), jnp.asarray(120.0)
        T = steady(root, q_abs, fin)
        for dt in (0.0, 1.0, 1e3, 1e6):
            np.testing.assert_allclose(fin_step(T, root, q_abs, jnp.asarray(dt), fin), T, atol=1e-9)


def test_a_jump_of_the_root_does_not_ring():
    # The stiffest mode decays at 4 k t n^2/(C L^2) = 0.8/s. After two steps of 60 s the exact profile falls
    # monotonically from the root; a trapezoid still alternates from cell to cell.
    fin = make_fin(0.15, 0.167, 1.7, 2430.0, n_cells=64)
    T = jnp.full(64, 250.0)
    for _ in range(2):
        T = fin_step(T, jnp.asarray(350.0), jnp.asarray(100.0), jnp.asarray(60.0), fin)
    assert (np.diff(T) < 1e-3).all() and (T < 350).all() and (T > 200).all()


def test_uniform_fin_cools_as_a_lumped_node():
    # No flow, no load: the closed form of one node, T = T0 / (1 + 3 eps sigma T0^3 t / C)^(1/3).
    fin = make_fin(0.1, 0.2, 1.8, 1e4, root="flux", n_cells=8)
    expected = 350 / (1 + 3 * 1.8 * SIGMA * 350**3 * 1800 / 1e4) ** (1 / 3)
    errors = []
    for k in (50, 100, 200):
        zero, dt = jnp.zeros(k), jnp.full(k, 1800.0 / k)
        T = march(jnp.full(8, 350.0), zero, zero, dt, fin)
        np.testing.assert_allclose(T, T[0], rtol=0, atol=1e-10)
        errors.append(float(T[0]) - expected)
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.05)


def test_transient_gradients():
    def end(T0, root, q_abs, length, k, emissivity, heat_capacity):
        fin = Fin(length, jnp.ones_like(k), k, emissivity, heat_capacity * 1e3, "flux", 12)
        fill = jnp.ones(6)
        T = fin_transient(T0 + jnp.zeros(12), root * fill, q_abs * fill, 50 * fill, fin)
        return T[0], T.mean()

    arguments = tuple(jnp.asarray(x) for x in (290.0, 60.0, 420.0, 0.15, 0.167, 1.7, 2.43))
    check_grads(jax.jit(end), arguments, order=1, modes=("fwd", "rev"), rtol=1e-6, eps=1e-5)
    # A step of no length keeps derivatives finite too.
    fin = make_fin(0.15, 0.167, 1.7, 2430.0, root="flux", n_cells=8)
    scalars = (jnp.asarray(60.0), jnp.asarray(420.0), jnp.asarray(0.0))
    slope = jax.grad(lambda *a: fin_step(*a, fin).sum(), argnums=(0, 1, 2, 3))(jnp.full(8, 290.0), *scalars)
    assert all(np.isfinite(leaf).all() for leaf in slope)


# --- precision and form -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_float32(kind):
    states = []
    for dtype in (jnp.float32, jnp.float64):
        fin = make_fin(0.4, 0.16, 1.6, 2430.0, root=kind, n_cells=128, dtype=dtype)
        root = jnp.asarray(360.0 if kind == "temperature" else 150.0, dtype)
        T = fin_steady(root, jnp.asarray(200.0, dtype), fin)
        fill = jnp.ones(100, dtype)
        cooled = fin_transient(T, root * fill, 60 * fill, 20 * fill, fin)
        assert T.dtype == cooled.dtype == dtype
        states.append((T, cooled))
    # One rounding of 300 K is 3e-5 K; the precision promised to users is 0.05 K.
    np.testing.assert_allclose(states[0][0], states[1][0], rtol=0, atol=2e-4)
    np.testing.assert_allclose(states[0][1], states[1][1], rtol=0, atol=2e-4)


def test_unknown_root_names_the_choices():
    with pytest.raises(ValueError, match="temperature"):
        make_fin(0.1, 0.2, 1.7, root="dirichlet")
