"""The alternating-direction step: order, steady states, conservation, stability, its two drivers, derivatives."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import adi, adi_field, adi_lines, adi_step
from dawndusk.kernels import sheet as sk
from dawndusk.kernels.constants import SIGMA
from dawndusk.kernels.sheet import Sheet
from jax import lax

REFERENCE = Path(__file__).parent / "reference"
LUMPED = json.loads((REFERENCE / "lumped.json").read_text())

# Sheets are made as in the tests of what they are at rest.
_spec = importlib.util.spec_from_file_location("sheets", Path(__file__).with_name("test_sheet.py"))
sheets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sheets)


def strip(nx=12, ny=6, b=2, pipe=2000.0, dtype=jnp.float64):
    """Half strips beside a heat pipe in their first row, each with its own thickness."""
    scale = jnp.asarray(1 + 0.2 * np.arange(b), dtype)[None, None]
    along = jnp.concatenate([40.0 + pipe * scale, 40.0 * scale], axis=1)
    one = jnp.ones((1, 1, b), dtype)
    sheet = Sheet(
        2500.0 * scale, along.astype(dtype), 300.0 * scale, (1.7 * one,), 0.0 * one, (), (), (), (), nx, ny
    )
    source = jnp.zeros((nx, ny, b), dtype).at[:2, 0].set(6000.0) + 120
    return sheet, source


def smooth_start(nx, ny, b):
    x = np.linspace(0, np.pi, nx)
    return jnp.asarray(np.broadcast_to((285 + 20 * np.cos(x))[:, None, None], (nx, ny, b)))


def march(T, source, sheet, duration, steps):
    b = T.shape[2]
    load, dt = jnp.zeros((steps, b), T.dtype), jnp.full((steps, b), duration / steps, T.dtype)
    return adi.transient(T, source, load, dt, sheet)[0]


run = jax.jit(march, static_argnames=("duration", "steps"))


def uniform(nx, ny, b):
    """Sheets that are alike everywhere, each with its own coefficients."""
    value = np.random.default_rng(1).uniform(0.5, 1.5, (5, 1, 1, b))
    capacity, along, across, emission, link = (jnp.asarray(v) for v in value)
    return Sheet(2500 * capacity, 40 * along, 300 * across, (1.7 * emission,), 2 * link, *((),) * 4, nx, ny)


def unlike(nx, ny, b):
    """Sheets whose every cell is its own."""
    rng = np.random.default_rng(2)

    def some(*shape):
        return jnp.asarray(rng.uniform(0.5, 1.5, (*shape, b)))

    emission = 1.7 * some(nx, ny), 1e-4 * some(1, 1)
    return Sheet(
        2500 * some(nx, ny),
        40 * some(nx - 1, ny),
        300 * some(nx, ny - 1),
        emission,
        2 * some(nx, ny),
        *((),) * 4,
        nx,
        ny,
    )


SHEETS = {"uniform": uniform, "strip": lambda nx, ny, b: strip(nx, ny, b)[0], "unlike": unlike}


# Lines of 12 and of 6 cells, each of 100 numbers of 8 bytes, make blocks of 4 and of 3; of 2 numbers one block.
@pytest.mark.parametrize("b", [2, 100])
@pytest.mark.parametrize("kind", SHEETS)
def test_lines_do_what_arrays_do(kind, b):
    """Both half steps, and every cotangent of theirs, written by hand for a CPU against JAX's own of the arrays."""
    nx, ny = 12, 6
    rng, sheet = np.random.default_rng(0), SHEETS[kind](nx, ny, b)
    T = jnp.asarray(rng.uniform(280, 320, (ny, nx, b)))
    S = adi_step.turn(sk.conduction(adi_step.turn(T), sheet)[0])
    source = tuple(jnp.asarray(rng.uniform(0, 500, shape)) for shape in ((ny, nx, b), (1, 1, b), (ny, nx, 1)))
    mean4, h = adi_step.means(T)[1], jnp.full(b, 30.0).at[0].set(0.0)
    first = adi_step.first_coefficients(mean4, sheet, h)
    second = adi_step.second_coefficients(mean4, mean4, sheet, h)
    more = jnp.asarray(rng.uniform(0, 50, (1, 1, b)))
    given = jnp.asarray(rng.normal(size=T.shape))

    def check(found, expected):
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=1e-12 * scale(e)), found, expected
        )

    def scale(e):
        return max(1.0, float(jnp.abs(e).max())) if e.size else 1.0

    # What the room holds is overwritten unread.
    room = jnp.asarray(rng.normal(size=T.shape))
    d = adi_field._mid(T, S, source, first, sheet)
    check(adi_lines.mid(T, S, source, first, sheet, room), d)
    check(
        without_length(adi_lines.mid_transpose(T, d, source, first, sheet, given)),
        without_length(adi_field._mid_transpose_of_arrays(T, d, source, first, sheet, given)),
    )
    *end, D = adi_field._end(T, S, d, more, second, sheet)
    check(adi_lines.end(T, S, d, more, second, sheet, None), (*end, D))
    check(
        without_length(adi_lines.end_transpose(T, d, more, second, sheet, given)),
        without_length(adi_field._end_transpose_of_arrays(T, d, more, second, sheet, given)),
    )

    def tangents(half, *of):
        """Of a half step's arguments; of a step of no length none of its length."""
        parts = adi_field._parts(half, sheet)
        dots = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), (*of, parts))
        return *dots[:-1], {**dots[-1], "h": dots[-1]["h"].at[..., 0].set(0.0)}

    for known, of, pair in (
        (
            (T, d, source, first, sheet),
            (T, source),
            (adi_lines.mid_tangent, adi_field._mid_tangent_of_arrays),
        ),
        (
            (T, d, more, second, sheet),
            (T, d, more),
            (adi_lines.end_tangent, adi_field._end_tangent_of_arrays),
        ),
    ):
        dots = tangents(known[3], *of)
        check(*(tangent(*known, *dots) for tangent in pair))
    response, by = first.factors.m, jnp.asarray(rng.normal(size=(nx, b)))
    dots = T, jnp.asarray(rng.normal(size=response.shape)), 2 * by
    check(
        adi_lines.raised_tangent(response, by, *dots),
        adi_field._raised_tangent_of_arrays(response, by, *dots),
    )
    check(
        adi_lines.raised_transpose(response, by, given),
        adi_field._raised_transpose_of_arrays(response, by, given),
    )


