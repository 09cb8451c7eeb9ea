"""Conducting, radiating sheet on a grid: what a panel of any make-up is to the solvers. Satellites on the last axis.

    C dT/dt = d/dx(kt_x dT/dx) + d/dy(kt_y dT/dy) + q - link T - eps(T) sigma T^4

per unit of sheet area, `eps` the emission factor of both faces together. Cell-centred, five points: second order in
the cell size. Conductivity that depends on temperature enters by Kirchhoff's transform, theta = integral of
k(T)/k(T_REF) dT: the flow between two cells is their conductance at T_REF times the difference of theta, which is
exact for one material and conserves heat to rounding.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .constants import CONVERGED, NOT_CONVERGED, NOT_FINITE, SIGMA
from .pytree import pytree, static

# Where a material's polynomials in temperature are expanded [K].
T_REF = 300.0


@pytree
class Sheet:
    """A panel as its cells see it. Each array has the grid's axes at full length, or 1 where all cells are alike.

    Attributes:
        capacity: Areal heat capacity [J/m^2/K].
        along: Conductances between neighbours along x, per unit of cell area, at T_REF [W/m^2/K]. Two rows stand for
            the first one, where a tube or heat pipe runs, and all others.
        across: The same along y.
        emission: Emission factor of both faces, polynomial in (T - T_REF): the first at T_REF [-], the next [1/K] ...
        link: Linear loss to 0 K [W/m^2/K]: an edge held at T0 is a link of 2 k t/dx^2 in the cells beside it, and
            that link times T0 in their source.
        along_slope: k_x(T)/k_x(T_REF) - 1, polynomial in (T - T_REF) from the first power on [1/K ...]; () if
            constant.
        across_slope: The same of k_y.
        pipe: Conductance of heat pipes along x that carry no more than `pipe_limit`; () if there are none. A pipe
            without limit, or with one that is not reached, belongs into `along` [W/m^2/K].
        pipe_limit: Most that such a pipe carries between two cells, per unit of cell area [W/m^2].
        nx: Cells along x. Static.
        ny: Cells along y. Static.
        passes: Of a tube, each in the middle one of as many equal parts of y; one alone at y = 0. Static.
    """

    capacity: Float[Array, "i j b"]
    along: Float[Array, "f j b"]
    across: Float[Array, "i f b"]
    emission: tuple[Float[Array, "i j b"], ...]
    link: Float[Array, "i j b"]
    along_slope: tuple[Float[Array, "i j b"], ...]
    across_slope: tuple[Float[Array, "i j b"], ...]
    pipe: tuple[Float[Array, "f j b"], ...]
    pipe_limit: tuple[Float[Array, "f j b"], ...]
    nx: int = static()
    ny: int = static()
    passes: int = static(default=1)

    @property
    def linear(self) -> bool:
        """Whether conduction is linear in temperature."""
        return not (self.along_slope or self.across_slope or self.pipe)


def tube_rows(ny: int, passes: int) -> slice:
    """Rows of cells in which the passes of a tube run."""
    each = ny // passes
    return slice(0, 1) if passes == 1 else slice(each // 2, None, each)


def face_conductances(kt: Float[Array, "n *rest"], width) -> Float[Array, "n-1 *rest"]:
    """Conductances between neighbours along the first axis from cells' k t [W/K], per cell area [W/m^2/K].

    Harmonic mean between unlike cells.
    """
    total = kt[1:] + kt[:-1]
    return 2 * kt[1:] * kt[:-1] / jnp.where(total > 0, total, 1.0) / width**2


def spread(A: Float[Array, "*f k b"], ny: int) -> Float[Array, "*f j b"]:
    """Rows that stand for the first one and all others, at full length; others as they are.

    By arithmetic, which a CPU puts into the loop that uses it, where a concatenation would break it.
    """
    if A.shape[-2] != 2 or ny == 2:
        return A
    first = (jnp.arange(ny) == 0).astype(A.dtype).reshape((1,) * (A.ndim - 2) + (ny, 1))
    return A[..., 1:, :] + first * (A[..., :1, :] - A[..., 1:, :])


def transform(T: Float[Array, "*n"], slope: tuple) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Kirchhoff's theta [K] and its slope, k(T)/k(T_REF) [-]."""
    if not slope:
        return T, jnp.ones_like(T)
    tau = T - T_REF
    theta, ratio, power = tau, jnp.ones_like(tau), jnp.ones_like(tau)
    for k, a in enumerate(slope, 1):
        power = power * tau
        ratio = ratio + a * power
        theta = theta + a * power * tau / (k + 1)
    return theta, ratio


