"""The kernels of accelerators, interpreted on a CPU: they march as XLA's loops do.

What compilers make of them shows in bench/accelerators.py.
"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import adi, adi_gpu, adi_tpu, march, march_gpu, march_tpu, satellite
from dawndusk.kernels.sheet import Sheet

# Both do the same operations in another order in few places, sums above all. A temperature of 300 K is rounded to
# 1.5e-5 K in float32, once or twice a step: after four steps two marches are within a few of those. A heat pipe of
# 3 kW/m^2/K between cells 40 K apart carries 1e5 W/m^2, rounded to 0.01, which makes 1e-4 K in half a minute.
ROUNDING = {"uniform": 2e-4, "heat pipe": 1e-3, "all unlike": 2e-4}


def on_tpu(*problem, extremes=True):
    return adi_tpu.transient(*problem, extremes, interpret=True)


def interpreted():
    # Public under jax.experimental from jax 0.12 on.
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams()


def on_gpu(*problem, extremes=True):
    return adi_gpu.transient(*problem, extremes, interpret=interpreted())


def in_loops(*problem, extremes=True):
    return jax.jit(partial(adi._march, extremes=extremes))(*problem)


def problem(b, kind="uniform", nx=8, ny=4, steps=4):
    """Sheets of 1 mm aluminium and the like, unlike each other, with a pause among their steps."""
    rng = np.random.default_rng(0)

    def u(low, high, *axes):
        return jnp.asarray(rng.uniform(low, high, (*axes, b)), jnp.float32)

    sheet = Sheet(
        capacity=u(2000, 4000, 1, 1),
        along=u(2, 6, 1, 1),
        across=u(2, 6, 1, 1),
        emission=(u(1.4, 1.7, 1, 1),),
        link=u(0, 0.5, 1, 1),
        along_slope=(),
        across_slope=(),
        pipe=(),
        pipe_limit=(),
        nx=nx,
        ny=ny,
    )
    source = u(0, 50, 1, 1)
    if kind == "heat pipe":
        sheet = replace(sheet, along=jnp.concatenate([u(1e3, 3e3, 1, 1), sheet.along], axis=1))
    if kind == "all unlike":
        sheet = replace(
            sheet,
            capacity=u(2000, 4000, nx, ny),
            along=u(2, 6, nx - 1, ny),
            across=u(2, 6, nx, ny - 1),
            emission=(u(1.4, 1.7, nx, ny), u(1e-4, 2e-4, 1, 1)),
            link=u(0, 0.5, nx, 1),
        )
        source = u(0, 50, nx, ny)
    dt = u(15, 60, steps).at[1].set(0.0)
    return u(280, 320, nx, ny), source, u(300, 900, steps), dt, sheet


def agree(kind, T, found, expected):
    end, seen = found
    reference, expected_seen = expected
    assert end.dtype == jnp.float32
    assert float(jnp.abs(reference - T).max()) > 5
    np.testing.assert_allclose(end, reference, rtol=0, atol=ROUNDING[kind])
    for name in ("hottest", "coldest", "mean"):
        np.testing.assert_allclose(
            getattr(seen, name), getattr(expected_seen, name), rtol=0, atol=ROUNDING[kind]
        )


# More satellites than a tile and fewer than two: the second one is filled up.
@pytest.mark.parametrize(
    "kind", ["heat pipe", *(pytest.param(k, marks=pytest.mark.slow) for k in ("uniform", "all unlike"))]
)
def test_tpu_marches_as_loops_do(kind):
    given = problem(1030, kind, nx=6, ny=3)
    agree(kind, given[0], on_tpu(*given), in_loops(*given))


@pytest.mark.parametrize(
    "kind", ["heat pipe", *(pytest.param(k, marks=pytest.mark.slow) for k in ("uniform", "all unlike"))]
)
def test_gpu_marches_as_loops_do(kind):
    given = problem(33, kind)
    agree(kind, given[0], on_gpu(*given), in_loops(*given))


def lowered(platform, dtype=np.float32):
    """What `adi.transient` becomes for a platform; no device and no compiler of it is needed."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), problem(33))
    march = jax.jit(partial(adi.transient, extremes=True))
    return jax.export.export(march, platforms=[platform])(*shapes).mlir_module()


@pytest.mark.parametrize("platform, call", [("tpu", "tpu_custom_call"), ("cuda", "mosaic_gpu")])
def test_each_platform_gets_its_kernel(platform, call):
    assert call in lowered(platform)
    assert call not in lowered(platform, np.float64)
    assert call not in lowered("cpu")


