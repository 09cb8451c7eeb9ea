"""One time step of a sheet by alternating directions: Peaceman and Rachford's, in increments.

With F the heat balance of `sheet.balance`, h half the step, A_x and A_y conduction along each axis and r a loss rate,

    (C + h r1 - h A_y) d = h F(T)                                                   to mid-step, T + d
    (C + h r2 - h A_x) u = 2 h [F(T + d) - F(T) - (A_y - r1) d],   T_end = T + 2 d + u

For linear F, and r half the slope of its losses, this is Peaceman and Rachford's scheme (J. SIAM 3 (1955) 28); as it
is written it is of second order whatever r is. Radiation is far from stiff at ordinary steps, so r is zero there:
radiation is taken at mid-step, the matrices do not depend on temperature, and every line of a uniform panel has the
same. Where a step outlasts the panel's own time constant r rises with it (`loss_rates`). The solution of the
undivided steady equations is left unchanged, whatever the step. Across the tubes (y) comes first: coolant enters
there, in the half step in which conduction towards the tube is implicit.

Conduction along x is carried from step to step, `S` = A_x T, and brought up to date from the solution of the second
half, where it stands divided by the same stiffness: float32 then holds a stiff heat pipe as well as a thin sheet,
which differences of rounded temperatures do not.

The arithmetic of a step stands once, in `first_heat`, `second_heat` and `eliminate`/`substitute`, as functions of
lines of cells. Two drivers of it are here, those of accelerators in `adi_tpu` and `adi_gpu`: `Field` takes all lines
at once, as arrays, and is differentiable; `Buffers` takes line by line and writes in place, which a CPU does faster.
Inside a step the panel lies with y first: (ny, nx, b).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .constants import SIGMA
from .numerics import segmented_scan
from .platforms import choose
from .sheet import (
    Sheet,
    conduction,
    difference,
    emitted,
    inflow,
    more_emitted,
    spread,
    tr_bdf2_step,
    transform,
)
from .tridiagonal import rows


# scan and vmap rebuild a pytree with other ranks: its fields cannot be shape-checked at run time.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factors:
    """Elimination of (held - h A) x = q along one axis, from its last line to the first.

        u_i = q_i + c_{i+1} u_{i+1},    x_i = m_i u_i + c_i x_{i-1}

    Attributes:
        c: n + 1 lines; zero in the first one and behind the last one [-].
        m: What a joule per square metre in a line raises it by if the lines before it stay [m^2 K/J].
    """

    c: Float[Array, "l m b"]
    m: Float[Array, "n m b"]


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Half:
    """A sheet's coefficients for one half step, lines of the implicit axis first.

    Attributes:
        factors: Of the elimination along the axis; constants to derivatives, see `solve`.
        before, after: Conductance to the line before and after [W/m^2/K]; zero at the ends.
        gain: What multiplies d in the second half's heat [J/m^2/K]; zero in the first.
        emission: Emission factor, see Sheet.
        link: [W/m^2/K].
        h: Half the step, with the axes of a grid [s].
        held: Capacity and implicit losses [J/m^2/K].
    """

    factors: Factors
    before: Float[Array, "n m b"]
    after: Float[Array, "n m b"]
    gain: Float[Array, "n m b"]
    emission: tuple[Float[Array, "n m b"], ...]
    link: Float[Array, "n m b"]
    h: Float[Array, "1 1 b"]
    held: Float[Array, "n m b"] | None = None

    @classmethod
    def of_cells(cls, emission: tuple, h, link=None, gain=None) -> "Half":
        """What `first_heat` or `second_heat` ask for, of cells whose conduction is reckoned elsewhere."""
        return cls(None, None, None, gain, emission, link, h)


# Heat of the cells, y first [W/m^2], as terms that are added up line by line: one that all cells share stays small.
Source = tuple[Float[Array, "_ _ b"], ...]


# --- the arithmetic of a step, on lines of cells


def conducted(T, before, after, half: Half, slope=()):
    """Conduction into a line from the lines `before` and `after` it [W/m^2]."""
    line, low, high = T, before, after
    if slope:
        line, low, high = (transform(t, slope)[0] for t in (T, before, after))
    return half.before * (low - line) + half.after * (high - line)


def net(flow, j: int):
    """Net inflow of the j-th of a list of cells from what flows between them, ends insulated."""
    if j in (0, len(flow)):
        return flow[0] if j == 0 else -flow[-1]
    return flow[j] - flow[j - 1]


def first_heat(T, across, S, source, half: Half):
    """Right-hand side of the first half step [J/m^2]; `across` and `S` are conduction into the line, y and x."""
    return half.h * (S + across + source - half.link * T - emitted(T, half.emission)[0])


def second_heat(T, d, more, half: Half):
    """Right-hand side of the second half step for D [J/m^2].

    2 [(C + h r1 + h r2 - h link) d - h (E(T + d) - E(T))] + 2 h more
    """
    # From a rough start the middle of a long step may lie anywhere, which conduction survives and T^4 would not.
    rise = jnp.minimum(jnp.maximum(d, -150.0), 150.0)
    return half.gain * d - 2 * half.h * (more_emitted(T, rise, half.emission) - more)


def second_gain(capacity, first, losses, link, h):
    """What multiplies d in the second half's heat, from the implicit losses of both halves [J/m^2/K]."""
    return 2 * (capacity + first + losses - h * link)