def without_length(cotangents):
    """That of the step's length left out where there is none: the first of the batch."""
    *rest, parts = cotangents
    return *rest, {**parts, "h": parts["h"][..., 1:]}


def test_zero_length_does_nothing_and_float32_stays():
    for dtype in (jnp.float64, jnp.float32):
        sheet, source = strip(dtype=dtype)
        T = smooth_start(12, 6, 2).astype(dtype)
        load = jnp.asarray(np.random.default_rng(0).uniform(0, 300, (40, 2)), dtype)
        dt = jnp.full((40, 2), 45.0, dtype)
        kept, _ = adi.transient(T, source, load, dt.at[7].set(0.0), sheet)
        cut = [jnp.delete(a, 7, axis=0) for a in (load, dt)]
        left, _ = adi.transient(T, source, *cut, sheet)
        np.testing.assert_allclose(kept, left, rtol=0, atol=1e-11 if dtype == jnp.float64 else 1e-3)
        assert kept.dtype == dtype


CASES = {
    "heat pipe": strip,
    "everything": lambda: sheets.manufactured(8)[:2],
    "limited pipe": lambda: sheets.piped(1500.0),
}


# Compiling block elimination takes half a minute.
WITHOUT_SLOW = [pytest.param(c, marks=[pytest.mark.slow] * (c == "limited pipe")) for c in CASES]


@pytest.mark.parametrize("case", WITHOUT_SLOW)
def test_second_order_in_time(case):
    """T^4, pipes, and with `everything` conductivity, emissivity, thickness that vary: a smooth start, 20 minutes."""
    sheet, source = CASES[case]()
    T = smooth_start(sheet.nx, sheet.ny, source.shape[2])
    ends = [run(T, source, sheet, 1200.0, n) for n in (80, 160, 320, 1280)]
    errors = np.array([float(jnp.abs(e - ends[-1]).max()) for e in ends[:-1]])
    slopes = np.log2(errors[:-1] / errors[1:])
    assert np.all(np.abs(slopes - 2) < 0.2), (errors, slopes)


@pytest.mark.parametrize("case", WITHOUT_SLOW)
def test_the_steady_state_is_left_alone(case):
    """Whatever the step: what Lie or Strang splitting does not do beside a pipe."""
    sheet, source = CASES[case]()
    T, status = sk.steady(jnp.full((sheet.nx, sheet.ny, source.shape[2]), 300.0), source, sheet)
    assert np.all(np.asarray(status) == sk.CONVERGED)
    for dt in (0.0, 1.0, 45.0, 1e4):
        # Newton leaves 1e-10 K, which the step cannot amplify.
        np.testing.assert_allclose(run(T, source, sheet, 3 * dt, 3), T, atol=1e-8)


