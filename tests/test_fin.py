"""Fin against the first integral, spectral marches, closed forms and manufactured solutions; its derivatives."""

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.constants import SIGMA
from dawndusk.kernels.fin import (
    CONVERGED,
    NOT_CONVERGED,
    NOT_FINITE,
    Face,
    Fin,
    Loads,
    edge_heat,
    face_temperatures,
    fin_efficiency,
    fin_residual,
    fin_steady,
    fin_step,
    fin_transient,
    net_radiation,
    step_heat,
)
from dawndusk.kernels.view_factor import exchange_areas

REFERENCE = Path(__file__).parent / "reference"
STEADY = json.loads((REFERENCE / "fin_steady_dim.json").read_text())["cases"]
TRANSIENT = json.loads((REFERENCE / "fin_transient.json").read_text())["cases"]

step = jax.jit(fin_step)
march = jax.jit(fin_transient)
residual = jax.jit(fin_residual)
at_faces = jax.jit(face_temperatures)
through_ends = jax.jit(edge_heat)
efficiency = jax.jit(fin_efficiency)
radiation = jax.jit(net_radiation)
steady_and_status = jax.jit(fin_steady)


def steady(*arguments):
    T, status = steady_and_status(*arguments)
    assert (np.asarray(status) == CONVERGED).all()
    return T


def make_fin(length, kt, emissivity, heat_capacity=1.0, root="temperature", n_cells=64, dtype=jnp.float64):
    length, kt, emissivity, heat_capacity = (
        jnp.asarray(x, dtype) for x in (length, kt, emissivity, heat_capacity)
    )
    faces = (Face(emissivity),)
    return Fin(length, jnp.ones_like(length), kt, faces, heat_capacity, root=root, n_cells=n_cells)


def make_loads(q, root, dtype=jnp.float64):
    return Loads((jnp.asarray(q, dtype),), jnp.asarray(root, dtype))


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
    return make_loads(emissivity * SIGMA * (sink * T_root) ** 4, T_root), fin


def nd_columns(rows, n):
    """Tip, minus slope, efficiency and four inner temperatures, as the file's columns."""
    loads, fin = nd_fins(rows[:, 0], rows[:, 1], n)
    T = steady(loads, fin)
    theta = at_faces(T, loads, fin) / 300
    slope = through_ends(T, loads, fin)[0] / (fin.conductivity * fin.thickness * 300)
    eta = efficiency(T, loads, fin)
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


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_dimensional_cases(kind):
    expected = np.array([[*c["T_K"], c["Q_base_W_per_m"], c["eta"]] for c in STEADY]).T
    length, kt, emissivity = (
        np.array(x) for x in zip(*((c["L_m"], c["k"] * c["t_m"], c["eps_sum"]) for c in STEADY))
    )
    key = "Tb_K" if kind == "temperature" else "Q_base_W_per_m"
    loads = make_loads([c["q_abs_W_m2"] for c in STEADY], [c[key] for c in STEADY])

    def columns(n):
        fin = make_fin(length, kt, emissivity, root=kind, n_cells=n, heat_capacity=np.ones_like(kt))
        T = steady(loads, fin)
        faces = at_faces(T, loads, fin)[:: n // 10]
        return np.concatenate([faces, [through_ends(T, loads, fin)[0], efficiency(T, loads, fin)]])

    grids = [columns(n) for n in (80, 160, 320, 640)]
    # Trusted to 1e-8 relative; the flow that enters is itself printed to 1e-13.
    np.testing.assert_allclose(richardson(grids), expected, rtol=1e-9)
    # Measured order of the efficiency, the heat and the tip, each grid alone.
    errors = np.abs(np.array(grids) - expected)[:, -3 if kind == "temperature" else -1 :]
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2, atol=0.05)


def test_minimum_mass_fin():
    # At a given heat and root temperature the mass of a rectangular fin varies as 1/(N eta^3); the minimum is
    # known at N = 0.84642 with efficiency 0.565334 and tip 0.798049. Found by Newton, whose second derivative
    # goes through the implicit one twice.
    def columns(N):
        T_root, emissivity, one = jnp.asarray(300.0), jnp.asarray(1.7), jnp.asarray(1.0)
        fin = Fin(one, one, emissivity * SIGMA * T_root**3 / N, (Face(emissivity),), n_cells=800)
        loads = Loads((), T_root)
        T, _ = fin_steady(loads, fin)
        return efficiency(T, loads, fin), T[-1] / 300

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


