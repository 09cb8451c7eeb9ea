"""How far grid and time step put a run's headline figures off, by Richardson extrapolation.

The rows that set the figures are solved again with half the cells along each axis, and there again with half the time
steps, all in one small batch. Where the scheme is of second order, an error on the run's grid is

    f(fine) - f(exact) = -(f(fine) - f(coarse))/(r^2 - 1)

with r the ratio of cell sizes or of steps; what is reported is f(exact) - f(fine), to be added to the figure. That of
the time step is taken on the coarser grid, which changes it by the product of both errors only. An estimate and no
bound (Roache, Annu. Rev. Fluid Mech. 29 (1997) 123): it says nothing of the model, and little below the 5 mK to which
a periodic orbit is found. Estimated errors stand beside measured ones in docs/physics.md.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels import march, revolution
from . import build
from .figures import HEADLINES
from .quantities import quantities
from .reductions import Extreme, Reached, reduce
from .run import Clock, Joined, first_place, orbit_mean

BATCH = 8  # rows; no less than there are headlines
FEWEST_CELLS, FEWEST_STEPS = (4, 6), 16  # of a case
LEAST_RATIO = 1.5  # below it, differences of rounding weigh too much in the estimate


def coarser_cells(cells: tuple[int, int], passes: int = 1) -> tuple[tuple[int, int], float] | None:
    """Half the cells along each axis, or the nearest grid that is admitted, and how many times larger its cells are.

    The smaller ratio of the two axes, which errs on the safe side; None where it would be less than LEAST_RATIO.
    """
    ratio = min(2.0, *(n / least for n, least in zip(cells, FEWEST_CELLS)))
    if ratio < LEAST_RATIO:
        return None
    coarse = (round(cells[0] / ratio), round(cells[1] / ratio))
    return coarse, min(n / m for n, m in zip(build.grid(passes, cells), build.grid(passes, coarse)))


def coarser_steps(steps: int, edges: int = 0) -> tuple[int, float] | None:
    """Half the steps, or as few as are admitted, and the ratio; None where it would be less than LEAST_RATIO.

    Args:
        edges: Of the demand over the revolution, each of which needs steps of its own.
    """
    coarse = max(FEWEST_STEPS, revolution.fewest_steps(edges), round(steps / 2))
    return (coarse, steps / coarse) if steps / coarse >= LEAST_RATIO else None


def estimate(outcome: Any) -> dict[str, Any] | None:
    """Errors of grid and time step of the headline figures of a finished `run.Outcome`, as plain numbers and text.

    None where the case wants none, or rows are still to be solved. `figures` has one entry for each figure, by the
    name that the summary gives it; an error that could not be estimated is None, and `missing` says why.
    """
    case, fleet = outcome.case, outcome.fleet
    if not case.run.error_estimate or not outcome.scalars:
        return None
    run, missing = case.run, []
    grid = coarser_cells(run.cells, case.radiator.passes)
    time = coarser_steps(run.steps, fleet.revolutions.demand_edges.shape[-1])
    if grid is None:
        least = " x ".join(str(n) for n in FEWEST_CELLS)
        missing.append(
            f"the grid: {run.cells[0]} x {run.cells[1]} cells cannot be halved, {least} is the least"
        )
    if time is None:
        missing.append(f"the time step: {run.steps} steps cannot be halved")
    found = {
        "cells": list(run.cells if grid is None else grid[0]),
        "steps": run.steps if time is None else time[0],
        "figures": [],
        "missing": missing,
    }
    nodes = tuple(fleet.params.network.names)
    figures = [one for one in HEADLINES if one.there(outcome.scalars, nodes)]
    worst = [Extreme(partial(one.badness, nodes=nodes), _converged) for one in figures]
    reached = Reached()
    reduce(outcome, reached, *worst)
    if reached.count < outcome.rows:
        return None
    rows = [one.row for one in worst if one.row is not None]
    if not rows:
        missing.append("grid and time step: no revolution has converged")
    if not rows or (grid is None and time is None):
        return found
    distinct = sorted(set(rows))
    place = [distinct.index(row) for row in rows]
    # On a coarser grid its own answer at the run's steps comes first, to compare with.
    steps = ([run.steps] if grid is not None else []) + ([time[0]] if time is not None else [])
    with Clock(outcome.wall, "accuracy"):
        coarse = _solve(case, fleet, distinct, found["cells"], steps, sorted({one.key for one in figures}))
    for figure, seen, row, k in zip(figures, worst, rows, place):
        at_steps = figure.values(coarse, nodes)[k::BATCH]
        fine = seen.of(partial(figure.values, nodes=nodes))
        grid_error = None if grid is None else _richardson(fine, at_steps[0], grid[1])
        reference = fine if grid is None else at_steps[0]
        time_error = None if time is None else _richardson(reference, at_steps[-1], time[1])
        satellite, epoch = first_place(fleet, row)
        found["figures"].append(
            {
                "name": figure.label,
                "unit": figure.unit,
                "value": fine,
                "grid_error": grid_error,
                "time_error": time_error,
                "satellite": str(fleet.names[satellite]),
                "epoch": f"{fleet.epochs[epoch]:%Y-%m-%dT%H:%MZ}",
            }
        )
    return found


def _converged(scalars) -> np.ndarray:
    return scalars["status"] == march.CONVERGED


def _richardson(fine: float, coarse: float, ratio: float) -> float | None:
    error = (float(fine) - float(coarse)) / (ratio**2 - 1)
    return error if np.isfinite(error) else None


def _solve(case, fleet, rows: list[int], cells, steps: list[int], keys: list[str]) -> dict[str, np.ndarray]:
    """Some quantities of up to BATCH rows on another grid, with each number of steps in turn, BATCH entries each."""
    padded = np.resize(rows, BATCH)

    def repeated(tree):
        taken = build.rows_of(tree, padded, -1)
        return jax.tree.map(lambda leaf: np.moveaxis(np.concatenate([leaf] * len(steps)), 0, -1), taken)

    params, state = repeated(fleet.params), repeated(fleet.state)
    cells = build.grid(case.radiator.passes, cells)
    everywhere = np.mean(state.panel, axis=(0, 1))  # a run starts uniform
    state = replace(state, panel=np.broadcast_to(everywhere, (*cells, len(everywhere))))
    program = jax.jit(partial(_coarse, cells=cells, steps=tuple(steps), mode=case.run.mode, keys=tuple(keys)))
    joined = Joined()
    for k in range(case.run.revolutions):
        state, found = program(build.advance(fleet, k, padded), params, state)
        joined.add({name: np.moveaxis(np.asarray(value), -1, 0) for name, value in found.items()})
    return joined.values()


def _coarse(revolutions, params, state, *, cells, steps, mode, keys):
    """One revolution of every row with every number of steps: state at its end, and the quantities asked for."""

    def loads_of(n):
        loads = jax.vmap(partial(revolution.revolution_loads, n_steps=n), out_axes=-1)(revolutions)
        loads = orbit_mean(loads) if mode == "steady" else loads
        # Steps of no length at the end, of which nothing comes, give all rows one shape.
        longer = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], max(steps) - n, 0)]), loads)
        return replace(longer, dt=longer.dt.at[n:].set(0))

    parts = [loads_of(n) for n in steps]
    loads = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, -1), *parts)
    nx, ny = cells
    params = replace(params, panel=replace(params.panel, nx=nx, ny=ny))
    if mode == "transient":
        cycle, (state, record) = None, march.transient(params, loads, state)
    else:
        state, cycle, record = march.cyclic(params, loads, state)
    found = quantities(params, jnp.zeros_like(loads.dt[0]), loads, cycle, record)
    joining = ("panel_max_c", "panel_min_c", "period_min", "soc_min", "soc_max")  # what Joined looks at
    return state, {name: value for name, value in found.items() if name in keys or name in joining}
