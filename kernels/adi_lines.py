"""The half steps of `adi_step` line by line, in place, their tangents and transposes: what is fast on a CPU.

Of linear conduction. A sweep takes the panel in blocks of lines so short that what it touches stays in the
first-level cache. `adi_field` states the same half steps on arrays, which these are tested against. A tangent takes
those of a half step's arguments. A transpose takes the cotangent of what a half step gives and returns those of its
arguments: the matrices are symmetric, so that it solves by the same factors. The sums over cells that coefficients'
cotangents are grow line by line.
"""

from dataclasses import replace

import jax.numpy as jnp
from jax import lax

from .adi_step import (
    LONGEST_RISE,
    Half,
    conducted,
    eliminate,
    first_heat,
    line_sum,
    second_heat,
    substitute,
    turn,
)
from .constants import SIGMA
from .sheet import T_REF, Sheet, difference, emitted, inflow, spread

# Bytes of a line of a block: a sweep touches some eight of them at once.
LINE = 4096


class Block:
    """Cells `start` to `start + width` of lines of `n` cells."""

    def __init__(self, n: int, width: int, start):
        self.n, self.width, self.start = n, width, start

    def line(self, A, i, axis: int = 0):
        """The block's part of line i along `axis`; one line, or one cell, is all of them."""
        i = 0 if A.shape[axis] == 1 else jnp.clip(i, 0, A.shape[axis] - 1)
        cells = A.shape[1 - axis]
        start, width = (0, cells) if cells < self.n else (self.start, self.width)
        if axis == 0:
            line = lax.dynamic_slice(A, (i, start, 0), (1, width, A.shape[2]))[0]
        else:
            line = lax.dynamic_slice(A, (start, i, 0), (width, 1, A.shape[2]))[:, 0]
        if cells != 2 or self.n == 2:
            return line
        # The first cell and all others.
        first = (self.start + jnp.arange(self.width) == 0).astype(A.dtype)[:, None]
        return line[1:] + first * (line[:1] - line[1:])

    def put(self, A, line, i, axis: int = 0):
        if axis == 0:
            return lax.dynamic_update_slice(A, line[None], (i, self.start, 0))
        return lax.dynamic_update_slice(A, line[:, None], (self.start, i, 0))

    def half(self, half: Half, i) -> Half:
        """A half step's coefficients of one line, its factors excepted."""
        line = {k: self.line(getattr(half, k), i) for k in ("before", "after", "gain", "link", "h")}
        return replace(half, emission=tuple(self.line(e, i) for e in half.emission), **line)

    def note(self, tally, line, i):
        """Add a line to a `_tally`."""
        i = jnp.minimum(i, tally.shape[0] - 1)
        start = 0 if tally.shape[1] == self.width else self.start
        old = lax.dynamic_slice(tally, (i, start, 0), (1, *line.shape))
        return lax.dynamic_update_slice(tally, old + line[None], (i, start, 0))


