"""Batched tridiagonal solves along the first axis, the batch on the axes behind it."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


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
