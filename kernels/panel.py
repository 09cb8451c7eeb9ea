"""Radiating panel: 2-D finite differences with T^4, satellites on the last axis.

    C dT/dt = d/dx(kt_x dT/dx) + d/dy(kt_y dT/dy) + q - eps sigma T^4

per unit of panel area, `eps` the emission factor of both faces together. Cell-centred, five points, harmonic means
of k t between unlike cells: second order in the cell size. In time one step is Peaceman and Rachford's (1955), x
implicit in its first half and y in its second, with radiation linearised about each half step's own start. It is second order, unconditionally stable for conduction, and a state that it leaves
unchanged solves the undivided steady equations, whatever the step.
"""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .constants import SIGMA


# scan and vmap rebuild a pytree with other ranks: its fields cannot be shape-checked at run time.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Panel:
    """Radiator panels made of equal strips: half a tube pitch across (y), the flow length along (x).

    The tube or heat pipe runs along y = 0; y = half_pitch and the ends are planes of symmetry.

    Attributes:
        heat_capacity: Areal heat capacity, tubes and fluid smeared in [J/m^2/K].
        kt_x: Conductivity x thickness along the flow [W/K].
        kt_y: The same across [W/K].
        strip_conductance: k A of one tube wall or heat pipe along its length [W m/K].
        length: Along the flow [m].
        half_pitch: Half the distance between tubes [m].
        half_strips: Panel area / (length x half_pitch) [-].
        emission: Effective emission factor per unit of panel area, sum over the radiating faces [-].
        to_space: The part of `emission` that reaches space [-].
        heat: Uniform internal dissipation [W/m^2].
        nx: Cells along the flow. Static.
        ny: Cells across half a pitch. Static.
    """

    heat_capacity: Float[Array, " b"]
    kt_x: Float[Array, " b"]
    kt_y: Float[Array, " b"]
    strip_conductance: Float[Array, " b"]
    length: Float[Array, " b"]
    half_pitch: Float[Array, " b"]
    half_strips: Float[Array, " b"]
    emission: Float[Array, " b"]
    to_space: Float[Array, " b"]
    heat: Float[Array, " b"]
    nx: int = field(metadata={"static": True})
    ny: int = field(metadata={"static": True})

    @property
    def area(self) -> Float[Array, " b"]:
        """Panel area, one side [m^2]."""
        return self.length * self.half_pitch * self.half_strips


def strip_conductances(panel: Panel) -> tuple[Float[Array, "1 ny b"], Float[Array, "1 1 b"]]:
    """Conductances between neighbouring cells along x and along y, per unit of cell area [W/m^2/K].

    The pipe's half lies in the first row of cells.
    """
    dx = panel.length / panel.nx
    dy = panel.half_pitch / panel.ny
    along = (panel.kt_x / dx**2)[None, :]
    pipe = (panel.strip_conductance / (2 * dy) / dx**2)[None, :]
    first = (jnp.arange(panel.ny) == 0).astype(dx.dtype)[:, None]
    return (along + first * pipe)[None], (panel.kt_y / dy**2)[None, None, :]


def face_conductances(kt: Float[Array, "n *rest"], width: float) -> Float[Array, "n+1 *rest"]:
    """Conductances of the n + 1 faces along the first axis from k t of cells [W/K], per cell area [W/m^2/K].

    Harmonic mean between unlike cells, insulated ends.
    """
    total = kt[1:] + kt[:-1]
    inner = 2 * kt[1:] * kt[:-1] / jnp.where(total > 0, total, 1.0)
    zero = jnp.zeros_like(kt[:1])
    return jnp.concatenate([zero, inner, zero]) / width**2


def _sides(g: Float[Array, "f m b"], n: int) -> tuple[Array, Array]:
    """Conductance to the cell before and to the cell after, for each of n rows; ends insulated."""
    if g.shape[0] == n + 1:
        return g[:-1], g[1:]
    row = jnp.arange(n)[:, None, None]
    return (row > 0).astype(g.dtype) * g, (row < n - 1).astype(g.dtype) * g


def conduction(T: Float[Array, "n m b"], g: Float[Array, "f k c"]) -> Float[Array, "n m b"]:
    """Net conduction into each cell along the first axis [W/m^2].

    `g` holds the conductances of n + 1 faces, or one row of them when all inner faces are alike.
    """
    step = T[1:] - T[:-1]
    flow = g[1:-1] * step if g.shape[0] == T.shape[0] + 1 else g * step
    end = jnp.zeros_like(T[:1])
    return jnp.concatenate([flow, end]) - jnp.concatenate([end, flow])


