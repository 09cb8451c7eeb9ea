"""Radiator panels as a design names them, and what a grid leaves of their extremes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .linear import linear_map
from .platforms import choose
from .pytree import pytree, static
from .sheet import Sheet, conduction, spread, transform, tube_rows


@pytree
class Panel:
    """Radiator panels made of equal strips, across (y) and along the flow (x).

    With one pass, straight tubes in parallel, a strip is half a tube pitch wide; the tube or heat pipe runs along
    y = 0. With more, a tube goes forth and back: a strip is as many pitches wide as the tube has passes, each in the
    middle of its pitch, the first one, with the inlet at x = 0, next to y = 0. Both sides and the ends are planes of
    symmetry.

    Attributes:
        heat_capacity: Areal heat capacity, tubes and fluid smeared in [J/m^2/K].
        kt_x: Conductivity x thickness along the flow [W/K].
        kt_y: The same across [W/K].
        strip_conductance: k A of one tube wall or heat pipe along its length [W m/K].
        length: Along the flow, of one pass [m].
        half_pitch: Half the distance between tubes [m].
        half_strips: Panel area / (length x half_pitch) [-].
        emission: Effective emission factor per unit of panel area, sum over the radiating faces [-].
        to_space: The part of `emission` that reaches space [-].
        heat: Uniform, from within, and what surfaces of known temperature send more than space [W/m^2].
        nx: Cells along the flow. Static.
        ny: Cells across a strip: with more than one pass an odd number for each. Static.
        passes: Times that a tube crosses the panel's length. Static.
        conductivity_slopes: c1, c2 ... of the sheet's k(T) = k (1 + c1 u + c2 u^2 ...), u = T - sheet.T_REF [1/K^j].
        emission_slopes: The same of its emission towards space; what it exchanges with other surfaces keeps the
            emissivity at T_REF.
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
    nx: int = static()
    ny: int = static()
    passes: int = static(default=1)
    conductivity_slopes: tuple[Float[Array, " b"], ...] = ()
    emission_slopes: tuple[Float[Array, " b"], ...] = ()

    @property
    def width(self) -> Float[Array | np.ndarray, " b"]:
        """Of a strip, the grid's extent across [m]."""
        return self.half_pitch if self.passes == 1 else 2 * self.passes * self.half_pitch

    @property
    def tubes(self) -> Float[Array | np.ndarray, " b"]:
        """Tubes, or serpentines, in parallel [-]."""
        return self.half_strips / (2 * self.passes)

    @property
    def area(self) -> Float[Array, " b"]:
        """Panel area, one side [m^2]."""
        return self.length * self.half_pitch * self.half_strips


def strip(panel: Panel, link: Float[Array, " b"]) -> Sheet:
    """The sheet of one strip.

    The half of a straight tube or pipe lies in the first row of cells, a pass of a tube with more of them in the
    middle row of its pitch. Tube walls end at the bends.

    Args:
        link: Linear loss per unit of panel area, to what is in contact with it [W/m^2/K].
    """
    dx, dy = panel.length / panel.nx, panel.width / panel.ny
    along = panel.kt_x / dx**2
    if panel.passes == 1:
        pipe = panel.strip_conductance / (2 * dy) / dx**2
        rows = jnp.stack([along + pipe, along])
    else:
        pipe = panel.strip_conductance / dy / dx**2
        rows = jnp.broadcast_to(along, (panel.ny, *along.shape))
        rows = rows.at[tube_rows(panel.ny, panel.passes)].add(pipe)
    return Sheet(
        capacity=panel.heat_capacity[None, None],
        along=rows[None],
        across=(panel.kt_y / dy**2)[None, None],
        emission=(
            panel.emission[None, None],
            *((panel.to_space * c)[None, None] for c in panel.emission_slopes),
        ),
        link=link[None, None],
        along_slope=_along_slope(panel, rows),
        across_slope=tuple(c[None, None] for c in panel.conductivity_slopes),
        pipe=(),
        pipe_limit=(),
        nx=panel.nx,
        ny=panel.ny,
        passes=panel.passes,
    )