def emitted(
    T: Float[Array, "*n"], emission: tuple[Array, ...]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Radiated by both faces [W/m^2], and its slope [W/m^2/K]."""
    square = T * T
    cube, fourth = square * T, square * square
    if len(emission) == 1:
        return emission[0] * SIGMA * fourth, 4 * emission[0] * SIGMA * cube
    tau = T - T_REF
    total, slope = emission[-1], jnp.zeros_like(T)
    for e in emission[-2::-1]:
        slope = slope * tau + total
        total = total * tau + e
    return SIGMA * total * fourth, SIGMA * cube * (4 * total + slope * T)


def more_emitted(
    T: Float[Array, "*n"], d: Float[Array, "*n"], emission: tuple[Array, ...]
) -> Float[Array, "*n"]:
    """What T + d radiates more than T does [W/m^2]."""
    constant, *slopes = emission
    if slopes:
        return emitted(T + d, emission)[0] - emitted(T, emission)[0]
    before, after = T * T, (T + d) * (T + d)
    return constant * SIGMA * (after * after - before * before)


def inflow(flow: Float[Array, "k l b"], axis: int) -> Float[Array, "n m b"]:
    """Net inflow of cells from what flows between them towards the lower index, ends insulated."""
    end = jnp.zeros_like(lax.slice_in_dim(flow, 0, 1, axis=axis))
    return jnp.concatenate([flow, end], axis) - jnp.concatenate([end, flow], axis)


def difference(T: Float[Array, "n m b"], axis: int) -> Float[Array, "k l b"]:
    """Each cell's successor less itself along an axis."""
    n = T.shape[axis]
    return lax.slice_in_dim(T, 1, n, axis=axis) - lax.slice_in_dim(T, 0, n - 1, axis=axis)


def pipe_flow(
    flow: Float[Array, "k l b"], most: Float[Array, "f j b"]
) -> tuple[Float[Array, "k l b"], Float[Array, "k l b"]]:
    """What a heat pipe carries of what its conductance asks [W/m^2], and the slope of that [-].

        f most / (|f|^8 + most^8)^(1/8)

    which is within 0.05 % of f at half the limit, and of the limit at twice it; a limit of zero is a failed pipe.
    """
    size = lax.stop_gradient(jnp.maximum(jnp.abs(flow), most))
    size = jnp.where(size > 0, size, 1.0)
    f, limit = flow / size, most / size
    rest = f**8 + limit**8
    rest = jnp.where(rest > 0, rest, 1.0)
    return flow * limit / rest**0.125, limit**9 / rest**1.125


def conduction(T: Float[Array, "nx ny b"], sheet: Sheet) -> tuple[Float[Array, "nx ny b"], ...]:
    """Net conduction into each cell along x and along y [W/m^2]."""
    theta_x, theta_y = transform(T, sheet.along_slope)[0], transform(T, sheet.across_slope)[0]
    flow = spread(sheet.along, sheet.ny) * difference(theta_x, 0)
    for g, most in zip(sheet.pipe, sheet.pipe_limit):
        flow = flow + pipe_flow(g * difference(T, 0), most)[0]
    return inflow(flow, 0), inflow(sheet.across * difference(theta_y, 1), 1)


def balance(
    T: Float[Array, "nx ny b"], source: Float[Array, "i j b"], sheet: Sheet
) -> Float[Array, "nx ny b"]:
    """Net heat into each cell, zero at a steady state [W/m^2]."""
    x, y = conduction(T, sheet)
    return x + y + source - sheet.link * T - emitted(T, sheet.emission)[0]


def solve_blocks(
    r: Float[Array, "nx ny b"],
    west: Float[Array, "nx ny b"],
    east: Float[Array, "nx ny b"],
    south: Float[Array, "nx ny b"],
    north: Float[Array, "nx ny b"],
    diagonal: Float[Array, "nx ny b"],
) -> Float[Array, "nx ny b"]:
    """x with diagonal x - west x_{i-1} - east x_{i+1} - south x_{j-1} - north x_{j+1} = r, directly.

    Block elimination along x with dense ny x ny blocks. Couplings beyond the ends do not count.
    """
    _, ny, b = r.shape
    j = jnp.arange(ny)
    identity = jnp.eye(ny, dtype=r.dtype)[None]

    def rows_last(a):
        return jnp.moveaxis(jnp.broadcast_to(a, r.shape), 2, 1)

    def eliminate(carry, row):
        c, d = carry
        w, e, s, n, dg, q = row
        m = jnp.zeros((b, ny, ny), r.dtype).at[:, j, j].set(dg)
        m = m.at[:, j[1:], j[:-1]].set(-s[:, 1:]).at[:, j[:-1], j[1:]].set(-n[:, :-1])
        m = m - w[:, :, None] * c
        right = jnp.concatenate([e[:, :, None] * identity, (q + w * d)[:, :, None]], 2)
        x = jnp.linalg.solve(m, right)
        return (x[:, :, :-1], x[:, :, -1]), (x[:, :, :-1], x[:, :, -1])

    def substitute(x, row):
        x = row[1] + jnp.einsum("bij,bj->bi", row[0], x, precision=lax.Precision.HIGHEST)
        return x, x

    zero = jnp.zeros((b, ny), r.dtype)
    west = jnp.broadcast_to(west, r.shape).at[0].set(0)
    rows = tuple(rows_last(a) for a in (west, east, south, north, diagonal, r))
    _, (c, d) = lax.scan(eliminate, (jnp.zeros((b, ny, ny), r.dtype), zero), rows)
    x = lax.scan(substitute, zero, (c, d), reverse=True)[1]
    return jnp.moveaxis(x, 1, 2)


def linearised_solve(
    T: Float[Array, "nx ny b"],
    r: Float[Array, "nx ny b"],
    held: Float[Array, "i j b"],
    h: Float[Array, " b"],
    sheet: Sheet,
    transpose: bool = False,
) -> Float[Array, "nx ny b"]:
    """x with (held - h J) x = r, J the Jacobian of `balance` at T, or its transpose."""
    h = h[None, None]
    nx, ny = sheet.nx, sheet.ny
    k_x, k_y = transform(T, sheet.along_slope)[1], transform(T, sheet.across_slope)[1]
    along = jnp.broadcast_to(spread(sheet.along, ny), (nx - 1, ny, T.shape[2]))
    across = jnp.broadcast_to(sheet.across, (nx, ny - 1, T.shape[2]))
    extra = jnp.zeros_like(along)
    for g, most in zip(sheet.pipe, sheet.pipe_limit):
        extra = extra + g * pipe_flow(g * difference(T, 0), most)[1]

    def sides(g, axis):
        end = jnp.zeros_like(lax.slice_in_dim(T, 0, 1, axis=axis))
        return jnp.concatenate([end, g], axis), jnp.concatenate([g, end], axis)

    (west, east), (south, north), (before, after) = sides(along, 0), sides(across, 1), sides(extra, 0)
    own = (west + east) * k_x + before + after + (south + north) * k_y
    diagonal = held + h * (own + sheet.link + emitted(T, sheet.emission)[1])
    if transpose:
        west, east, south, north = west * k_x, east * k_x, south * k_y, north * k_y
    else:
        west, east = west * jnp.roll(k_x, 1, 0), east * jnp.roll(k_x, -1, 0)
        south, north = south * jnp.roll(k_y, 1, 1), north * jnp.roll(k_y, -1, 1)
    return solve_blocks(r, h * (west + before), h * (east + after), h * south, h * north, diagonal)


def steady(
    T: Float[Array, "nx ny b"], source: Float[Array, "i j b"], sheet: Sheet, iterations: int = 40
) -> tuple[Float[Array, "nx ny b"], Int[Array, " b"]]:
    """Steady temperatures by Newton's method from T, and the status of each panel.

    Each correction solves the block-tridiagonal system exactly, so that the number of iterations does not grow with
    the grid. From below the answer the first correction overshoots, as T^4 is convex, and the next ones fall to it
    without passing: corrections are held to a factor of two in T. A panel has converged when its last correction is
    rounding and its heat balance closes to 1e-8 of its throughput in float64; in float32 to what the rounding of
    temperatures leaves. Derivatives go by the implicit function theorem, in both modes.

    Returns:
        Temperatures [K] and CONVERGED, NOT_CONVERGED or NOT_FINITE.
    """
    rounding = 1e2 * float(jnp.finfo(T.dtype).eps)
    zero, one = jnp.zeros_like(T[:1, :1]), jnp.ones_like(T[0, 0])
    fixed, frozen = lax.stop_gradient((source, sheet))

    def correction(T):
        return linearised_solve(T, balance(T, fixed, frozen), zero, one, frozen)

    def advance(T):
        change = correction(T)
        if not sheet.pipe:
            return jnp.clip(T + change, T / 2, 2 * T)
        # A pipe at its limit hides its conductance from Newton: of a few shorter corrections the one that leaves
        # least.
        tried = [jnp.clip(T + change * 0.5**k, T / 2, 2 * T) for k in range(8)]
        left = jnp.stack([jnp.sum(balance(new, fixed, frozen) ** 2, axis=(0, 1)) for new in tried])
        best = jnp.argmin(left, axis=0)
        return jnp.take_along_axis(jnp.stack(tried), best[None, None, None], axis=0)[0]

    def iterate(carry):
        k, T, _ = carry
        new = advance(T)
        return k + 1, new, jnp.max(jnp.abs(new - T) / T, axis=(0, 1))

    def unfinished(carry):
        # A panel that is not finite compares false: it does not keep the others waiting.
        return (carry[0] < iterations) & jnp.any(carry[2] > rounding)

    start = (jnp.int32(0), lax.stop_gradient(T), jnp.ones(T.shape[2], T.dtype))
    answer = lax.while_loop(unfinished, iterate, start)[1]

    def tangent(linear, r):
        def direct(_, r):
            return -linearised_solve(answer, r, zero, one, frozen)

        def transposed(_, r):
            return -linearised_solve(answer, r, zero, one, frozen, transpose=True)

        return lax.custom_linear_solve(linear, r, direct, transposed)

    T = lax.custom_root(lambda T: balance(T, source, sheet), answer, lambda _, guess: guess, tangent)
    single = T.dtype == jnp.float32
    throughput = jnp.maximum(emitted(answer, frozen.emission)[0], jnp.abs(fixed))
    left = jnp.max(
        jnp.abs(balance(answer, fixed, frozen)) / jnp.max(throughput, axis=(0, 1), keepdims=True), axis=(0, 1)
    )
    last = jnp.max(jnp.abs(correction(answer)), axis=(0, 1))
    done = last < 1e-4 if single else (last < 1e-7) & (left < 1e-8)
    status = jnp.where(jnp.isfinite(last), jnp.where(done, CONVERGED, NOT_CONVERGED), NOT_FINITE)
    return T, status.astype(jnp.int32)


def tr_bdf2_step(
    T: Float[Array, "nx ny b"], source: Float[Array, "i j b"], dt: Float[Array, " b"], sheet: Sheet
) -> Float[Array, "nx ny b"]:
    """One step without splitting, for rough starts and steps much longer than the panel's own times [K].

    TR-BDF2 (Bank et al., IEEE Trans. Electron Devices 32 (1985) 1992; Hosea and Shampine, Appl. Numer. Math. 20
    (1996) 21): a trapezoid over gamma dt, gamma = 2 - sqrt 2, then a second-order backward difference to the end of
    the step, each with one Newton correction. Second order and L-stable: what is stiff is damped at once. Two direct
    solves of the whole panel, some ten times the cost of `adi.step`. Its steady state is that of `steady`.
    """
    gamma = 2 - 2**0.5
    past = (1 - gamma) ** 2 / (gamma * (2 - gamma))
    h = gamma / 2 * dt
    over = h[None, None]
    rise = linearised_solve(T, 2 * over * balance(T, source, sheet), sheet.capacity, h, sheet)
    mid = T + rise
    heat = over * balance(mid, source, sheet) + past * sheet.capacity * rise
    return mid + linearised_solve(mid, heat, sheet.capacity, h, sheet)