@pytest.mark.parametrize("capability, good", [("8.0", False), ("9.0", True), ("10.0", True), ("12.0", False)])
def test_gpus_of_another_kind_get_loops(monkeypatch, capability, good):
    T, *_, sheet = problem(2)
    monkeypatch.setattr(jax, "devices", lambda _: [SimpleNamespace(compute_capability=capability)])
    assert adi_gpu.supports(T, sheet) is good


@pytest.mark.parametrize("nx, ny", [(6, 6), (128, 8), (32, 48)])
def test_grids_that_do_not_fit_get_loops(nx, ny):
    T, *_, sheet = problem(2, nx=nx, ny=ny)
    assert not adi_gpu.supports(T, sheet)
    assert adi_tpu.supports(T, sheet)
    assert not adi_tpu.supports(jnp.zeros((256, 64, 2), jnp.float32), replace(sheet, nx=256, ny=64))


def test_derivatives_and_vmap_go_by_arrays():
    """By finite difference, whose error in float32 is a third of a percent of what 0.5 K make."""
    T, *rest = problem(2)

    def mean(T):
        return jnp.sum(adi.transient(T, *rest, extremes=True)[1].mean)

    gradient = jax.grad(mean)(T)
    np.testing.assert_allclose(jnp.sum(gradient), mean(T + 0.5) - mean(T - 0.5), rtol=3e-3)
    both = jax.vmap(lambda T: adi.transient(T, *rest)[0])(jnp.stack([T, T + 1]))
    for found, start in zip(both, (T, T + 1)):
        np.testing.assert_allclose(found, adi.transient(start, *rest)[0], rtol=0, atol=ROUNDING["uniform"])


# --- coupled satellites


def satellites(kind, design, square_loads, uniform_state, b=3, cells=(4, 3), steps=6):
    """Designs of a structure, from a rough start, through the start of a revolution with a shadow in it."""
    params = design(b=b, cells=cells, bypass=kind == "bypass", dtype=jnp.float32)
    state = uniform_state(params)
    if kind == "heat pipes":
        coolant = replace(params.coolant, evaporator_fraction=jnp.full(b, 0.3, jnp.float32))
        pipes = replace(params.panel, strip_conductance=jnp.full(b, 5.0, jnp.float32))
        params = replace(params, coolant=coolant, panel=pipes)
    if kind == "throttled":
        params = replace(
            params, payload=replace(params.payload, throttle_start=jnp.full(b, 290.0, jnp.float32))
        )
    if kind == "bypass":
        params = replace(params, coolant=replace(params.coolant, setpoint=jnp.full(b, 297.0, jnp.float32)))
    if kind == "no battery":
        params = replace(params, battery=None)
    if kind == "bare":
        params = replace(params, coolant=None, array=None, battery=None, payload=None)
    rng = np.random.default_rng(1)
    rough = jnp.asarray(rng.uniform(-10, 10, state.panel.shape), jnp.float32)
    nodes = state.nodes + jnp.asarray(rng.uniform(-5, 5, state.nodes.shape), jnp.float32)
    loads = square_loads(b, 64, dtype=jnp.float32)
    # Into the shadow; the third step has no length.
    first = 64 * 11 // 27 - steps // 2
    loads = jax.tree.map(lambda a: a[first : first + steps], loads)
    loads = replace(loads, dt=loads.dt.at[2].set(0.0))
    return params, loads, replace(state, panel=state.panel + rough, nodes=nodes)


def ends_agree(found, expected, start):
    """A temperature is rounded to 1.5e-5 K some ten times a step, in sums whose order differs; a charge of 1e8 J to
    4 J; an integral is held to what the temperatures are."""
    (end, seen), (reference, tally) = found, expected
    assert float(jnp.abs(reference.panel - start.panel).max()) > 1
    for a, b in ((end.panel, reference.panel), (end.nodes, reference.nodes)):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-4)
    for a, b in ((end.energy, reference.energy), (seen.low, tally.low), (seen.high, tally.high)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a, b in zip(seen.means, tally.means):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=5e-4)
    np.testing.assert_allclose(seen.time, tally.time, rtol=1e-6)


