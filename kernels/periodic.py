"""The periodic revolution and its derivatives.

A periodic state is a root of Phi(x) - x, Phi the march over a revolution. By the implicit function theorem its
tangent and, in reverse mode, its adjoint solve

    (1 - J) dx = dPhi,        (1 - J^T) l = g,        J = dPhi/dx,

with the full state, panel cells and charge included; g is what a figure of the revolution gains by its start. The
revolution is linearised once, with all its steps kept, and a product with J or J^T is one sweep through these. The
last sweep, which gives what is asked for, also tells what its solution leaves of the equations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jax.interpreters import partial_eval
from jaxtyping import Array, Bool, Float

from .linear import linear_map
from .recorded import Seen, differentiable, recorded
from .revolution import Loads
from .satellite import Params, State

# What the equations may be left with, relative; most revolutions of one Krylov space, and most such spaces.
ENOUGH, KRYLOV, SPACES = 1e-8, 10, 4
# A TPU multiplies float32 matrices in bfloat16 and a GPU in TF32 unless asked not to.
EXACT = lax.Precision.HIGHEST


@jax.custom_jvp
def periodic_revolution(
    params: Params, loads: Loads, state: State, pinned: Bool[Array, " b"], E: Float[Array, "b m m"]
) -> tuple[State, State, Seen]:
    """The periodic state, the one after a revolution, and what is seen of that.

    Args:
        params: Design, satellites last.
        loads: Rows of one revolution, (steps, ..., b).
        state: The periodic one, as found; its derivative is that of the root.
        pinned: Whether any charge closes the revolution. That of `state` is kept.
        E: What becomes of nodes and panel mean over a revolution by a linear model, satellites first. It makes the
            solution fast and no derivative depends on it: what it gets right, however slow, takes no sweep.
    """
    return state, *recorded(params, loads, state)


@periodic_revolution.defjvp
def _(primals, tangents):
    # Of the state, the pin and the model no derivative is asked.
    return periodic_revolution(*primals), linear_map(_tangent, _transpose, primals, tangents[:2], absent=True)


class _Space:
    """States as columns of numbers, panel cells, nodes and charge, and what maps these."""

    def __init__(self, params: Params, state: State, pinned, E):
        self.shape = state.panel.shape
        self.cells = self.shape[0] * self.shape[1]
        self.free = ~pinned
        # A full charge counts like a hundred kelvin in the Krylov space's norm.
        self.scale = jnp.ones_like(state.energy) if params.battery is None else params.battery.capacity / 100
        self.lasting = jnp.linalg.solve(jnp.eye(E.shape[-1], dtype=E.dtype)[None] - E, E)

    def flat(self, state: State, charge) -> Float[Array, "d b"]:
        return jnp.concatenate([state.panel.reshape(self.cells, -1), state.nodes, charge[None]])

    def of_flat(self, x, charge) -> State:
        return State(x[: self.cells].reshape(self.shape), x[self.cells : -1], charge)

    def tangent(self, x) -> State:
        return self.of_flat(x, x[-1] * self.scale)

    def after(self, end: State):
        """Change of what a revolution leads to. A charge that is kept leads nowhere."""
        return self.flat(end, jnp.where(self.free, end.energy / self.scale, 0.0))

    def cotangent(self, x) -> State:
        """As `after`'s transpose."""
        return self.of_flat(x, jnp.where(self.free, x[-1] / self.scale, 0.0))

    def before(self, start: State):
        """As `tangent`'s transpose."""
        return self.flat(start, start.energy * self.scale)

    def settled(self, x, transpose: bool = False):
        """x and what the revolutions to come add to it, by the linear model of nodes and panel mean."""
        cells = self.cells
        panel, nodes = x[:cells], x[cells:-1]
        lumped = jnp.concatenate([nodes, jnp.sum(panel, axis=0)[None] / (1 if transpose else cells)])
        N = jnp.swapaxes(self.lasting, 1, 2) if transpose else self.lasting
        more = jnp.matmul(N, lumped.T[..., None], precision=EXACT)[..., 0].T
        return jnp.concatenate([panel + more[-1:] / (cells if transpose else 1), nodes + more[:-1], x[-1:]])


