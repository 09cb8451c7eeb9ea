"""The program of docs/embedding.md, run as it stands there, and its numbers."""

import re
from pathlib import Path

import jax
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


def test_slopes_of_the_rejected_heat(program):
    heat = jax.jit(jax.vmap(program["heat_rejected"]))
    sizes = [program[name] for name in ("lengths", "thicknesses", "roots")]
    for i, name in enumerate(("by_length", "by_thickness", "by_root")):
        step = 1e-4 * sizes[i]
        more, less = ([*sizes[:i], sizes[i] + sign * step, *sizes[i + 1 :]] for sign in (1, -1))
        # Central differences, their own error 1e-8.
        np.testing.assert_allclose(program[name], (heat(*more) - heat(*less)) / (2 * step), rtol=1e-6)
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