def draw_fins(b, root, tip, n_cells=64, dtype=jnp.float64):
    """Random fins with everything on: two faces, a neighbour, k(T), eps(T), numbers that vary from cell to cell."""
    rng = np.random.default_rng(7)

    def u(low, high, *cells):
        return jnp.asarray(rng.uniform(low, high, (*cells, b)), dtype)

    def slopes():
        return u(-1e-3, 1e-3), u(-3e-6, 3e-6)

    ends = {"temperature": lambda: u(150, 450), "flux": lambda: u(0, 60), "insulated": lambda: None}
    faces = (
        Face(u(0.3, 0.95), u(0.2, 0.6), u(0.1, 0.4), slopes()),
        Face(u(0.3, 0.95, n_cells), emissivity_slopes=slopes()),
    )
    fin = Fin(
        length=u(0.05, 0.3),
        thickness=u(8e-4, 2e-3, n_cells),
        conductivity=u(15, 200),
        heat_capacity=u(1e3, 4e3, n_cells),
        faces=faces,
        conductivity_slopes=slopes(),
        root=root,
        tip=tip,
        n_cells=n_cells,
    )
    loads = Loads((u(0, 600), u(20, 600, n_cells)), ends[root](), ends[tip](), (u(150, 400), None))
    return loads, fin


ALL_ENDS = [("temperature", "insulated"), ("flux", "temperature"), ("insulated", "flux")]