def _along_slope(panel: Panel, rows: Float[Array, "f b"]) -> tuple[Float[Array, "1 j b"], ...]:
    """Slopes along x of each row: tube walls and heat pipes beside the sheet keep their conductivity."""
    if not panel.conductivity_slopes:
        return ()
    rows = rows if panel.passes > 1 else spread(rows[None], panel.ny)[0]
    total = jnp.where(rows > 0, rows, 1.0)
    share = (panel.kt_x / (panel.length / panel.nx) ** 2)[None] / total
    return tuple((c[None] * share)[None] for c in panel.conductivity_slopes)


def as_it_stands(sheet: Sheet, T: Float[Array, "nx ny b"]) -> Sheet:
    """A strip whose conductivity depends on temperature as one of fixed conductances, those at T.

    Between two cells that of their mean conductivity over the temperatures between them, exact for a cubic (Simpson):
    its conduction at T is that of Kirchhoff's transform.
    """

    def mean(slope, axis):
        n = T.shape[axis]
        low, high = lax.slice_in_dim(T, 0, n - 1, axis=axis), lax.slice_in_dim(T, 1, n, axis=axis)
        ends = transform(low, slope)[1] + transform(high, slope)[1]
        return (ends + 4 * transform((low + high) / 2, slope)[1]) / 6

    return replace(
        sheet,
        along=spread(sheet.along, sheet.ny) * mean(sheet.along_slope, 0),
        across=sheet.across * mean(sheet.across_slope, 1),
        along_slope=(),
        across_slope=(),
    )


def changed_conduction(
    varying: Sheet, sheet: Sheet, middle: Float[Array, "nx ny b"], h: Float[Array, " b"]
) -> Float[Array, "nx ny b"]:
    """What a strip conducts into each cell at mid-step more than with the conductances of the step's start [W/m^2].

    Taken explicitly: no more of it than half a step's conduction can bear, which binds after rough starts only.

    Args:
        varying: Whose conductivity depends on temperature.
        sheet: `as_it_stands` at the start of the step.
        middle: Temperatures at mid-step [K].
        h: Half the step [s].
    """
    then = as_it_stands(varying, middle)
    along, across = then.along - sheet.along, then.across - sheet.across
    most = jnp.max(jnp.abs(along), axis=(0, 1)) + jnp.max(jnp.abs(across), axis=(0, 1))
    rate = 4 * h * most / jnp.min(sheet.capacity, axis=(0, 1))
    x, y = conduction(middle, replace(sheet, along=along, across=across))
    return (x + y) / jnp.maximum(rate, 1)[None, None]


def polynomial(slopes: tuple, T: Float[Array, "*n b"]) -> Float[Array, "*n b"]:
    """1 + c1 u + c2 u^2 ... with u = T - T_REF [-]."""
    return transform(T, tuple(c.reshape((1,) * (T.ndim - 1) + c.shape) for c in slopes))[1]


def weighted_fourth(panel: Panel, T: Float[Array, "*n b"]) -> Float[Array, "*n b"]:
    """T^4, weighted by the emissivity at T over that at T_REF [K^4]: what the panel sends to space.

    And what it takes from surroundings of T, as a surface absorbs as it would emit at the source's temperature: in
    surroundings of its own temperature nothing is exchanged.
    """
    return T**4 * polynomial(panel.emission_slopes, T) if panel.emission_slopes else T**4


