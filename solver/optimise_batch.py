"""`optimise` for many problems at once, which share their variables, bounds and groups of constraints.

Sequential quadratic programming in a box of trust: each iteration takes one call of the model, with slopes, for all
problems that are still open, and solves their quadratic programs together (`quadratic`). The constraints' nearest
rows enter one by one, as in `optimise`. The merit is the objective and, times a penalty above the multipliers, the
worst violation, so that a problem without a feasible point ends where that is least; a step that does not improve it
is corrected for the curvature of its constraints before the box shrinks (Fletcher, Practical Methods of Optimization,
2nd ed., 1987, section 14.4). The Hessian of the Lagrangian is Powell's damped update of BFGS (Nocedal and Wright,
2006, procedure 18.2). Multipliers and what is left of the slope are those of `optimise.optimality`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .optimise import ACTIVE, AT_BOUND, FEASIBLE, STATIONARY, WORSE, optimality
from .quadratic import minimum

NEAREST = 8  # rows of a group that enter one by one
ITERATIONS = 60
GAIN = 1e-9  # promised scaled gain at which a problem is solved
BOX, SMALLEST_BOX, LARGEST_BOX = 0.25, 1e-7, 1.0  # of trust
PENALTY, LARGEST_PENALTY = 1.0, 1e6  # of the scaled violation
ACCEPTED, GOOD = 0.1, 0.75  # share of the promised gain that a step, and a larger box, need


class Evaluations(NamedTuple):
    """As `optimise.Evaluation`, the n problems first: (n,), (n, k), (n, m), (n, m, k)."""

    objective: np.ndarray
    slope: np.ndarray
    margins: np.ndarray
    jacobian: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        """(n,) problems without NaN or infinity."""
        parts = (np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in self)
        return np.logical_and.reduce(list(parts))


class Solutions(NamedTuple):
    """Where n searches ended, as `optimise.Solution`.

    Attributes:
        x: (n, k).
        found: There.
        multipliers: (n, m) of the rows of margins, in the objective's unit for one of theirs; 0 where infeasible.
        residual: (n,) share of the objective's slope that nothing active balances; NaN where infeasible.
        violation: (n,) largest scaled one.
        feasible, converged: (n,).
        calls: (n,) evaluations.
    """

    x: np.ndarray
    found: Evaluations
    multipliers: np.ndarray
    residual: np.ndarray
    violation: np.ndarray
    feasible: np.ndarray
    converged: np.ndarray
    calls: np.ndarray


def minimise(
    evaluate: Callable[[np.ndarray, np.ndarray], Evaluations],
    start: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    groups: np.ndarray,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Solutions:
    """Searches from `start` (n, k), all of them at once.

    Args:
        evaluate: Called with points (p, k) and the problems (p,) that they are of.
        low, high: (k,) bounds of all.
        groups: (m,) group of each row of margins, as `optimise.Problem`.
        progress: Called after each iteration with the problems that are done, and with all.
    """
    span = high - low
    n, k = start.shape
    z = np.clip((start - low) / span, 0, 1)
    everyone = np.arange(n)
    first = evaluate(low + z * span, everyone)
    good = first.finite
    unit = np.linalg.norm(first.slope * span, axis=1)
    unit = np.where(good & (unit > 0), unit, np.maximum(np.abs(first.objective), 1.0))
    lengths = np.linalg.norm(first.jacobian * span, axis=2)
    units = np.ones((n, len(groups)))
    for group in np.unique(groups):
        of = groups == group
        longest = lengths[:, of].max(axis=1)
        units[:, of] = np.where(good & (longest > 0), longest, 1.0)[:, None]

    def scaled(found: Evaluations, which: np.ndarray) -> Evaluations:
        slope = found.slope * span / unit[which, None]
        jacobian = found.jacobian * span / units[which][..., None]
        out = Evaluations(found.objective / unit[which], slope, found.margins / units[which], jacobian)
        fill = (WORSE, 0.0, -WORSE, 0.0)
        bad = ~found.finite
        return Evaluations(
            *(
                np.where(bad.reshape(-1, *[1] * (part.ndim - 1)), value, part)
                for part, value in zip(out, fill)
            )
        )

    here = scaled(first, everyone)
    hessian = np.tile(np.eye(k), (n, 1, 1))
    box, penalty = np.full(n, BOX), np.full(n, PENALTY)
    # Of a step that was refused: what its linear constraints had missed, and what it had promised.
    missed, promise = np.zeros_like(here.margins), np.full(n, np.nan)
    open_, calls = good.copy(), np.ones(n, int)
    for _ in range(ITERATIONS):
        which = np.flatnonzero(open_)
        progress(n - len(which), n)
        if len(which) == 0:
            break
        now = _of(here, which)
        rows = _nearest(now.margins, groups)
        step, weights, left = _step(
            now, missed[which], rows, z[which], hessian[which], box[which], penalty[which]
        )
        again = np.isfinite(promise[which])
        worst = _violation(now.margins)
        curved = 0.5 * np.einsum("ni,nij,nj->n", step, hessian[which], step)
        linear = penalty[which] * (worst - left) - np.einsum("ni,ni->n", now.slope, step) - curved
        promised = np.where(again, promise[which], linear)
        # The penalty holds while it outweighs the multipliers and the steps can meet the constraints.
        raised = (left > FEASIBLE) & (linear <= 0.1 * penalty[which] * worst) & ~again
        raised &= penalty[which] < LARGEST_PENALTY
        penalty[which[raised]] *= 10
        solved = (promised <= GAIN) & ~raised & ~again
        open_[which[solved]] = False
        trying = np.flatnonzero(~solved & ~raised)
        if len(trying) == 0:
            continue
        tried = which[trying]
        heavier = np.minimum(2 * weights[trying].sum(axis=1), LARGEST_PENALTY)
        penalty[tried] = np.maximum(penalty[tried], heavier)
        there_z = np.clip(z[tried] + step[trying], 0, 1)
        there = scaled(evaluate(low + there_z * span, tried), tried)
        calls[tried] += 1
        merit = now.objective[trying] + penalty[tried] * worst[trying]
        gained = merit - there.objective - penalty[tried] * _violation(there.margins)
        reached = np.abs(step[trying]).max(axis=1)
        accepted = gained > ACCEPTED * promised[trying]
        widen = accepted & (gained > GOOD * promised[trying]) & (reached > 0.9 * box[tried])
        box[tried] = np.where(widen, np.minimum(2 * box[tried], LARGEST_BOX), box[tried])
        # A step is first corrected for the curvature of its constraints, then shortened.
        second = ~accepted & ~again[trying] & (there.objective < WORSE)
        shorter = ~accepted & ~second
        box[tried[shorter]] = reached[shorter] / 4
        bent = there.margins - now.margins[trying]
        bent -= np.einsum("nmk,nk->nm", now.jacobian[trying], step[trying])
        missed[tried] = np.where(second[:, None], bent, 0.0)
        promise[tried] = np.where(second, promised[trying], np.nan)
        moved, taken = tried[accepted], trying[accepted]
        pair = (_of(now, taken), _of(there, accepted))
        slopes = (
            one.slope - np.einsum("nm,nmk->nk", weights[taken], _taken(one.jacobian, rows[taken]))
            for one in pair
        )
        hessian[moved] = _updated(hessian[moved], there_z[accepted] - z[moved], *slopes)
        z[moved] = there_z[accepted]
        for part, new in zip(here, there):
            part[moved] = new[accepted]
        open_[tried[box[tried] < SMALLEST_BOX]] = False
    return _concluded(low + z * span, z, here, unit, units, span, good, calls)


def _of(found: Evaluations, which: np.ndarray) -> Evaluations:
    return Evaluations(*(part[which] for part in found))


def _violation(margins: np.ndarray) -> np.ndarray:
    return np.max(-margins, axis=1, initial=0.0)


def _nearest(margins: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n, rows) the rows of each group with the least margins."""
    chosen = []
    for group in np.unique(groups):
        of = np.flatnonzero(groups == group)
        order = np.argsort(margins[:, of], axis=1, kind="stable")[:, :NEAREST]
        chosen.append(of[order])
    return np.concatenate(chosen, axis=1) if chosen else np.zeros((len(margins), 0), int)


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, rows.reshape(*rows.shape, *[1] * (values.ndim - 2)), axis=1)


