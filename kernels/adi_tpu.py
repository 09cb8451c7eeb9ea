"""The march of `adi.transient` as one kernel of a TPU: a tile of satellites stays in vector memory for all steps.

A tile is 1,024 satellites, one (8, 128) vector to a cell. A step makes two passes over the columns of cells (x):

- backwards, each column goes through the first half step, which couples only its own cells, and on into the
  elimination of the second. While one column is substituted in the first half the next one is eliminated: two
  chains of dependent operations side by side fill the vector units, where one alone leaves them half empty;
- forwards, substitution in the second half gives temperatures and conduction along x at the end of the step.

Factors of the second half are found on the way back, a column at a time, their divisions hidden behind the
arithmetic of cells; those of the first half before, once for all columns where these are alike. Heat of the first
half is reckoned per second, h taken into its factors, and emission of the second half has 2 h in it: the same
arithmetic with less to multiply.
"""

# References that a kernel's static choices leave out are None, which types cannot follow.
# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportAssignmentType=false, reportCallIssue=false

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from . import adi, adi_step
from .sheet import Sheet

ROWS, LANES = 8, 128
TILE = ROWS * LANES
# Rows of cells that go through the forward pass together: more would not fit the registers.
SEGMENT = 16
# Columns that one turn of the forward pass takes: what it carries is copied once a turn.
UNROLL = 8
# Steps whose loads are in vector memory at a time.
BLOCK = 64
# Of 128 MiB; the compiler's own limit, of 16 MiB, leaves no room for panels of more than 1,000 cells.
VECTOR_MEMORY = 100 << 20


class _Table:
    """A sheet's array in memory, by cell; a value that all cells share is read once, here."""

    def __init__(self, ref):
        self.ref = ref
        self.columns, self.rows = ref.shape[:2]
        self.shared = ref[0, 0] if self.columns == self.rows == 1 else None

    def __call__(self, i, j: int):
        if self.shared is not None:
            return self.shared
        return self.ref[i if self.columns > 1 else 0, min(j, self.rows - 1)]


