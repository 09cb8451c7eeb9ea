"""Fluid through the passes of a tube that goes forth and back in one sheet, in series.

A column of cells across the tubes holds one cell of every pass. Its walls answer to each other's heat, so that the
fluid behind the cells depends on all the fluid that enters them,

    F_after = F - A (F - still)

with a matrix A, often the same for all columns. Passes run both ways, each into the next at a bend: a two-point
boundary problem along x. Columns are joined in pairs, pairs in pairs and so on (Redheffer, J. Math. Phys. 41 (1962)
1): what comes out of a block on either side as a linear form of what enters it, of which no entry grows, as no fluid
leaves warmer than the warmest wall or fluid. It takes log2(nx) levels; while the columns have halves, blocks of a
level share matrices where columns do.

Matrices have the axes (i, j, k, b), vectors (i, k, b), k the blocks of a level or 1 where all are alike.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .network import solve_dense
from .pytree import pytree


@pytree
class Block:
    """Fluid at two places as a linear form of what enters a block of columns: u towards higher x, v towards lower.

        u = uu u_in + uv v_in + u_own,    v = vu u_in + vv v_in + v_own

    `u_in` enters at the lower end, `v_in` at the higher one. The places are where they leave, or the block's middle.
    """

    uu: Float[Array, "f f k b"]
    uv: Float[Array, "f g k b"]
    vu: Float[Array, "g f k b"]
    vv: Float[Array, "g g k b"]
    u_own: Float[Array, "f n b"]
    v_own: Float[Array, "g n b"]

    def __call__(self, u, v, own: bool):
        """u and v at the places. `own`: with what the walls add."""
        found = times(self.uu, u) + times(self.uv, v), times(self.vu, u) + times(self.vv, v)
        return (found[0] + self.u_own, found[1] + self.v_own) if own else found


def times(A, x):
    """Product of a matrix with a matrix or a vector, block by block."""
    if x.ndim == A.ndim:
        A, x = A[:, :, None], x[None]
    else:
        x = x[None]
    return (A * x)[:, 0] if A.shape[1] == 1 else jnp.sum(A * x, axis=1)


def inverse(A: Float[Array, "i i k b"]) -> Float[Array, "i i k b"]:
    """Of one less a matrix of shares: diagonally dominant."""
    n, _, k, b = A.shape
    if n == 1:
        return 1 / A
    eye = jnp.broadcast_to(jnp.eye(n, dtype=A.dtype)[:, :, None], (n, n, k * b))
    return solve_dense(A.reshape(n, n, k * b), eye).reshape(A.shape)


def _eye(like):
    return jnp.eye(like.shape[0], like.shape[1], dtype=like.dtype)[:, :, None, None]


def columns(A: Float[Array, "p p k b"], still: Float[Array, "p nx b"]) -> Block:
    """Each column of cells as a block. Even passes, from 0 on, run towards higher x."""
    added = times(A, still)
    A = _eye(A) - A
    return Block(A[::2, ::2], A[::2, 1::2], A[1::2, ::2], A[1::2, 1::2], added[::2], added[1::2])


def _even(block: Block) -> Block:
    """An even number of blocks; one more, that passes all on unchanged, if it was odd."""
    n = block.u_own.shape[-2]
    if n % 2 == 0:
        return block

    def longer(a, end):
        a = jnp.broadcast_to(a, (*a.shape[:-2], n, a.shape[-1]))
        return jnp.concatenate([a, jnp.broadcast_to(end, (*a.shape[:-2], 1, a.shape[-1]))], axis=-2)

    zero = jnp.zeros((), block.u_own.dtype)[None, None]
    return Block(
        longer(block.uu, _eye(block.uu)),
        longer(block.uv, zero[None, None]),
        longer(block.vu, zero[None, None]),
        longer(block.vv, _eye(block.vv)),
        longer(block.u_own, zero[None]),
        longer(block.v_own, zero[None]),
    )


def _pair(a):
    return (a, a) if a.shape[-2] == 1 else (a[..., ::2, :], a[..., 1::2, :])


def join(blocks: Block) -> tuple[Block, Block]:
    """Neighbours as one block each: fluid at the middle of it, and where it leaves."""
    names = "uu", "uv", "vu", "vv", "u_own", "v_own"
    first, second = (
        Block(**dict(zip(names, parts, strict=True)))
        for parts in zip(*(_pair(getattr(blocks, name)) for name in names), strict=True)
    )
    back = times(second.vu, first.uv)
    back = inverse(_eye(back) - back)
    vu = times(back, times(second.vu, first.uu))
    vv = times(back, second.vv)
    v_own = times(back, times(second.vu, first.u_own) + second.v_own)
    middle = Block(
        uu=first.uu + times(first.uv, vu),
        uv=times(first.uv, vv),
        vu=vu,
        vv=vv,
        u_own=first.u_own + times(first.uv, v_own),
        v_own=v_own,
    )
    whole = Block(
        uu=times(second.uu, middle.uu),
        uv=times(second.uu, middle.uv) + second.uv,
        vu=first.vu + times(first.vv, middle.vu),
        vv=times(first.vv, middle.vv),
        u_own=times(second.uu, middle.u_own) + second.u_own,
        v_own=first.v_own + times(first.vv, middle.v_own),
    )
    return middle, whole


def _ends(whole: Block) -> tuple[tuple, tuple]:
    """What leaves the whole, (u, v), for an inlet of one and no other source, and for the walls without an inlet.

    A pass towards lower x takes what the one before it brings to the higher end, and so on.
    """
    f, g = whole.uv.shape[:2]
    uu, uv, vu, vv = (a[:, :, 0] for a in (whole.uu, whole.uv, whole.vu, whole.vv))

    def fed(by_u, by_v):
        """Of u and v that leave: by the bends at the higher end, and at the lower one."""

        def full(a, n):
            return jnp.concatenate([a, jnp.zeros((a.shape[0], n - a.shape[1], a.shape[2]), a.dtype)], axis=1)

        return jnp.concatenate([full(by_v, f), full(by_u[:, 1:], g)], axis=1)

    share = jnp.concatenate([fed(uu, uv), fed(vu, vv)])
    inlet = jnp.concatenate([uu[:, 0], vu[:, 0]])
    own = jnp.concatenate([whole.u_own[:, 0], whole.v_own[:, 0]])
    eye = jnp.eye(f + g, dtype=share.dtype)[:, :, None]
    leaves = solve_dense(eye - share, jnp.stack([inlet, own], axis=1))
    return (leaves[:f, 0], leaves[f:, 0]), (leaves[:f, 1], leaves[f:, 1])


def fluid(
    A: Float[Array, "p p k b"], still: Float[Array, "p nx b"]
) -> tuple[Float[Array, "n b"], Float[Array, "n b"]]:
    """Fluid temperature behind each cell, in the order of the flow, as a linear form p F_in + q of the inlet's.

    Args:
        A: What a column's fluid takes of its walls, see the module [-].
        still: Wall temperatures without any fluid [K].
    """
    n = still.shape[1]
    blocks, middles = columns(A, still), []
    while (count := blocks.u_own.shape[-2]) > 1:
        middle, blocks = join(_even(blocks))
        middles.append((count, middle))
    forms = []
    for (u_out, v_out), inlet in zip(_ends(blocks), (1.0, 0.0)):
        f, g = len(u_out), len(v_out)
        first = jnp.full_like(u_out[:1], inlet)
        u, v = jnp.concatenate([first, v_out[: f - 1]])[:, None], u_out[:g, None]
        for count, middle in reversed(middles):
            u_mid, v_mid = middle(u, v, own=inlet == 0)
            u, v = _woven(u, u_mid, count), _woven(v_mid, v, count)
        entering = in_flow_order(jnp.stack([(u, v)[k % 2][k // 2] for k in range(f + g)]))
        outlet = (u_out, v_out)[(f + g + 1) % 2][-1]
        forms.append(jnp.concatenate([entering[1:], outlet[None]]))
    assert forms[0].shape[0] == n * still.shape[0]
    return forms[0], forms[1]


def _woven(a, b, count: int):
    """Blocks of two lists in turn."""
    return jnp.stack([a, b], axis=-2).reshape(a.shape[0], -1, a.shape[-1])[:, :count]


def in_flow_order(columns: Float[Array, "p nx b"]) -> Float[Array, "k b"]:
    """Cells of the passes one after another as the fluid meets them."""
    return jnp.concatenate([row if k % 2 == 0 else row[::-1] for k, row in enumerate(columns)])


def in_columns(flow: Float[Array, "k b"], passes: int) -> Float[Array, "p nx b"]:
    """The inverse of `in_flow_order`."""
    rows = flow.reshape(passes, -1, flow.shape[-1])
    return jnp.stack([row if k % 2 == 0 else row[::-1] for k, row in enumerate(rows)])