@pytest.mark.parametrize("root, tip", ALL_ENDS)
def test_any_start_reaches_the_same_state(root, tip):
    b, n = 32, 64
    loads, fin = draw_fins(b, root, tip)
    rng = np.random.default_rng(4)
    ramp = np.broadcast_to(np.linspace(100, 600, n)[:, None], (n, b))
    starts = [np.full((n, b), 100.0), np.full((n, b), 600.0), ramp, rng.uniform(100, 600, (n, b))]
    found = [steady(loads, fin, jnp.asarray(start)) for start in starts]
    for T in found[1:]:
        # Newton stops within a rounding of 300 K.
        np.testing.assert_allclose(T, found[0], rtol=0, atol=1e-11)
    # The promise is 1e-8 of what the fin radiates; 1e-13 K of rounding on links of 1e5 W/m2/K is what is left.
    T = found[0]
    assert (np.abs(residual(T, loads, fin)).max(axis=0) / radiation(T, loads, fin).max(axis=0)).max() < 1e-9
    # In float32 within 1e-4 K of float64; one rounding of 300 K is 3e-5 K.
    single = steady(*draw_fins(b, root, tip, dtype=jnp.float32), jnp.full((n, b), 100, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, T, rtol=0, atol=1e-4)


def test_each_fin_has_its_own_status():
    # An ordinary fin, one that is asked for more heat than it absorbs (no solution), one that is not a number.
    fin = make_fin([0.3] * 3, [0.167] * 3, [1.7, 1.7, np.nan], root="flux")
    loads = make_loads([120.0] * 3, [90.0, -60.0, 90.0])
    T, status = steady_and_status(loads, fin)
    assert status.tolist() == [CONVERGED, NOT_CONVERGED, NOT_FINITE]
    alone = steady(make_loads([120.0], [90.0]), make_fin([0.3], [0.167], [1.7], root="flux"))
    # Each stops by itself, whatever the others do; vectorised sums may round differently.
    np.testing.assert_allclose(T[:, :1], alone, rtol=1e-14)


def test_conduction_with_k_of_T_is_exact():
    # No radiation, ends held: k_ref t [theta(T1) - theta(T2)]/L whatever the number of cells (Kirchhoff).
    c1, c2, T1, T2 = 2e-3, -4e-6, 420.0, 250.0
    one = jnp.asarray(1.0)
    slopes = (jnp.asarray(c1), jnp.asarray(c2))
    fin = Fin(0.4 * one, 0.001 * one, 150 * one, (), None, slopes, 280.0, tip="temperature", n_cells=5)
    loads = Loads((), T1 * one, T2 * one)
    T = steady(loads, fin)

    def theta(T):
        u = T - 280.0
        return u + c1 * u**2 / 2 + c2 * u**3 / 3

    flow = 150 * 0.001 / 0.4 * (theta(T1) - theta(T2))
    np.testing.assert_allclose(through_ends(T, loads, fin), [flow, -flow], rtol=1e-13)
    # and theta is linear in x at the centres
    expected = theta(T1) + (theta(T2) - theta(T1)) * fin.centres / 0.4
    np.testing.assert_allclose(theta(np.asarray(T)), expected, rtol=0, atol=1e-10)


def test_faces_against_plates():
    """Insulated ends and even loads: each fin is a plate in balance, in closed form."""
    b, q = 3, 300.0
    one = jnp.ones(b)
    # eps = 0.8 (1 + c (T - 300)): sigma 0.8 (1 + c u) T^4 = q, the real root by numpy.
    c = np.array([0.0, 1e-3, -1e-3])
    plates = []
    for slope in c:
        roots = np.roots([0.8 * SIGMA * slope, 0.8 * SIGMA * (1 - 300 * slope), 0, 0, 0, -q])
        plates.append(min(r.real for r in roots if abs(r.imag) < 1e-6 and r.real > 0))
    face = Face(0.8 * one, emissivity_slopes=(jnp.asarray(c),))
    fin = Fin(one, one, one, (face,), root="insulated", n_cells=4)
    T = steady(Loads((q * one,)), fin)
    # The roots of the quintic are good to some 1e-13.
    np.testing.assert_allclose(T, np.broadcast_to(plates, (4, b)), rtol=1e-12)

    # A gray neighbour at 350 K that fills 0.4 of the view: exchange areas of the pair, space the rest.
    areas, emissivities = jnp.asarray([2.0, 2.0]), jnp.asarray([0.8, 0.3])
    R, R_space = exchange_areas(jnp.asarray([[0, 0.4], [0.4, 0]]), emissivities, areas)
    face = Face(0.8 * one, R_space[0] / (0.8 * 2) * one, R[0, 1] / (0.8 * 2) * one)
    T = steady(Loads((q * one,), neighbour=(350 * one,)), replace(fin, faces=(face,)))
    expected = ((q * 2 / SIGMA + R[0, 1] * 350**4) / (R_space[0] + R[0, 1])) ** 0.25
    np.testing.assert_allclose(T, jnp.full((4, b), expected), rtol=1e-13)
    # A black one needs its view factor only, and at equal temperature nothing is exchanged with it.
    T = jnp.full((4, b), 350.0)
    face = Face(0.8 * one, to_neighbour=0.4 * one)
    net = radiation(T, Loads((), neighbour=(350 * one,)), replace(fin, faces=(face,)))
    np.testing.assert_allclose(net, 0.8 * 0.6 * SIGMA * T**4, rtol=1e-14)


def test_forms_of_the_same_fin_agree():
    loads, fin = draw_fins(4, "flux", "temperature", 24)
    T = steady(loads, fin)
    # Mirrored: root and tip change places, cells run the other way.
    turned, back = jax.tree.map(lambda x: x[::-1] if x.ndim == 2 else x, (loads, fin))
    turned = replace(turned, root=loads.tip, tip=loads.root)
    mirrored = steady(turned, replace(back, root="temperature", tip="flux"))
    np.testing.assert_allclose(mirrored[::-1], T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        through_ends(mirrored, turned, replace(back, root="temperature", tip="flux"))[::-1],
        through_ends(T, loads, fin),
        rtol=1e-10,
    )
    # A number for all cells is the same number in each; two faces are their sum.
    plain = make_fin([0.2, 0.3], [0.1, 0.2], [1.7, 1.5], n_cells=24)
    cells = jnp.ones((24, 1))
    faces = tuple(
        Face(share * plain.faces[0].emissivity[None] * cells, jnp.ones(2)) for share in (0.25, 0.75)
    )
    many = replace(
        plain,
        thickness=plain.thickness[None] * cells,
        conductivity=plain.conductivity[None] * cells,
        faces=faces,
    )
    loads = make_loads([100.0, 50.0], [330.0, 300.0])
    shared = Loads((25 * cells * jnp.asarray([[1.0, 0.5]]), jnp.asarray([75.0, 37.5])), loads.root)
    np.testing.assert_allclose(steady(shared, many), steady(loads, plain), rtol=0, atol=1e-10)


# A manufactured solution: T(x, t) and the heat that it asks for, from the equation written out once more.
SIZE, THICK, KAPPA = 0.2, 1.2e-3, 60.0


def made_T(x, t, sway):
    s = x / SIZE
    return 340 - 50 * s**2 + 20 * s + sway * 30 * jnp.sin(t / 300) * jnp.sin(jnp.pi / 2 * s)


def made_kt(x, t, sway):
    u = made_T(x, t, sway) - 300
    return KAPPA * (1 + 2e-3 * u - 3e-6 * u**2) * THICK * (1 - 0.6 * x / SIZE)


def made_capacity(x):
    return 2000 * (1 - 0.6 * x / SIZE)


def made_absorbed(x, t, sway):
    T = made_T(x, t, sway)
    u = T - 300

    def flow(x):
        return made_kt(x, t, sway) * jax.grad(made_T)(x, t, sway)

    emitted = (0.6 + 0.3 * jnp.cos(9 * x)) * (1 + 1e-3 * u + 2e-6 * u**2) * SIGMA * T**4
    behind = 0.7 * (1 - 5e-4 * u) * SIGMA * (0.5 * T**4 + 0.3 * (T**4 - 260.0**4))
    return made_capacity(x) * jax.grad(made_T, 1)(x, t, sway) - jax.grad(flow)(x) + emitted + behind


made_profile = jax.vmap(made_absorbed, (0, None, None))


def made_fin(n):
    x = jnp.asarray((np.arange(n) + 0.5) * SIZE / n)
    one = jnp.asarray(1.0)
    faces = (
        Face(0.6 + 0.3 * jnp.cos(9 * x), emissivity_slopes=(1e-3 * one, 2e-6 * one)),
        Face(0.7 * one, 0.5 * one, 0.3 * one, (-5e-4 * one,)),
    )
    thickness = THICK * (1 - 0.6 * x / SIZE)
    slopes = (2e-3 * one, -3e-6 * one)
    fin = Fin(SIZE * one, thickness, KAPPA * one, faces, made_capacity(x), slopes, tip="flux", n_cells=n)
    return x, fin


@jax.jit
def made_loads(x, t, sway):
    tip = made_kt(SIZE, t, sway) * jax.grad(made_T)(SIZE, t, sway)
    return Loads(
        (made_profile(x, t, sway), jnp.asarray(0.0)), made_T(0.0, t, sway), tip, (None, jnp.asarray(260.0))
    )


def test_manufactured_steady_state_is_second_order():
    errors = []
    entering = -made_kt(0.0, 0.0, 0.0) * jax.grad(made_T)(0.0, 0.0, 0.0)
    for n in (16, 32, 64):
        x, fin = made_fin(n)
        loads = made_loads(x, 0.0, 0.0)
        T = steady(loads, fin)
        away = np.abs(T - made_T(x, 0.0, 0.0)).max()
        errors.append([away, abs(float(through_ends(T, loads, fin)[0] - entering))])
    errors = np.array(errors)
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2, atol=0.1)
    assert errors[-1, 0] < 5e-3