KINDS = ["everything", "bypass", "heat pipes", "throttled", "no battery", "bare"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_tpu_marches_satellites_as_loops_do(kind, design, square_loads, uniform_state):
    # Columns are taken one by one where there are three, four at a time where there are four.
    cells = (3, 3) if kind == "bare" else (4, 3)
    given = satellites(kind, design, square_loads, uniform_state, cells=cells)
    expected = jax.jit(march._summary_loop)(*given)
    assert float(expected[1].throttled.max()) > 0 or kind != "throttled"
    assert float(expected[1].held.max()) > 0 or kind != "bypass"
    ends_agree(march_tpu.summary(*given, interpret=True), expected, given[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bypass"])
def test_gpu_marches_satellites_as_loops_do(kind, design, square_loads, uniform_state):
    # More satellites than a block and fewer than two.
    given = satellites(kind, design, square_loads, uniform_state, b=33, cells=(8, 4), steps=3)
    found = march_gpu.summary(*given, interpret=interpreted())
    ends_agree(found, jax.jit(march._summary_loop)(*given), given[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["suncatcher", "starlink_ai", "iss_eatcs", "single_node_cyclic"])
def test_tpu_marches_shipped_cases_as_loops_do(name):
    from dawndusk.kernels import revolution
    from dawndusk.solver import build, case

    fleet = build.build(case.load(case.find(f"{name}.toml"), ["run.cells=[4, 6]"]), np.dtype("float32"))
    rows = jax.tree.map(lambda a: jnp.asarray(a[:2]), fleet.revolutions)
    params, state = (jax.tree.map(lambda a: jnp.asarray(a[..., :2]), t) for t in (fleet.params, fleet.state))
    loads = jax.vmap(partial(revolution.revolution_loads, n_steps=40), out_axes=-1)(rows)
    ends_agree(
        march_tpu.summary(params, loads, state, interpret=True),
        jax.jit(march._summary_loop)(params, loads, state),
        state,
    )


def search_lowered(given, platform):
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), given)
    return jax.export.export(jax.jit(march._summary_march), platforms=[platform])(*shapes).mlir_module()


def test_searches_get_the_kernel(design, square_loads, uniform_state):
    given = satellites("bare", design, square_loads, uniform_state, cells=(8, 4))
    double = jax.tree.map(lambda a: a.astype(jnp.float64), given)
    assert "tpu_custom_call" in search_lowered(given, "tpu")
    assert "mosaic_gpu" in search_lowered(given, "cuda")
    for inputs, platform in ((double, "tpu"), (given, "cpu")):
        found = search_lowered(inputs, platform)
        assert "tpu_custom_call" not in found and "mosaic_gpu" not in found


def test_panels_of_another_kind_get_loops(design, square_loads, uniform_state, monkeypatch):
    params, loads, state = satellites("everything", design, square_loads, uniform_state, cells=(8, 4))
    assert march_tpu.supports(params, loads, state)
    assert march_gpu.supports(params, loads, state)
    held = replace(params, coolant=replace(params.coolant, bypass=True))
    assert march_tpu.supports(held, loads, state)
    assert not march_gpu.supports(held, loads, state)
    assert not march_gpu.supports(replace(params, panel=replace(params.panel, nx=6)), loads, state)
    # A stage with something in it that is not unrolled.
    stage = satellite.implicit_stage
    monkeypatch.setattr(satellite, "implicit_stage", lambda p, l, X, *rest: stage(p, l, jnp.sort(X), *rest))
    assert not march_tpu.supports(params, loads, state) and not march_gpu.supports(params, loads, state)
    monkeypatch.undo()
    assert not march_tpu.supports(params, jax.tree.map(lambda a: a[:0], loads), state)
    large = replace(params, panel=replace(params.panel, nx=256, ny=64))
    assert not march_tpu.supports(large, loads, state)


def test_a_cpu_does_not_import_the_kernels():
    """They cost half a second to import and more to trace."""
    program = """
import sys, jax
import jax.numpy as jnp
from dawndusk.kernels import adi
from dawndusk.kernels.sheet import Sheet
one, row = jnp.ones((1, 1, 1)), jnp.ones((2, 1))
sheet = Sheet(one, one, one, (one,), one, (), (), (), (), 4, 4)
jax.jit(adi.transient)(jnp.full((4, 4, 1), 300.0), one, row, row, sheet)
assert "jax.experimental.pallas" not in sys.modules
assert "dawndusk.kernels.adi_tpu" not in sys.modules and "dawndusk.kernels.adi_gpu" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