def test_heat_is_conserved_to_rounding():
    """A sheet that loses nothing warms by what it is given, in any step; one that radiates closes at second order."""
    sheet, source = strip()
    T = smooth_start(12, 6, 2)
    blind = replace(sheet, emission=(0.0 * sheet.emission[0],))
    gained = jnp.mean(sheet.capacity * (run(T, source, blind, 900.0, 20) - T), axis=(0, 1))
    np.testing.assert_allclose(gained, 900.0 * jnp.mean(source, axis=(0, 1)), rtol=1e-12)

    def residual(n):
        dt = jnp.full((2,), 900.0 / n)

        def advance(panel, _):
            before = adi.means(panel.T)[1]
            panel = adi.step(panel, (adi.turn(source),), dt, sheet)
            return panel, dt * 1.7 * SIGMA * (before + adi.means(panel.T)[1]) / 2

        end, lost = lax.scan(advance, adi.Field.start(T, sheet), None, n)
        stored = jnp.mean(sheet.capacity * (adi.turn(end.T) - T), axis=(0, 1))
        return jnp.max(jnp.abs(stored + jnp.sum(lost, axis=0) - 900 * jnp.mean(source, axis=(0, 1))))

    residuals = [float(jax.jit(residual, static_argnums=0)(n)) for n in (20, 40, 80)]
    assert residuals[0] > 3.5 * residuals[1] > 3.5**2 * residuals[2], residuals


@pytest.mark.parametrize("start", [100.0, 600.0])
@pytest.mark.parametrize("dt", [3e2, pytest.param(1e4, marks=pytest.mark.slow), 1e6])
def test_stable_at_any_step(start, dt):
    """Far from rest and far beyond the panel's own times it goes to rest, and never far past it."""
    sheet, source = strip(pipe=200.0)
    source = jnp.full_like(source, 400.0)
    T = jnp.full((12, 6, 2), start)
    one = jax.jit(lambda T: march(T, source, sheet, dt, 1))
    low = high = start
    for _ in range(60):
        T = one(T)
        low, high = min(low, float(T.min())), max(high, float(T.max()))
    rest, _ = sk.steady(T, source, sheet)
    assert low >= min(start, 253) and high <= max(start, 254)
    np.testing.assert_allclose(T, rest, atol=1e-6)


@pytest.mark.parametrize("case", LUMPED["decay"], ids=lambda c: c["name"])
def test_isothermal_panel_is_the_lumped_node(case):
    """Closed-form cooling; the error falls fourfold with the step. Extrapolated, the h^3 term is left: 6.5e-6 K."""
    sheet = lumped(case)
    T0, source = jnp.full((4, 3, 1), float(case["T0_K"])), jnp.full((1, 1, 1), float(case["Q_W_m2"]))
    end, exact = case["t_s"][-1], case["T_K"][-1]
    values = [float(run(T0, source, sheet, float(end), n)[0, 0, 0]) for n in (1000, 2000)]
    errors = np.abs(np.array(values) - exact)
    assert errors[1] < 1e-3
    assert abs((4 * values[1] - values[0]) / 3 - exact) < 1e-5
    assert errors[1] < 1e-8 or 3.8 < errors[0] / errors[1] < 4.2


def lumped(case):
    one = jnp.ones((1, 1, 1))
    return Sheet(case["C_J_m2K"] * one, one, one, (case["eps_sum"] * one,), 0 * one, (), (), (), (), 4, 3)


@pytest.mark.parametrize("case", LUMPED["cyclic_square"], ids=lambda c: c["name"])
def test_lumped_square_wave(case):
    """Periodic square wave, steps laid at its edges: second order to the exact extremes."""
    sheet = lumped(case)
    sun = case["period_s"] - case["eclipse_s"]
    given = [jnp.full((1, 1, 1), case[k]) for k in ("Q_sun_W_m2", "Q_ecl_W_m2")]

    def extremes(n):
        def orbit(T, _):
            hot = march(T, given[0], sheet, sun, n)
            cold = march(hot, given[1], sheet, case["eclipse_s"], n)
            return cold, (hot[0, 0, 0], cold[0, 0, 0])

        # The slowest of the three files' nodes forgets by e^-2 an orbit.
        _, (hot, cold) = jax.jit(lambda T: lax.scan(orbit, T, None, length=40))(jnp.full((4, 3, 1), 290.0))
        return np.array([hot[-1], cold[-1]])

    exact = np.array([case["T_max_end_sun_K"], case["T_min_end_eclipse_K"]])
    coarse, fine = extremes(200), extremes(400)
    assert np.abs(fine - exact).max() < 0.01
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, atol=2e-4)