def absorbed_heat(T, loads, fin):
    rows = np.sum([np.broadcast_to(q, T.shape) for q in loads.absorbed], axis=0)
    return rows.sum(axis=0) * np.asarray(fin.cell)


def test_heat_balance_closes():
    # The sum of the discrete equations: what enters at the ends and the faces leaves as radiation.
    for root, tip in ALL_ENDS:
        loads, fin = draw_fins(4, root, tip, 24)
        T = steady(loads, fin)
        entered = sum(through_ends(T, loads, fin)) + absorbed_heat(T, loads, fin)
        # Links times 1e-13 K of rounding, beside some 100 W.
        np.testing.assert_allclose(entered, radiation(T, loads, fin).mean(0) * fin.length, rtol=1e-10)


def test_no_conduction_needed_at_the_sink_temperature():
    # Root at the temperature of a plate in balance with its load: uniform for any length, no heat enters.
    loads, fin = make_loads(1.7 * SIGMA * 280.0**4, 280.0), make_fin(0.2, 0.1, 1.7)
    T = steady(loads, fin)
    np.testing.assert_allclose(T, 280, rtol=0, atol=1e-10)
    assert abs(through_ends(T, loads, fin)[0]) < 1e-9


# Typical sizes of root, loads, length, thickness, k, its slope, emissivity, its slope, neighbour.
SCALES = np.array([300.0, 100.0, 100.0, 0.15, 1e-3, 150.0, 1e-3, 0.8, 1e-3, 250.0])
AWKWARD = {
    "ordinary": {},
    "no load": {1: 0.0, 2: 0.0},
    "no slopes": {6: 0.0, 8: 0.0},
    "hardly conducting": {5: 1e-6},
    "conducting a little": {5: 0.05},
}


