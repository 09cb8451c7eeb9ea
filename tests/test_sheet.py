"""Sheets at rest against independent 2-D solutions, manufactured ones, and their own conservation."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import sheet as sk
from dawndusk.kernels.constants import SIGMA
from dawndusk.kernels.sheet import Sheet

REFERENCE = Path(__file__).parent / "reference"
# What two grids leave after extrapolation, the h^4 term: measured 7.7e-3, 7.6e-5 and 2.7e-3 K.
EXTRAPOLATED = {"two_pipes_al": 0.01, "edge_T_cos_load": 1e-4, "aniso_cfrp": 0.004}
PANELS = json.loads((REFERENCE / "panel2d.json").read_text())["cases"]


def column(a):
    return jnp.asarray(a, float)[..., None]


def overlap(a, b, edges):
    """Share of each cell that lies between a and b."""
    lo, hi = np.maximum(edges[:-1], a), np.minimum(edges[1:], b)
    return np.maximum(hi - lo, 0) / np.diff(edges)


def reference_panel(case, nx, ny):
    """Sheet and source of a reference case on an nx x ny grid, one satellite."""
    x, y = np.linspace(0, case["Lx_m"], nx + 1), np.linspace(0, case["Ly_m"], ny + 1)
    dx, dy = x[1], y[1]
    kt = np.ones((nx, ny)) * case["t_m"]
    ktx, kty = kt * case["kx"], kt * case["ky"]
    mid = (y[1:] + y[:-1]) / 2
    half = np.pi * dy / (2 * case["Ly_m"])
    # Cell averages of the cosine load.
    cosine = np.cos(np.pi * mid / case["Ly_m"]) * np.sin(half) / half
    source = np.full((nx, ny), float(case["q0_W_m2"])) + case.get("q_cos_W_m2", 0.0) * (1 + cosine) / 2
    for strip in case.get("strips", []):
        cover = np.outer(overlap(strip["x0"], strip["x1"], x), overlap(strip["y0"], strip["y1"], y))
        source = source + strip["P_W"] * cover / cover.sum() / (dx * dy)
    link = np.zeros((nx, ny))
    if case.get("T_x0_K") is not None:
        link[0] = 2 * ktx[0] / dx**2
        source[0] += link[0] * case["T_x0_K"]
    sheet = Sheet(
        capacity=column([[2430.0]]),
        along=sk.face_conductances(column(ktx), dx),
        across=jnp.swapaxes(sk.face_conductances(column(kty.T), dy), 0, 1),
        emission=(column([[case["eps_sum"]]]),),
        link=column(link),
        along_slope=(),
        across_slope=(),
        pipe=(),
        pipe_limit=(),
        nx=nx,
        ny=ny,
    )
    return sheet, column(source)


def at_rest(case, nx, ny):
    sheet, source = reference_panel(case, nx, ny)
    T, status = jax.jit(sk.steady)(jnp.full((nx, ny, 1), 300.0), source, sheet)
    assert int(status[0]) == sk.CONVERGED
    return np.asarray(T[..., 0]), sheet, source


def restrict(T, nx, ny):
    return T.reshape(nx, T.shape[0] // nx, ny, T.shape[1] // ny).mean((1, 3))


def field_of(case):
    field = np.loadtxt(REFERENCE / case["field_file"], delimiter=",").T
    return field if field.shape == (60, 40) else field.T


@pytest.mark.parametrize("case", PANELS, ids=lambda c: c["name"])
def test_reference_panels(case):
    """Second order to the independent answer, and extrapolated.

    The reference is Richardson's limit of 480 x 320 cells, good to `richardson_consistency_K`. Strips' edges fall on
    cell faces of both grids. What two grids of 60 x 40 and 120 x 80 leave after extrapolation is the h^4 term.
    """
    field = field_of(case)
    coarse, fine = (restrict(at_rest(case, 60 * k, 40 * k)[0], 60, 40) for k in (1, 2))
    errors = [np.abs(g - field).max() for g in (coarse, fine)]
    assert abs(errors[0] - case["plain_fv_60x40_error_K"]) < 0.02 * errors[0] + 1e-4
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.1
    best = (4 * fine - coarse) / 3
    assert np.abs(best - field).max() < EXTRAPOLATED[case["name"]]


@pytest.mark.slow
@pytest.mark.parametrize("case", PANELS, ids=lambda c: c["name"])
def test_reference_panels_at_the_references_own_accuracy(case):
    """Three grids take the h^4 term out too."""
    grids = [restrict(at_rest(case, 60 * k, 40 * k)[0], 60, 40) for k in (1, 2, 3)]
    # Weights that keep constants and cancel h^2 and h^4 for h = 1, 1/2, 1/3.
    weights = np.linalg.solve([[1, 1, 1], [1, 1 / 4, 1 / 9], [1, 1 / 16, 1 / 81]], [1, 0, 0])
    best = sum(w * g for w, g in zip(weights, grids))
    assert np.abs(best - field_of(case)).max() < 3 * case["richardson_consistency_K"]


def test_steady_conserves_heat():
    T, sheet, source = at_rest(PANELS[0], 60, 40)
    radiated = np.mean(float(sheet.emission[0][0, 0, 0]) * SIGMA * T**4)
    np.testing.assert_allclose(radiated, np.mean(np.asarray(source)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_steady_from_afar(dtype):
    """From 100 to 600 K: to 1e-8 of the heat in float64, to 1e-4 K in float32."""
    sheet, source = jax.tree.map(lambda a: a.astype(dtype), reference_panel(PANELS[0], 30, 20))
    solve = jax.jit(sk.steady)
    exact = at_rest(PANELS[0], 30, 20)[0]
    for start in (100.0, 300.0, 600.0):
        T, status = solve(jnp.full((30, 20, 1), start, dtype), source, sheet)
        assert int(status[0]) == sk.CONVERGED
        np.testing.assert_allclose(T[..., 0], exact, atol=1e-8 if dtype == jnp.float64 else 1e-4)


def test_status_names_who_has_no_answer():
    """A panel that radiates nothing and one with a load that is not finite, beside a good one."""
    sheet, source = reference_panel(PANELS[0], 6, 4)
    three = jax.tree.map(lambda a: jnp.repeat(a, 3, axis=-1), sheet)
    blind = three.emission[0].at[..., 1].set(0.0)
    loads = jnp.repeat(source, 3, axis=-1).at[..., 2].set(jnp.nan)
    T, status = sk.steady(jnp.full((6, 4, 3), 300.0), loads, replace(three, emission=(blind,)))
    assert list(status) == [sk.CONVERGED, sk.NOT_CONVERGED, sk.NOT_FINITE]
    np.testing.assert_allclose(T[..., 0], at_rest(PANELS[0], 6, 4)[0], atol=1e-8)


def manufactured(n):
    """A sheet whose exact answer is known, with everything on: k(T), eps(T), thickness and optics that vary.

    T = 300 + 30 cos(pi x) cos(2 pi y) on the unit square, insulated; the source is what makes it so, from the
    continuous equation.
    """
    k_slope, e_slope = (2e-3, 1e-6), (5e-4,)

    def T_of(x, y):
        return 300 + 30 * jnp.cos(jnp.pi * x) * jnp.cos(2 * jnp.pi * y)

    def thickness(x, y):
        return 0.02 * (1 + 0.3 * x + 0.2 * y)

    def ratio(T, slope):
        return 1 + sum(a * (T - sk.T_REF) ** k for k, a in enumerate(slope, 1))

    def emissivity(x, y):
        return 1.6 + 0.2 * jnp.cos(jnp.pi * x)

    def source(x, y):
        def flux_x(x, y):
            return 200 * thickness(x, y) * ratio(T_of(x, y), k_slope) * jax.grad(T_of, 0)(x, y)

        def flux_y(x, y):
            return 100 * thickness(x, y) * ratio(T_of(x, y), k_slope) * jax.grad(T_of, 1)(x, y)

        T = T_of(x, y)
        lost = emissivity(x, y) * ratio(T, e_slope) * SIGMA * T**4
        return lost - jax.grad(flux_x, 0)(x, y) - jax.grad(flux_y, 1)(x, y)

    mid = (np.arange(n) + 0.5) / n
    x, y = np.meshgrid(mid, mid, indexing="ij")
    every = lambda f: column(np.vectorize(jax.jit(f))(x, y))  # noqa: E731
    kt = every(thickness)
    emission = every(emissivity)
    slopes = tuple(column([[a]]) for a in k_slope)
    sheet = Sheet(
        capacity=2000 * kt / 0.02,
        along=sk.face_conductances(200 * kt, 1 / n),
        across=jnp.swapaxes(sk.face_conductances(100 * jnp.swapaxes(kt, 0, 1), 1 / n), 0, 1),
        emission=(emission, e_slope[0] * emission),
        link=column([[0.0]]),
        along_slope=slopes,
        across_slope=slopes,
        pipe=(),
        pipe_limit=(),
        nx=n,
        ny=n,
    )
    return sheet, every(source), every(T_of)


def test_manufactured_solution_is_met_at_second_order():
    errors = []
    for n in (8, 16, 32):
        sheet, source, exact = manufactured(n)
        T, status = sk.steady(jnp.full((n, n, 1), 280.0), source, sheet)
        assert int(status[0]) == sk.CONVERGED
        errors.append(float(jnp.abs(T - exact).max()))
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes - 2) < 0.15), (errors, slopes)


def piped(limit):
    """A 12 x 7 panel heated at one end, a heat pipe of given limit [W/m^2 of cell] in its middle row."""
    row = jnp.zeros((1, 7, 1)).at[:, 3].set(1.0)
    sheet, _, _ = manufactured(7)
    sheet = replace(
        sheet,
        capacity=column([[2000.0]]),
        along=column([[20.0]]),
        across=column([[60.0]]),
        emission=(column([[1.7]]),),
        along_slope=(),
        across_slope=(),
        pipe=(2000.0 * row,),
        pipe_limit=(limit * row,),
        nx=12,
        ny=7,
    )
    return sheet, jnp.zeros((12, 7, 1)).at[:2, 3].set(8000.0)


def test_a_heat_pipe_carries_up_to_its_limit():
    """Below the limit it is a strip of its conductance; above, it passes its limit on; at zero it has failed."""
    start = jnp.full((12, 7, 1), 300.0)
    flows, hottest = {}, {}
    for limit in (1e9, 3000.0, 0.0):
        sheet, source = piped(limit)
        T, status = sk.steady(start, source, sheet)
        assert int(status[0]) == sk.CONVERGED
        asked = 2000.0 * jnp.diff(T, axis=0)[:, 3:4]
        flows[limit] = float(jnp.abs(sk.pipe_flow(asked, jnp.full((1, 1, 1), limit))[0]).max())
        hottest[limit] = float(T.max())
        np.testing.assert_allclose(jnp.mean(1.7 * SIGMA * T**4), jnp.mean(source), rtol=1e-10)
    free, _ = piped(1e9)
    merged = replace(free, along=free.along + free.pipe[0], pipe=(), pipe_limit=())
    T, _ = sk.steady(start, source, merged)
    assert hottest[1e9] == pytest.approx(float(T.max()), abs=1e-9)
    assert flows[1e9] > 4000 and 2990 < flows[3000.0] <= 3000 and flows[0.0] == 0
    assert hottest[1e9] < hottest[3000.0] < hottest[0.0]
    plain = replace(free, pipe=(), pipe_limit=())
    T, _ = sk.steady(start, source, plain)
    assert hottest[0.0] == pytest.approx(float(T.max()), abs=1e-9)


POINTS = {
    "ordinary": {},
    "no load": {"load": 0.0},
    "constant conductivity": {"slope": 0.0},
    "failed pipe": {"pipe": 0.0},
}


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_gradients_at_rest(point):
    """Implicit derivatives in both modes against central differences, at ordinary and at awkward points."""
    sheet, source, _ = manufactured(5)
    pipe = jnp.zeros((1, 5, 1)).at[:, 2].set(300.0)
    at = {"load": 1.0, "slope": 1.0, "pipe": 1.0, "emission": 1.0, **POINTS[point]}
    at = {k: jnp.asarray(v) for k, v in at.items()}

    def hottest(at):
        changed = replace(
            sheet,
            along_slope=tuple(a * at["slope"] for a in sheet.along_slope),
            emission=tuple(e * at["emission"] for e in sheet.emission),
            pipe=(pipe,),
            pipe_limit=(pipe * at["pipe"],),
        )
        # Something always heats it, or nothing would be at rest.
        T = sk.steady(jnp.full((5, 5, 1), 290.0), 300 + (source - 300) * at["load"], changed)[0]
        return T[0, 0, 0] + T[3, 2, 0]

    f = jax.jit(hottest)
    reverse, forward = jax.grad(f)(at), jax.jacfwd(f)(at)
    h = 1e-4
    for k, v in at.items():
        f_at = lambda s, k=k, v=v: f({**at, k: v + s})  # noqa: E731
        if k == "pipe" and float(v) == 0:  # the edge of its range
            central = (4 * f_at(h) - 3 * f_at(0.0) - f_at(2 * h)) / (2 * h)
        else:
            central = (8 * (f_at(h) - f_at(-h)) - (f_at(2 * h) - f_at(-2 * h))) / (12 * h)
        np.testing.assert_allclose(reverse[k], forward[k], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(reverse[k], central, rtol=1e-6, atol=1e-8)


def test_tr_bdf2_is_second_order_and_does_not_ring():
    """Order on a smooth start with everything on; then 1,000 x the conduction limit from a rough one."""
    sheet, source, _ = manufactured(8)
    mid = (np.arange(8) + 0.5) / 8
    smooth = jnp.broadcast_to(column(270 + 20 * np.cos(np.pi * mid)[:, None]), (8, 8, 1))

    def march(T, duration, steps):
        dt = jnp.full((1,), duration / steps)
        return jax.lax.scan(lambda T, _: (sk.tr_bdf2_step(T, source, dt, sheet), None), T, None, steps)[0]

    run = jax.jit(march, static_argnums=2)
    ends = [run(smooth, 2000.0, n) for n in (8, 16, 32, 256)]
    errors = np.array([float(jnp.abs(e - ends[-1]).max()) for e in ends[:-1]])
    assert np.all(np.abs(np.log2(errors[:-1] / errors[1:]) - 2) < 0.2), errors

    rest, _ = sk.steady(smooth, source, sheet)
    limit = 1 / float(jnp.max(2 * (sheet.along.max() + sheet.across.max()) / sheet.capacity))
    rough = jnp.where((jnp.indices((8, 8)).sum(0) % 2 == 0)[..., None], 200.0, 350.0)
    checkers = column((-1.0) ** np.indices((8, 8)).sum(0))
    T, ripple, distance = rough, [75.0], [float(jnp.abs(rough - rest).max())]
    for _ in range(8):
        T = sk.tr_bdf2_step(T, source, jnp.full((1,), 1000 * limit), sheet)
        ripple.append(float(jnp.abs(jnp.mean(checkers * (T - rest)))))
        distance.append(float(jnp.abs(T - rest).max()))
    assert ripple[1] < 0.01 * ripple[0] and ripple[2] < 0.05, ripple
    assert np.all(np.diff(distance) < 0), distance
