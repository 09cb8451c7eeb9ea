"""`optimise` for many problems at once, which share their variables, bounds and groups of constraints.

Sequential quadratic programming in a box of trust: each iteration takes one call of the model, with slopes, for all
problems that are still open, and solves their quadratic programs together (`quadratic`). The constraints' nearest
rows enter one by one, as in `optimise`. The merit is the objective and, times a penalty above the multipliers, the
worst violation, so that a problem without a feasible point ends where that is least; a step that does not improve it
is corrected for the curvature of its constraints before the box shrinks (Fletcher, Practical Methods of Optimization,
2nd ed., 1987, section 14.4). The Hessian of the Lagrangian is Powell's damped update of BFGS (Nocedal and Wright,
2006, procedure 18.2).

A row may have kinks of its own, where a battery charges no faster say, and optima often lie there. The last points
therefore count with their slopes too, as in a bundle method (Schramm and Zowe, SIAM J. Optimization 2 (1992) 121): a
step that was refused leaves the slopes beyond the kink. Where a plane of the past lies below the row itself, which
is not concave then, it is lifted by as much above it. Multipliers and what is left of the slope are those of
`optimise.optimality`, with the slopes to all sides of a kink.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .optimise import ACTIVE, AT_BOUND, FEASIBLE, WORSE, Evaluation, Optimality, optimality, scale
from .quadratic import minimum

NEAREST = 8  # rows of a group that enter one by one
POINTS, BENT = 8, 2  # of the past that are kept, and rows of a group that count with their slopes there
HELD = 1e-6  # multiplier of a plane that holds back a step
NEAR = 1e-3  # share of the variables' ranges within which slopes are those to another side of a kink
ITERATIONS = 60
FLAT = 1e-6  # scaled slope that counts as none
GAIN = 1e-9  # promised scaled gain at which a problem is solved
BOX, SMALLEST_BOX, LARGEST_BOX = 0.25, 1e-7, 1.0  # of trust
PENALTY, LARGEST_PENALTY = 1.0, 1e6  # of the scaled violation
STEEPEST = 10.0  # scaled curvature that counts
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
        optimality: (n,) there; None where infeasible.
        violation: (n,) largest scaled one.
        feasible, converged: (n,).
        calls: (n,) evaluations.
    """

    x: np.ndarray
    found: Evaluations
    optimality: tuple[Optimality | None, ...]
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
    units: tuple[np.ndarray, np.ndarray] | None = None,
) -> Solutions:
    """Searches from `start` (n, k), all of them at once.

    Args:
        evaluate: Called with points (p, k) and the problems (p,) that they are of.
        low, high: (k,) bounds of all.
        groups: (m,) group of each row of margins, as `optimise.Problem`.
        progress: Called after each iteration with the problems that are done, and with all.
        units: Of objective (n,) and margins (n, m), by which they are scaled; the lengths of their slopes at the
            start (`optimise.scale`) if not given.
    """
    span = high - low
    n, k = start.shape
    z = np.clip((start - low) / span, 0, 1)
    everyone = np.arange(n)
    first = evaluate(low + z * span, everyone)
    good = first.finite
    unit, row_units = units or (np.ones(n), np.ones((n, len(groups))))
    for i in np.flatnonzero(good) if units is None else ():
        unit[i], row_units[i] = scale(Evaluation(*(part[i] for part in first)), span, groups)

    def scaled(found: Evaluations, which: np.ndarray) -> Evaluations:
        slope = found.slope * span / unit[which, None]
        jacobian = found.jacobian * span / row_units[which][..., None]
        out = Evaluations(found.objective / unit[which], slope, found.margins / row_units[which], jacobian)
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
    past, refused = _Past(z, here), np.zeros(n, int)
    open_, calls = good.copy(), np.ones(n, int)
    for _ in range(ITERATIONS):
        which = np.flatnonzero(open_)
        progress(n - len(which), n)
        if len(which) == 0:
            break
        now = _of(here, which)
        rows, values, slopes, own = _planes(now, missed[which], z[which], past, which, groups)
        step, weights, left = _step(
            now.slope, values, slopes, z[which], hessian[which], box[which], penalty[which]
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
        of_point = weights[:, own:].reshape(len(which), POINTS, (rows.shape[1] - own) // POINTS)
        held = np.any(of_point > HELD, axis=2)
        # What holds back the last step must be of this point: else it is forgotten, and tried again.
        far = held & ~past.near(which, z[which]) & solved[:, None]
        past.forget(which, far, z[which], now)
        open_[which[solved & ~far.any(axis=1)]] = False
        trying = np.flatnonzero(~solved & ~raised)
        if len(trying) == 0:
            continue
        tried = which[trying]
        total = weights[trying].sum(axis=1)
        # Multipliers as large as the penalty are those of constraints that the step cannot meet.
        heavier = np.where(total < 0.99 * penalty[tried], np.minimum(2 * total, LARGEST_PENALTY), 0.0)
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
        # A step is first corrected for the curvature of its constraints, then shortened until one is accepted.
        finite = there.objective < WORSE
        refused[tried] = np.where(accepted, 0, refused[tried] + 1)
        second = (refused[tried] == 1) & finite
        shorter = ~accepted & ~second
        box[tried[shorter]] = reached[shorter] / 2
        bent = there.margins - now.margins[trying]
        bent -= np.einsum("nmk,nk->nm", now.jacobian[trying], step[trying])
        missed[tried] = np.where(second[:, None], bent, 0.0)
        promise[tried] = np.where(second, promised[trying], np.nan)
        moved, taken = tried[accepted], trying[accepted]
        pair = (_of(now, taken), _of(there, accepted))
        lagrangian = (
            one.slope - np.einsum("nm,nmk->nk", weights[taken], _taken(one.jacobian, rows[taken]))
            for one in pair
        )
        hessian[moved] = _updated(hessian[moved], there_z[accepted] - z[moved], *lagrangian)
        past.keep(moved, z[moved], pair[0], held[taken])
        useful = ~accepted & finite
        past.keep(tried[useful], there_z[useful], _of(there, useful), held[trying[useful]])
        z[moved] = there_z[accepted]
        for part, new in zip(here, there):
            part[moved] = new[accepted]
        open_[tried[box[tried] < SMALLEST_BOX]] = False
    return _concluded(low, span, z, here, past, groups, unit, row_units, good, calls)


def _of(found: Evaluations, which: np.ndarray) -> Evaluations:
    return Evaluations(*(part[which] for part in found))


def _violation(margins: np.ndarray) -> np.ndarray:
    """(n,) largest, but for what counts as none: a penalty would make that weigh more than any gain."""
    return np.max(-margins - FEASIBLE / 2, axis=1, initial=0.0)


class _Past:
    """Of n problems the last POINTS points, (n, POINTS, k), and the rows there with their slopes."""

    def __init__(self, z: np.ndarray, found: Evaluations):
        self.z, self.margins, self.jacobian = (
            np.repeat(part[:, None], POINTS, axis=1) for part in (z, found.margins, found.jacobian)
        )
        self._age = np.zeros((len(z), POINTS), int)

    def keep(self, which: np.ndarray, z: np.ndarray, found: Evaluations, held: np.ndarray) -> None:
        """Points z (p, k) of problems (p,), in place of the oldest that do not hold back a step, held (p, POINTS)."""
        slot = np.argmax(np.where(held, -1, self._age[which]), axis=1)
        self._age[which] += 1
        self.z[which, slot], self.margins[which, slot] = z, found.margins
        self.jacobian[which, slot], self._age[which, slot] = found.jacobian, 0

    def near(self, which: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(p, POINTS) whether they lie near points z (p, k)."""
        return np.abs(z[:, None] - self.z[which]).max(axis=2) <= NEAR

    def forget(self, which: np.ndarray, slots: np.ndarray, z: np.ndarray, found: Evaluations) -> None:
        """Points z (p, k) in place of those in some slots (p, POINTS)."""
        i, slot = np.nonzero(slots)
        self.z[which[i], slot], self.margins[which[i], slot] = z[i], found.margins[i]
        self.jacobian[which[i], slot] = found.jacobian[i]


def _planes(
    now: Evaluations, missed: np.ndarray, z: np.ndarray, past: _Past, which: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Linear models of the nearest rows at points z (p, k) of problems (p,): those there and those of the past.

    Those there are corrected by what they have `missed`, (p, m).

    Returns:
        (p, planes) the row of each, its value at z, its slope (.., k), and how many are of z itself; the others
        are of the past, point by point.
    """
    nearest, bent = [], []
    for group in np.unique(groups):
        of = np.flatnonzero(groups == group)
        order = of[np.argsort(now.margins[:, of], axis=1, kind="stable")]
        nearest.append(order[:, :NEAREST])
        bent.append(order[:, :BENT])
    n, k = z.shape
    if not nearest:
        return np.zeros((n, 0), int), np.zeros((n, 0)), np.zeros((n, 0, k)), 0
    rows, bent = np.concatenate(nearest, axis=1), np.concatenate(bent, axis=1)
    each, point = which[:, None, None], np.arange(POINTS)[None, :, None]
    slopes = past.jacobian[each, point, bent[:, None]]
    away = z[:, None] - past.z[which]
    value = past.margins[each, point, bent[:, None]] + np.einsum("npmk,npk->npm", slopes, away)
    actual = _taken(now.margins, bent)[:, None]
    value = actual + np.abs(value - actual)
    return (
        np.concatenate([rows, np.tile(bent, (1, POINTS))], axis=1),
        np.concatenate([_taken(now.margins + missed, rows), value.reshape(n, -1)], axis=1),
        np.concatenate([_taken(now.jacobian, rows), slopes.reshape(n, -1, k)], axis=1),
        rows.shape[1],
    )


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, rows.reshape(*rows.shape, *[1] * (values.ndim - 2)), axis=1)


def _step(slope, margins, slopes, z, hessian, box, penalty) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps (n, k), multipliers of the planes, and the violation (n,) that these leave."""
    n, k = z.shape
    m = margins.shape[1]
    # A violation that counts as none stays as it is: to undo it would cost more than there is to gain.
    wanted = np.where(margins < 0, np.minimum(margins + FEASIBLE / 2, 0), margins)
    # What no step changes is left out: its multiplier would be any.
    wanted = np.where(np.abs(slopes).max(axis=2, initial=0.0) < FLAT, 1.0, wanted)
    # Unknowns: the step and the violation. Rows: constraints, both sides of the box, violation >= 0.
    B = np.zeros((n, k + 1, k + 1))
    B[:, :k, :k] = hessian
    g = np.concatenate([slope, penalty[:, None]], axis=1)
    A = np.zeros((n, m + 2 * k + 1, k + 1))
    A[:, :m, :k], A[:, :m, k] = slopes, 1
    A[:, m : m + k, :k], A[:, m + k : m + 2 * k, :k] = np.eye(k), -np.eye(k)
    A[:, -1, k] = 1
    down, up = np.minimum(box[:, None], z), np.minimum(box[:, None], 1 - z)
    # A variable at its bound may not leave the program without an interior.
    b = np.concatenate([wanted, down, up, np.zeros((n, 1))], axis=1)
    b[:, m : m + 2 * k] += 1e-12
    found = minimum(B, g, A, b)
    step = np.clip(found.d[:, :k], -down, up)
    left = _violation(margins + np.einsum("nmk,nk->nm", slopes, step))
    return step, found.multipliers[:, :m], left


def _updated(B: np.ndarray, s: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Hessians after steps s that have changed the slopes of the Lagrangians."""
    y = after - before
    Bs = np.einsum("nij,nj->ni", B, s)
    sBs, sy = np.einsum("ni,ni->n", s, Bs), np.einsum("ni,ni->n", s, y)
    # Slopes that differ by a kink are no curvature.
    bend = sy / np.maximum(np.einsum("ni,ni->n", s, s), 1e-300)
    share = STEEPEST / np.maximum(bend, STEEPEST)
    y, sy = share[:, None] * y, share * sy
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


def _concluded(low, span, z, here, past, groups, unit, units, good, calls) -> Solutions:
    """With multipliers, in the problems' own units."""
    n, k = z.shape
    found = Evaluations(
        here.objective * unit,
        here.slope * unit[:, None] / span,
        here.margins * units,
        here.jacobian * units[..., None] / span,
    )
    violation = np.max(-here.margins, axis=1, initial=0.0)
    feasible = good & (violation <= FEASIBLE)
    rows, values, slopes, own = _planes(here, np.zeros_like(here.margins), z, past, np.arange(n), groups)
    near = np.repeat(past.near(np.arange(n), z), (rows.shape[1] - own) // POINTS, axis=1)
    every = np.arange(len(groups))
    ended: list[Optimality | None] = [None] * n
    for i in np.flatnonzero(feasible):
        beside = own + np.flatnonzero(near[i])
        margins = np.concatenate([here.margins[i], values[i, beside]])
        jacobian = np.concatenate([here.jacobian[i], slopes[i, beside]])
        at_bounds = z[i] <= AT_BOUND, z[i] >= 1 - AT_BOUND
        one = Evaluation(here.objective[i], here.slope[i], margins, jacobian)
        at = optimality(one, margins <= ACTIVE, *at_bounds, np.ones(k), 1.0)
        of = np.concatenate([every, rows[i, beside]])
        of_rows = np.bincount(of, at.rows, len(groups)) * unit[i] / units[i]
        ended[i] = Optimality(of_rows, at.low * unit[i] / span, at.high * unit[i] / span, at.residual)
    converged = np.array([one is not None and one.stationary for one in ended])
    return Solutions(low + z * span, found, tuple(ended), violation, feasible, converged, calls)