def awkward_points(scales):
    points = np.tile(scales * 1.1, (len(AWKWARD), 1))
    for point, changes in zip(points, AWKWARD.values()):
        point[list(changes)] = list(changes.values())
    return jnp.asarray(points)


def check_jacobians(f, points, scales):
    """Forward = reverse, and both are central differences of fourth order, all points in three programs."""
    # Derivatives with respect to the logarithm of each number, or to that over its scale where it is zero.
    sizes = np.where(points == 0, scales, np.abs(points))
    forward = np.asarray(jax.jit(jax.vmap(jax.jacfwd(f)))(points)) * sizes[:, None]
    reverse = np.asarray(jax.jit(jax.vmap(jax.jacrev(f)))(points)) * sizes[:, None]
    size = np.abs(forward).max(axis=2, keepdims=True)
    assert (size > 0).all()
    # The transposed solve rounds in another order.
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-11 * size.max())
    moves = (
        np.array([-2.0, -1.0, 1.0, 2.0])[:, None, None] * 1e-3 * np.eye(len(scales)) * sizes[:, None, None]
    )
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(jax.vmap(f))))(points[:, None, None] + moves))
    slopes = np.einsum("s,psjo->poj", np.array([1.0, -8.0, 8.0, -1.0]) / 12e-3, values)
    # Truncation (1e-3)^4 and rounding 1e-13/1e-3 stay well below the 1e-6 asked for; where a slope is by chance far
    # smaller than the largest, 1e-8 of that one.
    np.testing.assert_allclose(forward, slopes, rtol=1e-6, atol=1e-8 * size.max())


def state_of(p, kind, n_cells):
    face = Face(p[7], 0.5 + 0 * p[7], 0.3 + 0 * p[7], (p[8],))
    fin = Fin(p[3], p[4], p[5], (face, Face(p[7])), 2000 + 0 * p[5], (p[6],), root=kind, n_cells=n_cells)
    return Loads((p[1], p[2]), p[0], None, (p[9], None)), fin


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_steady_gradients(kind):
    scales = SCALES.copy()
    scales[0] = 300.0 if kind == "temperature" else 80.0

    def tip_mean_heat(p):
        loads, fin = state_of(p, kind, 16)
        T, _ = fin_steady(loads, fin)
        heat = through_ends(T, loads, fin)[0] if kind == "temperature" else T[0]
        return jnp.stack([T[-1], T.mean(), heat])

    check_jacobians(tip_mean_heat, awkward_points(scales), scales)


def test_steady_gradient_of_a_batch_is_that_of_its_fins():
    lengths = jnp.asarray([0.1, 0.2, 0.4])

    def tips(lengths):
        fin = make_fin(lengths, 0.167 * jnp.ones(3), 1.7 * jnp.ones(3), n_cells=16)
        return fin_steady(make_loads(100 * jnp.ones(3), 330 * jnp.ones(3)), fin)[0][-1]

    jacobian = jax.jit(jax.jacrev(tips))(lengths)
    np.testing.assert_allclose(jacobian - np.diag(np.diag(jacobian)), 0, atol=1e-9)
    longer = (tips(lengths + 1e-5) - tips(lengths - 1e-5)) / 2e-5
    np.testing.assert_allclose(np.diag(jacobian), longer, rtol=1e-6)


# --- transient --------------------------------------------------------------------------------------------


def transient_fin(case, n):
    kind = "temperature" if "Tb_K" in case else "flux"
    return make_fin(case["L_m"], case["kt_W_K"], case["eps_sum"], case["C_J_m2K"], root=kind, n_cells=n)


