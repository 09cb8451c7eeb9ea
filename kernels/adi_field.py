"""The half steps of `adi_step` on arrays of all cells, with derivatives in both modes.

A derivative knows a half step as the solution of its equations: one more solve, not a way back through the
elimination. Conduction along x, which a march carries from step to step, is to it what conduction of T is. Tangents
and transposes are those of the arrays' own arithmetic, but on a CPU and for linear conduction, where `adi_lines` has
them by hand.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from . import adi_lines
from .adi_step import Half, Source, first_heat, means, second_heat, turn
from .linear import linear_map
from .network import solve_dense
from .platforms import choose
from .pytree import pytree
from .sheet import Sheet, conduction, difference, inflow, spread, tube_rows
from .tridiagonal import rows


def solve(half: Half, g: Float[Array, "f k b"], q: Float[Array, "n m b"]) -> Float[Array, "n m b"]:
    """x of the half step's equations, lines of the implicit axis first; g: conductances between them."""
    c, m = half.factors.c, half.factors.m

    def product(x):
        return half.held * x - half.h * inflow(g * difference(x, 0), 0)

    def direct(_, q):
        return rows(m * rows(q, c[1:], True), c[:-1], False)

    return lax.custom_linear_solve(product, q, direct, symmetric=True)


# What a derivative of a half step goes by, besides temperatures and sources.
_OF_HALF = "held", "gain", "emission", "link", "h"
_OF_SHEET = "along", "across", "along_slope", "across_slope", "pipe", "pipe_limit"


def _parts(half: Half, sheet: Sheet) -> dict[str, Any]:
    found = {name: getattr(half, name) for name in _OF_HALF}
    return found | {name: getattr(sheet, name) for name in (_OF_SHEET[:2] if sheet.linear else _OF_SHEET)}


def _with_parts(half: Half, sheet: Sheet, parts: dict[str, Any]) -> tuple[Half, Sheet]:
    of_half = {name: part for name, part in parts.items() if name in _OF_HALF}
    of_sheet = {name: part for name, part in parts.items() if name in _OF_SHEET}
    return replace(half, **of_half), replace(sheet, **of_sheet)


# --- to mid-step


def to_mid(
    T: Float[Array, "ny nx b"],
    S: Float[Array, "ny nx b"],
    source: Source,
    half: Half,
    sheet: Sheet,
    room: Float[Array, "ny nx b"] | None,
) -> tuple[Float[Array, "ny nx b"], Float[Array, "*p nx b"], Float[Array, "*p nx b"]]:
    """Increments of the first half step, which nothing but `source` heats [K]; T and these where a tube runs.

    `room`: an array to overwrite.
    """
    ways = {"cpu": _mid_by_lines if sheet.linear else _mid_at_tubes, "default": _mid_at_tubes}
    line = _shapes(T[_tubes(sheet)])
    return choose(ways, (_shapes(T), line, line), T, S, source, half, sheet, room, tangent=_to_mid_tangent)


def _tubes(sheet: Sheet):
    return 0 if sheet.passes == 1 else tube_rows(sheet.ny, sheet.passes)


def _mid_by_lines(T, S, source, half: Half, sheet: Sheet, room):
    return _with_tubes(T, adi_lines.mid(T, S, source, half, sheet, room), sheet)


def _mid_at_tubes(T, S, source, half: Half, sheet: Sheet, room):
    return _with_tubes(T, _mid(T, S, source, half, sheet), sheet)


def _with_tubes(T, d, sheet: Sheet):
    return d, T[_tubes(sheet)], d[_tubes(sheet)]


def _mid(T, S, source, half: Half, sheet: Sheet):
    across = turn(conduction(turn(T), sheet)[1])
    return solve(half, turn(sheet.across), first_heat(T, across, S, sum(source), half))