def _tangent(known, tangents):
    """Tangents of the state, the end and what is seen, from those of design and loads."""
    params, loads, state, pinned, E = known
    space = _Space(params, state, pinned, E)
    _, linear = jax.linearize(lambda state: differentiable(params, loads, state)[0], state)

    def sweep(x):
        return space.after(linear(space.tangent(x)))

    def whole(x, by):
        _, (end, seen) = jax.jvp(differentiable, (params, loads, state), (*by, space.tangent(x)))
        return space.after(end), (space.tangent(x), end, seen)

    return _solved(sweep, space.settled, whole, tangents, space.flat(state, state.energy))


def _transpose(known, given):
    """Cotangents of design and loads from those of the state, the end and what is seen, None where there is none."""
    params, loads, state, pinned, E = known
    space = _Space(params, state, pinned, E)
    like = (params, loads, state)
    shapes, linear = jax.linearize(differentiable, *like)
    start_bar, end_bar, seen_bar = given
    start_bar, end_bar = (
        jax.tree.map(lambda a, like: jnp.zeros_like(like) if a is None else a, bar, state, is_leaf=_none)
        for bar in (start_bar, end_bar)
    )
    unseen = jax.tree.map(lambda _: None, shapes[1])
    back = _transposed(linear, like, (shapes[0], unseen))
    back_seen = _transposed(linear, like, (shapes[0], seen_bar))

    def sweep(x):
        return space.before(back(space.cotangent(x), unseen)[2])

    def whole(x, by):
        start_bar, end_bar, seen_bar = by
        end = jax.tree.map(jnp.add, space.cotangent(x), end_bar)
        *found, start = back_seen(end, seen_bar)
        return space.before(start) + space.before(start_bar), tuple(found)

    by = start_bar, end_bar, seen_bar
    return _solved(sweep, partial(space.settled, transpose=True), whole, by, space.flat(state, state.energy))


def _none(leaf):
    return leaf is None


def _transposed(linear: Callable, like: Any, asked: Any) -> Callable:
    """Transpose of linear(*like) by those of its outputs that are not None in `asked`."""
    closed, out = jax.make_jaxpr(linear, return_shape=True)(*like)
    used = [leaf is not None for leaf in jax.tree.leaves(asked, is_leaf=_none)]
    assert len(used) == len(jax.tree.leaves(out))
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, used, instantiate=True)
    leaves, tree = jax.tree.flatten(like)
    run = jaxpr_as_fun(closed.replace(jaxpr=jaxpr))
    turned = jax.linear_transpose(run, *leaves)
    return lambda *given: jax.tree.unflatten(tree, turned(jax.tree.leaves(given)))


def _solved(sweep, precondition, whole, by, like):
    """What `whole` gives at the solution x of x = whole(x, by)[0], which is linear in both; `sweep`: by x alone.

    A Krylov space is left as soon as its solution and one step of the preconditioned iteration upon that are likely
    to leave half of what may be left. Whether they did `whole` shows; what is left is then solved for likewise.
    """
    rounding = 5e2 * float(jnp.finfo(like.dtype).eps)
    enough = max(ENOUGH, rounding)
    _, out = jax.eval_shape(whole, like, by)
    first = whole(jnp.zeros_like(like), by)[0]
    size = _norm(first)

    def correct(carry):
        k, r, by, found = carry
        x = _approached(sweep, precondition, r, 0.5 * enough * size)
        after, more = whole(x, by)
        left = jnp.where(k == 0, 0.0, r) + after - x
        by = jax.tree.map(jnp.zeros_like, by)
        return k + 1, left, by, jax.tree.map(jnp.add, found, more)

    def going(carry):
        # A satellite that is not finite compares false: it does not keep the others waiting.
        return (carry[0] == 0) | ((carry[0] < SPACES) & jnp.any(_norm(carry[1]) > enough * size))

    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), out)
    return lax.while_loop(going, correct, (jnp.int32(0), first, by, zero))[3]


def _norm(r):
    return jnp.sqrt(jnp.sum(r * r, axis=0))


