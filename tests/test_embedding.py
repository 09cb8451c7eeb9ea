"""The program of docs/embedding.md, run as it stands there, and its numbers."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.constants import SIGMA

PAGE = Path(__file__).parents[1] / "docs" / "embedding.md"


@pytest.fixture(scope="module")
def program():
    names = {}
    # optax adds Python floats to integers.
    with jax.numpy_dtype_promotion("standard"):
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE):
            exec(compile(block, PAGE.name, "exec"), names)
    return names


def check_slopes(slopes, function, sizes):
    """Against central differences over 1e-4 of each size, their own error 1e-8."""
    for i, slope in enumerate(slopes):
        step = 1e-4 * sizes[i]
        more, less = ([*sizes[:i], sizes[i] + sign * step, *sizes[i + 1 :]] for sign in (1, -1))
        np.testing.assert_allclose(slope, (function(*more) - function(*less)) / (2 * step), rtol=1e-6)


def test_slopes_of_the_rejected_heat(program):
    heat = jax.jit(jax.vmap(program["heat_rejected"]))
    sizes = [program[name] for name in ("lengths", "thicknesses", "roots")]
    check_slopes([program[name] for name in ("by_length", "by_thickness", "by_root")], heat, sizes)
    # Longer, thicker and hotter fins reject more; the last centimetres least.
    assert (program["by_length"] > 0).all() and (np.diff(program["by_length"]) < 0).all()
    assert (program["by_thickness"] > 0).all() and (program["by_root"] > 0).all()
    # A short fin is nearly a plate at root temperature.
    plate = 0.05 * ((0.85 + 0.80 * 0.9) * SIGMA * 330**4 - 75)
    assert 0.9 * plate < heat(*sizes)[0] < plate


def test_slope_of_the_tip_after_eclipse(program):
    tip = jax.jit(program["tip_after_eclipse"])
    np.testing.assert_allclose(program["tip"], tip(1e-3), rtol=1e-12)
    np.testing.assert_allclose(program["tip_slope"], (tip(1.0001e-3) - tip(0.9999e-3)) / 2e-7, rtol=1e-6)
    # A thicker fin holds its heat longer and brings more of it to the tip.
    assert 200 < program["tip"] < 260 and program["tip_slope"] > 0


def test_lightest_fin(program):
    # The classical optimum of the rectangular fin; 400 cells are 6e-6 off in N. 1e-4 is what the page promises.
    assert abs(program["N"] - 0.84642) < 1e-4
    assert abs(program["efficiency"] - 0.565334) < 1e-4
    # It does reject the heat that it was asked for, and the comments tell the truth.
    assert abs(program["efficiency"] * program["length"] * 1.7 * SIGMA * 330**4 - 100) < 1e-9
    np.testing.assert_allclose([program["length"], program["thickness"]], [0.155, 0.59e-3], rtol=6e-3)
    # Its neighbours are heavier.
    log_N = program["log_N"]
    assert all(program["log_mass"](log_N + d) > program["log_mass"](log_N) for d in (-0.05, 0.05))


def test_slopes_of_the_panel(program):
    designs = program["designs"]
    heat, coldest = (jax.jit(program[name]) for name in ("panel_heat", "coldest_after_shadow"))
    check_slopes(program["heat_slopes"], heat, designs)
    check_slopes(program["cold_slopes"], coldest, designs)
    # As the page says of the gradient of a sum.
    summed = jax.jit(jax.grad(lambda *sizes: heat(*sizes).sum(), argnums=(0, 1)))(*designs)
    np.testing.assert_allclose(summed, program["heat_slopes"], rtol=1e-9)
    # All that the sheet radiates and does not absorb comes from the coolant.
    T, rejected = jax.jit(program["operating"])(*designs)
    radiated = program["AREA"] * jnp.mean(1.76 * SIGMA * T**4 - program["ABSORBED"], axis=(0, 1))
    np.testing.assert_allclose(rejected, radiated, rtol=1e-9)


def test_lightest_panel(program):
    best, load = program["best"], program["LOAD"]
    assert best.success
    heat = jax.jit(program["panel_heat"])
    # Every pitch with the thickness that rejects the load, from a table of both: linear between its rows, 4 % apart.
    pitch, thickness = np.geomspace(0.35, 1.0, 61), np.geomspace(0.2, 2.0, 61)
    table = [heat(jnp.asarray(thickness / 1e3), jnp.full(61, p / 10)) for p in pitch]
    needed = np.array([np.interp(load, row, thickness) for row in table])
    able = np.array([row[0] < load < row[-1] for row in table])
    masses = program["AREA"] * (2700 * needed / 1e3 + program["TUBE"] / (pitch / 10))
    lightest = np.argmin(np.where(able, masses, np.inf))
    # Flat at its least: half a row of the table in pitch, 0.9 %, is 1e-4 in mass.
    np.testing.assert_allclose(best.fun, masses[lightest], rtol=1e-3)
    np.testing.assert_allclose(best.x[1], pitch[lightest], rtol=0.03)
    # None of the table rejects the load and is lighter, and it does reject it itself.
    every = program["AREA"] * (2700 * thickness[None] / 1e3 + program["TUBE"] / (pitch[:, None] / 10))
    assert best.fun < np.min(np.where(np.array(table) >= load, every, np.inf))
    assert abs(program["spare"](jnp.asarray(best.x))) < 1e-6
    np.testing.assert_allclose([*best.x, best.fun], [0.349, 0.585, 77.1], rtol=1e-3)
