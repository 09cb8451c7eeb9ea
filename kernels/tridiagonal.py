"""Batched tridiagonal solves and recurrences along the first axis, the batch on the axes behind it."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .platforms import choose


def _thomas(
    lower: Float[Array, "n *b"],
    diag: Float[Array, "n *b"],
    upper: Float[Array, "n *b"],
    rhs: Float[Array, "n *b"],
) -> Float[Array, "n *b"]:
    def eliminate(carry, row):
        c, d = carry
        low, mid, up, r = row
        pivot = 1 / (mid - low * c)
        c, d = up * pivot, (r - low * d) * pivot
        return (c, d), (c, d)

    zero = jnp.zeros_like(rhs[0])
    _, (c, d) = lax.scan(eliminate, (zero, zero), (lower, diag, upper, rhs))

    def substitute(x, row):
        x = row[1] - row[0] * x
        return x, x

    return lax.scan(substitute, zero, (c, d), reverse=True)[1]


def _library(lower, diag, upper, rhs):
    """The vendor's kernel, which wants the system on the last axis."""
    last = [jnp.moveaxis(a, 0, -1) for a in (lower, diag, upper, rhs)]
    low, mid, up = last[:3]
    low = low.at[..., 0].set(0)
    up = up.at[..., -1].set(0)
    x = lax.linalg.tridiagonal_solve(low, mid, up, last[3][..., None])[..., 0]
    return jnp.moveaxis(x, -1, 0)


def solve(
    lower: Float[Array, "n *b"],
    diag: Float[Array, "n *b"],
    upper: Float[Array, "n *b"],
    rhs: Float[Array, "n *b"],
) -> Float[Array, "n *b"]:
    """Solve `lower[i] x[i-1] + diag[i] x[i] + upper[i] x[i+1] = rhs[i]`.

    Without pivoting: meant for diagonally dominant systems, as implicit conduction gives. `lower[0]` and
    `upper[-1]` are ignored. Elimination (Thomas) as a scan over rows on a CPU and on a TPU, where the batch fills
    the vector lanes; on a GPU, where each scan iteration is a launch, the vendor's batched kernel. Derivatives in
    both modes come from one more solve, with the transposed matrix in reverse.

    Source: Golub and Van Loan, Matrix Computations, 4th ed., section 4.3.
    """
    lower = lower.at[0].set(0)
    upper = upper.at[-1].set(0)

    def product(x):
        down = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
        above = jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
        return lower * down + diag * x + upper * above

    def direct(_, r):
        return lax.platform_dependent(lower, diag, upper, r, cuda=_library, default=_thomas)

    def transposed(_, r):
        low = jnp.concatenate([jnp.zeros_like(upper[:1]), upper[:-1]])
        up = jnp.concatenate([lower[1:], jnp.zeros_like(lower[:1])])
        return lax.platform_dependent(low, diag, up, r, cuda=_library, default=_thomas)

    return lax.custom_linear_solve(product, rhs, direct, transposed)


def rows(q: Float[Array, "n *b"], a: Float[Array, "n *#b"], reverse: bool = False) -> Float[Array, "n *b"]:
    """x_i = q_i + a_i x_{i-1} from the first row on, or q_i + a_i x_{i+1} from the last.

    Args:
        q: What each row adds.
        a: What each row takes of the one before it, broadcast over the batch; the first row's, or in reverse the
            last one's, does not count.

    A loop over rows that writes in place where the batch fills the vector lanes; on a GPU, where each turn of a loop
    is a launch, a tree of log n levels. Half of a `solve` by factors; not to be differentiated itself.
    """
    ways = {"cuda": _tree, "default": _loop}
    return choose(ways, jax.ShapeDtypeStruct(q.shape, q.dtype), q, a, reverse=reverse)


def _loop(q, a, reverse):
    n = q.shape[0]
    # One row more than the answer holds, zero, is what the first one takes of. The loop's only state is the answer:
    # a row carried beside it would be computed twice on a CPU.
    ghost = jnp.zeros((n + 1, *q.shape[1:]), q.dtype)

    def row(A, i):
        return lax.dynamic_index_in_dim(A, i, keepdims=False)

    def body(k, x):
        i = n - 1 - k if reverse else k
        value = row(q, i) + row(a, i) * row(x, i + 1 if reverse else i)
        return lax.dynamic_update_index_in_dim(x, value, i if reverse else i + 1, 0)

    x = lax.fori_loop(0, n, body, ghost)
    return x[:-1] if reverse else x[1:]


def _tree(q, a, reverse):
    def chain(first, second):
        a1, q1 = first
        a2, q2 = second
        return a2 * a1, a2 * q1 + q2

    a = jnp.broadcast_to(a, q.shape)
    return lax.associative_scan(chain, (a, q), reverse=reverse)[1]