def march_over(T, root, q, start, end, m, power, fin):
    """m steps from start to end that grow from the start, where a load has jumped."""
    dt = np.diff(start + (end - start) * np.linspace(0, 1, m + 1) ** power)
    # 16 at a time, so that all grids in time share one program.
    loads = make_loads(np.full(16, q), np.full(16, root))
    for part in dt.reshape(-1, 16):
        T = march(T, loads, jnp.asarray(part), fin)
    return T


def quarter_points(T, root, fin):
    return np.asarray(at_faces(T, make_loads(0, root), fin))[:: fin.n_cells // 4]


def run_step_case(case, n, m):
    fin = transient_fin(case, n)
    if "T0_K" in case:
        root = jnp.asarray(case["Tb_K"])
        T, before = jnp.full(n, case["T0_K"]), root
    else:
        root, before = jnp.asarray(case["qb_after"]), jnp.asarray(case["qb_before"])
        T = steady(make_loads(case["q_before"], before), fin)
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
    T = steady(make_loads(case["q_sun"], root), fin)
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

    # Extrapolated in time (the error holds all powers from the second) and then in space, three
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


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_fifty_fins_through_an_orbit(dtype):
    """The problem of bench/bench_fin.py, steps of 10 s, against Radau at 1e-10 on the same cells."""
    given = np.load(REFERENCE / "bench" / "fin1000.npz")
    length, kt, emissivity, capacity, root, sun, shadow = (
        jnp.asarray(given[name][:50], dtype) for name in ("L", "kt", "eps", "C", "qb", "qs", "qe")
    )
    dt, steps = float(given["dt"]), round(float(given["P"] / given["dt"]))
    in_sun = dt * np.arange(steps)[:, None] < given["t_sun"]
    absorbed = jnp.where(in_sun, sun[None], shadow[None])
    fins = make_fin(length, kt, emissivity, capacity, root="flux", n_cells=int(given["ncell"]), dtype=dtype)
    loads = make_loads(absorbed, jnp.broadcast_to(root[None], absorbed.shape), dtype)
    start = jnp.full((fins.n_cells, 50), given["T0"], dtype)
    end = march(start, loads, jnp.full_like(absorbed, dt), fins)
    # The steps' own error, 4e-5 K, and rounding.
    np.testing.assert_allclose(end.T, given["T_end_first50"], rtol=0, atol=1e-4)


def test_manufactured_transient_is_second_order():
    # Cells and steps refined together; loads at mid-step. The root stands still and the tip's flux barely moves.
    errors = []
    end = 600.0
    for n, m in ((16, 15), (32, 30), (64, 60)):
        x, fin = made_fin(n)
        middle = jnp.asarray((np.arange(m) + 0.5) * end / m)
        loads = jax.vmap(made_loads, (None, 0, None))(x, middle, 1.0)
        T = march(made_T(x, 0.0, 1.0), loads, jnp.full(m, end / m), fin)
        errors.append(np.abs(T - made_T(x, end, 1.0)).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.15)
    assert errors[-1] < 0.01


def test_steady_state_is_a_fixed_point_of_the_step():
    for root, tip in ALL_ENDS:
        loads, fin = draw_fins(4, root, tip, 24)
        T = steady(loads, fin)
        for dt in (0.0, 1.0, 1e3, 1e6):
            np.testing.assert_allclose(step(T, loads, jnp.full(4, dt), fin), T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("start", [100.0, 600.0])
def test_long_steps_lead_to_the_steady_state(start):
    # 30 steps of anything from a tenth to a thousand time constants (some 200 s), from far below and far above.
    loads, fin = draw_fins(4, "flux", "temperature", 24)
    dt = jnp.asarray([300.0, 1e3, 1e5, 1e7])
    repeat = jax.tree.map(lambda x: jnp.broadcast_to(x, (30, *x.shape)), loads)
    T = march(jnp.full((24, 4), start), repeat, jnp.broadcast_to(dt, (30, 4)), fin)
    # 30 steps of the first column damp a tail of exp(-9000/200); the others are there to rounding.
    np.testing.assert_allclose(T, steady(loads, fin), rtol=0, atol=1e-6)


# The stability function (1 + (1 - 2 gamma) z)/(1 - gamma z)^2 dips to this, at 8.2 time constants.
BEYOND = 0.2072


def test_a_jump_of_the_root_does_not_ring():
    # 10 to 100,000 times the explicit limit dx^2 C/(2 k t), where a trapezoid alternates from cell to cell for long.
    b = 25
    ones = np.ones(b)
    fin = make_fin(0.15 * ones, 0.167 * ones, 1.7 * ones, 2430.0 * ones, n_cells=64)
    dt = jnp.asarray((0.15 / 64) ** 2 * 2430 / (2 * 0.167) * np.logspace(1, 5, b))
    T, loads = jnp.full((64, b), 250.0), make_loads(100.0 * ones, 350.0 * ones)
    for i in range(4):
        T = step(T, loads, dt, fin)
        rises = np.diff(T, axis=0) > 0
        if i == 0:
            # One bulge at most, of all modes together a tenth of what one alone may do.
            assert (np.count_nonzero(np.diff(rises, axis=0), axis=0) <= 2).all() and T.max() < 350 + 4
        else:
            assert T.max() < 350 and (np.diff(T, axis=0) < 0.05).all()
        assert T.min() > 248


def test_a_cold_fin_in_full_sun_stays_within_the_bound():
    # The tangent of T^4 at 100 K would send it to several 1000 K in one long step.
    b = 49
    ones = np.ones(b)
    fin = make_fin(0.15 * ones, 0.167 * ones, 1.7 * ones, 2430.0 * ones, root="flux")
    limit = (1400 / (1.7 * SIGMA)) ** 0.25
    T, loads = jnp.full((64, b), 100.0), make_loads(1400.0 * ones, 0.0 * ones)
    for beyond in (BEYOND, 0.02, 0.01):
        T = step(T, loads, jnp.asarray(np.logspace(1, 7, b)), fin)
        assert T.min() > 100 and T.max() < limit + beyond * (limit - 100)


def test_uniform_fin_cools_as_a_lumped_node():
    # No flow, no load: the closed form of one node, T = T0 / (1 + 3 eps sigma T0^3 t / C)^(1/3).
    fin = make_fin(0.1, 0.2, 1.8, 1e4, root="flux", n_cells=8)
    expected = 350 / (1 + 3 * 1.8 * SIGMA * 350**3 * 1800 / 1e4) ** (1 / 3)
    errors = []
    for k in (50, 100, 200):
        T = march(jnp.full(8, 350.0), make_loads(np.zeros(k), np.zeros(k)), jnp.full(k, 1800.0 / k), fin)
        np.testing.assert_allclose(T, T[0], rtol=0, atol=1e-10)
        errors.append(float(T[0]) - expected)
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.05)


def test_balance_of_a_step_closes():
    account = jax.jit(step_heat)
    for root, tip in ALL_ENDS[:2]:
        loads, fin = draw_fins(4, root, tip, 24)
        T = jnp.full((24, 4), 250.0)
        dt = jnp.asarray([1.0, 10.0, 100.0, 1e5])
        rise = np.asarray(step(T, loads, dt, fin)) - 250
        stored = (np.asarray(fin.heat_capacity) * rise).sum(axis=0) * np.asarray(fin.cell)
        heat = np.array(account(T, loads, dt, fin))
        # Roundings of some 50 terms.
        assert (np.abs([1, 1, 1, -1] @ heat - stored) < 1e-12 * np.abs(heat).sum(axis=0)).all()
        np.testing.assert_allclose(heat[2], absorbed_heat(T, loads, fin) * dt, rtol=1e-13)
        # And it is the physics: over a short step, the heat flows at its start.
        short = np.array(account(T, loads, jnp.full(4, 1e-6), fin)) / 1e-6
        emitted = np.asarray(radiation(T, loads, fin)).sum(axis=0) * np.asarray(fin.cell)
        np.testing.assert_allclose(short[3], emitted, rtol=1e-4)
        np.testing.assert_allclose(short[:2], through_ends(T, loads, fin), rtol=1e-4)


def test_march_is_its_steps():
    # A prime number of them, so that steps of no length fill the last block: they change nothing at all.
    k, n = 11, 24
    loads, fin = draw_fins(4, "temperature", "insulated", n)
    rows = jax.tree.map(lambda x: jnp.stack([x * (1 + i / 50) for i in range(k)]), loads)
    dt = jnp.asarray(np.random.default_rng(0).uniform(1, 300, (k, 4)))
    T = jnp.full((n, 4), 280.0)
    assert (step(T, loads, jnp.zeros(4), fin) == T).all()
    found = march(T, rows, dt, fin)
    for i in range(k):
        T = step(T, jax.tree.map(lambda x, i=i: x[i], rows), dt[i], fin)
    np.testing.assert_allclose(found, T, rtol=0, atol=1e-11)


def test_transient_gradients():
    # Start, step and heat capacity beside the numbers of the steady fin; 7 steps, two of them of no length.
    scales = np.array([*SCALES, 290.0, 60.0, 2000.0])
    points = awkward_points(scales)
    even = jnp.asarray([1.0, 1, 0, 1, 1, 0, 1])

    def end(p):
        loads, fin = state_of(p, "temperature", 8)
        fin = replace(fin, heat_capacity=p[12])
        rows = jax.tree.map(lambda x: x + 0 * even, loads)
        T = fin_transient(p[10] + jnp.zeros(8), rows, p[11] * even, fin)
        return jnp.stack([T[0], T[-1], T.mean()])

    check_jacobians(end, points, scales)


def test_gradients_of_a_step_of_no_length():
    loads, fin = draw_fins(2, "flux", "insulated", 8)
    T = jnp.full((8, 2), 290.0)

    def total(T, dt):
        return fin_step(T, loads, dt, fin).sum()

    by_T, by_dt = jax.jit(jax.grad(total, (0, 1)))(T, jnp.zeros(2))
    np.testing.assert_allclose(by_T, 1, rtol=0, atol=1e-12)
    # The rate at which temperatures begin to change.
    rate = (residual(T, loads, fin) / fin.heat_capacity).sum(axis=0)
    np.testing.assert_allclose(by_dt, rate, rtol=1e-9)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (T, loads, fin))
    slopes = jax.jit(jax.grad(lambda dt: fin_step(single[0], single[1], dt, single[2]).sum()))(
        jnp.zeros(2, jnp.float32)
    )
    np.testing.assert_allclose(slopes, rate, rtol=1e-4)


