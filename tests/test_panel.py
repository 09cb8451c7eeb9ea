"""The panel against independent 2-D solutions, closed forms, and its own conservation and order."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import panel as pk
from dawndusk.kernels.constants import SIGMA
from jax import lax

REFERENCE = Path(__file__).parent / "reference"
# What two grids leave after extrapolation, the h^4 term: measured 7.7e-3, 7.6e-5 and 2.7e-3 K.
EXTRAPOLATED = {"two_pipes_al": 0.01, "edge_T_cos_load": 1e-4, "aniso_cfrp": 0.004}
PANELS = json.loads((REFERENCE / "panel2d.json").read_text())["cases"]
LUMPED = json.loads((REFERENCE / "lumped.json").read_text())


def overlap(a, b, edges):
    """Share of each cell that lies between a and b."""
    lo, hi = np.maximum(edges[:-1], a), np.minimum(edges[1:], b)
    return np.maximum(hi - lo, 0) / np.diff(edges)


def reference_panel(case, nx, ny):
    """Conductances, sources and edge links of a reference case on an nx x ny grid, one satellite."""
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
    column = lambda a: jnp.asarray(a)[..., None]  # noqa: E731
    gx = pk.face_conductances(column(ktx), dx)
    gy = pk.face_conductances(column(kty.T), dy)
    return gx, gy, column(source), column(link), jnp.asarray([case["eps_sum"]])


def steady(case, nx, ny):
    args = reference_panel(case, nx, ny)
    T, last = pk.steady(jnp.full((nx, ny, 1), 300.0), *args)
    assert last[0] < 1e-8
    return np.asarray(T[..., 0]), args


def restrict(T, nx, ny):
    return T.reshape(nx, T.shape[0] // nx, ny, T.shape[1] // ny).mean((1, 3))


@pytest.mark.parametrize("case", PANELS, ids=lambda c: c["name"])
def test_reference_panels(case):
    """Second order to the independent answer, and extrapolated.

    The reference is Richardson's limit of 480 x 320 cells, good to `richardson_consistency_K`. Strips' edges fall on
    cell faces of both grids. What two grids of 60 x 40 and 120 x 80 leave after extrapolation is the h^4 term.
    """
    field = np.loadtxt(REFERENCE / case["field_file"], delimiter=",").T
    if field.shape != (60, 40):
        field = field.T
    coarse, fine = (restrict(steady(case, 60 * k, 40 * k)[0], 60, 40) for k in (1, 2))
    errors = [np.abs(g - field).max() for g in (coarse, fine)]
    assert abs(errors[0] - case["plain_fv_60x40_error_K"]) < 0.02 * errors[0] + 1e-4
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.1
    best = (4 * fine - coarse) / 3
    assert np.abs(best - field).max() < EXTRAPOLATED[case["name"]]


@pytest.mark.slow
@pytest.mark.parametrize("case", PANELS, ids=lambda c: c["name"])
def test_reference_panels_at_the_references_own_accuracy(case):
    """Three grids take the h^4 term out too."""
    field = np.loadtxt(REFERENCE / case["field_file"], delimiter=",").T
    field = field if field.shape == (60, 40) else field.T
    grids = [restrict(steady(case, 60 * k, 40 * k)[0], 60, 40) for k in (1, 2, 3)]
    # Weights that keep constants and cancel h^2 and h^4 for h = 1, 1/2, 1/3.
    weights = np.linalg.solve([[1, 1, 1], [1, 1 / 4, 1 / 9], [1, 1 / 16, 1 / 81]], [1, 0, 0])
    best = sum(w * g for w, g in zip(weights, grids))
    assert np.abs(best - field).max() < 3 * case["richardson_consistency_K"]


def test_steady_conserves_heat():
    case = PANELS[0]
    T, (_, _, source, _, emission) = steady(case, 60, 40)
    radiated = np.mean(float(emission[0]) * SIGMA * T**4)
    np.testing.assert_allclose(radiated, np.mean(np.asarray(source)), rtol=1e-12)


@pytest.mark.parametrize("start", [100.0, 600.0])
def test_steady_from_afar(start):
    case = PANELS[0]
    args = reference_panel(case, 30, 20)
    T, last = pk.steady(jnp.full((30, 20, 1), start), *args)
    assert last[0] < 1e-9
    np.testing.assert_allclose(T, pk.steady(jnp.full((30, 20, 1), 300.0), *args)[0], atol=1e-8)


def test_step_leaves_the_steady_state_alone():
    """Whatever the step: what Lie or Strang splitting does not do beside a pipe."""
    case = PANELS[0]
    gx, gy, source, link, emission = reference_panel(case, 30, 20)
    T, _ = pk.steady(jnp.full((30, 20, 1), 300.0), gx, gy, source, link, emission)
    for dt in (0.0, 1.0, 45.0, 1e4):
        new = pk.step(T, gx, gy, source, jnp.asarray([2430.0]), emission, jnp.asarray([dt]))
        # Newton leaves 1e-10 K; PR cannot amplify it.
        np.testing.assert_allclose(new, T, atol=1e-8)


def march(T, gx, gy, source, capacity, emission, duration, steps):
    dt = jnp.full((1,), duration / steps)

    def body(T, _):
        return pk.step(T, gx, gy, source, capacity, emission, dt), None

    return lax.scan(body, T, None, length=steps)[0]


def test_second_order_in_time_beside_a_pipe():
    gx, gy, source, _, emission = reference_panel(PANELS[0], 30, 20)
    # A smooth start, so that the order is the scheme's and not a jump's.
    x = np.linspace(0, np.pi, 30)
    start = jnp.asarray(np.broadcast_to((280 + 20 * np.cos(x))[:, None, None], (30, 20, 1)))
    capacity = jnp.asarray([2430.0])
    run = jax.jit(march, static_argnums=7)
    ends = [run(start, gx, gy, source, capacity, emission, 600.0, n) for n in (40, 80, 160, 1280)]
    errors = [float(jnp.abs(e - ends[-1]).max()) for e in ends[:-1]]
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes - 2) < 0.15), (errors, slopes)


@pytest.mark.parametrize("case", LUMPED["decay"], ids=lambda c: c["name"])
def test_isothermal_panel_is_the_lumped_node(case):
    """Closed-form cooling; the error falls fourfold with the step."""
    T0 = jnp.full((4, 3, 1), float(case["T0_K"]))
    g = jnp.ones((1, 1, 1))
    emission, capacity = jnp.asarray([case["eps_sum"]]), jnp.asarray([case["C_J_m2K"]])
    source = jnp.full((1, 1, 1), float(case["Q_W_m2"]))
    end, exact = case["t_s"][-1], case["T_K"][-1]
    values = [float(march(T0, g, g, source, capacity, emission, end, n)[0, 0, 0]) for n in (1000, 2000)]
    errors = np.abs(np.array(values) - exact)
    assert errors[1] < 1e-3
    assert abs((4 * values[1] - values[0]) / 3 - exact) < 2e-6
    assert errors[1] < 1e-9 or 3.8 < errors[0] / errors[1] < 4.2


@pytest.mark.parametrize("case", LUMPED["cyclic_square"], ids=lambda c: c["name"])
def test_lumped_square_wave(case):
    """Periodic square wave, steps laid at its edges: second order to the exact extremes."""
    emission, capacity = jnp.asarray([case["eps_sum"]]), jnp.asarray([case["C_J_m2K"]])
    g = jnp.ones((1, 1, 1))
    sun = case["period_s"] - case["eclipse_s"]

    def extremes(n):
        def orbit(T, _):
            hot = march(T, g, g, jnp.full((1, 1, 1), case["Q_sun_W_m2"]), capacity, emission, sun, n)
            cold = march(
                hot, g, g, jnp.full((1, 1, 1), case["Q_ecl_W_m2"]), capacity, emission, case["eclipse_s"], n
            )
            return cold, (hot[0, 0, 0], cold[0, 0, 0])

        # The slowest of the three files' nodes forgets by e^-2 an orbit.
        _, (hot, cold) = jax.jit(lambda T: lax.scan(orbit, T, None, length=40))(jnp.full((2, 2, 1), 290.0))
        return np.array([hot[-1], cold[-1]])

    exact = np.array([case["T_max_end_sun_K"], case["T_min_end_eclipse_K"]])
    coarse, fine = extremes(200), extremes(400)
    assert np.abs(fine - exact).max() < 0.01
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, atol=2e-4)


def test_conductances_of_a_strip_equal_the_general_form():
    """Uniform conductances as one row, or spelled out face by face: the same numbers."""
    rng = np.random.default_rng(1)
    T = jnp.asarray(rng.uniform(250, 330, (6, 4, 3)))
    s = jnp.asarray(rng.uniform(0, 500, (6, 4, 3)))
    g = jnp.asarray(rng.uniform(5, 50, (1, 4, 3)))
    spread = jnp.concatenate([jnp.zeros((1, 4, 3)), jnp.repeat(g, 5, axis=0), jnp.zeros((1, 4, 3))])
    rest = [jnp.full(3, v) for v in (2000.0, 2e-6, 20.0)]
    for a, b in zip(pk.eliminate(T, s, g, *rest), pk.eliminate(T, s, spread, *rest)):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    np.testing.assert_allclose(pk.conduction(T, g), pk.conduction(T, spread), rtol=1e-12, atol=1e-9)
    turned = jnp.swapaxes(pk.conduction(jnp.swapaxes(T, 0, 1), g, axis=1), 0, 1)
    np.testing.assert_allclose(turned, pk.conduction(T, g), rtol=1e-14)


def test_float32_beside_a_heat_pipe():
    """Cells coupled at 1e5 W/m2/K and more: little of the noise of that product reaches the temperatures."""
    gx, gy, source, link, emission = reference_panel(PANELS[0], 30, 20)
    gx = gx.at[:, 5].multiply(2000.0)
    T, _ = pk.steady(jnp.full((30, 20, 1), 300.0), gx, gy, source, link, emission)
    single = [jnp.asarray(a, jnp.float32) for a in (gx, gy, source, jnp.asarray([2430.0]), emission)]

    def body(T, _):
        return pk.step(T, *single, jnp.full((1,), 45.0, jnp.float32)), None

    end = lax.scan(body, jnp.asarray(T, jnp.float32), None, length=256)[0]
    # One ulp (3e-5 K) times the pipe's conductance is 1 K a step; measured 0.011 K.
    np.testing.assert_allclose(end, T, atol=0.02)


def test_steady_gradient():
    """Implicit derivative of the hottest cell with respect to a uniform load and emission, both modes."""
    gx, gy, source, link, emission = reference_panel(PANELS[0], 12, 8)
    start = jnp.full((12, 8, 1), 290.0)

    def hottest(scale, emission):
        return jnp.max(pk.steady(start, gx, gy, source * scale, link, emission[None])[0])

    point = (jnp.asarray(1.0), emission[0])
    reverse = jax.grad(hottest, argnums=(0, 1))(*point)
    forward = [jax.jvp(hottest, point, t)[1] for t in ((1.0, 0.0), (0.0, 1.0))]
    central = [
        (hottest(*(p + d for p, d in zip(point, s))) - hottest(*(p - d for p, d in zip(point, s)))) / 2e-5
        for s in ((1e-5, 0.0), (0.0, 1e-5))
    ]
    np.testing.assert_allclose(reverse, central, rtol=1e-7)
    np.testing.assert_allclose(forward, central, rtol=1e-7)