def _width(n: int, like) -> int:
    most = max(1, LINE // (like.shape[2] * like.dtype.itemsize))
    widest = max(w for w in range(1, n + 1) if n % w == 0 and w <= most)
    return widest if 4 * widest > min(most, n) else n


def _by_blocks(n: int, like, sweep, carry):
    """`sweep(block, carry)` for blocks that make up lines of n cells."""
    width = _width(n, like)
    return lax.fori_loop(0, n // width, lambda k, carry: sweep(Block(n, width, k * width), carry), carry)


def _back(block: Block, half: Half, x, heat=None):
    """Solution of the half step's equations in place, its right-hand side in x or given line by line."""
    c, m = half.factors.c, half.factors.m
    n = x.shape[0]

    # Behind the last line and before the first one c is zero.
    def eliminated(k, u):
        i = n - 1 - k
        q = block.line(u, i) if heat is None else heat(i)
        return block.put(u, eliminate(q, block.line(c, i + 1), block.line(u, i + 1)), i)

    def substituted(i, x):
        line = substitute(block.line(m, i), block.line(x, i), block.line(c, i), block.line(x, i - 1))
        return block.put(x, line, i)

    return lax.fori_loop(0, n, substituted, lax.fori_loop(0, n, eliminated, x))


def _room(like, some):
    """An array to overwrite. XLA fills one in place where another number of `some` fills each; of zeros it copies."""
    return jnp.full_like(like, some[0, 0, 0])


def mid(T, S, source, half: Half, sheet: Sheet, room):
    """Increments of the first half step, y first [K], written into `room` if there is any."""

    def sweep(block, x):
        def heat(j):
            line, own = block.line(T, j), block.half(half, j)
            across = conducted(line, block.line(T, j - 1), block.line(T, j + 1), own)
            return first_heat(line, across, block.line(S, j), sum(block.line(s, j) for s in source), own)

        return _back(block, half, x, heat)

    return _by_blocks(sheet.nx, T, sweep, jnp.zeros_like(T) if room is None else room)


def end(T, S, d, more, half: Half, sheet: Sheet, room):
    """T and S at the end of the step, y first, and its increments, x first, written into `room` if there is any."""
    D = _increments(T, d, more, half, sheet, room)
    return T + turn(D), S + turn(inflow(spread(sheet.along, sheet.ny) * difference(D, 0), 0)), D


def _increments(T, d, more, half: Half, sheet: Sheet, room=None):
    if room is None:
        room = _room(turn(T), d)

    def sweep(block, D):
        def heat(i):
            T_line, d_line, extra = (block.line(A, i, 1) for A in (T, d, more))
            return second_heat(T_line, d_line, extra, block.half(half, i))

        return _back(block, half, D, heat)

    return _by_blocks(sheet.ny, T, sweep, room)


def _tally(coefficient, n: int, like):
    """Where a coefficient's cotangent grows: cell by cell of a block if it is one for all cells of a line."""
    wide = n if coefficient.shape[1] > 1 else _width(n, like)
    return jnp.zeros((coefficient.shape[0], wide, like.shape[2]), like.dtype)


def _folded(tally, coefficient):
    cells = coefficient.shape[1]
    if coefficient.shape[2] != tally.shape[2]:
        tally = jnp.sum(tally, axis=2, keepdims=True)
    if cells == tally.shape[1]:
        return tally
    lines = turn(tally)
    folded = [line_sum(lines)] if cells == 1 else [lines[0], line_sum(lines[1:])]
    return jnp.stack(folded, axis=1)


def _powers(T, count: int):
    """sigma T^4 (T - T_REF)^k."""
    term, terms = SIGMA * (T * T) * (T * T), []
    for _ in range(count):
        terms.append(term)
        term = term * (T - T_REF)
    return terms


def _sloped(T, T_dot, emission, emission_dot):
    """Tangent of what a line radiates [W/m^2]."""
    grown = sum(e * p for e, p in zip(emission_dot, _powers(T, len(emission_dot)), strict=True))
    return emitted(T, emission)[1] * T_dot + grown


def _near(block: Block, A, i, axis: int = 0):
    """Line i and those before and after it."""
    return block.line(A, i, axis), block.line(A, i - 1, axis), block.line(A, i + 1, axis)


def _inflow(block: Block, g, i, near):
    """Into line i from its neighbours, `near`: what it is itself, before and after it; g: conductances between lines.

    Beyond either end the difference is zero.
    """
    here, low, high = near
    return block.line(g, i) * (high - here) - block.line(g, i - 1) * (here - low)


def mid_tangent(T, d, source, half: Half, sheet: Sheet, T_dot, source_dot, dots):
    """Tangent of `mid`, S = A_x T, from those of T, source and `adi_field` parts."""
    sideways = turn(dots["across"])

    def columns(block, flow):
        def column(i, flow):
            own = _inflow(block, sheet.along, i, _near(block, T_dot, i, 1))
            return block.put(flow, own + _inflow(block, dots["along"], i, _near(block, T, i, 1)), i, 1)

        return lax.fori_loop(0, sheet.nx, column, flow)

    flow = _by_blocks(sheet.ny, T, columns, _room(T_dot, T_dot))

    def sweep(block, x):
        def heat(j):
            own, near, near_dot = block.half(half, j), _near(block, T, j), _near(block, T_dot, j)
            rises = _near(block, d, j)
            warmer = _inflow(block, sideways, j, [t + rise for t, rise in zip(near, rises)])
            gained = block.line(flow, j) + conducted(*near_dot, own) + warmer
            gained = gained + sum(block.line(s, j) for s in source_dot)
            emission_dot = tuple(block.line(e, j) for e in dots["emission"])
            lost = own.link * near_dot[0] + block.line(dots["link"], j) * near[0]
            lost = lost + _sloped(near[0], near_dot[0], own.emission, emission_dot)
            return own.h * (gained - lost) + block.line(stiffer, j) * rises[0]

        return _back(block, half, x, heat)

    stiffer = _per_length(half, dots) * half.held - dots["held"]
    return _by_blocks(sheet.nx, T, sweep, _room(T_dot, flow))


def end_tangent(T, d, more, half: Half, sheet: Sheet, T_dot, d_dot, more_dot, dots):
    """Tangent of the temperatures that `end` gives, from those of T, d, more and `adi_field` parts."""
    # Found again as soon as a tape of it would be read.
    D = _increments(T, d, more, half, sheet)

    def sweep(block, x):
        def heat(i):
            own = block.half(half, i)
            t, rise, t_dot, rise_dot, extra = (block.line(A, i, 1) for A in (T, d, T_dot, d_dot, more_dot))
            near = _near(block, D, i)
            emission_dot = tuple(block.line(e, i) for e in dots["emission"])
            felt = jnp.clip(rise, -LONGEST_RISE, LONGEST_RISE)
            hot_dot = t_dot + jnp.where(jnp.abs(rise) < LONGEST_RISE, rise_dot, 0.0)
            lost = _sloped(t + felt, hot_dot, own.emission, emission_dot)
            lost = lost - _sloped(t, t_dot, own.emission, emission_dot)
            bent = _inflow(block, dots["along"], i, near)
            out = own.gain * rise_dot + own.h * (bent - 2 * (lost - extra))
            return out + block.line(gained, i) * rise + block.line(stiffer, i) * near[0]

        return _back(block, half, x, heat)

    rate = _per_length(half, dots)
    stiffer, gained = rate * half.held - dots["held"], dots["gain"] - rate * half.gain
    return T_dot + turn(_by_blocks(sheet.ny, T, sweep, _room(turn(T_dot), d_dot)))


def _per_length(half: Half, dots):
    """Relative change of the step's length, by which all but stored heat grows; a step of no length has none."""
    return jnp.where(half.h > 0, dots["h"] / jnp.where(half.h > 0, half.h, 1.0), 0.0)


def mid_transpose(T, d, source, half: Half, sheet: Sheet, given):
    """Cotangents of T, source and `adi_field` parts from that of `mid`, S = A_x T."""
    nx, ny = sheet.nx, sheet.ny
    across = turn(sheet.across)

    def sweep(block, carry):
        T_bar, nu, tallies = carry
        nu = _back(block, half, nu)

        def line(j, carry):
            T_bar, (sources, held, link, emission, sideways) = carry
            own = block.half(half, j)
            t, x, n, n_above = (block.line(A, k) for A, k in ((T, j), (d, j), (nu, j), (nu, j + 1)))
            pull = conducted(n, block.line(nu, j - 1), n_above, own)
            pull = pull - (own.link + emitted(t, own.emission)[1]) * n
            hn = own.h * n
            rise = block.line(T, j + 1) - t + block.line(d, j + 1) - x
            powers = zip(emission, _powers(t, len(emission)), strict=True)
            tallies = (
                tuple(block.note(s, hn, j) for s in sources),
                block.note(held, -n * x, j),
                block.note(link, -hn * t, j),
                tuple(block.note(e, -hn * p, j) for e, p in powers),
                # Beyond the last edge both differences are zero.
                block.note(sideways, own.h * (n - n_above) * rise, j),
            )
            return block.put(T_bar, own.h * pull, j), tallies

        T_bar, tallies = lax.fori_loop(0, ny, line, (T_bar, tallies))
        return T_bar, nu, tallies

    tallies = (
        tuple(_tally(s, nx, T) for s in source),
        _tally(half.held, nx, T),
        _tally(half.link, nx, T),
        tuple(_tally(e, nx, T) for e in half.emission),
        _tally(across, nx, T),
    )
    T_bar, nu, tallies = _by_blocks(nx, T, sweep, (_room(T, T), given, tallies))
    sources, held, link, emission, sideways = tallies

    def columns(block, carry):
        def column(i, carry):
            T_bar, lengthways = carry
            low, here, high = (block.line(nu, k, 1) for k in (i - 1, i, i + 1))
            h = block.line(half.h, 0)
            # Beyond either end the difference is zero.
            flow = block.line(sheet.along, i) * (high - here) - block.line(sheet.along, i - 1) * (here - low)
            T_bar = block.put(T_bar, block.line(T_bar, i, 1) + h * flow, i, 1)
            rise = block.line(T, i + 1, 1) - block.line(T, i, 1)
            return T_bar, block.note(lengthways, -h * (high - here) * rise, i)

        return lax.fori_loop(0, nx, column, carry)

    T_bar, lengthways = _by_blocks(ny, T, columns, (T_bar, _tally(sheet.along, ny, T)))
    held = _folded(held, half.held)
    found = {
        "held": held,
        "gain": jnp.zeros_like(half.gain),
        "emission": tuple(_folded(t, e) for t, e in zip(emission, half.emission, strict=True)),
        "link": _folded(link, half.link),
        "h": _of_length(half.h, (half.held, held)),
        "along": _folded(lengthways, sheet.along),
        "across": turn(_folded(sideways, across)),
    }
    return T_bar, tuple(_folded(t, s) for t, s in zip(sources, source, strict=True)), found


def raised_tangent(response, by, d_dot, response_dot, by_dot):
    """Tangent of `adi_field.raised`."""
    ny, nx, _ = d_dot.shape

    def sweep(block, out):
        def line(j, out):
            more = block.line(response_dot, j) * block.line(by[None], 0)
            more = more + block.line(response, j) * block.line(by_dot[None], 0)
            return block.put(out, block.line(d_dot, j) + more, j)

        return lax.fori_loop(0, ny, line, out)

    return _by_blocks(nx, d_dot, sweep, _room(d_dot, d_dot))


def raised_transpose(response, by, given):
    """Cotangents of response and by from that of `adi_field.raised`."""
    ny, nx, _ = given.shape

    def sweep(block, carry):
        def line(j, carry):
            response_bar, by_bar = carry
            here = block.line(given, j)
            response_bar = block.note(response_bar, here * block.line(by[None], 0), j)
            return response_bar, block.note(by_bar, here * block.line(response, j), 0)

        return lax.fori_loop(0, ny, line, carry)

    tallies = _tally(response, nx, given), jnp.zeros_like(by)[None]
    response_bar, by_bar = _by_blocks(nx, given, sweep, tallies)
    return _folded(response_bar, response), by_bar[0]


def end_transpose(T, d, more, half: Half, sheet: Sheet, given):
    """Cotangents of T, d, more and `adi_field` parts from that of the temperatures that `end` gives."""
    nx, ny = sheet.nx, sheet.ny
    # Found again as soon as a tape of it would be read.
    D = _increments(T, d, more, half, sheet)

    def sweep(block, carry):
        T_bar, d_bar, mu, tallies = carry
        mu = _back(block, half, mu, lambda i: block.line(given, i, 1))

        def line(i, carry):
            T_bar, d_bar, (extra, held, gain, emission, lengthways) = carry
            own = block.half(half, i)
            t, x = block.line(T, i, 1), block.line(d, i, 1)
            n, D_here = block.line(mu, i), block.line(D, i)
            rise = jnp.clip(x, -LONGEST_RISE, LONGEST_RISE)
            slope, hot_slope = emitted(t, own.emission)[1], emitted(t + rise, own.emission)[1]
            hn = 2 * own.h * n
            bend = (block.line(mu, i + 1) - n) * (block.line(D, i + 1) - D_here)
            powers = zip(emission, _powers(t, len(emission)), _powers(t + rise, len(emission)), strict=True)
            tallies = (
                block.note(extra, hn, i),
                block.note(held, -n * D_here, i),
                block.note(gain, n * x, i),
                tuple(block.note(e, -hn * (after - before), i) for e, before, after in powers),
                block.note(lengthways, -own.h * bend, i),
            )
            felt = jnp.where(jnp.abs(x) < LONGEST_RISE, hot_slope, 0.0)
            T_bar = block.put(T_bar, block.line(given, i, 1) + hn * (slope - hot_slope), i, 1)
            return T_bar, block.put(d_bar, own.gain * n - hn * felt, i, 1), tallies

        T_bar, d_bar, tallies = lax.fori_loop(0, nx, line, (T_bar, d_bar, tallies))
        return T_bar, d_bar, mu, tallies

    tallies = (
        _tally(turn(more), ny, T),
        _tally(half.held, ny, T),
        _tally(half.gain, ny, T),
        tuple(_tally(e, ny, T) for e in half.emission),
        _tally(sheet.along, ny, T),
    )
    rooms = _room(T, T), _room(T, half.h), _room(D, given)
    T_bar, d_bar, _, tallies = _by_blocks(ny, T, sweep, (*rooms, tallies))
    extra, held, gain, emission, lengthways = tallies
    held, gain = _folded(held, half.held), _folded(gain, half.gain)
    found = {
        "held": held,
        "gain": gain,
        "emission": tuple(_folded(t, e) for t, e in zip(emission, half.emission, strict=True)),
        "link": jnp.zeros_like(half.link),
        "h": _of_length(half.h, (half.held, held), (half.gain, gain)),
        "along": _folded(lengthways, sheet.along),
        "across": jnp.zeros_like(sheet.across),
    }
    return T_bar, d_bar, turn(_folded(extra, turn(more))), found


def _of_length(h, *terms):
    """Cotangent of half the step's length: times that it is what the equations' other terms have, by the equations.

    A step of no length has none.
    """
    total = sum(jnp.sum(a * b, axis=(0, 1), keepdims=True) for a, b in terms)
    return jnp.where(h > 0, -total / jnp.where(h > 0, h, 1.0), 0.0)