@pytest.mark.slow
def test_memory_of_the_reverse_march_grows_as_the_square_root():
    fin = make_fin([0.15] * 8, [0.167] * 8, [1.7] * 8, [2430.0] * 8, root="flux", n_cells=32)

    def temporary(k):
        def end(T):
            loads = make_loads(jnp.full((k, 8), 100.0), jnp.full((k, 8), 80.0))
            return fin_transient(T, loads, jnp.full((k, 8), 30.0), fin).sum()

        T = jax.ShapeDtypeStruct((32, 8), jnp.float64)
        return jax.jit(jax.grad(end)).lower(T).compile().memory_analysis().temp_size_in_bytes / (32 * 8 * 8)

    few, many = temporary(256), temporary(4096)
    # 16 times the steps: blocks and steps of a block, 2 x 64 states instead of 2 x 16, beside one step's own forty.
    assert many < 4.5 * few and many < 250


# --- precision and form -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["temperature", "flux"])
def test_float32(kind):
    states = []
    for dtype in (jnp.float32, jnp.float64):
        fin = make_fin(0.4, 0.16, 1.6, 2430.0, root=kind, n_cells=128, dtype=dtype)
        root = 360.0 if kind == "temperature" else 150.0
        T = steady(make_loads(200.0, root, dtype), fin)
        cooled = march(T, make_loads([60.0] * 100, [root] * 100, dtype), jnp.full(100, 20, dtype), fin)
        assert T.dtype == cooled.dtype == dtype
        states.append((T, cooled))
    # One rounding of 300 K is 3e-5 K.
    np.testing.assert_allclose(states[0][0], states[1][0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(states[0][1], states[1][1], rtol=0, atol=1e-4)


def test_unknown_end_names_the_choices():
    with pytest.raises(
        ValueError, match="root: got 'dirichlet'; must be one of temperature, flux, insulated"
    ):
        make_fin(0.1, 0.2, 1.7, root="dirichlet")