def _to_mid_tangent(answer, args, tangents):
    d, _, _ = answer
    T, _, source, half, sheet, _ = args
    T_dot, _, source_dot, half_dot, sheet_dot, _ = tangents
    known, x = (T, d, source, half, sheet), (T_dot, source_dot, _parts(half_dot, sheet_dot))
    return linear_map(_mid_tangent, _mid_transpose, known, x)


def _mid_of(T, source, half: Half, sheet: Sheet):
    """What a derivative sees of `to_mid`, of all that it goes by."""

    def mid(T, source, parts):
        own = _with_parts(half, sheet, parts)
        return _mid(T, turn(conduction(turn(T), own[1])[0]), source, *own)

    return mid, (T, source, _parts(half, sheet))


def _mid_tangent_of_arrays(T, d, source, half: Half, sheet: Sheet, *tangents):
    return jax.jvp(*_mid_of(T, source, half, sheet), tangents)[1]


def _mid_tangent(known, tangents):
    T, sheet, of_arrays = known[0], known[-1], _mid_tangent_of_arrays
    ways = {"cpu": adi_lines.mid_tangent if sheet.linear else of_arrays, "default": of_arrays}
    return _with_tubes(tangents[0], choose(ways, _shapes(T), *known, *tangents), sheet)


def _mid_transpose_of_arrays(T, d, source, half: Half, sheet: Sheet, given):
    mid, at = _mid_of(T, source, half, sheet)
    return jax.vjp(mid, *at)[1](given)


def _mid_transpose(known, given):
    T, _, source, half, sheet = known
    of_arrays = _mid_transpose_of_arrays
    ways = {"cpu": adi_lines.mid_transpose if sheet.linear else of_arrays, "default": of_arrays}
    given, T_line, d_line = given
    given = given.at[_tubes(sheet)].add(d_line)
    T_bar, *others = choose(ways, _shapes((T, source, _parts(half, sheet))), *known, given)
    return T_bar.at[_tubes(sheet)].add(T_line), *others


# --- what coolant adds


def raised(
    d: Float[Array, "ny nx b"], response: Float[Array, "ny k b"], by: Float[Array, "nx b"]
) -> Float[Array, "ny nx b"]:
    """d with the line at y = 0 raised and all others as they respond to it."""
    return choose({"default": _raised}, _shapes(d), d, response, by, tangent=_to_raised_tangent)


def _raised(d, response, by):
    return d + response * by[None]


def _to_raised_tangent(_, args, tangents):
    return linear_map(_raised_tangent, _raised_transpose, args[1:], tangents)


def _raised_tangent(known, tangents):
    ways = {"cpu": adi_lines.raised_tangent, "default": _raised_tangent_of_arrays}
    return choose(ways, _shapes(tangents[0]), *known, *tangents)


def _raised_tangent_of_arrays(response, by, d_dot, response_dot, by_dot):
    return d_dot + response_dot * by[None] + response * by_dot[None]


def _raised_transpose(known, given):
    ways = {"cpu": adi_lines.raised_transpose, "default": _raised_transpose_of_arrays}
    return given, *choose(ways, _shapes(known), *known, given)


def _raised_transpose_of_arrays(response, by, given):
    return jax.vjp(lambda response, by: response * by[None], response, by)[1](given)


# --- from there to the end


def to_end(
    T: Float[Array, "ny nx b"],
    S: Float[Array, "ny nx b"],
    d: Float[Array, "ny nx b"],
    more: Float[Array, "j i b"],
    half: Half,
    sheet: Sheet,
    room: Float[Array, "nx ny b"] | None,
) -> tuple[Float[Array, "ny nx b"], Float[Array, "ny nx b"], Float[Array, "nx ny b"]]:
    """T and S at the end of the step, and its increments, x first, which no derivative knows.

    Args:
        more: Source at mid-step less that of `to_mid` [W/m^2].
        room: An array to overwrite.
    """
    ways = {"cpu": adi_lines.end if sheet.linear else _end, "default": _end}
    out = T, T, jax.ShapeDtypeStruct((sheet.nx, sheet.ny, T.shape[2]), T.dtype)
    return choose(ways, _shapes(out), T, S, d, more, half, sheet, room, tangent=_to_end_tangent)


