"""Many designs sized at once: a family of cases that differ in some keys, each with its own best values of others.

    found = size_batch(case, {"orbit.altitude_km": np.linspace(500, 1400, 1000)})
    found.x[:, 0]   # of the first variable of [sizing], at each altitude

All designs go through the same iterations (`optimise_batch`), so that each takes one compiled call of the model for
all that are still open, a chunk at a time: rows of different designs fill the devices as those of a fleet do.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import keys
from .case import CaseError
from .optimise_batch import Evaluations, Solutions, minimise
from .schema import Case
from .sizing import Task, check_variables, model_of, section


@dataclass(frozen=True)
class SizedBatch:
    """What sizing a family has found, n designs.

    Attributes:
        fixed: The keys in which the designs differ, (n,) each.
        variables: Names of the k variables.
        x: (n, k) their best values.
        objective: (n,) in the figure's unit.
        constraints: Names of the constraints.
        margins: (n, constraints) the least of each.
        worth: (n, constraints) what one unit of it is worth, in the objective's unit; 0 where it does not bind, NaN
            where the search has not converged.
        solutions: All that the search knows.
        wall: Seconds: all, compile, run.
    """

    fixed: dict[str, np.ndarray]
    variables: tuple[str, ...]
    x: np.ndarray
    objective: np.ndarray
    constraints: tuple[str, ...]
    margins: np.ndarray
    worth: np.ndarray
    solutions: Solutions
    wall: dict[str, float]

    @property
    def feasible(self) -> np.ndarray:
        """(n,) whether all constraints are met."""
        return self.solutions.feasible

    @property
    def converged(self) -> np.ndarray:
        """(n,) whether the first-order conditions hold too."""
        return self.solutions.converged


def size_batch(
    case: Case,
    fixed: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> SizedBatch:
    """Size a family of cases as the [sizing] section of one says, each from that case's own values, in one search.

    Args:
        case: With [sizing]; `starts` and `smooth` are of no use here.
        fixed: (n,) values of continuous keys that are no variables.
        progress: Called with designs that are done, and with all, after each iteration.

    Raises:
        CaseError: as `sizing.size`; a fixed key that cannot vary, is a variable too, or has a value out of its range.
    """
    began = time.perf_counter()
    spec = section(case)
    check_variables(case, spec)
    values = {name: np.asarray(value, float) for name, value in fixed.items()}
    _check(case, values, [variable.name for variable in spec.variables])
    return search_batch(case, model_of(case, tuple(values)), values, progress, began)


def search_batch(
    case: Case,
    model: Any,
    fixed: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] = lambda done, all: None,
    began: float | None = None,
) -> SizedBatch:
    """As `size_batch`, with a `differentiable.Differentiable` whose keys are the variables and the fixed ones."""
    from .differentiable import chunk_size

    began = time.perf_counter() if began is None else began
    n = len(next(iter(fixed.values())))
    task = Task(case, model, chunk_size(model, n))
    full = np.tile(np.asarray(model.start, float), (n, 1))
    for name, value in fixed.items():
        full[:, model.names.index(name)] = value

    def evaluate(x: np.ndarray, which: np.ndarray) -> Evaluations:
        entries = full[which]
        entries[:, task.entries] = x
        return Evaluations(*task.evaluate_all(entries))

    start = np.tile(task.start, (n, 1))
    found = minimise(evaluate, start, task.low, task.high, task.groups, progress)
    if not task.sensitive:
        raise CaseError(task.insensitive())
    which = [task.groups == group for group in range(len(task.constraints))]
    margins, worth = np.zeros((n, len(which))), np.full((n, len(which)), np.nan)
    for group, of in enumerate(which):
        margins[:, group] = found.found.margins[:, of].min(axis=1)
        for i, at in enumerate(found.optimality):
            if at is not None and at.stationary:
                worth[i, group] = at.rows[of].sum()
    return SizedBatch(
        dict(fixed),
        tuple(task.names),
        found.x,
        -task.objective.better * found.found.objective,
        tuple(one.name for one in task.constraints),
        margins,
        worth,
        found,
        {"all": time.perf_counter() - began} | task.slopes.wall,
    )


def _check(case: Case, fixed: Mapping[str, np.ndarray], variables: list[str]) -> None:
    """Raise CaseError unless the fixed keys can have their values."""
    if not fixed:
        raise CaseError(f"{case.source}: a family of cases needs a key in which they differ; got none")
    lengths = {name: np.shape(value) for name, value in fixed.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in lengths.values()):
        said = ", ".join(f"{name} {list(shape)}" for name, shape in lengths.items())
        raise CaseError(f"{case.source}: the keys of a family need one value a design each; got {said}")
    for name, value in fixed.items():
        key = keys.find(case, name)
        if name in variables:
            raise CaseError(f"{case.source}: {name}: is a variable of [sizing]; designs differ in other keys")
        for one in (value.min(), value.max(), *value[~np.isfinite(value)][:1]):
            if not key.holds(one):
                raise CaseError(f"{case.source}: {name}: got {one:g}; must be {key.range}")
            keys.changed(case, {name: one})