def sweep(
    T: Float[Array, "n m b"],
    g: Float[Array, "f k b"],
    explicit: Float[Array, "n m b"],
    capacity: Float[Array, " b"],
    link: Float[Array, " b"],
    emission: Float[Array, " b"],
    implicitness: Float[Array, " b"],
    h: Float[Array, " b"],
) -> Float[Array, "n m b"]:
    """Half a time step, implicit along the first axis.

        C (T* - T) = h [ A T* + explicit - E(T) - w E'(T) (T* - T) - link ((1 - w) T + w T*) ],  E = eps sigma T^4

    with w = `implicitness`, 1/2 in Peaceman and Rachford's step.

    Args:
        T: Start of the half step [K].
        g: Conductances along the first axis, see `conduction` [W/m^2/K].
        explicit: Conduction across and heat loads at the start of the half step [W/m^2].
        capacity: Areal heat capacity C [J/m^2/K].
        link: Linear loss coefficient per unit area [W/m^2/K].
        emission: Emission factor of both faces together [-].
        implicitness: Weight of the end of the half step in the losses, see `loss_implicitness` [-].
        h: Half the time step [s]. Zero leaves T as it is.
    """
    n = T.shape[0]
    radiation = h * emission * SIGMA
    slope = (4 * implicitness * radiation)[None]
    rest = ((4 * implicitness - 1) * radiation)[None]
    held = (capacity - (1 - implicitness) * h * link)[None]
    ahead = (capacity + implicitness * h * link)[None]
    h = h[None]
    uniform = g.shape[0] == 1
    if uniform:
        row = jnp.arange(n)
        ends = ((row > 0).astype(T.dtype)[:, None, None], (row < n - 1).astype(T.dtype)[:, None, None])
        g_all = h * g[0]
    else:
        ends = (h[None] * g[:-1], h[None] * g[1:])

    def eliminate(carry, row):
        c, d = carry
        before, after, t, s = row
        before = before * g_all if uniform else before
        after = after * g_all if uniform else after
        cube = t * t * t
        pivot = 1 / (ahead + before + after + slope * cube - before * c)
        c = after * pivot
        d = ((held + rest * cube) * t + h * s + before * d) * pivot
        return (c, d), (c, d)

    zero = jnp.zeros_like(T[0])
    _, (c, d) = lax.scan(eliminate, (zero, zero), (*ends, T, explicit))

    def substitute(x, row):
        x = row[1] + row[0] * x
        return x, x

    return lax.scan(substitute, zero, (c, d), reverse=True)[1]