def test_float32_beside_a_heat_pipe():
    """Cells coupled at 1e6 W/m2/K: one ulp of temperature times that is 30 W/m2 of noise, and none of it arrives."""
    sheet, source = strip(pipe=1e6)
    T, _ = sk.steady(jnp.full((12, 6, 2), 300.0), source, sheet)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), (T, source, sheet))
    end = run(*single, 256 * 45.0, 256)
    # 256 roundings of T at random.
    np.testing.assert_allclose(end, T, atol=1e-3)


@pytest.fixture
def weighed():
    """A figure of a short march by conductance and start, and where to take it."""
    sheet, source = strip(nx=6, ny=4, b=3)
    T, weight = smooth_start(6, 4, 3), jnp.asarray(np.random.default_rng(3).normal(size=(6, 4, 3)))

    def figure(kt, T):
        changed = replace(sheet, across=sheet.across * kt[None, None])
        return jnp.sum(weight * march(T, source, changed, 900.0, 6))

    return figure, jnp.asarray([0.8, 1.0, 1.3]), T


def test_every_way_to_a_gradient_is_the_same(weighed):
    """In reverse and in forward mode, of one and of a batch, the batch before the derivative and behind it."""
    figure, at, T = weighed
    by_hand = jax.jit(jax.grad(figure, argnums=(0, 1)))(at, T)
    forward = jax.jit(jax.jacfwd(figure))(at, T)
    batched = jax.jit(jax.vmap(jax.grad(figure, argnums=(0, 1)), (0, None)))(jnp.stack([at, at]), T)
    of_batch = jax.jit(jax.jacfwd(lambda at: jax.vmap(figure, (0, None))(jnp.stack([at, at]), T)))(at)
    for one in (forward, *of_batch):
        np.testing.assert_allclose(by_hand[0], one, rtol=1e-11)
    for one in (0, 1):
        for found, expected in zip(batched, by_hand, strict=True):
            np.testing.assert_allclose(found[one], expected, rtol=1e-11)


@pytest.mark.slow
def test_second_derivatives(weighed):
    figure, at, T = weighed
    curved = jax.jit(jax.hessian(figure))(at, T)
    h, gradient = 1e-4, jax.jit(jax.grad(figure))
    for k in range(3):
        ends = [gradient(at.at[k].add(s), T) for s in (h, -h)]
        np.testing.assert_allclose(curved[k], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-9)


def test_memory_of_a_gradient_grows_as_the_root_of_the_steps():
    sheet, source = strip(b=8)
    T = smooth_start(12, 6, 8)

    def hottest(source, steps):
        return jnp.max(march(T, source, sheet, 5800.0, steps))

    sizes = []
    for steps in (64, 256, 1024):
        compiled = jax.jit(jax.grad(hottest), static_argnums=1).lower(source, steps).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 2.4 * sizes[0] and sizes[2] < 2.4 * sizes[1], sizes


POINTS = {"ordinary": {}, "no load": {"load": 0.0}, "no conduction across": {"across": 0.0}}


@pytest.mark.parametrize("point", POINTS)
def test_gradients_of_a_transient(point):
    """Both modes against central differences in float64."""
    sheet, source = strip(nx=5, ny=4, b=1)
    T = smooth_start(5, 4, 1)
    at = {
        k: jnp.asarray(v) for k, v in {"load": 1.0, "across": 1.0, "emission": 1.0, **POINTS[point]}.items()
    }

    def figure(at):
        changed = replace(
            sheet,
            across=sheet.across * at["across"],
            emission=(sheet.emission[0] * at["emission"],),
            capacity=sheet.capacity * (0.5 + 0.5 * at["emission"]),
        )
        end = march(T, source * at["load"], changed, 900.0, 20)
        return end[0, 0, 0] + end[4, 2, 0]

    f = jax.jit(figure)
    reverse, forward = jax.jit(jax.grad(figure))(at), jax.jit(jax.jacfwd(figure))(at)
    h = 1e-4
    for k, v in at.items():
        f_at = lambda s, k=k, v=v: f({**at, k: v + s})  # noqa: E731
        if k == "across" and float(v) == 0:  # the edge of its range, where it bends
            e = 1e-6
            central = (4 * f_at(e) - 3 * f_at(0.0) - f_at(2 * e)) / (2 * e)
        else:
            central = (8 * (f_at(h) - f_at(-h)) - (f_at(2 * h) - f_at(-2 * h))) / (12 * h)
        np.testing.assert_allclose(reverse[k], forward[k], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(reverse[k], central, rtol=1e-5 if float(v) == 0 else 1e-6, atol=1e-8)