def extremes(panel: Panel, T: Float[Array, "nx ny b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Hottest and coldest temperature of the panel, its edges included [K].

    A cell's centre lies half a cell inside, so that the extreme of the centres alone is of first order in the cell
    size. At a straight tube, where heat enters, the edge is extrapolated by a parabola through three cells, at planes
    of symmetry evenly; a tube of several passes lies in cells' centres, and midway between two passes a cubic through
    four cells counts too. At the ends see `end_weight`.
    """
    return extremes_across(panel, jnp.swapaxes(T, 0, 1))


def end_weight(panel: Panel) -> Float[Array, " b"]:
    """w of T_end = T_0 + w (T_0 - T_1), from the cells at an insulated end to the end itself [-].

    Away from the ends the panel follows its tube, along which temperature falls steadily, and what an end does to it
    fades over L = (2/pi) half_pitch sqrt(kt_x/kt_y), the slowest mode across that leaves the tube alone. With T = a
    + b (x + L exp(-x/L)), flat at the end, and s the cell's length over L,

        w = (1/2 - (1 - exp(-s/2))/s) / (1 - (exp(-s/2) - exp(-3s/2))/s)

    which is 1/8 where cells resolve the layer and 1/2 where they are much longer.
    """
    layer = 2 / jnp.pi * panel.half_pitch * jnp.sqrt(panel.kt_x / panel.kt_y)
    s = panel.length / panel.nx / layer
    small = s < 0.1
    z = jnp.where(small, 1.0, s)
    exact = (0.5 + jnp.expm1(-z / 2) / z) / (1 - (jnp.exp(-z / 2) - jnp.exp(-1.5 * z)) / z)
    return jnp.where(small, 0.125 + 3 / 64 * s, exact)


def extremes_across(
    panel: Panel, T: Float[Array, "ny nx b"]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """`extremes` of a panel that lies with y first. Of places as hot as each other a derivative sees one."""
    return _extremes(end_weight(panel), T, panel.passes)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _extremes(w, T, passes: int):
    one = jax.ShapeDtypeStruct(T.shape[2:], T.dtype)
    ways = {"cpu": _by_lines, "default": _of_arrays}
    return choose(ways, (one, one), w, T, passes=passes)


@_extremes.defjvp
def _(passes, primals, tangents):
    w, T = primals
    one, place = (jax.ShapeDtypeStruct(T.shape[2:], dtype) for dtype in (T.dtype, jnp.int32))
    ways = {"cpu": _places_by_lines, "default": _places_of_arrays}
    found = choose(ways, ((one, place, place),) * 2, *lax.stop_gradient((w, T)), passes=passes)
    weights = [_weights(w, row, column, T.shape[:2], passes) for _, row, column in found]
    rises = [_rise_at_end(T, column, across) for (_, _, column), (across, _) in zip(found, weights)]
    w_dot, T_dot = tangents
    dots = (linear_map(_weighed, _weighed_back, by, T_dot) + rise * w_dot for by, rise in zip(weights, rises))
    return tuple(value for value, _, _ in found), tuple(dots)


def _weights(w, row, column, shape, passes: int):
    """Weights of the cells, across and along, in the temperature of a place: a row of `_wide`, and a column."""
    ny, nx = shape
    lines = _wide(jnp.eye(ny, dtype=w.dtype), passes)
    along = jnp.arange(nx, dtype=column.dtype)[:, None]
    first, last, w = (column == nx)[None], (column == nx + 1)[None], w[None]
    edge = jnp.where(first, along, nx - 1 - along)
    weight = jnp.where(edge == 0, 1 + w, jnp.where(edge == 1, -w, 0.0))
    return lines[row].T, jnp.where(first | last, weight, (along == column[None]).astype(w.dtype))


def _rise_at_end(T, column, across):
    """What a unit of `end_weight` adds to the temperature of a place [K]: nothing, unless it is at an end."""
    nx = T.shape[1]
    low, high = (jnp.sum(across * (T[:, i] - T[:, j]), axis=0) for i, j in ((0, 1), (-1, -2)))
    return jnp.where(column == nx, low, jnp.where(column == nx + 1, high, 0.0))


def _weighed(weights, T):
    across, along = weights
    return jnp.sum(across * jnp.sum(along[None] * T, axis=1), axis=0)


def _weighed_back(weights, given):
    across, along = weights
    return (given[None] * across)[:, None] * along[None]


def _wide(line, passes: int):
    """A line across, its two edges, and what lies midway between passes."""
    between = (9 * line[-1:] - line[-2:-1]) / 8
    if passes == 1:
        tube = (15 * line[:1] - 10 * line[1:2] + 3 * line[2:3]) / 8
        return jnp.concatenate([tube, line, between])
    before = (9 * line[:1] - line[1:2]) / 8
    edges = [k * (line.shape[0] // passes) for k in range(1, passes)]
    inside = [(9 * (line[j - 1] + line[j]) - line[j - 2] - line[j + 1])[None] / 16 for j in edges]
    return jnp.concatenate([before, line, between, *inside])


def _ends(w, wide):
    """Lines at the two ends."""
    w = w[None]
    return wide[:, 0] + w * (wide[:, 0] - wide[:, 1]), wide[:, -1] + w * (wide[:, -1] - wide[:, -2])


def _of_arrays(w, T, passes: int):
    wide = _wide(T, passes)
    everywhere = jnp.concatenate([wide, *(end[:, None] for end in _ends(w, wide))], axis=1)
    return jnp.max(everywhere, axis=(0, 1)), jnp.min(everywhere, axis=(0, 1))


def _by_lines(w, T, passes: int):
    """A CPU's library reduction of a panel takes ten times as long as a loop over its lines."""

    def look(i, seen):
        line = _wide(lax.dynamic_index_in_dim(T, i, 1, keepdims=False), passes)
        return jnp.maximum(seen[0], line), jnp.minimum(seen[1], line)

    one, other = _ends(w, _wide(jnp.concatenate([T[:, :2], T[:, -2:]], axis=1), passes))
    high, low = lax.fori_loop(0, T.shape[1], look, (jnp.maximum(one, other), jnp.minimum(one, other)))

    def over(choose, lines):
        return lax.fori_loop(
            1,
            lines.shape[0],
            lambda j, seen: choose(seen, lax.dynamic_index_in_dim(lines, j, 0, False)),
            lines[0],
        )

    return over(jnp.maximum, high), over(jnp.minimum, low)


def _places_of_arrays(w, T, passes: int):
    """Hottest and coldest temperature, and where: a row of `_wide`, and a column of T or, behind these, an end."""
    wide = _wide(T, passes)
    everywhere = jnp.concatenate([wide, *(end[:, None] for end in _ends(w, wide))], axis=1)
    rows, columns, b = everywhere.shape
    flat = everywhere.reshape(rows * columns, b)
    hot, cold = (f(flat, axis=0).astype(jnp.int32) for f in (jnp.argmax, jnp.argmin))
    return tuple((jnp.take_along_axis(flat, k[None], 0)[0], k // columns, k % columns) for k in (hot, cold))


def _places_by_lines(w, T, passes: int):
    nx = T.shape[1]
    one, other = _ends(w, _wide(jnp.concatenate([T[:, :2], T[:, -2:]], axis=1), passes))

    def best(seen, line, place):
        (high, i), (low, j) = seen
        hotter, colder = line > high, line < low
        hot = jnp.where(hotter, line, high), jnp.where(hotter, place, i)
        return hot, (jnp.where(colder, line, low), jnp.where(colder, place, j))

    def look(i, seen):
        line = _wide(lax.dynamic_index_in_dim(T, i, 1, keepdims=False), passes)
        return best(seen, line, jnp.asarray(i, jnp.int32))

    start = one, jnp.full(one.shape, nx, jnp.int32)
    (high, at_high), (low, at_low) = lax.fori_loop(
        0, nx, look, best((start, start), other, jnp.int32(nx + 1))
    )

    def over(better, line, column):
        def choose_row(j, seen):
            value, at = (lax.dynamic_index_in_dim(a, j, 0, False) for a in (line, column))
            kept = better(value, seen[0])
            return tuple(
                jnp.where(kept, new, old) for new, old in zip((value, jnp.asarray(j, jnp.int32), at), seen)
            )

        first = line[0], jnp.zeros(line.shape[1:], jnp.int32), column[0]
        return lax.fori_loop(1, line.shape[0], choose_row, first)

    return over(jnp.greater, high, at_high), over(jnp.less, low, at_low)


def pipe_transport(panel: Panel, T: Float[Array, "nx ny b"]) -> Float[Array, " b"]:
    """Heat flow of one pipe or tube wall integrated along it, between the two places where that is most [W m].

        |integral of q dx| = k A (T_hottest - T_coldest),    q = -k A dT/dx

    of the tube's row of cells, its ends included as in `extremes`, of several passes the most: second order in the
    cell length. It is what a heat pipe's transport capability limits, as the pressure that its wick must make up
    falls in proportion to q along it, with the power times the effective length for heat that enters and leaves
    evenly (Chi, Heat Pipe Theory and Practice, 1976, ch. 2).
    """
    row = T[:, 0] if panel.passes == 1 else T[:, tube_rows(panel.ny, panel.passes)]
    ends = (9 * row[:1] - row[1:2]) / 8, (9 * row[-1:] - row[-2:-1]) / 8
    row = jnp.concatenate([ends[0], row, ends[1]])
    spread = jnp.max(row, axis=0) - jnp.min(row, axis=0)
    return panel.strip_conductance * (spread if panel.passes == 1 else jnp.max(spread, axis=0))