def _step(now, missed, rows, z, hessian, box, penalty) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps (n, k), multipliers of the rows, and the violation (n,) that the linear constraints leave."""
    n, k = z.shape
    margins, slopes = _taken(now.margins + missed, rows), _taken(now.jacobian, rows)
    m = margins.shape[1]
    # Unknowns: the step and the violation. Rows: constraints, both sides of the box, violation >= 0.
    B = np.zeros((n, k + 1, k + 1))
    B[:, :k, :k] = hessian
    g = np.concatenate([now.slope, penalty[:, None]], axis=1)
    A = np.zeros((n, m + 2 * k + 1, k + 1))
    A[:, :m, :k], A[:, :m, k] = slopes, 1
    A[:, m : m + k, :k], A[:, m + k : m + 2 * k, :k] = np.eye(k), -np.eye(k)
    A[:, -1, k] = 1
    down, up = np.minimum(box[:, None], z), np.minimum(box[:, None], 1 - z)
    # A variable at its bound may not leave the program without an interior.
    b = np.concatenate([margins, down, up, np.zeros((n, 1))], axis=1)
    b[:, m : m + 2 * k] += 1e-12
    found = minimum(B, g, A, b)
    step = np.clip(found.d[:, :k], -down, up)
    left = np.max(-(margins + np.einsum("nmk,nk->nm", slopes, step)), axis=1, initial=0.0)
    return step, found.multipliers[:, :m], left


def _updated(B: np.ndarray, s: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Hessians after steps s that have changed the slopes of the Lagrangians."""
    y = after - before
    Bs = np.einsum("nij,nj->ni", B, s)
    sBs, sy = np.einsum("ni,ni->n", s, Bs), np.einsum("ni,ni->n", s, y)
    damped = sy < 0.2 * sBs
    share = np.where(damped, 0.8 * sBs / np.where(damped, sBs - sy, 1.0), 1.0)
    r = share[:, None] * y + (1 - share[:, None]) * Bs
    sr = np.einsum("ni,ni->n", s, r)
    some = (sBs > 1e-16) & (sr > 1e-16)
    new = (
        B
        - Bs[:, :, None] * Bs[:, None] / np.where(some, sBs, 1.0)[:, None, None]
        + r[:, :, None] * r[:, None] / np.where(some, sr, 1.0)[:, None, None]
    )
    return np.where(some[:, None, None], new, B)


def _concluded(x, z, here, unit, units, span, good, calls) -> Solutions:
    """With multipliers, in the problems' own units."""
    n, m = here.margins.shape
    found = Evaluations(
        here.objective * unit,
        here.slope * unit[:, None] / span,
        here.margins * units,
        here.jacobian * units[..., None] / span,
    )
    violation = _violation(here.margins)
    feasible = good & (violation <= FEASIBLE)
    multipliers, residual = np.zeros((n, m)), np.full(n, np.nan)
    for i in np.flatnonzero(feasible):
        one = Evaluations(*(part[i] for part in here))
        at = optimality(
            one, one.margins <= ACTIVE, z[i] <= AT_BOUND, z[i] >= 1 - AT_BOUND, np.ones(len(span)), 1.0
        )
        multipliers[i], residual[i] = at.rows * unit[i] / units[i], at.residual
    converged = feasible & (np.nan_to_num(residual, nan=np.inf) <= STATIONARY)
    return Solutions(x, found, multipliers, residual, violation, feasible, converged, calls)
