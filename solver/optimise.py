"""Least objective under bounds and many inequality constraints: SciPy's SLSQP, and multipliers that check its answer.

Where SLSQP stalls, at a kink within a row say, the search goes on in a box of trust (`optimise_batch`).

Constraints come in groups, one for each limit, with a row for each revolution. A limit is met where its least row is,
and the least of several rows has kinks, at which a method for smooth problems stalls. So the rows nearest to their
limit enter one by one, which is smooth, and only the rest of a group as its least. Variables run from 0 to 1 between
their bounds; objective and groups are divided by the length of their slopes at the start.

The optimum is checked by the conditions of Karush, Kuhn and Tucker (Nocedal and Wright, Numerical Optimization, 2nd
ed., 2006, section 12.3): with the slopes of everything active the objective's slope must be a sum of theirs with
multipliers >= 0. Those are found by non-negative least squares, whose residual says how far the point is from being
stationary, whatever the optimiser claims. SLSQP is Kraft, DFVLR-FB 88-28 (1988).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

NEAREST = 24  # rows of a group that enter one by one
FEASIBLE = 1e-6  # scaled violation that counts as none
ACTIVE = 1e-4  # scaled margin below which a row binds
AT_BOUND = 1e-6  # share of its range within which a variable is at its bound
ROUNDING = 1e-9  # length of a row's slope, as a share of the longest, that changes nothing
STATIONARY = 1e-3  # of the objective's slope, that no active constraint balances
PRECISION, ITERATIONS = 1e-8, 60  # of SLSQP: change of the scaled objective, and iterations of one call
ROUNDS = 4  # of SLSQP with rows chosen anew
CALLS = 200  # of the model in one search
FIRST = 60  # of them by SLSQP, before another way is tried
WORSE = 1e4  # scaled objective and violation where the model has no finite answer


class _Spent(Exception):
    """A search has made the calls that it may."""


class NoStart(ValueError):
    """The problem has no finite answer where the search is to start."""


class Evaluation(NamedTuple):
    """What the problem is at one point.

    Attributes:
        objective: To be made as small as may be.
        slope: (k,) of it.
        margins: (m,) of the constraints' rows, >= 0 where met.
        jacobian: (m, k) of them.
    """

    objective: float
    slope: np.ndarray
    margins: np.ndarray
    jacobian: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether there is no NaN or infinity in it."""
        return bool(np.isfinite(self.objective)) and all(np.isfinite(part).all() for part in self[1:])


@dataclass(frozen=True)
class Problem:
    """Least `evaluate(x).objective` with every margin >= 0 and low <= x <= high.

    Attributes:
        evaluate: x (k,) -> Evaluation.
        low, high: (k,), low < high.
        groups: (m,) group of each row, 0 .. groups - 1.
    """

    evaluate: Callable[[np.ndarray], Evaluation]
    low: np.ndarray
    high: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Optimality:
    """Multipliers at a point, and how nearly they make it an optimum.

    Attributes:
        rows: (m,) what one unit of each row's margin is worth in the objective's unit, >= 0; 0 if not active.
        low, high: (k,) likewise of the bounds, in the objective's unit for one of the variable's.
        residual: Length of the slope that nothing active balances, as a share of the objective's slope, there or at
            the start, whichever is longer.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    residual: float

    @property
    def stationary(self) -> bool:
        """Whether the slope is balanced but for rounding and the search's tolerance."""
        return self.residual <= STATIONARY


@dataclass(frozen=True)
class Solution:
    """Where one search ended.

    Attributes:
        x: (k,).
        found: There.
        violations: (m,) scaled, 0 where met.
        active: (m,) rows that bind or are violated.
        optimality: There.
        feasible, converged: Whether all constraints are met, and whether the point is stationary too.
        history: (calls, 2) objective and worst scaled margin of each evaluation, in order; NaN where not finite.
    """

    x: np.ndarray
    found: Evaluation
    violations: np.ndarray
    active: np.ndarray
    optimality: Optimality
    feasible: bool
    converged: bool
    history: np.ndarray


def minimise(
    problem: Problem,
    start: np.ndarray,
    progress: Callable[[int, float, float], None] = lambda calls, objective, margin: None,
) -> Solution:
    """The best point that a search from `start` (k,) finds; of an infeasible problem, that of the least violation.

    SLSQP, begun again from the best point, with the rows nearest there, while that helps. Where that does not end at
    an optimum within FIRST calls, a box of trust goes on. Where no point found is feasible, the least worst violation
    is sought, and from there the search goes on. It ends after CALLS at the latest.

    Args:
        progress: Called after each evaluation with their number, the objective and the worst scaled margin.

    Raises:
        NoStart: no finite answer at the start.
    """
    scaled = _Scaled(problem, np.asarray(start, float), progress)
    scaled.allowed = FIRST
    with suppress(_Spent):
        _rounds(scaled)
    scaled.allowed = CALLS
    with suppress(_Spent):
        if not scaled.solved:
            _trusted(scaled)
        if scaled.best.violation > FEASIBLE:
            _least_violation(scaled)
            if scaled.best.violation <= FEASIBLE:
                _rounds(scaled)
    best = scaled.best
    feasible, optimality = best.violation <= FEASIBLE, scaled.optimality(best)
    return Solution(
        problem.low + best.z * scaled.span,
        best.found,
        np.maximum(-best.found.margins / scaled.row_units, 0.0),
        scaled.active(best),
        optimality,
        feasible,
        feasible and optimality.stationary,
        np.array(scaled.history).reshape(-1, 2),
    )