def _end(T, S, d, more, half: Half, sheet: Sheet, room=None):
    """T and S at the end of the step, and its increments D, x first."""
    T, d, more = turn(T), turn(d), turn(more)
    if not sheet.linear:
        more = more + _beyond_linear(T, d, sheet)
    half = jax.tree.map(lambda a: spread(a, sheet.ny), half)
    D = solve(half, spread(sheet.along, sheet.ny), second_heat(T, d, more, half))
    if sheet.linear:
        S = S + turn(inflow(spread(sheet.along, sheet.ny) * difference(D, 0), 0))
    else:
        S = turn(conduction(T + D, sheet)[0])
    return turn(T + D), S, D


def _beyond_linear(T, d, sheet: Sheet) -> Float[Array, "nx ny b"]:
    """What conduction changes over d beyond the linear conduction that the half steps are implicit in [W/m^2]."""
    before, after = conduction(T, sheet), conduction(T + d, sheet)
    along = spread(sheet.along, sheet.ny) * difference(d, 0)
    linear = inflow(along, 0) + inflow(sheet.across * difference(d, 1), 1)
    return after[0] - before[0] + after[1] - before[1] - linear


def _to_end_tangent(answer, args, tangents):
    T, _, d, more, half, sheet, _ = args
    T_dot, _, d_dot, more_dot, half_dot, sheet_dot, _ = tangents
    known, x = (T, d, more, half, sheet), (T_dot, d_dot, more_dot, _parts(half_dot, sheet_dot))
    # Of S and D nobody asks: S is no variable of its own, D is the step's own affair.
    _, *still = jax.tree.map(jnp.zeros_like, answer)
    return linear_map(_end_tangent, _end_transpose, known, x), *still


def _end_of(T, d, more, half: Half, sheet: Sheet):
    """What a derivative sees of `to_end`, of all that it goes by."""

    def end(T, d, more, parts):
        return _end(T, jnp.zeros_like(T), d, more, *_with_parts(half, sheet, parts))[0]

    return end, (T, d, more, _parts(half, sheet))


def _end_tangent_of_arrays(T, d, more, half: Half, sheet: Sheet, *tangents):
    return jax.jvp(*_end_of(T, d, more, half, sheet), tangents)[1]


def _end_tangent(known, tangents):
    T, sheet, of_arrays = known[0], known[-1], _end_tangent_of_arrays
    ways = {"cpu": adi_lines.end_tangent if sheet.linear else of_arrays, "default": of_arrays}
    return choose(ways, _shapes(T), *known, *tangents)


def _end_transpose_of_arrays(T, d, more, half: Half, sheet: Sheet, given):
    end, at = _end_of(T, d, more, half, sheet)
    return jax.vjp(end, *at)[1](given)


def _end_transpose(known, given):
    T, d, more, half, sheet = known
    of_arrays = _end_transpose_of_arrays
    ways = {"cpu": adi_lines.end_transpose if sheet.linear else of_arrays, "default": of_arrays}
    return choose(ways, _shapes((T, d, more, _parts(half, sheet))), *known, given)


