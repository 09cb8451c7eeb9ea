"""A case as a function of its keys: what a run gives, derivatives in both modes, smooth extremes, messages."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import march
from dawndusk.solver import build
from dawndusk.solver import case as cases
from dawndusk.solver.differentiable import Differentiable, evaluate
from dawndusk.solver.quantities import quantities
from dawndusk.solver.run import row_count

# The smallest grid, few steps, one epoch; of a large fleet two planes.
SMALL = ("run.cells=[8,6]", "run.steps=32", "epoch.count=1")
PLANES = ("orbit.planes=2", "orbit.satellites_per_plane=1")
# Relative error of a derivative, and of a figure by rounding alone, which a difference divides by its step.
RELATIVE, ROUNDING = 1e-5, 2e-12
SOME = (
    "radiator.area_m2",
    "orbit.altitude_km",
    "payload.power_kw",
    "battery.capacity_kwh",
    "loop.mass_flow_kg_s",
)


@cache
def small(name, *overrides):
    more = PLANES if name == "project_sunrise" else ()
    return cases.load(name, [*SMALL, *more, *overrides])


def differences(model, x, keys):
    """Derivatives of all figures by some entries of x, (figures, keys), and what rounding leaves of each.

    By Richardson's extrapolation, fourth order in the step.
    """
    h = np.maximum(1e-4 * np.abs(x[keys]), 1e-6)
    shifts = np.zeros((4, len(keys), len(x)))
    for k, factor in enumerate((1.0, -1.0, 0.5, -0.5)):
        shifts[k, np.arange(len(keys)), keys] = factor * h
    found = evaluate(model, (x + shifts).reshape(-1, len(x)))
    assert (found.status == march.CONVERGED).all()
    values = np.stack([found.figures[name] for name in model.figures]).reshape(-1, 4, len(keys))
    once, half = (values[:, 0] - values[:, 1]) / (2 * h), (values[:, 2] - values[:, 3]) / h
    return (4 * half - once) / 3, ROUNDING * np.maximum(np.abs(values[:, 0]), 1.0) / h


def errors(slopes, expected, rounding):
    """Relative errors of derivatives, 0 where they are lost in rounding."""
    off = np.abs(slopes - expected)
    return np.where(off <= rounding, 0.0, off / np.maximum(np.abs(expected), 1e-300))


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("name", ["suncatcher", "suncatcher_prototype"])
def test_figures_are_those_of_a_run(name):
    """What a run computes of the same case, by the same march from arrays made on the host."""
    case = small(name)
    model = Differentiable(case, ["radiator.area_m2"], tolerance=1e-9)
    fleet = build.build(case, np.float64)
    rows = np.arange(row_count(fleet))
    loads = jax.vmap(partial(_loads, steps=32), out_axes=-1)(build.rows_of(fleet.revolutions, rows, 0))
    params, state = (
        jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), build.rows_of(tree, rows, -1))
        for tree in (fleet.params, fleet.state)
    )
    _, cycle, record = jax.jit(partial(march.cyclic, tolerance=1e-9))(params, loads, state)
    found = quantities(params, 0 * loads.dt[0], loads, cycle, record)
    figures = evaluate(model, model.start[None]).figures
    chip = fleet.params.network.names.index("chip")
    for figure, value in {
        "peak_chip_temperature": found["node_max_c"][chip],
        "coldest_coolant_temperature": found["coolant_min_c"],
        "peak_panel_temperature": found["panel_max_c"],
        "min_state_of_charge": 100 * found["soc_min"],
        "depth_of_discharge": 100 * found["depth_of_discharge"],
        "energy_balance": found["energy_balance_kwh"],
        "delivered_compute": found["payload_power_kw"],
        "compute_percent": found["compute_percent"],
    }.items():
        np.testing.assert_allclose(figures[figure][0], float(value[0]), rtol=1e-8, atol=1e-7, err_msg=figure)
    assert figures["mass"][0] == pytest.approx(fleet.mass_kg, rel=1e-12)
    # Nothing is shed: what would be left in the battery without a floor is what is.
    floor = 100 * case.battery.min_soc
    assert figures["margin of state of charge"][0] == pytest.approx(figures["min_state_of_charge"][0] - floor)


def _loads(revolution, steps):
    from dawndusk.kernels.revolution import revolution_loads

    return revolution_loads(revolution, steps)