def eliminate(q, c_next, u_next):
    return q + c_next * u_next


def substitute(m, u, c, x_before):
    return m * u + c * x_before


def pivot(before, after, held, c_next):
    """A line's factors c and m, from those of the line behind it; `before` and `after` are its links [J/m^2/K]."""
    m = 1 / (held + before + after * (1 - c_next))
    return before * m, m


# --- coefficients


def turn(a: Float[Array, "i j b"]) -> Float[Array, "j i b"]:
    return jnp.swapaxes(a, 0, 1)


def factorise(
    before: Float[Array, "n m b"], after: Float[Array, "n m b"], held: Float[Array, "n m b"]
) -> Factors:
    """Factors of `held` x - conduction, links before and after each line [J/m^2/K]."""

    def line(c, lines):
        before, after, held = lines
        c, m = pivot(before, after, held, c)
        return c, (c, m)

    zero = jnp.zeros_like(before[:1])
    _, (c, m) = lax.scan(line, zero[0], (before, after, held), reverse=True)
    return Factors(jnp.concatenate([c, zero]), m)


# Longest half step, in time constants of radiation, that a panel is advanced by. What it has not forgotten after
# three of them it forgets in the next step.
LONGEST = 1.5


def half_step(mean4: Float[Array, " b"], sheet: Sheet, dt: Float[Array, " b"]) -> Float[Array, " b"]:
    """Half of dt, or LONGEST if that is less [s].

    A panel that is alone with its radiation for longer than that has settled; to go on would only let it swing.
    """
    return half_of(dt, jnp.max(_radiation_rate(mean4, sheet), axis=(0, 1)))


def half_of(dt, rate):
    return jnp.minimum(dt / 2, LONGEST / jnp.where(rate > 0, rate, 1e-15))


def _radiation_rate(mean4: Float[Array, " b"], sheet: Sheet) -> Float[Array, "i j b"]:
    return radiation_rate(mean4[None, None], sheet.emission[0] / sheet.capacity)


def radiation_rate(mean4, emission):
    """4 eps sigma T^3 / C of cells a fifth hotter than the mean [1/s]; `emission`: eps / C."""
    fourth = 2 * mean4
    # T^3 from T^4 without a power's logarithm.
    return 4 * SIGMA * emission * (fourth * lax.rsqrt(fourth * lax.rsqrt(fourth)))