def optimality(
    found: Evaluation,
    active: np.ndarray,
    at_low: np.ndarray,
    at_high: np.ndarray,
    span: np.ndarray,
    usual: float,
) -> Optimality:
    """Multipliers by non-negative least squares.

    Args:
        active: (m,) whether each row binds.
        at_low, at_high: (k,) whether each variable is at its bound.
        span: (k,) unit of each variable, in which the slope that is left is measured.
        usual: Length of the objective's slope elsewhere: that at an optimum between all bounds is none.
    """
    from scipy.optimize import nnls

    slope, rows = found.slope * span, found.jacobian[active] * span
    # Rows of like length, so that the least squares weigh a kelvin as a kilowatt-hour; what is but rounding has none.
    length = np.linalg.norm(rows, axis=1)
    length = np.where(length > ROUNDING * length.max(initial=0.0), length, np.inf)
    one = np.eye(len(slope))
    columns = np.concatenate([rows / length[:, None], one[at_low], -one[at_high]]).T
    size = max(float(np.linalg.norm(slope)), usual)
    weights, left = np.zeros(columns.shape[1]), float(np.linalg.norm(slope)) / size
    if columns.shape[1]:
        weights, left = nnls(columns, slope / size)
    worth, low, high = np.zeros(len(found.margins)), np.zeros(len(slope)), np.zeros(len(slope))
    parts = np.split(size * weights, np.cumsum([active.sum(), at_low.sum()]))
    worth[active], low[at_low], high[at_high] = (
        parts[0] / length,
        parts[1] / span[at_low],
        parts[2] / span[at_high],
    )
    return Optimality(worth, low, high, float(left))