@dataclass(frozen=True)
class _Shape:
    """What a kernel is compiled for.

    Attributes:
        nx, ny: Cells along x and y.
        kinds: Rows of cells whose factors of the second half differ: 1, 2 (the first and the others) or ny.
        wide: Whether columns differ in their factors of the first half.
        emissions: Coefficients of the emission factor.
        extremes: Whether to keep them.
    """

    nx: int
    ny: int
    kinds: int
    wide: bool
    emissions: int
    extremes: bool

    @property
    def sampled(self) -> range:
        """Rows of cells whose T^4 stands for the panel's, as in `adi.step`."""
        return range(0, self.ny, max(1, self.ny // 4))

    def kind(self, j: int) -> int:
        return min(j, self.kinds - 1)


class _March:
    """References into vector memory, and what is done with them.

    T, the end of each step, lies in the output. S holds cell i at i + 1, behind a ghost. The factors c and m, and v,
    are those of the second half, with a line of zeros behind the last; c1, m1 and u of the first half, of one column.
    `fourth` is the sum of T^4 over the sampled cells. `seen`: hottest, coldest, the integral over time of the mean's
    rise since the start, that rise.
    """

    def __init__(self, shape: _Shape, refs):
        self.shape = shape
        refs = iter(refs)
        self.T_in = next(refs)
        self.tables = [next(refs) for _ in range(7 + shape.emissions)]
        self.lead, self.gray, self.quick, self.load, self.dt, self.T = (next(refs) for _ in range(6))
        self.seen = next(refs) if shape.extremes else None
        self.S, self.v, self.c, self.m, self.c1, self.m1, self.u, self.fourth = refs
        self.zero = jnp.zeros((ROWS, LANES), jnp.float32)

    def start(self):
        shape, zero = self.shape, self.zero
        nx, ny = shape.nx, shape.ny
        along = _Table(self.tables[1])
        for j in range(ny):
            self.v[nx, j] = self.S[0, j] = zero
        for kind in range(shape.kinds):
            self.c[nx, kind] = zero

        def column(i, sums):
            west, east = jnp.maximum(i - 1, 0), jnp.minimum(i + 1, nx - 1)
            for j in range(ny):
                t = self.T_in[i, j]
                self.T[i, j] = t
                # At the ends a cell is its own neighbour.
                inward = along(west, j) * (self.T_in[west, j] - t)
                self.S[i + 1, j] = inward + along(jnp.minimum(i, nx - 2), j) * (self.T_in[east, j] - t)
                sums = self.look(j, t, zero, sums)
            return sums

        first = self.T_in[0, 0]
        sums = lax.fori_loop(0, nx, column, (zero, (first, first, zero) if shape.extremes else ()))
        self.fourth[...] = sums[0]
        if shape.extremes:
            self.seen[0], self.seen[1], _ = sums[1]
            self.seen[2] = self.seen[3] = zero

    def look(self, j: int, t, D, sums):
        """Sums and extremes with one more cell of row j, at t after a rise by D."""
        total, ends = sums
        if j in self.shape.sampled:
            total = total + (t * t) * (t * t)
        if self.shape.extremes:
            ends = jnp.maximum(ends[0], t), jnp.minimum(ends[1], t), ends[2] + D
        return total, ends

    def step(self, k, _):
        shape = self.shape
        nx, ny = shape.nx, shape.ny
        capacity, along, across, link, source, glow, leak, *emission = map(_Table, self.tables)
        load, dt = self.load[k], self.dt[k]
        mean4 = self.fourth[...] * (1 / (len(shape.sampled) * nx))
        mean4 = jnp.maximum(mean4, adi_step.settled_fourth(self.lead[...] + load, self.gray[...]))
        rate = adi_step.radiation_rate(mean4, 1.0)
        h = adi_step.half_of(dt, rate * self.quick[...])

        def losses(i, j):
            """h r of both halves [J/m^2/K]."""
            own = rate * glow(i, j)
            return [capacity(i, j) * y for y in adi_step.loss_pair(own, own, leak(i, j), h)]

        # What all cells share is found once.
        if all(table.shared is not None for table in (capacity, glow, leak)):
            losses = partial(lambda shared, i, j: shared, losses(0, 0))
        warmed = [2 * h * e.shared if e.shared is not None else None for e in emission]

        def first_factors(i):
            after = c = self.zero
            for j in range(ny - 1, -1, -1):
                before = h * across(i, j - 1) if j else self.zero
                c, m = adi_step.pivot(before, after, capacity(i, j) + losses(i, j)[0], c)
                self.c1[j], self.m1[j] = c, h * m
                after = before

        def eliminated(i):
            """Column i in the first half step, as far as u."""
            if shape.wide:
                first_factors(i)
            t = [self.T[i, j] for j in range(ny)]
            flow = [across(i, j) * (t[j + 1] - t[j]) for j in range(ny - 1)]
            for j in range(ny - 1, -1, -1):
                half = adi_step.Half.of_cells(tuple(e(i, j) for e in emission), 1.0, link=link(i, j))
                inward = adi_step.net(flow, j)
                q = adi_step.first_heat(t[j], inward, self.S[i + 1, j], source(i, j) + load, half)
                self.u[j] = q if j == ny - 1 else adi_step.eliminate(q, self.c1[j + 1], self.u[j + 1])

        def substituted(i):
            """Column i from u of the first half step to v of the second."""
            behind, gains = [], []
            for j in range(shape.kinds):
                first, second = losses(i, j)
                before = jnp.where(i > 0, h * along(jnp.maximum(i - 1, 0), j), 0.0)
                after = jnp.where(i < nx - 1, h * along(jnp.minimum(i, nx - 2), j), 0.0)
                behind.append(self.c[i + 1, j])
                self.c[i, j], self.m[i, j] = adi_step.pivot(before, after, capacity(i, j) + second, behind[j])
                gains.append(adi_step.second_gain(capacity(i, j), first, second, link(i, j), h))
            # All read before any is written, which may be in the way for all that the compiler knows.
            u, v = [self.u[j] for j in range(ny)], [self.v[i + 1, j] for j in range(ny)]
            d = None
            for j in range(ny):
                d = self.m1[j] * u[j] if d is None else adi_step.substitute(self.m1[j], u[j], self.c1[j], d)
                heat = tuple(2 * h * e(i, j) if w is None else w for e, w in zip(emission, warmed))
                half = adi_step.Half.of_cells(heat, 0.5, gain=gains[shape.kind(j)])
                q = adi_step.second_heat(self.T[i, j], d, 0.0, half)
                self.v[i, j] = adi_step.eliminate(q, behind[shape.kind(j)], v[j])

        def backward(k, _):
            i = nx - 2 - k
            substituted(i + 1)
            eliminated(i)
            return 0

        if not shape.wide:
            first_factors(0)
        eliminated(nx - 1)
        lax.fori_loop(0, nx - 1, backward, 0)
        substituted(0)
        sums = self.zero, (self.seen[0], self.seen[1], self.zero) if shape.extremes else ()
        for low in range(0, ny, SEGMENT):
            sums = self.forward(range(low, min(low + SEGMENT, ny)), along, sums)
        self.fourth[...] = sums[0]
        if shape.extremes:
            self.seen[0], self.seen[1], rise = sums[1]
            rise = rise * (1 / (nx * ny))
            self.seen[2] = self.seen[2] + dt * (self.seen[3] + 0.5 * rise)
            self.seen[3] = self.seen[3] + rise
        return 0

    def forward(self, rows: range, along: _Table, sums):
        """Substitution in the second half, and the end of the step, in some rows of cells."""
        shape = self.shape

        def column(i, carry):
            D, flow, sums = carry
            D_new, flow_new = [], []
            links = [jnp.where(i > 0, along(jnp.maximum(i - 1, 0), r), 0.0) for r in range(along.rows)]
            for j, D_before, flow_before in zip(rows, D, flow):
                kind = shape.kind(j)
                D = adi_step.substitute(self.m[i, kind], self.v[i, j], self.c[i, kind], D_before)
                inward = links[min(j, along.rows - 1)] * (D - D_before)
                # Of cell i - 1, whose neighbours on both sides are known now.
                self.S[i, j] = self.S[i, j] + (inward - flow_before)
                t = self.T[i, j] + D
                self.T[i, j] = t
                sums = self.look(j, t, D, sums)
                D_new.append(D)
                flow_new.append(inward)
            return D_new, flow_new, sums

        unroll = next(n for n in (UNROLL, 4, 2, 1) if shape.nx % n == 0)

        def columns(k, carry):
            for i in range(unroll):
                carry = column(k * unroll + i, carry)
            return carry

        none = [self.zero] * len(rows)
        _, flow, sums = lax.fori_loop(0, shape.nx // unroll, columns, (none, none, sums))
        for j, last in zip(rows, flow):
            self.S[shape.nx, j] = self.S[shape.nx, j] - last
        return sums


def _kernel(*refs, shape: _Shape, block: int):
    march = _March(shape, refs)
    pl.when(pl.program_id(1) == 0)(march.start)
    lax.fori_loop(0, block, march.step, 0)


def _shape(sheet: Sheet, extremes: bool) -> _Shape:
    losing = sheet.capacity, sheet.link, sheet.emission[0]
    return _Shape(
        nx=sheet.nx,
        ny=sheet.ny,
        kinds=max(a.shape[1] for a in (*losing, sheet.along)),
        wide=any(a.shape[0] > 1 for a in (*losing, sheet.across)),
        emissions=len(sheet.emission),
        extremes=extremes,
    )


def _scratch(shape: _Shape) -> list[tuple[int, ...]]:
    nx, ny, kinds = shape.nx, shape.ny, shape.kinds
    return [(nx + 1, ny), (nx + 1, ny), (nx + 1, kinds), (nx, kinds), (ny,), (ny,), (ny,), ()]


def supports(T: Float[Array, "nx ny b"], sheet: Sheet) -> bool:
    """Whether the kernel holds such sheets: in float32, of linear conduction, not too large for vector memory."""
    if T.dtype != jnp.float32 or not sheet.linear or min(sheet.nx, sheet.ny) < 2:
        return False
    # Inputs and outputs are there twice, the next tile's as well.
    tables = (sheet.capacity, sheet.along, sheet.across, sheet.link, *sheet.emission)
    doubled = 2 * sheet.nx * sheet.ny * (5 + sum(a.shape[0] * a.shape[1] > sheet.nx for a in tables))
    scratch = sum(axes[0] * axes[1] for axes in _scratch(_shape(sheet, True)) if len(axes) == 2)
    return 4 * TILE * (doubled + scratch + 4 * BLOCK) < VECTOR_MEMORY


def transient(
    T: Float[Array, "nx ny b"],
    source: Float[Array, "i j b"],
    load: Float[Array, "k b"],
    dt: Float[Array, "k b"],
    sheet: Sheet,
    extremes: bool,
    interpret: bool = False,
) -> tuple[Float[Array, "nx ny b"], Any]:
    """`adi.transient` of sheets that it `supports`."""
    # Indices are 32 bits wide, whatever the caller's are.
    with jax.enable_x64(False):
        return _transient(T, source, load, dt, sheet, _shape(sheet, extremes), interpret)


def _transient(T, source, load, dt, sheet: Sheet, shape: _Shape, interpret: bool):
    nx, ny, b = T.shape
    steps = load.shape[0]
    tiles, blocks = -(-b // TILE), -(-steps // BLOCK)
    block = -(-steps // blocks)

    def laid(a):
        """Satellites as (8, 128) tiles; the last one stands in for those that fill up the last tile."""
        a = jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, tiles * TILE - b)], mode="edge")
        return a.reshape(*a.shape[:-1], tiles * ROWS, LANES)

    def flat(a):
        return a.reshape(*a.shape[:-2], -1)[..., :b]

    def of_tile(*axes):
        return pl.BlockSpec((*axes, ROWS, LANES), lambda t, k: (*(0 for _ in axes), t, 0))

    def out(*axes):
        return jax.ShapeDtypeStruct((*axes, tiles * ROWS, LANES), jnp.float32)

    glow, leak = sheet.emission[0] / sheet.capacity, sheet.link / sheet.capacity
    tables = (sheet.capacity, sheet.along, sheet.across, sheet.link, source, glow, leak, *sheet.emission)
    means = jnp.mean(source, (0, 1)), jnp.mean(sheet.emission[0], (0, 1)), jnp.max(glow, (0, 1))
    # Steps of no length fill up the last block.
    rows = [jnp.pad(a, [(0, blocks * block - steps), (0, 0)]) for a in (load, dt)]
    of_block = pl.BlockSpec((block, ROWS, LANES), lambda t, k: (k, t, 0))
    end, *seen = pl.pallas_call(
        partial(_kernel, shape=shape, block=block),
        grid=(tiles, blocks),
        in_specs=[
            of_tile(nx, ny),
            *(of_tile(*a.shape[:2]) for a in tables),
            *(of_tile() for _ in means),
            *(of_block for _ in rows),
        ],
        out_specs=[of_tile(nx, ny), of_tile(4)][: 1 + shape.extremes],
        out_shape=[out(nx, ny), out(4)][: 1 + shape.extremes],
        scratch_shapes=[pltpu.VMEM((*axes, ROWS, LANES), jnp.float32) for axes in _scratch(shape)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VECTOR_MEMORY
        ),
        interpret=interpret,
        name="adi_transient",
    )(*(laid(a) for a in (T, *tables, *means, *rows)))
    if not seen:
        return flat(end), None
    hottest, coldest, integral, _ = flat(seen[0])
    return flat(end), adi.Extremes(hottest, coldest, adi.time_mean(jnp.mean(T, (0, 1)), integral, dt))