def loss_rates(
    mean4: Float[Array, " b"], mid4: Float[Array, " b"], sheet: Sheet, h: Float[Array, " b"]
) -> tuple[Float[Array, "i j b"], Float[Array, "i j b"]]:
    """h r1 / C and h r2 / C [-], from the mean T^4 at the start and at mid-step.

    A mode that conduction damps by a along x and b along y (h A / C) and losses by z is multiplied by

        R = 1 - 2 (a + b + z)(1 + y1 + y2 - z) / ((1 + y1 + b)(1 + y2 + a))

    stable for every a and b if y1, y2 <= z <= 1 + y1 + y2. Radiation, whose z differs from cell to cell, gets y = 0
    as long as z <= 1 everywhere, and the least that will do beyond. A linear link, whose z is known exactly, gets z
    (g + 0.7 z)/(1 + z), g = 1 - 1/sqrt 3, with which R follows exp(-2 z) to third order and stays small.
    """
    rates = _radiation_rate(mean4, sheet), _radiation_rate(mid4, sheet)
    return loss_pair(*rates, sheet.link / sheet.capacity, h[None, None])


def loss_pair(start, mid, link, h):
    z = h * link
    linear = z * (0.42265 + 0.7 * z) / (1 + z)
    first = 0.55 * jnp.maximum(h * start - 1, 0.0)
    second = jnp.maximum(1.1 * (h * mid - 1) - first, 0.0)
    return linear + first, linear + second


def _half(g, capacity, losses, gain, emission, link, h, n: int) -> Half:
    shape = jnp.broadcast_shapes(g.shape[1:], capacity.shape[1:], losses.shape[1:])
    zero = jnp.zeros((1, *shape), g.dtype)
    inner = jnp.broadcast_to(g, (n - 1, *shape))
    before, after = jnp.concatenate([zero, inner]), jnp.concatenate([inner, zero])
    held = jnp.broadcast_to(capacity + losses, (n, *shape))
    h = h[None, None]
    factors = factorise(*lax.stop_gradient((h * before, h * after, held)))
    return Half(factors, before, after, gain, emission, link, h, held)


def first_coefficients(mean4: Float[Array, " b"], sheet: Sheet, h: Float[Array, " b"]) -> Half:
    """Coefficients of the first half step, y first. `mean4`: the sheet's mean T^4 [K^4]."""
    capacity, link = turn(sheet.capacity), turn(sheet.link)
    losses = turn(sheet.capacity * loss_rates(mean4, mean4, sheet, h)[0])
    emission = tuple(turn(e) for e in sheet.emission)
    return _half(turn(sheet.across), capacity, losses, jnp.zeros_like(link), emission, link, h, sheet.ny)


def second_coefficients(
    mean4: Float[Array, " b"],
    mid4: Float[Array, " b"],
    sheet: Sheet,
    h: Float[Array, " b"],
) -> Half:
    """Coefficients of the second half step, x first. `mean4`, `mid4`: mean T^4 at the start and at mid-step [K^4]."""
    first, second = (sheet.capacity * y for y in loss_rates(mean4, mid4, sheet, h))
    gain = second_gain(sheet.capacity, first, second, sheet.link, h[None, None])
    unlike = max(a.shape[1] for a in (sheet.capacity, sheet.link, sheet.emission[0])) > 2
    along = spread(sheet.along, sheet.ny) if unlike else sheet.along
    return _half(along, sheet.capacity, second, gain, sheet.emission, sheet.link, h, sheet.nx)


