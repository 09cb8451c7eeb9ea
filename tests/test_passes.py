"""Tubes that go forth and back: against an independent solution, limits, heat balance, order."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import coolant as loop
from dawndusk.kernels import march, passes
from dawndusk.kernels import panel as kernel
from dawndusk.kernels.constants import SIGMA
from dawndusk.kernels.network import Network
from dawndusk.kernels.panel import Panel, extremes, pipe_transport, weighted_fourth
from dawndusk.kernels.satellite import Bus, Params, State, depart, step
from dawndusk.kernels.sheet import tube_rows
from jax import lax
from jax.test_util import check_grads
from scipy import sparse
from scipy.sparse.linalg import spsolve

# Half a square metre for each pass: 20 W/m/K to a sheet whose fins are 60 mm deep; 12 W/K cools by 20 K a pass.
LENGTH, PITCH, KT, EPS, G, RATE, LOAD, INLET = 4.0, 0.12, (0.12, 0.18), 1.6, 20.0, 12.0, 90.0, 330.0
STRIP, CAPACITY, TUBES = 0.02, 3000.0, 3.0


def satellite(
    n_passes, cells, b=1, rate=RATE, kt=KT, strip=STRIP, dtype=jnp.float64, k_slopes=(), e_slopes=()
):
    """A panel and a cold plate that holds the coolant at INLET, whatever it takes: all through the coupled step."""

    def const(x):
        return jnp.full(b, x, dtype)

    nx, each = cells
    panel = Panel(
        heat_capacity=const(CAPACITY),
        kt_x=const(kt[0]),
        kt_y=const(kt[1]),
        strip_conductance=const(strip),
        length=const(LENGTH),
        half_pitch=const(PITCH / 2),
        half_strips=const(2.0 * n_passes * TUBES),
        emission=const(EPS),
        to_space=const(EPS),
        heat=const(0.0),
        nx=nx,
        ny=each if n_passes == 1 else n_passes * each,
        passes=n_passes,
        conductivity_slopes=tuple(const(c) for c in k_slopes),
        emission_slopes=tuple(const(c) for c in e_slopes),
    )
    zero = jnp.zeros((1, b), dtype)
    network = Network(
        heat_capacity=zero + 1e18,
        conductance=zero[None],
        radiative=zero[None],
        to_space=zero,
        panel_radiative=zero,
        panel_conductance=zero,
        loop_conductance=zero + 1e4 * rate * TUBES,
        heater_gain=zero,
        heater_setpoint=zero,
        heater_max=zero,
        heat=zero,
        names=("cold_plate",),
    )
    made = loop.Coolant(
        capacity_rate=const(rate * TUBES),
        wall_conductance=const(G),
        evaporator_fraction=const(1.0),
        pump_power=const(0.0),
        setpoint=const(0.0),
        bypass=False,
    )
    bus = Bus(const(0.0), const(0.0), const(1.0))
    return Params(panel, network, bus, made, None, None, None, const(0.0), const(0.0))


def start(params, T=300.0):
    panel = params.panel
    b, dtype = panel.length.shape[0], panel.length.dtype
    cells = jnp.full((panel.nx, panel.ny, b), T, dtype)
    return State(cells, jnp.full((1, b), INLET, dtype), jnp.zeros(b, dtype))


def load(square_loads, params, dt=120.0, q=LOAD):
    b, dtype = params.panel.length.shape[0], params.panel.length.dtype
    one = jax.tree.map(lambda x: x[0], square_loads(b, 8, eclipse=0.0, dtype=dtype))
    none = {name: 0 * getattr(one, name) for name in ("array", "body", "irradiance", "demand")}
    return replace(
        one, dt=jnp.broadcast_to(jnp.asarray(dt, dtype), (b,)), panel=jnp.full(b, q, dtype), **none
    )


@jax.jit
def run(params, state, load, dt):
    """Panel, and the fluid into and out of it at the last stage, after steps of these lengths (k, b)."""

    def body(now, dt):
        now, report = step(params, now, replace(load, dt=dt))
        return now, (report.radiator_inlet, report.radiator_outlet)

    now, fluid = lax.scan(body, depart(params, state), dt)
    return now.state.panel, *(x[-1] for x in fluid)


def settle(params, load, steps=600):
    dt = jnp.broadcast_to(load.dt, (steps, *load.dt.shape))
    return run(params, start(params), load, dt)


def reference(n_passes, nx, each, k_slopes=(), e_slopes=()):
    """Steady sheet and fluid in one sparse Newton iteration; the fluid by the trapezoidal rule along its way.

    Conduction of the sheet by the mean conductivity of two neighbours.

    Returns cell temperatures (nx, ny) and the fluid's at each end of each cell in the order of the flow.
    """
    ny, dx, dy = n_passes * each, LENGTH / nx, PITCH / each
    cell = np.arange(nx * ny).reshape(nx, ny)
    m, n_fluid = nx * ny, n_passes * nx + 1
    tubes = np.arange(n_passes) * each + each // 2
    # Conduction from b to a: of the sheet, and of the tubes' walls.
    a = np.concatenate([cell[:-1].ravel(), cell[:, :-1].ravel()])
    b = np.concatenate([cell[1:].ravel(), cell[:, 1:].ravel()])
    sheet = np.repeat([KT[0] * dy / dx, KT[1] * dx / dy], [(nx - 1) * ny, nx * (ny - 1)])
    walls = np.zeros((nx - 1, ny))
    walls[:, tubes] = STRIP / dx
    walls = np.concatenate([walls.ravel(), np.zeros(nx * (ny - 1))])
    # Wall cells in the order of the flow, and the fluid before and behind each.
    wall = np.concatenate([cell[:: 1 if k % 2 == 0 else -1, t] for k, t in enumerate(tubes)])
    before, g = m + np.arange(n_fluid - 1), G * dx
    fluid = (
        (wall, before, g / 2),
        (wall, before + 1, g / 2),
        (wall, wall, -g),
        (before + 1, before, RATE - g / 2),
        (before + 1, before + 1, -RATE - g / 2),
        (before + 1, wall, g),
        (np.array([m]), np.array([m]), -1.0),
    )
    # 1 + c1 u + ... and what it is in T^4 and its slope.
    k, e = (np.polynomial.Polynomial([1.0, *slopes]) for slopes in (k_slopes, e_slopes))
    T = np.full(m + n_fluid, 300.0)
    for _ in range(30):
        u, panel = T - 300, T[:m]
        mean, slope = (k(u[a]) + k(u[b])) / 2, (k.deriv()(u[a]) / 2, k.deriv()(u[b]) / 2)
        fall = T[b] - T[a]
        to_a = (sheet * (slope[0] * fall - mean) - walls, sheet * (slope[1] * fall + mean) + walls)
        links = [(a, a, to_a[0]), (a, b, to_a[1]), (b, a, -to_a[0]), (b, b, -to_a[1]), *fluid]
        radiated = EPS * SIGMA * dx * dy * panel**4
        rise = EPS * SIGMA * dx * dy * (4 * panel**3 * e(u[:m]) + panel**4 * e.deriv()(u[:m]))
        links.append((np.arange(m), np.arange(m), -rise))
        rows, cols = (np.concatenate([link[i] for link in links]) for i in (0, 1))
        values = np.concatenate([np.broadcast_to(link[2], link[0].shape) for link in links])
        J = sparse.csc_matrix((values, (rows, cols)), shape=(m + n_fluid,) * 2)
        left = np.zeros(m + n_fluid)
        left[:m], left[m] = LOAD * dx * dy - radiated * e(u[:m]), INLET
        flow = (sheet * mean + walls) * fall
        np.add.at(left, a, flow)
        np.add.at(left, b, -flow)
        for i, j, value in fluid:
            np.add.at(left, i, value * T[j])
        change = spsolve(J, -left)
        T = T + change
        if np.abs(change).max() < 1e-10:
            break
    return T[:m].reshape(nx, ny), T[m:]


def extrapolated(n_passes, **slopes):
    """Outlet and mean temperature, two grids of the reference extrapolated to the fourth order."""
    found = []
    for cells in ((32, 13), (96, 39)):
        T, F = reference(n_passes, *cells, **slopes)
        found.append(np.array([F[-1], T.mean()]))
    return (9 * found[1] - found[0]) / 8


@pytest.mark.parametrize("n_passes, nx", [(2, 1), (2, 8), (3, 7), (6, 11)])
def test_fluid_meets_every_cell(n_passes, nx):
    """All cells and bends as one dense system, without any order of elimination."""
    rng = np.random.default_rng(n_passes)
    A = -rng.uniform(0, 0.2 / n_passes, (n_passes, n_passes))
    A[np.diag_indices(n_passes)] = rng.uniform(0.3, 0.6, n_passes)
    still = rng.uniform(270, 320, (n_passes, nx))
    # Unknown: before and behind each cell, numbered along the flow.
    n = n_passes * nx
    at = np.asarray(passes.in_columns(jnp.arange(1.0 * n)[:, None], n_passes))[:, :, 0].astype(int)
    M, right = np.eye(n + 1), np.zeros((n + 1, 2))
    right[0, 0] = 1.0
    for i in range(nx):
        for p in range(n_passes):
            M[at[p, i] + 1, at[p, i]] -= 1
            for q in range(n_passes):
                M[at[p, i] + 1, at[q, i]] += A[p, q]
                right[at[p, i] + 1, 1] += A[p, q] * still[q, i]
    expected = np.linalg.solve(M, right)[1:]
    found = jax.jit(passes.fluid)(jnp.asarray(A)[:, :, None, None], jnp.asarray(still)[:, :, None])
    np.testing.assert_allclose(np.stack(found, 1)[:, :, 0], expected, rtol=1e-12, atol=1e-12)


def wall(n_passes, nx, b=1, seed=0):
    """Walls that answer to each other as lines of a sheet do: an inverse of an M-matrix."""
    rng = np.random.default_rng(seed)
    M = -rng.uniform(0, 40, (n_passes, n_passes, b))
    M = M + M.swapaxes(0, 1)
    M = M + np.eye(n_passes)[:, :, None] * (100 - M.sum(axis=0))[None]
    response = np.linalg.inv(np.moveaxis(M, 2, 0))
    return jnp.asarray(rng.uniform(270, 300, (n_passes, nx, b))), jnp.asarray(np.moveaxis(response, 0, 2))[
        :, :, None
    ]


def test_heat_given_is_heat_taken():
    """What the fluid loses is what the walls receive, and they rise by their response to it."""
    params = satellite(4, (7, 5), b=2)
    still, response = wall(4, 7, 2)
    inlet, share = jnp.asarray([330.0, 280.0]), jnp.asarray([0.0, 0.4])
    take, p, q = jax.jit(loop.tube_march)(still, response, params.coolant, params.panel, share)
    after = p * inlet[None] + q
    entering = jnp.concatenate([inlet[None], after[:-1]])
    rise = jax.jit(loop.wall_rise)(still, 0 * still, response, take, entering)
    _, exchange = loop.tube_exchange(params.coolant, params.panel, share)
    heat = exchange[None] * (passes.in_columns(entering, 4) - still - rise)
    np.testing.assert_allclose(rise, jnp.sum(response * heat[None], axis=1), rtol=1e-11)
    cell = LENGTH / 7 * PITCH / 5
    np.testing.assert_allclose(heat.sum((0, 1)) * cell, (1 - share) * RATE * (inlet - after[-1]), rtol=1e-11)


def test_steady_state_against_an_independent_solution(square_loads):
    """Second order in the cells to the reference, the same with short and long steps, all heat accounted for."""
    errors, exact = [], extrapolated(3)
    for cells in ((8, 5), (24, 15)):
        params = satellite(3, cells, b=2)
        T, inlet, outlet = settle(params, load(square_loads, params, jnp.asarray([120.0, 25.0])), 1200)
        np.testing.assert_allclose(T[..., 0], T[..., 1], rtol=0, atol=1e-8)
        lost = RATE * TUBES * (inlet - outlet) + LOAD * params.panel.area
        np.testing.assert_allclose(EPS * SIGMA * jnp.mean(T**4, (0, 1)) * params.panel.area, lost, rtol=1e-9)
        errors.append(np.abs(np.array([outlet[0], T[..., 0].mean()]) - exact))
    orders = np.log(errors[0] / errors[1]) / np.log(3)
    assert np.all(np.abs(orders - 2) < 0.15), (errors, orders)
    assert np.all(errors[1] < 0.01), errors


@pytest.mark.slow
@pytest.mark.parametrize("n_passes", [1, 3])
def test_steady_state_of_a_material_that_varies(square_loads, n_passes):
    """Conductivity falls by 6 % and emissivity rises by 15 % from 300 to 400 K: as above."""
    slopes = {"k_slopes": (-8e-4, 2e-6), "e_slopes": (1.5e-3,)}
    errors, exact = [], extrapolated(n_passes, **slopes)
    # Half a pitch of a straight tube, and whole ones of passes.
    for cells in ((8, 4), (24, 12)) if n_passes == 1 else ((8, 5), (24, 15)):
        params = satellite(n_passes, cells, **slopes)
        T, inlet, outlet = settle(params, load(square_loads, params))
        heat = RATE * TUBES * (inlet - outlet) + LOAD * params.panel.area
        radiated = EPS * SIGMA * jnp.mean(weighted_fourth(params.panel, T), (0, 1)) * params.panel.area
        np.testing.assert_allclose(radiated, heat, rtol=1e-9)
        errors.append(np.abs(np.array([outlet[0], T.mean()]) - exact))
    orders = np.log(errors[0] / errors[1]) / np.log(3)
    assert np.all(np.abs(orders - 2) < 0.2) and np.all(errors[1] < 0.04), (errors, orders)


@pytest.mark.slow
def test_second_order_in_time_of_a_material_that_varies(design, square_loads, uniform_state):
    """Everything on, conductivity and emissivity too: order of the panel, and the heat balance with the step."""
    params = design(b=2, cells=(6, 12))
    slopes = jnp.full(2, -5e-4), jnp.full(2, 1e-6)
    params = replace(
        params, panel=replace(params.panel, conductivity_slopes=slopes, emission_slopes=(2e-3 + slopes[0],))
    )
    ends, residuals = [], []
    for n in (128, 256, 512, 2048):
        state, record = jax.jit(march.transient)(params, square_loads(2, n), uniform_state(params))
        ends.append(np.asarray(state.panel))
        residuals.append(float(jnp.abs(record.heat_residual).max()))
    errors = [np.abs(end - ends[-1]).max() for end in ends[:-1]]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(orders > 1.6) and errors[0] < 0.2, (errors, orders)
    assert residuals[0] < 2e-4 and residuals[0] > 3.4 * residuals[1] > 3.4**2 * residuals[2], residuals


@pytest.mark.slow
def test_gradients_of_a_material_that_varies(square_loads):
    """Both modes through two steps, of slopes that are zero, too."""
    base = satellite(2, (3, 3), k_slopes=(0.0,), e_slopes=(0.0,))
    row = load(square_loads, base)
    first = jnp.asarray(np.random.default_rng(0).normal(300, 5, (3, 6, 1)))

    @jax.jit
    def figure(x):
        panel = replace(
            base.panel,
            conductivity_slopes=(x[0][None],),
            emission_slopes=(x[1][None],),
            kt_y=base.panel.kt_y * x[2],
        )
        T, _, outlet = run(
            replace(base, panel=panel), replace(start(base), panel=first), row, jnp.full((2, 1), 60.0)
        )
        return (T[0, 1] + T[1, 5] + 2 * outlet)[0]

    reverse, forward = jax.jit(jax.grad(figure)), jax.jit(jax.jacfwd(figure))
    for point in (np.array([-8e-4, 1e-3, 1.0]), np.array([0.0, 0.0, 1.0])):
        found = reverse(jnp.asarray(point))
        np.testing.assert_allclose(found, forward(jnp.asarray(point)), rtol=1e-9, atol=1e-9)
        for k, h in enumerate(np.diag([1e-7, 1e-7, 1e-5])):
            slope = (figure(point + h) - figure(point - h)) / (2 * h[k])
            np.testing.assert_allclose(found[k], slope, rtol=1e-6, atol=1e-5)


def test_without_conduction_across_it_is_one_long_tube(square_loads):
    """Tube rows alone see the fluid: cell after cell of it by hand."""
    params = satellite(3, (8, 3), kt=(0.0, 1e-14), strip=0.0)
    T, inlet, outlet = settle(params, load(square_loads, params))
    dx, dy, F, walls = LENGTH / 8, PITCH / 3, float(inlet[0]), []
    share = 1 - np.exp(-G * dx / RATE)
    for _ in range(24):
        w = F
        for _ in range(50):
            left = RATE * share * (F - w) + dx * dy * (LOAD - EPS * SIGMA * w**4)
            w += left / (RATE * share + 4 * dx * dy * EPS * SIGMA * w**3)
        F -= share * (F - w)
        walls.append(w)
    found = passes.in_flow_order(jnp.swapaxes(T[:, tube_rows(9, 3)], 0, 1))
    np.testing.assert_allclose(found[:, 0], walls, atol=1e-8)
    np.testing.assert_allclose(outlet, F, atol=1e-8)


@pytest.mark.slow
def test_a_fast_flow_makes_all_layouts_alike(square_loads):
    """Fluid of one temperature: every pitch of three passes is two half strips of a straight tube."""
    serpentine, straight = satellite(3, (4, 33), rate=1e7), satellite(1, (4, 48), rate=1e7)
    T, *_ = settle(serpentine, load(square_loads, serpentine))
    half, *_ = settle(straight, load(square_loads, straight))
    rows = T.reshape(4, 3, 33, 1)
    np.testing.assert_allclose(rows, jnp.broadcast_to(rows[:, :1], rows.shape), atol=1e-4)
    # Errors of the cells, of which the straight tube's are the smaller.
    np.testing.assert_allclose(T.mean(), half.mean(), atol=0.01)
    hot = [
        float(extremes(p.panel, field)[k][0])
        for k in (0, 1)
        for p, field in ((serpentine, T), (straight, half))
    ]
    np.testing.assert_allclose(hot[::2], hot[1::2], atol=0.02)


@pytest.mark.slow
def test_second_order_in_time(square_loads):
    """A load that doubles: the panel 4 min later, against 64 steps."""
    counts, most = (4, 8, 16), 64
    params = satellite(3, (8, 5), b=4)
    T, *_ = settle(params, load(square_loads, params))
    dt = [[240.0 / n if k < n else 0.0 for n in (*counts, most)] for k in range(most)]
    state = replace(start(params), panel=T)
    T, *_ = run(params, state, load(square_loads, params, q=2 * LOAD), jnp.asarray(dt))
    errors = np.abs(T[..., :3] - T[..., 3:]).max(axis=(0, 1))
    orders = np.log2(errors[:-1] / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.2) and errors[0] < 1, (errors, orders)


@pytest.mark.slow
def test_float32_agrees_with_float64(square_loads):
    found = []
    for dtype in (jnp.float64, jnp.float32):
        params = satellite(3, (8, 5), dtype=dtype)
        T, _, outlet = settle(params, load(square_loads, params))
        assert T.dtype == dtype
        found.append(np.array([*np.asarray(T).ravel(), outlet[0]]))
    # Some hundred roundings of 300 K.
    np.testing.assert_allclose(found[1], found[0], atol=2e-3)


@pytest.mark.parametrize("n_passes", [2, 3])
def test_bypass_meets_the_set_point(n_passes):
    params = satellite(n_passes, (6, 5), b=3)
    coolant = replace(params.coolant, bypass=True, setpoint=jnp.full(3, 305.0))
    still, response = wall(n_passes, 6, 3)
    inlet = jnp.asarray([315.0, 300.0, 500.0])
    share = jax.jit(loop.bypass_fraction)(still, response, inlet, coolant, params.panel)
    _, p, q = jax.jit(loop.tube_march)(still, response, coolant, params.panel, share)
    supply = (1 - share) * (p[-1] * inlet + q[-1]) + share * inlet
    np.testing.assert_allclose(supply[0], 305.0, atol=1e-5)
    assert 0 < share[0] < 1 and share[1] > 0.998 and share[2] < 3e-4


def test_gradients_of_the_fluid():
    """Both modes through walls and bends, where walls do not give way, too."""
    params = satellite(3, (3, 3))
    still, response = wall(3, 3)

    def figure(inlet, still, yielding, rate):
        coolant = replace(params.coolant, capacity_rate=params.coolant.capacity_rate * rate)
        take, p, q = loop.tube_march(still, yielding * response, coolant, params.panel, jnp.full(1, 0.1))
        after = p * inlet + q
        entering = jnp.concatenate([jnp.broadcast_to(inlet, (1, 1)), after[:-1]])
        return loop.wall_rise(still, 0 * still, yielding * response, take, entering), after[-1]

    for yielding in (1.0, 0.0):
        at = jnp.asarray(330.0), still, jnp.asarray(yielding), jnp.asarray(1.0)
        check_grads(jax.jit(figure), at, order=1, modes=("fwd", "rev"), rtol=1e-6)


@pytest.mark.slow
def test_gradients_in_both_modes(square_loads):
    """Of the outlet and a tube's end after two steps, film on; with no conduction across and no radiation, too."""
    base = satellite(3, (3, 3))
    film = loop.Film(*(jnp.full(1, x) for x in (0.006, 1.14e-4, 0.444, 4933.0)))
    row = load(square_loads, base)
    first = jnp.asarray(np.random.default_rng(0).normal(300, 5, (3, 9, 1)))

    @jax.jit
    def figure(x):
        across, length, rate, emission, warmth = x
        panel = replace(
            base.panel,
            kt_y=base.panel.kt_y * across,
            length=base.panel.length * length,
            emission=base.panel.emission * emission,
        )
        coolant = replace(base.coolant, capacity_rate=base.coolant.capacity_rate * rate, film=film)
        state = replace(start(base), panel=first * warmth)
        T, _, outlet = run(replace(base, panel=panel, coolant=coolant), state, row, jnp.full((2, 1), 60.0))
        return (T[0, 1] + T[1, 8] + 2 * outlet)[0]

    reverse, forward = jax.jit(jax.grad(figure)), jax.jit(jax.jacfwd(figure))
    for point in (np.ones(5), np.array([0.0, 1.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 3.0, 0.0, 1.01])):
        found = reverse(jnp.asarray(point))
        np.testing.assert_allclose(found, forward(jnp.asarray(point)), rtol=1e-9, atol=1e-9)
        for k, h in enumerate(1e-5 * np.eye(5)):
            # At the edge of a range from one side, to the second order.
            ways = ((1, 4), (2, -1)) if point[k] == 0 else ((1, 1), (-1, -1))
            slope = sum(weight * (figure(point + i * h) - figure(point)) for i, weight in ways) / 2e-5
            np.testing.assert_allclose(found[k], slope, rtol=1e-6, atol=1e-5)