def _approached(sweep, precondition, r, enough) -> Float[Array, "d b"]:
    """x near (1 - sweep)^-1 r, one Krylov space a satellite: Arnoldi with modified Gram-Schmidt, least squares.

    `precondition` is an approximate inverse, applied first, so that residuals are those of the equations themselves.
    Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856.
    """
    d, b = r.shape
    norm = _norm(r)
    tiny = jnp.finfo(r.dtype).tiny ** 0.5
    rounding = 1e2 * float(jnp.finfo(r.dtype).eps)
    basis = jnp.zeros((KRYLOV + 1, d, b), r.dtype).at[0].set(r / jnp.maximum(norm, tiny)[None])
    H = jnp.zeros((KRYLOV + 1, KRYLOV, b), r.dtype)

    def arnoldi(carry):
        j, basis, H, before, _ = carry
        x = precondition(basis[j])
        w = x - sweep(x)

        def project(k, carry):
            w, column = carry
            k = k % (j + 1).astype(
                k.dtype
            )  # all once more, as rounding leaves the first pass short of orthogonal
            along = jnp.sum(basis[k] * w, axis=0)
            return w - basis[k] * along[None], column.at[k].add(along)

        w, column = lax.fori_loop(0, 2 * (j + 1), project, (w, jnp.zeros((KRYLOV + 1, b), r.dtype)))
        size = _norm(w)
        # A space that is complete but for rounding gets a zero vector, which changes nothing.
        fresh = size > rounding * jnp.max(jnp.abs(column), axis=0)
        w = w * jnp.where(fresh, 1 / jnp.where(fresh, size, 1.0), 0.0)[None]
        basis, H = basis.at[j + 1].set(w), H.at[:, j].set(column.at[j + 1].set(size))
        left = _norm(_left(H, norm))
        # One more step, which takes no sweep of its own, gains what this one did.
        likely = left * left / jnp.maximum(before, tiny)
        return j + 1, basis, H, left, fresh & (likely > enough)

    def unfinished(carry):
        return (carry[0] < KRYLOV) & jnp.any(carry[4])

    n, basis, H, _, _ = lax.while_loop(unfinished, arnoldi, (jnp.int32(0), basis, H, norm, norm > enough))
    # The solution, and what it leaves to one more step.
    weights = _left(H, norm).at[:-1].add(_least_squares(H, norm))
    return precondition(
        lax.fori_loop(0, n + 1, lambda k, x: x + basis[k] * weights[k][None], jnp.zeros_like(r))
    )


def _left(H: Float[Array, "l k b"], norm: Float[Array, " b"]) -> Float[Array, "l b"]:
    """What the equations are left with, in the Krylov space's basis."""
    left = -jnp.sum(H * _least_squares(H, norm)[None], axis=1)
    return left.at[0].add(norm)


def _least_squares(H: Float[Array, "l k b"], norm: Float[Array, " b"]) -> Float[Array, "k b"]:
    """y of least |norm e_1 - H y|, H upper Hessenberg, by Givens rotations; satellites last, as a library's is not.

    Columns that a complete Krylov space leaves empty get zero.
    """
    k = H.shape[1]
    right = jnp.zeros_like(H[:, 0]).at[0].set(norm)
    for j in range(k):
        a, below = H[j, j], H[j + 1, j]
        size = jnp.sqrt(a * a + below * below)
        size = jnp.where(size > 0, size, 1.0)
        turned = jnp.stack([jnp.stack([a, below]), jnp.stack([-below, a])]) / size[None, None]
        H = H.at[j : j + 2].set(jnp.sum(turned[:, :, None] * H[None, j : j + 2], axis=1))
        right = right.at[j : j + 2].set(jnp.sum(turned * right[None, j : j + 2], axis=1))
    diagonal = jnp.abs(jnp.stack([H[j, j] for j in range(k)]))
    spent = diagonal <= 1e2 * jnp.finfo(H.dtype).eps * jnp.max(diagonal, axis=0, keepdims=True)
    y = jnp.zeros_like(right[:k])
    for j in range(k - 1, -1, -1):
        value = (right[j] - jnp.sum(H[j, j + 1 : k] * y[j + 1 :], axis=0)) / jnp.where(spent[j], 1.0, H[j, j])
        y = y.at[j].set(jnp.where(spent[j], 0.0, value))
    return y