# --- all lines at once, differentiable


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Field:
    """A sheet under way, as arrays.

    Attributes:
        T: Temperatures [K].
        S: Conduction along x into each cell [W/m^2].
        q: Right-hand side of the first half step, None outside it [J/m^2].
        d: Increments to mid-step [K], None outside a step.
    """

    T: Float[Array, "ny nx b"]
    S: Float[Array, "ny nx b"]
    q: Float[Array, "ny nx b"] | None = None
    d: Float[Array, "ny nx b"] | None = None

    @classmethod
    def start(cls, T: Float[Array, "nx ny b"], sheet: Sheet) -> "Field":
        return cls(turn(T), turn(conduction(T, sheet)[0]))

    def first_half(self, source: Source, half: Half, sheet: Sheet) -> "Field":
        """Right-hand side of the first half step, from the sources at its start [W/m^2]."""
        T = self.T
        across = conducted(T, _neighbour(T, -1), _neighbour(T, 1), half, sheet.across_slope)
        return replace(self, q=first_heat(T, across, self.S, sum(source), half))

    def wall(self, half: Half) -> tuple[Float[Array, "nx b"], Float[Array, "nx b"], Float[Array, "k b"]]:
        """The line at y = 0: its temperature at the start, its increment if nothing else heats it [K], and how much
        more that gets for a joule per square metre [m^2 K/J]."""
        one = jnp.zeros_like(half.held).at[0].set(1)
        return self.T[0], solve(half, self.q)[0], solve(half, one)[0]

    def finish_first(self, half: Half, first: Float[Array, "nx b"] | None = None) -> "Field":
        """Increments to mid-step. `first`: those of the line at y = 0 where coolant has its say [K]."""
        if first is None:
            return replace(self, q=None, d=solve(half, self.q))
        assert self.q is not None  # between the halves of a step
        fed = self.q[1:].at[0].add(half.h[0] * half.before[1] * first)
        return replace(self, q=None, d=jnp.concatenate([first[None], solve(half, fed, start=1)]))

    def mid_means(self) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Mean over the panel of T [K] and T^4 [K^4] at mid-step."""
        return means(self.T + self.d)

    def second_half(self, more: Float[Array, "j i b"], half: Half, sheet: Sheet) -> "Field":
        """The end of the step. `more`: source at mid-step less that of `first_half` [W/m^2]."""
        T, d = turn(self.T), turn(self.d)
        if not sheet.linear:
            more = more + turn(_beyond_linear(T, d, sheet))
        q = second_heat(T, d, turn(more), half)
        D = solve(jax.tree.map(lambda a: spread(a, sheet.ny), half), q)
        if not sheet.linear:
            return Field.start(T + D, sheet)
        along = inflow(spread(sheet.along, sheet.ny) * difference(D, 0), 0)
        return Field(self.T + turn(D), self.S + turn(along))


def solve(half: Half, q: Float[Array, "n m b"], start: int = 0) -> Float[Array, "n m b"]:
    """x of the half step's equations from line `start` on, the line before it zero.

    Derivatives, in both modes, are those of the equations: one more solve, not a way back through the elimination.
    """
    before, after = (half.h * a[start:] for a in (half.before, half.after))
    assert half.held is not None  # but in kernels, which do not solve by it
    held, c, m = half.held[start:], half.factors.c[start:], half.factors.m[start:]

    def shifted(x, k):
        zero = jnp.zeros_like(x[:1])
        return jnp.concatenate([zero, x[:-1]] if k < 0 else [x[1:], zero])

    def product(x):
        return (held + before + after) * x - before * shifted(x, -1) - after * shifted(x, 1)

    def direct(_, q):
        return rows(m * rows(q, c[1:], True), c[:-1], False)

    # The link of a line to the next one is the next one's link to it: the matrix is symmetric.
    return lax.custom_linear_solve(product, q, direct, symmetric=True)


def _neighbour(A, k):
    """Each line's neighbour, itself at the ends."""
    return jnp.concatenate([A[:1], A[:-1]] if k < 0 else [A[1:], A[-1:]])


def _beyond_linear(T, d, sheet: Sheet) -> Float[Array, "nx ny b"]:
    """What conduction changes over d beyond the linear conduction that the half steps are implicit in [W/m^2]."""
    before, after = conduction(T, sheet), conduction(T + d, sheet)
    along = spread(sheet.along, sheet.ny) * difference(d, 0)
    linear = inflow(along, 0) + inflow(sheet.across * difference(d, 1), 1)
    return after[0] - before[0] + after[1] - before[1] - linear


# --- without splitting


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unsplit:
    """A sheet under way by `sheet.tr_bdf2_step`: heat pipes at their limit are too stiff and too bent to be split."""

    T: Float[Array, "ny nx b"]

    @classmethod
    def start(cls, T: Float[Array, "nx ny b"], sheet: Sheet) -> "Unsplit":
        return cls(turn(T))

    def step(self, source: Source, dt: Float[Array, " b"], sheet: Sheet) -> "Unsplit":
        return Unsplit(turn(tr_bdf2_step(turn(self.T), turn(sum(source)), dt, sheet)))