def fitted_theta(z: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Implicitness at which the theta method damps a mode by exactly exp(-z), z = rate x step [-].

        theta = 1/(1 - exp(-z)) - 1/z

    1/2 + z/12 for a slow mode, which keeps the second order, towards 1 for a stiff one, which takes the ringing of
    the midpoint rule away. Exponential fitting: Liniger and Willoughby, SIAM J. Numer. Anal. 7 (1970) 47.
    """
    small = z < 0.5
    safe = jnp.where(small, 1.0, z)
    series = 0.5 + z / 12 - z**3 / 720 + z**5 / 30240
    return jnp.where(small, series, -1 / jnp.expm1(-safe) - 1 / safe)


def loss_implicitness(
    mean: Float[Array, " b"],
    capacity: Float[Array, " b"],
    link: Float[Array, " b"],
    emission: Float[Array, " b"],
    h: Float[Array, " b"],
) -> Float[Array, " b"]:
    """Weight of the end of a half step in radiation and links, fitted to their own rate at the mean temperature [-].

    1/2 within a few per cent at ordinary steps. At steps far longer than the panel's time constant it goes to 1,
    where each half step is a Newton step and T^4 stays stable.
    """
    return fitted_theta(h * (4 * emission * SIGMA * mean**3 + link) / capacity)


def step(
    T: Float[Array, "nx ny b"],
    gx: Float[Array, "fx kx b"],
    gy: Float[Array, "fy ky b"],
    source: Float[Array, "sx sy b"],
    capacity: Float[Array, " b"],
    emission: Float[Array, " b"],
    dt: Float[Array, " b"],
) -> Float[Array, "nx ny b"]:
    """One Peaceman-Rachford step of a panel by itself.

    Args:
        T: Temperatures at the start [K].
        gx: Conductances along x, (nx + 1, ny, b), or (1, ny, b) where all inner faces are alike [W/m^2/K].
        gy: The same along y, axes swapped: (ny + 1, nx, b) or (1, 1, b).
        source: Absorbed heat and dissipation at mid-step, broadcast over the cells [W/m^2].
        capacity, emission, dt: See `sweep`; dt is the whole step [s].
    """
    h = dt / 2
    no_link = jnp.zeros_like(h)
    weight = loss_implicitness(jnp.mean(T, axis=(0, 1)), capacity, no_link, emission, h)
    source = jnp.broadcast_to(source, T.shape)
    across = jnp.swapaxes(conduction(jnp.swapaxes(T, 0, 1), gy), 0, 1)
    T = sweep(T, gx, across + source, capacity, no_link, emission, weight, h)
    along = jnp.swapaxes(conduction(T, gx) + source, 0, 1)
    T = sweep(jnp.swapaxes(T, 0, 1), gy, along, capacity, no_link, emission, weight, h)
    return jnp.swapaxes(T, 0, 1)


def residual(
    T: Float[Array, "nx ny b"],
    gx: Float[Array, "fx kx c"],
    gy: Float[Array, "fy ky c"],
    source: Float[Array, "nx ny b"],
    link: Float[Array, "nx ny b"],
    emission: Float[Array, " b"],
) -> Float[Array, "nx ny b"]:
    """Heat balance of each cell, zero at a steady state [W/m^2].

    `link` is a linear loss to 0 K [W/m^2/K]: an edge held at T0 is a link of 2 k t/dx^2 in the cells beside it, and
    that link times T0 in their source.
    """
    across = jnp.swapaxes(conduction(jnp.swapaxes(T, 0, 1), gy), 0, 1)
    return conduction(T, gx) + across + source - link * T - (emission * SIGMA)[None, None] * T**4


def steady(
    T: Float[Array, "nx ny b"],
    gx: Float[Array, "fx kx c"],
    gy: Float[Array, "fy ky c"],
    source: Float[Array, "nx ny b"],
    link: Float[Array, "nx ny b"],
    emission: Float[Array, " b"],
    iterations: int = 30,
) -> tuple[Float[Array, "nx ny b"], Float[Array, " b"]]:
    """Steady temperatures by Newton's method from T, and the largest last correction of each panel [K].

    Each correction solves the block-tridiagonal system exactly, row by row of cells (dense ny x ny blocks), so the
    number of iterations does not grow with the grid. From below the answer the first correction overshoots, as T^4
    is convex, and then falls to it without passing: corrections are held to a factor of two in T. Derivatives go
    by the implicit function theorem, in both modes.
    """
    nx, ny, _ = T.shape

    def jacobian_solve(at, r):
        """x with J x = r, J = d(residual)/dT at `at`; J is symmetric."""
        before, after = _sides(gx, nx)
        low, high = _sides(gy, ny)
        before, after = (jnp.broadcast_to(a, at.shape) for a in (before, after))
        low, high = (jnp.broadcast_to(a, (ny, nx, at.shape[2])) for a in (low, high))
        diag = -before - after - jnp.swapaxes(low + high, 0, 1) - link - (4 * SIGMA * emission)[None, None] * at**3

        def block(row_diag, row_low, row_high):
            m = jnp.zeros((at.shape[2], ny, ny), at.dtype)
            j = jnp.arange(ny)
            m = m.at[:, j, j].set(row_diag.T)
            m = m.at[:, j[1:], j[:-1]].set(row_low[1:].T)
            return m.at[:, j[:-1], j[1:]].set(row_high[:-1].T)

        def eliminate(carry, row):
            c, d = carry
            west, east, dg, lo, hi, b = row
            m = block(dg, lo, hi) - west.T[:, :, None] * c
            rhs = jnp.concatenate([east.T[:, :, None] * jnp.eye(ny, dtype=at.dtype)[None], b.T[:, :, None]], 2)
            rhs = rhs.at[:, :, -1].add(-(west.T * d))
            x = jnp.linalg.solve(m, rhs)
            return (x[:, :, :-1], x[:, :, -1]), (x[:, :, :-1], x[:, :, -1])

        b = at.shape[2]
        start = (jnp.zeros((b, ny, ny), at.dtype), jnp.zeros((b, ny), at.dtype))
        rows = (before, after, diag, jnp.swapaxes(low, 0, 1), jnp.swapaxes(high, 0, 1), r)
        _, (c, d) = lax.scan(eliminate, start, rows)

        def substitute(x, row):
            x = row[1] - jnp.einsum("bij,bj->bi", row[0], x)
            return x, x

        x = lax.scan(substitute, jnp.zeros((b, ny), at.dtype), (c, d), reverse=True)[1]
        return jnp.swapaxes(x, 1, 2)

    def balance(T):
        return residual(T, gx, gy, source, link, emission)

    # Newton is done when a correction is rounding.
    rounding = 1e3 * jnp.finfo(T.dtype).eps

    def newton(T0):
        def iterate(carry):
            k, T, _ = carry
            new = jnp.clip(T - jacobian_solve(T, balance(T)), T / 2, 2 * T)
            return k + 1, new, jnp.max(jnp.abs(new - T) / T)

        def unfinished(carry):
            return (carry[0] < iterations) & ~(carry[2] < rounding)

        return lax.while_loop(unfinished, iterate, (0, T0, jnp.ones((), T.dtype)))[1]

    def tangent(linear, r):
        # custom_linear_solve asks for the transpose in reverse mode; J is symmetric.
        def by_blocks(_, b):
            return jacobian_solve(lax.stop_gradient(answer), b)

        return lax.custom_linear_solve(linear, r, by_blocks, by_blocks, symmetric=True)

    answer = newton(lax.stop_gradient(T))
    T = lax.custom_root(balance, answer, lambda _, x: x, tangent)
    last = jacobian_solve(lax.stop_gradient(T), lax.stop_gradient(balance(T)))
    return T, jnp.max(jnp.abs(last), axis=(0, 1))
