"""One time step of a sheet by alternating directions, Peaceman and Rachford's in increments: what it consists of.

With F the heat balance of `sheet.balance`, h half the step, A_x and A_y conduction along each axis and r a loss rate,

    (C + h r1 - h A_y) d = h F(T)                                                   to mid-step, T + d
    (C + h r2 - h A_x) u = 2 h [F(T + d) - F(T) - (A_y - r1) d],   T_end = T + 2 d + u

For linear F, and r half the slope of its losses, this is Peaceman and Rachford's scheme (J. SIAM 3 (1955) 28); as it
is written it is of second order whatever r is. Radiation is far from stiff at ordinary steps, so r is zero there:
radiation is taken at mid-step, the matrices do not depend on temperature, and every line of a uniform panel has the
same. Where a step outlasts the panel's own time constant r rises with it (`loss_rates`). The solution of the
undivided steady equations is left unchanged, whatever the step. Across the tubes (y) comes first: coolant enters
there, in the half step in which conduction towards the tube is implicit.

The arithmetic stands once, in `first_heat`, `second_heat` and `eliminate`/`substitute`, as functions of lines of
cells: of all of them as arrays (`adi_field`), line by line on a CPU (`adi_lines`), or as a kernel keeps them on the
chip of an accelerator (`adi_tpu`, `adi_gpu`). Inside a step the panel lies with y first: (ny, nx, b).
"""

from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .constants import SIGMA
from .linear import linear_map
from .pytree import pytree
from .sheet import Sheet, emitted, more_emitted, spread, transform


@pytree
class Factors:
    """Elimination of (held - h A) x = q along one axis, from its last line to the first.

        u_i = q_i + c_{i+1} u_{i+1},    x_i = m_i u_i + c_i x_{i-1}

    Attributes:
        c: n + 1 lines; zero in the first one and behind the last one [-].
        m: What a joule per square metre in a line raises it by if the lines before it stay [m^2 K/J].
    """

    c: Float[Array, "l m b"]
    m: Float[Array, "n m b"]


@pytree
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
    rise = jnp.minimum(jnp.maximum(d, -LONGEST_RISE), LONGEST_RISE)
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


# Of what is so marked a reverse march keeps what it is made from: to keep a hundred numbers of a satellite and step
# takes longer than to find them again.
recomputed = partial(jax.checkpoint, prevent_cse=False)
# Largest rise to mid-step that radiation is reckoned with [K].
LONGEST_RISE = 150.0
# Longest half step, in time constants of radiation, that a panel is advanced by. What it has not forgotten after
# three of them it forgets in the next step.
LONGEST = 1.5


@recomputed
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


def _half(g, held, gain, emission, link, h, n: int) -> Half:
    shape = jnp.broadcast_shapes(g.shape[1:], held.shape[1:])
    zero = jnp.zeros((1, *shape), g.dtype)
    inner = jnp.broadcast_to(g, (n - 1, *shape))
    # A derivative knows conductances by the sheet: see `adi_field`.
    before, after = lax.stop_gradient((jnp.concatenate([zero, inner]), jnp.concatenate([inner, zero])))
    h = h[None, None]
    factors = factorise(*lax.stop_gradient((h * before, h * after, jnp.broadcast_to(held, (n, *shape)))))
    return Half(factors, before, after, gain, emission, link, h, held)


def first_coefficients(mean4: Float[Array, " b"], sheet: Sheet, h: Float[Array, " b"]) -> Half:
    """Coefficients of the first half step, y first. `mean4`: the sheet's mean T^4 [K^4]."""

    @recomputed
    def held(mean4, sheet, h):
        return turn(sheet.capacity + sheet.capacity * loss_rates(mean4, mean4, sheet, h)[0])

    link, emission = turn(sheet.link), tuple(turn(e) for e in sheet.emission)
    return _half(turn(sheet.across), held(mean4, sheet, h), jnp.zeros_like(link), emission, link, h, sheet.ny)


def second_coefficients(
    mean4: Float[Array, " b"],
    mid4: Float[Array, " b"],
    sheet: Sheet,
    h: Float[Array, " b"],
) -> Half:
    """Coefficients of the second half step, x first. `mean4`, `mid4`: mean T^4 at the start and at mid-step [K^4]."""

    @recomputed
    def held_and_gain(mean4, mid4, sheet, h):
        first, second = (sheet.capacity * y for y in loss_rates(mean4, mid4, sheet, h))
        return sheet.capacity + second, second_gain(sheet.capacity, first, second, sheet.link, h[None, None])

    unlike = max(a.shape[1] for a in (sheet.capacity, sheet.link, sheet.emission[0])) > 2
    along = spread(sheet.along, sheet.ny) if unlike else sheet.along
    held, gain = held_and_gain(mean4, mid4, sheet, h)
    return _half(along, held, gain, sheet.emission, sheet.link, h, sheet.nx)


def line_sum(A: Float[Array, "i *rest"]) -> Float[Array, "*rest"]:
    """Sum of lines; a loop over them, where a CPU's library reduction takes ten times as long."""
    return lax.fori_loop(1, A.shape[0], lambda i, total: total + at_line(A, i), A[0])


def repeated(line: Float[Array, "k b"], n: int) -> Float[Array, "n b"]:
    """A line that may be one cell for all of n, at full length; its cotangent is a `line_sum`."""
    return line if line.shape[0] == n else linear_map(_repeat(n), _lines_added, (), line)


@cache
def _repeat(n: int):
    return lambda _, line: jnp.broadcast_to(line, (n, *line.shape[1:]))


def _lines_added(_, A):
    return line_sum(A)[None]


@jax.custom_jvp
def means(*parts: Float[Array, "i j b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Mean over the sheet of T [K] and of T^4 [K^4], T the sum of `parts`."""

    def line(i):
        T = _total([at_line(part, i) for part in parts])
        return T, (T * T) ** 2

    return _means_of_lines(line, parts[0].shape)


def _means_of_lines(line, shape):
    """Means over the sheet of both parts of `line`(i)."""
    n, m, _ = shape
    totals = lax.fori_loop(1, n, lambda i, sums: jax.tree.map(jnp.add, sums, line(i)), line(0))
    first, second = (line_sum(total) / (n * m) for total in totals)
    return first, second


@means.defjvp
def _(parts, tangents):
    return means(*parts), linear_map(_mean_tangents, _mean_cotangents, parts, tangents)


def _total(parts):
    return reduce(jnp.add, parts)


def _mean_tangents(parts, tangents):
    def line(i):
        T, dT = (_total([at_line(part, i) for part in some]) for some in (parts, tangents))
        return dT, 4 * (T * (T * T)) * dT

    return _means_of_lines(line, parts[0].shape)


def _mean_cotangents(parts, given):
    T = _total(parts)
    mean, mean4 = (g[None, None] / (T.shape[0] * T.shape[1]) for g in given)
    return (mean + mean4 * (4 * T * (T * T)),) * len(parts)


def settled_fourth(source, emission):
    ideal = source / (SIGMA * jnp.where(emission > 0, emission, 1.0))
    return jnp.where(emission > 0, jnp.maximum(ideal, 0.0), 0.0)


def settled(source: Source, sheet: Sheet) -> Float[Array, " b"]:
    """T^4 at which the sheet would radiate its mean source: where long steps from the cold lead [K^4]."""
    mean = sum(jnp.mean(s, axis=(0, 1)) for s in source)
    return settled_fourth(mean, jnp.mean(sheet.emission[0], axis=(0, 1)))


def at_line(A, i):
    return lax.dynamic_index_in_dim(A, i, keepdims=False)