# --- line by line, in place


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Buffers:
    """A sheet under way in work arrays that a march keeps, so that no step allocates or clears any.

    One line more than the grid has, never written, is where a recurrence starts. Of linear conduction only, and not
    to be differentiated.

    Attributes:
        padded: Temperatures, a ghost line at either end that no conductance leads to [K].
        S: Conduction along x [W/m^2].
        u: First elimination. d: Increments to mid-step, x first. v: Second elimination. D: Increments of the step.
    """

    padded: Float[Array, "ny2 nx b"]
    S: Float[Array, "ny nx b"]
    u: Float[Array, "ny1 nx b"]
    d: Float[Array, "nx ny1 b"]
    v: Float[Array, "nx1 ny b"]
    D: Float[Array, "nx1 ny b"]

    @classmethod
    def start(cls, T: Float[Array, "nx ny b"], sheet: Sheet) -> "Buffers":
        field = Field.start(T, sheet)
        ny, nx, b = field.T.shape

        def zeros(*shape):
            return jnp.zeros((*shape, b), T.dtype)

        padded = jnp.concatenate([field.T[:1], field.T, field.T[-1:]])
        work = zeros(ny + 1, nx), zeros(nx, ny + 1), zeros(nx + 1, ny), zeros(nx + 1, ny)
        return cls(padded, field.S, *work)

    @property
    def T(self) -> Float[Array, "ny nx b"]:
        return self.padded[1:-1]

    def first_half(self, source: Source, half: Half, sheet: Sheet) -> "Buffers":
        def body(k, u):
            j = sheet.ny - 1 - k
            T, lines = _line(self.padded, j + 1), _lines(half, j)
            across = conducted(T, _line(self.padded, j), _line(self.padded, j + 2), lines)
            q = first_heat(T, across, _line(self.S, j), sum(_line(s, j) for s in source), lines)
            return _put(u, eliminate(q, _line(half.factors.c, j + 1), _line(u, j + 1)), j)

        return replace(self, u=lax.fori_loop(0, sheet.ny, body, self.u))

    def wall(self, half: Half) -> tuple[Float[Array, "nx b"], Float[Array, "nx b"], Float[Array, "k b"]]:
        return self.padded[1], half.factors.m[0] * self.u[0], half.factors.m[0]

    def finish_first(self, half: Half, first: Float[Array, "nx b"] | None = None) -> "Buffers":
        if first is None:
            first = half.factors.m[0] * self.u[0]
        m, c = half.factors.m, half.factors.c

        def body(j, d):
            value = substitute(_line(m, j), _line(self.u, j), _line(c, j), _column(d, j))
            return lax.dynamic_update_index_in_dim(d, value, j + 1, 1)

        d = lax.dynamic_update_index_in_dim(self.d, first, 1, 1)
        return replace(self, d=lax.fori_loop(1, self.S.shape[0], body, d))

    def mid_means(self) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        def add(i, sums):
            mid = _column(self.padded, i)[1:-1] + _line(self.d, i)[1:]
            return sums[0] + mid, sums[1] + (mid * mid) ** 2

        ny, nx, b = self.S.shape
        zero = jnp.zeros((ny, b), self.S.dtype)
        T, T4 = lax.fori_loop(0, nx, add, (zero, zero))
        return line_mean(T[None]) / nx, line_mean(T4[None]) / nx

    def second_half(self, more: Float[Array, "j i b"], half: Half, sheet: Sheet) -> "Buffers":
        c, m = half.factors.c, half.factors.m
        ny, nx = sheet.ny, sheet.nx

        def eliminated(k, v):
            i = nx - 1 - k
            T, d = _column(self.padded, i)[1:-1], _line(self.d, i)[1:]
            q = second_heat(T, d, _column(more, i), _lines(half, i))
            return _put(v, eliminate(q, spread(_line(c, i + 1), ny), _line(v, i + 1)), i)

        def substituted(i, D):
            lines = spread(_line(m, i), ny), _line(v, i), spread(_line(c, i), ny), _line(D, i)
            return _put(D, substitute(*lines), i + 1)

        v = lax.fori_loop(0, nx, eliminated, self.v)
        D = lax.fori_loop(0, nx, substituted, self.D)
        along = inflow(spread(sheet.along, ny) * difference(D[1:], 0), 0)
        return replace(self, padded=self.padded.at[1:-1].add(turn(D[1:])), S=self.S + turn(along), v=v, D=D)


