"""Many small convex quadratic programs at once, on the host.

    least 1/2 d.B d + g.d  with  A d + b >= 0

by Mehrotra's predictor and corrector (SIAM J. Optimization 2 (1992) 575; Nocedal and Wright, Numerical Optimization,
2nd ed., 2006, algorithm 16.4), every step of which is one batched solve of k equations. Its rate does not depend on
the number of constraints, and all programs take the same path through it, which no active-set method does.
"""

from typing import NamedTuple

import numpy as np

ITERATIONS = 40
CLOSE, EXACT = (
    1e-11,
    1e-8,
)  # complementarity and residuals at which a program is solved, relative to its numbers
FINEST = 1e-15  # complementarity below which rounding grows
KEPT = 0.995  # share of the way to the boundary that a step may take


class Minimum(NamedTuple):
    """Steps d (n, k) and multipliers (n, m) >= 0."""

    d: np.ndarray
    multipliers: np.ndarray


def minimum(B: np.ndarray, g: np.ndarray, A: np.ndarray, b: np.ndarray) -> Minimum:
    """Of n programs; each must have a point that meets its constraints with something to spare.

    Args:
        B, g: (n, k, k) symmetric, positive semidefinite, and definite together with A; (n, k).
        A, b: (n, m, k) and (n, m).
    """
    n, m, k = A.shape
    d, s, z = np.zeros((n, k)), np.maximum(np.abs(b), 1.0), np.ones((n, m))
    size = 1 + np.abs(g).max(1) + np.abs(b).max(1, initial=0)
    left = np.arange(n)
    for _ in range(ITERATIONS):
        dual, primal, gap = _residuals(B[left], g[left], A[left], b[left], d[left], s[left], z[left])
        off = np.maximum(np.abs(dual).max(1), np.abs(primal).max(1)) / size[left]
        going = ((off > EXACT) | (gap > CLOSE * size[left])) & (gap > FINEST * size[left])
        left = left[going]
        if len(left) == 0:
            break
        change = _step(B[left], A[left], s[left], z[left], dual[going], primal[going], gap[going])
        for part, step in zip((d, s, z), change):
            part[left] += step
    return Minimum(d, z)


def _residuals(B, g, A, b, d, s, z) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the slope (n, k) and the constraints (n, m), and the mean complementarity (n,)."""
    dual = np.einsum("nij,nj->ni", B, d) + g - np.einsum("nmk,nm->nk", A, z)
    return dual, np.einsum("nmk,nk->nm", A, d) + b - s, np.mean(s * z, axis=1)


def _step(B, A, s, z, dual, primal, gap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictor and corrector: changes of d, of the constraints' values s and of their multipliers z."""
    weight = z / s
    matrix = B + (A * weight[..., None]).transpose(0, 2, 1) @ A

    def towards(centre):
        right = -dual + np.einsum("nmk,nm->nk", A, centre / s - weight * primal)
        moved = np.linalg.solve(matrix, right[..., None])[..., 0]
        slack = np.einsum("nmk,nk->nm", A, moved) + primal
        return moved, slack, (centre - z * slack) / s

    _, slack, changed = towards(-s * z)
    ahead = np.mean((s + _most(s, slack) * slack) * (z + _most(z, changed) * changed), axis=1)
    target = (ahead / gap) ** 3 * gap
    moved, slack, changed = towards(target[:, None] - s * z - slack * changed)
    along, across = (KEPT * _most(*pair) for pair in ((s, slack), (z, changed)))
    return along * moved, along * slack, across * changed


def _most(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(n, 1) the largest share, up to 1, of steps that leaves all values positive."""
    shrinking = steps < 0
    ratio = np.where(shrinking, -values / np.where(shrinking, steps, -1.0), np.inf)
    return np.minimum(1.0, ratio.min(axis=1, keepdims=True, initial=np.inf))