def test_extremes_across_passes():
    """A wave that is flat at both sides: tubes in cells' centres, edges to the fourth order."""
    panel, errors = satellite(3, (4, 5)).panel, []
    for each in (9, 27):
        ny = 3 * each
        y = (np.arange(ny) + 0.5) / ny
        T = np.broadcast_to(300 - 4 * np.cos(6 * np.pi * y) + 2 * np.cos(np.pi * y), (4, ny))[..., None]
        hot, cold = jax.jit(extremes)(replace(panel, ny=ny), jnp.asarray(T))
        errors.append([float(hot[0]) - T.max(), float(cold[0]) - (300 - 4 - 2)])
        for found, other in zip(
            kernel._by_lines(jnp.full(1, 0.3), jnp.swapaxes(jnp.asarray(T), 0, 1), passes=3),
            kernel._of_arrays(jnp.full(1, 0.3), jnp.swapaxes(jnp.asarray(T), 0, 1), passes=3),
            strict=True,
        ):
            np.testing.assert_allclose(found, other, rtol=1e-14)
    # The tube itself is a cell; the far edge is off by its fourth derivative.
    assert errors[0][0] == errors[1][0] == 0 and errors[0][1] / errors[1][1] == pytest.approx(81, rel=0.1)


def test_tube_walls_conduct_in_their_own_rows():
    """The most of three passes: that whose row differs most; what lies between does not count."""
    panel = satellite(3, (4, 5)).panel
    T = np.full((4, 15, 1), 300.0)
    T[:, 2, 0] += [9, 3, -3, -9]
    T[:, 7, 0] += [-12, -4, 4, 12]
    T[0, 4] = 500
    # Ends lie half a cell beyond the last centres, extrapolated evenly.
    assert float(pipe_transport(panel, jnp.asarray(T))[0]) == pytest.approx(STRIP * (24 + 2 * 8 / 8))
    assert tube_rows(15, 3) == slice(2, None, 5)