def _line(A, i):
    """Line i, or the only one."""
    return A[0] if A.shape[0] == 1 else lax.dynamic_index_in_dim(A, i, keepdims=False)


def _column(A, i):
    return A[:, 0] if A.shape[1] == 1 else lax.dynamic_index_in_dim(A, i, 1, keepdims=False)


def _put(A, line, i):
    return lax.dynamic_update_index_in_dim(A, line, i, 0)


def _lines(half: Half, i) -> Half:
    """A half step's coefficients of one line, its factors excepted."""
    line = {k: _line(getattr(half, k), i) for k in ("before", "after", "gain", "link", "h")}
    return replace(half, emission=tuple(_line(e, i) for e in half.emission), **line)


# --- a sheet by itself


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Extremes:
    """What a march has seen.

    Attributes:
        hottest, coldest: Cell temperatures, at the start and at the ends of the steps [K].
        mean: Of the panel's mean temperature over time, by the trapezoidal rule [K].
    """

    hottest: Float[Array, " b"]
    coldest: Float[Array, " b"]
    mean: Float[Array, " b"]


def line_mean(A: Float[Array, "i j b"]) -> Float[Array, " b"]:
    """Mean over both axes of the grid; a loop over lines, where a CPU's library reduction takes ten times as long."""

    def add(A):
        return lax.fori_loop(1, A.shape[0], lambda i, total: total + _line(A, i), A[0])

    return add(add(A)) / (A.shape[0] * A.shape[1])