def scale(found: Evaluation, span: np.ndarray, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """Units of the objective and of each row (m,): the length of its slope and of the longest of its group.

    Args:
        span: (k,) unit of each variable.
        groups: (m,) group of each row.
    """
    unit = float(np.linalg.norm(found.slope * span)) or max(abs(found.objective), 1.0)
    lengths, units = np.linalg.norm(found.jacobian * span, axis=1), np.ones(len(groups))
    for group in np.unique(groups):
        of = groups == group
        # A margin that nothing changes here, such as a battery's that is not drawn on, may bind elsewhere.
        units[of] = lengths[of].max() or np.abs(found.margins[of]).max() or 1.0
    return unit, units


class _Point(NamedTuple):
    z: np.ndarray
    found: Evaluation
    violation: float


class _Scaled:
    """The problem between 0 and 1, with what has been found so far."""

    def __init__(self, problem: Problem, start: np.ndarray, progress: Callable[[int, float, float], None]):
        self.problem, self.progress = problem, progress
        self.span = problem.high - problem.low
        self.groups = int(problem.groups.max()) + 1 if len(problem.groups) else 0
        z = np.clip((start - problem.low) / self.span, 0, 1)
        self.history: list[tuple[float, float]] = []
        found = problem.evaluate(problem.low + z * self.span)
        if not found.finite:
            raise NoStart("no finite answer at the start")
        self.unit, self.row_units = scale(found, self.span, problem.groups)
        self.allowed = CALLS
        self.best = self.last = _Point(z, found, self.violation(found))
        self.kink: tuple[_Point, Optimality] | None = None
        self._note(found)

    def violation(self, found: Evaluation) -> float:
        return float(np.max(-found.margins / self.row_units, initial=0.0))

    def _note(self, found: Evaluation) -> None:
        margin = float(np.min(found.margins / self.row_units, initial=np.inf))
        self.history.append((found.objective, margin) if found.finite else (np.nan, np.nan))
        self.progress(len(self.history), *self.history[-1])

    def at(self, z: np.ndarray) -> _Point:
        """The problem there; the last one asked for is kept."""
        z = np.clip(z, 0, 1)
        if np.array_equal(z, self.last.z):
            return self.last
        if len(self.history) >= self.allowed:
            raise _Spent
        found = self.problem.evaluate(self.problem.low + z * self.span)
        self._note(found)
        self.last = _Point(z, found, self.violation(found) if found.finite else WORSE)
        if self.better(self.last, self.best):
            self.best = self.last
        return self.last

    @property
    def solved(self) -> bool:
        """Whether the best point is feasible and stationary."""
        return self.best.violation <= FEASIBLE and self.optimality(self.best).stationary

    def better(self, one: _Point, other: _Point) -> bool:
        """Whether one is feasible and of less objective, or else violates less."""
        if not one.found.finite:
            return False
        if one.violation <= FEASIBLE and other.violation <= FEASIBLE:
            return one.found.objective < other.found.objective
        return one.violation < other.violation

    def nearest(self, point: _Point) -> np.ndarray:
        """(m,) whether each row is among those of its group that enter one by one."""
        chosen = np.zeros(len(point.found.margins), bool)
        for group in range(self.groups):
            rows = np.flatnonzero(self.problem.groups == group)
            order = np.argsort(point.found.margins[rows], kind="stable")
            chosen[rows[order[:NEAREST]]] = True
        return chosen

    def constraints(self, point: _Point, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scaled margins of the chosen rows and the least of the rest of each group, and their slopes in z."""
        found = point.found
        rows = list(np.flatnonzero(chosen))
        for group in range(self.groups):
            rest = np.flatnonzero((self.problem.groups == group) & ~chosen)
            if len(rest):
                rows.append(rest[np.argmin(found.margins[rest])])
        units = self.row_units[rows]
        if not found.finite:
            return np.full(len(rows), -WORSE), np.zeros((len(rows), len(self.span)))
        return found.margins[rows] / units, found.jacobian[rows] * self.span / units[:, None]

    def objective(self, point: _Point) -> tuple[float, np.ndarray]:
        """Scaled, and its slope in z."""
        if not point.found.finite:
            return WORSE, np.zeros(len(self.span))
        return point.found.objective / self.unit, point.found.slope * self.span / self.unit

    def active(self, point: _Point) -> np.ndarray:
        return point.found.margins / self.row_units <= ACTIVE

    def optimality(self, point: _Point) -> Optimality:
        """There; at a kink with the slopes to its sides, where a search has found them."""
        if self.kink is not None and point is self.kink[0]:
            return self.kink[1]
        low, high = point.z <= AT_BOUND, point.z >= 1 - AT_BOUND
        return optimality(point.found, self.active(point), low, high, self.span, self.unit)


def _rounds(scaled: _Scaled) -> None:
    """SLSQP with the rows nearest at the best point, until it neither helps nor needs to go on."""
    for _ in range(ROUNDS):
        before = scaled.best
        chosen = scaled.nearest(before)
        _slsqp(
            before.z,
            lambda z: scaled.objective(scaled.at(z)),
            lambda z, chosen=chosen: scaled.constraints(scaled.at(z), chosen),
            [(0.0, 1.0)] * len(before.z),
        )
        after = scaled.best
        if scaled.solved:
            return
        if after is before or (
            abs(after.found.objective - before.found.objective) < PRECISION * scaled.unit
            and abs(after.violation - before.violation) < FEASIBLE
        ):
            return


def _trusted(scaled: _Scaled) -> None:
    """Go on from the best point in a box of trust, which shrinks where slopes promise more than there is."""
    from . import optimise_batch

    def evaluate(z: np.ndarray, _) -> optimise_batch.Evaluations:
        found = [scaled.at(one).found for one in z]
        objective, slope, margins, jacobian = (np.stack([one[k] for one in found]) for k in range(4))
        return optimise_batch.Evaluations(objective, slope * scaled.span, margins, jacobian * scaled.span)

    zero = np.zeros(len(scaled.span))
    units = np.array([scaled.unit]), scaled.row_units[None]
    ended = optimise_batch.minimise(
        evaluate, scaled.best.z[None], zero, zero + 1, scaled.problem.groups, units=units
    )
    (at,) = ended.optimality
    if at is not None and at.stationary:
        objective, slope, margins, jacobian = (part[0] for part in ended.found)
        found = Evaluation(float(objective), slope / scaled.span, margins, jacobian / scaled.span)
        scaled.best = _Point(ended.x[0], found, scaled.violation(found))
        scaled.kink = scaled.best, replace(at, low=at.low / scaled.span, high=at.high / scaled.span)


def _slsqp(start, objective, constraints, bounds) -> np.ndarray:
    from scipy.optimize import minimize

    held = []
    if len(constraints(start)[0]):
        held.append({"type": "ineq", "fun": lambda z: constraints(z)[0], "jac": lambda z: constraints(z)[1]})
    return minimize(
        lambda z: objective(z)[0],
        start,
        jac=lambda z: objective(z)[1],
        bounds=bounds,
        constraints=held,
        method="SLSQP",
        options={"ftol": PRECISION, "maxiter": ITERATIONS},
    ).x


def _least_violation(scaled: _Scaled) -> None:
    """Find the point of the least worst violation t: least t >= 0 with margins + t >= 0."""
    k = len(scaled.span)
    for _ in range(ROUNDS):
        before = scaled.best
        chosen = scaled.nearest(before)

        def constraints(zt, chosen=chosen):
            margins, slopes = scaled.constraints(scaled.at(zt[:k]), chosen)
            return margins + zt[k], np.hstack([slopes, np.ones((len(slopes), 1))])

        _slsqp(
            np.append(before.z, before.violation),
            lambda zt: (float(zt[k]), np.eye(k + 1)[k]),
            constraints,
            [(0.0, 1.0)] * k + [(0.0, None)],
        )
        if scaled.best.violation <= FEASIBLE or before.violation - scaled.best.violation < FEASIBLE:
            return