def test_pressure_drop_of_all_passes():
    """Hagen and Poiseuille over three lengths, the flow shared by the serpentines and not by their passes."""
    params = satellite(3, (4, 5))
    film = loop.Film(*(jnp.full(1, x) for x in (0.02, 1.14e-3, 0.444, 4000.0)))
    coolant = replace(params.coolant, film=film)
    volume = RATE / 4000 / 580
    drop = loop.tube_pressure_drop(coolant, film, params.panel, jnp.full(1, 580.0))
    np.testing.assert_allclose(drop, 128 * 1.14e-3 * 3 * LENGTH * volume / (np.pi * 0.02**4), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n_passes, bypass", [(2, False), (3, True)])
def test_periodic_orbit_closes(design, square_loads, uniform_state, n_passes, bypass):
    """Everything on: the search converges as it does for straight tubes, the balance falls with the step."""
    residuals = []
    for n in (64, 128):
        params = design(b=2, bypass=bypass)
        strips = params.panel.half_strips
        params = replace(
            params, panel=replace(params.panel, half_strips=strips, ny=7 * n_passes, passes=n_passes)
        )
        _, cycle, record = jax.jit(march.cyclic)(params, square_loads(2, n), uniform_state(params))
        assert np.all(cycle.status == march.CONVERGED) and np.all(cycle.iterations < 12), cycle
        residuals.append(float(jnp.abs(record.heat_residual).max()))
        if bypass:
            assert float(record.bypass.max()) > 0
    assert residuals[1] < 1e-4 and residuals[0] > 3.5 * residuals[1], residuals