def means(T: Float[Array, "i j b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Mean over the sheet of T [K] and of T^4 [K^4]."""
    return line_mean(T), line_mean((T * T) ** 2)


def settled_fourth(source, emission):
    ideal = source / (SIGMA * jnp.where(emission > 0, emission, 1.0))
    return jnp.where(emission > 0, jnp.maximum(ideal, 0.0), 0.0)


def settled(source: Source, sheet: Sheet) -> Float[Array, " b"]:
    """T^4 at which the sheet would radiate its mean source: where long steps from the cold lead [K^4]."""
    mean = sum(jnp.mean(s, axis=(0, 1)) for s in source)
    return settled_fourth(mean, jnp.mean(sheet.emission[0], axis=(0, 1)))


def step(panel: Field | Buffers, source: Source, dt: Float[Array, " b"], sheet: Sheet) -> Field | Buffers:
    """One step of a sheet by itself: what heats it [W/m^2], y first; dt the whole step [s]. See the module."""
    # A few lines of the panel are mean enough for what follows from it.
    mean4 = jnp.maximum(means(panel.T[:: max(1, sheet.ny // 4)])[1], settled(source, sheet))
    h = half_step(mean4, sheet, dt)
    first = first_coefficients(mean4, sheet, h)
    second = second_coefficients(mean4, mean4, sheet, h)
    panel = panel.first_half(source, first, sheet).finish_first(first)
    return panel.second_half(jnp.zeros_like(dt)[None, None], second, sheet)


def transient(
    T: Float[Array, "nx ny b"],
    source: Float[Array, "i j b"],
    load: Float[Array, "k b"],
    dt: Float[Array, "k b"],
    sheet: Sheet,
    extremes: bool = False,
) -> tuple[Float[Array, "nx ny b"], Extremes | None]:
    """Temperatures after k steps [K], and with `extremes` what they have been on the way.

    Args:
        T: At the start [K].
        source: Heat that stays the same: strips, links to held edges [W/m^2].
        load: Heat of each step, alike over the panel: what it absorbs [W/m^2].
        dt: Lengths of the steps [s]. Laid between jumps of the load they keep the second order; zero does nothing.

    Second order in time. Derivatives in both modes; in reverse the march is kept at the square root of its steps and
    computed anew between, so that memory grows with that. On a TPU and on an NVIDIA data-centre GPU (compute
    capability 9 and 10) all steps are one kernel, see `adi_tpu` and `adi_gpu`: of linear conduction, in float32, on
    grids that fit the chip, not under vmap; otherwise XLA's own loops. Heat pipes that may reach their limit are
    marched by `sheet.tr_bdf2_step`, which serves rough starts too.
    """
    return _transient(T, source, load, dt, sheet, extremes)


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def _transient(T, source, load, dt, sheet: Sheet, extremes: bool):
    one = jax.ShapeDtypeStruct(T.shape[-1:], T.dtype)
    out = jax.ShapeDtypeStruct(T.shape, T.dtype), Extremes(one, one, one) if extremes else None
    ways = {"default": _with_loops, "cuda": _on_gpu, "tpu": _on_tpu}
    return choose(ways, out, T, source, load, dt, sheet, extremes=extremes)


@_transient.defjvp
def _(extremes, primals, tangents):
    def march(T, source, load, dt, sheet):
        return _march(T, source, load, dt, sheet, _differentiable(sheet), extremes)

    return jax.jvp(march, primals, tangents)


def _with_loops(T, source, load, dt, sheet: Sheet, extremes: bool):
    return _march(T, source, load, dt, sheet, Buffers if sheet.linear else _differentiable(sheet), extremes)


def _differentiable(sheet: Sheet):
    return Unsplit if sheet.pipe else Field


def _on_gpu(T, source, load, dt, sheet: Sheet, extremes: bool):
    adi_gpu = _gpu_kernel()
    if adi_gpu is not None and adi_gpu.supports(T, sheet):
        return adi_gpu.transient(T, source, load, dt, sheet, extremes)
    return _march(T, source, load, dt, sheet, _differentiable(sheet), extremes)


def _gpu_kernel():
    """The kernel's module, None where JAX's Pallas is older than it or lacks absl: loops do it then."""
    if jax.__version_info__ < (0, 10, 2):
        return None
    try:
        from . import adi_gpu
    except ImportError:
        return None
    return adi_gpu


def _on_tpu(T, source, load, dt, sheet: Sheet, extremes: bool):
    from . import adi_tpu

    if load.shape[0] > 0 and adi_tpu.supports(T, sheet):
        return adi_tpu.transient(T, source, load, dt, sheet, extremes)
    return _with_loops(T, source, load, dt, sheet, extremes)


def _march(T, source, load, dt, sheet: Sheet, driver, extremes: bool = False):
    source = turn(source)

    def advance(carry, row):
        panel, seen = carry
        load, dt = row
        advanced = panel.step if isinstance(panel, Unsplit) else partial(step, panel)
        panel = advanced((source, load[None, None]), dt, sheet)
        if not extremes:
            return (panel, ()), None
        hottest, coldest, mean, integral = seen
        high, low, now = glance(panel.T)
        integral = integral + dt * ((mean + now) / 2 - start[2])
        return (panel, (jnp.maximum(hottest, high), jnp.minimum(coldest, low), now, integral)), None

    panel = driver.start(T, sheet)
    start: Any = glance(panel.T) if extremes else ()
    seen: Any = (*start, jnp.zeros_like(start[0])) if extremes else ()
    march = lax.scan if driver is Buffers else segmented_scan
    (panel, seen), _ = march(advance, (panel, seen), (load, dt))
    return turn(panel.T), Extremes(seen[0], seen[1], time_mean(start[2], seen[3], dt)) if extremes else None


def glance(T: Float[Array, "i j b"]) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, " b"]]:
    """Hottest, coldest and mean temperature of a sheet [K], in one loop over its lines, as in `line_mean`."""

    def look(i, seen):
        line = _line(T, i)
        return jnp.maximum(seen[0], line), jnp.minimum(seen[1], line), seen[2] + line

    high, low, total = lax.fori_loop(1, T.shape[0], look, (T[0], T[0], T[0]))
    return jnp.max(high, 0), jnp.min(low, 0), jnp.sum(total, 0) / (T.shape[0] * T.shape[1])


def time_mean(
    start: Float[Array, " b"], integral: Float[Array, " b"], dt: Float[Array, "k b"]
) -> Float[Array, " b"]:
    """Mean over a march from what it was at the start and the integral over time of what it rose by since [K]."""
    time = jnp.sum(dt, axis=0)
    return start + integral / jnp.where(time > 0, time, 1.0)