def _shapes(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


# --- a sheet under way


@pytree
class Field:
    """A sheet under way, as arrays.

    Attributes:
        T: Temperatures [K].
        S: Conduction along x into each cell [W/m^2]; carried for its accuracy, no variable of its own.
        d: Increments to mid-step [K]. Between steps those of the last one, if at all: room for the next.
        D: Increments of the last step, x first [K], likewise.
        tubes: T and, before coolant has its say, d where a tube runs [K]; between the halves of a step.
    """

    T: Float[Array, "ny nx b"]
    S: Float[Array, "ny nx b"]
    d: Float[Array, "ny nx b"] | None = None
    D: Float[Array, "nx ny b"] | None = None
    tubes: tuple[Float[Array, "*p nx b"], Float[Array, "*p nx b"]] | None = None

    @classmethod
    def start(cls, T: Float[Array, "nx ny b"], sheet: Sheet, room: bool = False) -> "Field":
        """`room`: for a march that is not differentiated, which overwrites what its last step has left."""
        S = lax.stop_gradient(turn(conduction(T, sheet)[0]))
        return cls(turn(T), S, jnp.zeros_like(S), jnp.zeros_like(T)) if room else cls(turn(T), S)

    def first_half(self, source: Source, half: Half, sheet: Sheet) -> "Field":
        """Increments of the first half step, from the sources at its start [W/m^2]."""
        d, *tubes = to_mid(self.T, self.S, source, half, sheet, self.d)
        return replace(self, d=d, tubes=tuple(tubes))

    def wall(
        self, half: Half, sheet: Sheet
    ) -> tuple[Float[Array, "*p nx b"], Float[Array, "*p nx b"], Float[Array, "*q k b"]]:
        """The line at y = 0: its temperature at the start, its increment if nothing else heats it [K], and how much
        more that gets for a joule per square metre [m^2 K/J].

        Of a tube with several passes all their lines, (p, nx, b), and how each answers to each of them, (p, p, k, b).
        """
        assert self.tubes is not None  # between the halves of a step
        return *self.tubes, _response(half, sheet)[_tubes(sheet)]

    def finish_first(self, half: Half, sheet: Sheet, first: Float[Array, "*p nx b"] | None = None) -> "Field":
        """Increments to mid-step. `first`: those of the lines in `wall` where coolant has its say [K]."""
        if first is None:
            return self
        assert self.d is not None and self.tubes is not None  # between the halves of a step
        response, rise = _response(half, sheet), first - self.tubes[1]
        if sheet.passes == 1:
            return replace(self, d=raised(self.d, response / response[:1], rise))
        rows = _tubes(sheet)
        # What a kelvin in one tube's line, and none in the others', raises each line by: R R_tubes^-1, R symmetric.
        n, p, k, b = response.shape
        tubes = response[rows].reshape(p, p, k * b)
        each = solve_dense(tubes, jnp.swapaxes(response, 0, 1).reshape(p, n, k * b)).reshape(p, n, k, b)
        d = self.d
        for share, by in zip(each, rise, strict=True):
            d = raised(d, share, by)
        return replace(self, d=d)

    def conducting(self, sheet: Sheet) -> "Field":
        """The same temperatures in a sheet of other conductances."""
        return replace(self, S=lax.stop_gradient(turn(conduction(turn(self.T), sheet)[0])))

    def middle(self) -> Float[Array, "ny nx b"]:
        """Temperatures at mid-step [K]."""
        assert self.d is not None  # between the halves of a step
        return self.T + self.d

    def mid_means(self) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Mean over the panel of T [K] and T^4 [K^4] at mid-step."""
        return means(self.T, self.d)

    def second_half(self, more: Float[Array, "j i b"], half: Half, sheet: Sheet) -> "Field":
        """The end of the step. `more`: source at mid-step less that of `first_half` [W/m^2]."""
        T, S, D = to_end(self.T, self.S, self.d, more, half, sheet, self.D)
        S = lax.stop_gradient(S)
        return Field(T, S) if self.D is None else Field(T, S, self.d, D)


def _response(half: Half, sheet: Sheet) -> Float[Array, "ny *p k b"]:
    """What a joule per square metre in the line at y = 0 raises each line by [m^2 K/J].

    Of a tube with several passes in the line of each, on the second axis.
    """
    shape = half.factors.m.shape
    if sheet.passes > 1:
        unit, across = jnp.zeros(shape, half.h.dtype), turn(sheet.across)
        rows = range(sheet.ny)[tube_rows(sheet.ny, sheet.passes)]
        return jnp.stack([solve(half, across, unit.at[row].set(1)) for row in rows], axis=1)
    return solve(half, turn(sheet.across), jnp.zeros(shape, half.h.dtype).at[0].set(1))
