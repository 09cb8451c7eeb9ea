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

import math
from abc import ABC, abstractmethod
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


class Table:
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
class Shape:
    """What a kernel is compiled for.

    Attributes:
        nx, ny: Cells along x and y.
        kinds: Rows of cells whose factors of the second half differ: 1, 2 (the first and the others) or ny.
        wide: Whether columns differ in their factors of the first half.
    """

    nx: int
    ny: int
    kinds: int
    wide: bool

    @classmethod
    def of(cls, sheet: Sheet) -> "Shape":
        losing = sheet.capacity, sheet.link, sheet.emission[0]
        return cls(
            nx=sheet.nx,
            ny=sheet.ny,
            kinds=max(a.shape[1] for a in (*losing, sheet.along)),
            wide=any(a.shape[0] > 1 for a in (*losing, sheet.across)),
        )

    def kind(self, j: int) -> int:
        return min(j, self.kinds - 1)

    @property
    def scratch(self) -> list[tuple[int, ...]]:
        """Of a `Tile`, from S on."""
        nx, ny, kinds = self.nx, self.ny, self.kinds
        return [(nx + 1, ny), (nx + 1, ny), (nx + 1, kinds), (nx, kinds), (ny,), (ny,)]


class Tile(ABC):
    """A tile of panels: references into vector memory, and sweeps over its columns and rows.

    T is the end of each step. S holds cell i at i + 1, behind a ghost. The factors c and m, and v, are those of the
    second half, with a line of zeros behind the last; c1 and m1 those of the first half, of one column.
    """

    def __init__(self, shape: Shape, T, S, v, c, m, c1, m1):
        self.shape, self.T = shape, T
        self.S, self.v, self.c, self.m, self.c1, self.m1 = S, v, c, m, c1, m1
        self.zero = jnp.zeros((ROWS, LANES), jnp.float32)

    @abstractmethod
    def look(self, j: int, t, D, sums):
        """Sums with one more cell of row j, at t after a rise by D."""

    def begin(self, T_in, along: Table, sums):
        shape, zero = self.shape, self.zero
        nx, ny = shape.nx, shape.ny
        for j in range(ny):
            self.v[nx, j] = self.S[0, j] = zero
        for kind in range(shape.kinds):
            self.c[nx, kind] = zero

        def column(i, sums):
            west, east = jnp.maximum(i - 1, 0), jnp.minimum(i + 1, nx - 1)
            for j in range(ny):
                t = T_in[i, j]
                self.T[i, j] = t
                # At the ends a cell is its own neighbour.
                inward = along(west, j) * (T_in[west, j] - t)
                self.S[i + 1, j] = inward + along(jnp.minimum(i, nx - 2), j) * (T_in[east, j] - t)
                sums = self.look(j, t, zero, sums)
            return sums

        return lax.fori_loop(0, nx, column, sums)

    def forward(self, along: Table, sums):
        """Substitution in the second half, and the end of the step."""
        ny = self.shape.ny
        for low in range(0, ny, SEGMENT):
            sums = self._forward(range(low, min(low + SEGMENT, ny)), along, sums)
        return sums

    def _forward(self, rows: range, along: Table, sums):
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

        none = [self.zero] * len(rows)
        _, flow, sums = in_turns(shape.nx, UNROLL, column, (none, none, sums))
        for j, last in zip(rows, flow):
            self.S[shape.nx, j] = self.S[shape.nx, j] - last
        return sums


def in_turns(n: int, most: int, column, carry):
    """column(i, carry) for i from 0 to n - 1, some to a turn of the loop."""
    unroll = next(k for k in (8, 4, 2, 1) if k <= most and n % k == 0)

    def columns(k, carry):
        for i in range(unroll):
            carry = column(k * unroll + i, carry)
        return carry

    return lax.fori_loop(0, n // unroll, columns, carry)


class Halves:
    """The half steps of a tile's columns.

    Args:
        tables: Capacity, along, across, link, source, emission per capacity, link per capacity, coefficients of the
            emission factor.
        rate, mid_rate: `adi_step.radiation_rate` per emission and capacity, at the start and at mid-step.
        source: What heats all cells alike besides the table.
    """

    def __init__(self, tile: Tile, tables: list[Table], h, rate, mid_rate, source):
        self.tile, self.h, self.load = tile, h, source
        self.rate, self.mid_rate = rate, mid_rate
        self.capacity, self.along, self.across, self.link, self.heat, self.glow, self.leak, *emission = tables
        self.emission = emission
        # What all cells share is found once.
        shared = all(table.shared is not None for table in (self.capacity, self.glow, self.leak))
        self.shared_losses = self._losses(0, 0) if shared else None
        self.warmed = [2 * h * e.shared if e.shared is not None else None for e in emission]

    def _losses(self, i, j):
        """h r of both halves [J/m^2/K]."""
        own, glow = self.capacity(i, j), self.glow(i, j)
        pair = adi_step.loss_pair(self.rate * glow, self.mid_rate * glow, self.leak(i, j), self.h)
        return [own * y for y in pair]

    def losses(self, i, j):
        return self._losses(i, j) if self.shared_losses is None else self.shared_losses

    def first_factors(self, i):
        tile = self.tile
        after = c = tile.zero
        for j in range(tile.shape.ny - 1, -1, -1):
            before = self.h * self.across(i, j - 1) if j else tile.zero
            c, m = adi_step.pivot(before, after, self.capacity(i, j) + self.losses(i, j)[0], c)
            tile.c1[j], tile.m1[j] = c, self.h * m
            after = before

    def eliminated(self, i, u):
        """Column i in the first half step, as far as u."""
        tile = self.tile
        ny = tile.shape.ny
        if tile.shape.wide:
            self.first_factors(i)
        t = [tile.T[i, j] for j in range(ny)]
        flow = [self.across(i, j) * (t[j + 1] - t[j]) for j in range(ny - 1)]
        for j in range(ny - 1, -1, -1):
            half = adi_step.Half.of_cells(tuple(e(i, j) for e in self.emission), 1.0, link=self.link(i, j))
            inward = adi_step.net(flow, j)
            q = adi_step.first_heat(t[j], inward, tile.S[i + 1, j], self.heat(i, j) + self.load, half)
            u[j] = q if j == ny - 1 else adi_step.eliminate(q, tile.c1[j + 1], u[j + 1])

    def substituted(self, u: list, first=None):
        """Increments to mid-step from u of a column, one after the other; `first` of them where that is known."""
        tile, d = self.tile, first
        for j, value in enumerate(u):
            if j:
                d = adi_step.substitute(tile.m1[j], value, tile.c1[j], d)
            elif first is None:
                d = tile.m1[0] * value
            yield d

    def second_factors(self, i):
        """Of column i: c behind it, and what multiplies d."""
        tile = self.tile
        nx = tile.shape.nx
        behind, gains = [], []
        for j in range(tile.shape.kinds):
            first, second = self.losses(i, j)
            capacity = self.capacity(i, j)
            before = jnp.where(i > 0, self.h * self.along(jnp.maximum(i - 1, 0), j), 0.0)
            after = jnp.where(i < nx - 1, self.h * self.along(jnp.minimum(i, nx - 2), j), 0.0)
            behind.append(tile.c[i + 1, j])
            tile.c[i, j], tile.m[i, j] = adi_step.pivot(before, after, capacity + second, behind[j])
            gains.append(adi_step.second_gain(capacity, first, second, self.link(i, j), self.h))
        return behind, gains

    def second_heat(self, i, j: int, d, gain, more):
        heat = tuple(2 * self.h * e(i, j) if w is None else w for e, w in zip(self.emission, self.warmed))
        return adi_step.second_heat(self.tile.T[i, j], d, more, adi_step.Half.of_cells(heat, 0.5, gain=gain))


class _March(Tile):
    """The march of a sheet by itself.

    `u` is of the first half, of one column. `fourth` is the sum of T^4 over the sampled cells. `seen`: hottest,
    coldest, the integral over time of the mean's rise since the start, that rise.
    """

    def __init__(self, shape: Shape, emissions: int, extremes: bool, refs):
        refs = iter(refs)
        self.T_in = next(refs)
        self.tables = [next(refs) for _ in range(7 + emissions)]
        self.lead, self.gray, self.quick, self.load, self.dt = (next(refs) for _ in range(5))
        T = next(refs)
        self.seen = next(refs) if extremes else None
        self.u, self.fourth, *scratch = refs
        super().__init__(shape, T, *scratch)
        # Rows of cells whose T^4 stands for the panel's, as in `adi.step`.
        self.sampled = range(0, shape.ny, max(1, shape.ny // 4))

    def start(self):
        first, zero = self.T_in[0, 0], self.zero
        ends = (first, first, zero) if self.seen is not None else ()
        self.fourth[...], ends = self.begin(self.T_in, Table(self.tables[1]), (zero, ends))
        if self.seen is not None:
            self.seen[0], self.seen[1], _ = ends
            self.seen[2] = self.seen[3] = zero

    def look(self, j: int, t, D, sums):
        total, ends = sums
        if j in self.sampled:
            total = total + (t * t) * (t * t)
        if self.seen is not None:
            ends = jnp.maximum(ends[0], t), jnp.minimum(ends[1], t), ends[2] + D
        return total, ends

    def step(self, k, _):
        shape = self.shape
        nx, ny = shape.nx, shape.ny
        load, dt = self.load[k], self.dt[k]
        mean4 = self.fourth[...] * (1 / (len(self.sampled) * nx))
        mean4 = jnp.maximum(mean4, adi_step.settled_fourth(self.lead[...] + load, self.gray[...]))
        rate = adi_step.radiation_rate(mean4, 1.0)
        h = adi_step.half_of(dt, rate * self.quick[...])
        halves = Halves(self, list(map(Table, self.tables)), h, rate, rate, load)

        def substituted(i):
            """Column i from u of the first half step to v of the second."""
            behind, gains = halves.second_factors(i)
            # All read before any is written, which may be in the way for all that the compiler knows.
            u, v = [self.u[j] for j in range(ny)], [self.v[i + 1, j] for j in range(ny)]
            for j, d in enumerate(halves.substituted(u)):
                kind = shape.kind(j)
                q = halves.second_heat(i, j, d, gains[kind], 0.0)
                self.v[i, j] = adi_step.eliminate(q, behind[kind], v[j])

        def backward(k, _):
            i = nx - 2 - k
            substituted(i + 1)
            halves.eliminated(i, self.u)
            return 0

        if not shape.wide:
            halves.first_factors(0)
        halves.eliminated(nx - 1, self.u)
        lax.fori_loop(0, nx - 1, backward, 0)
        substituted(0)
        sums = self.zero, (self.seen[0], self.seen[1], self.zero) if self.seen is not None else ()
        sums = self.forward(halves.along, sums)
        self.fourth[...] = sums[0]
        if self.seen is not None:
            self.seen[0], self.seen[1], rise = sums[1]
            rise = rise * (1 / (nx * ny))
            self.seen[2] = self.seen[2] + dt * (self.seen[3] + 0.5 * rise)
            self.seen[3] = self.seen[3] + rise
        return 0


def _kernel(*refs, shape: Shape, emissions: int, extremes: bool, block: int):
    march = _March(shape, emissions, extremes, refs)
    pl.when(pl.program_id(1) == 0)(march.start)
    lax.fori_loop(0, block, march.step, 0)


def _scratch(shape: Shape) -> list[tuple[int, ...]]:
    return [(shape.ny,), (), *shape.scratch]


def fits(cells: int) -> bool:
    """Whether vector memory holds this many numbers of each satellite of a tile."""
    return 4 * TILE * cells < VECTOR_MEMORY


def supports(T: Float[Array, "nx ny b"], sheet: Sheet) -> bool:
    """Whether the kernel holds such sheets: in float32, of linear conduction, not too large for vector memory."""
    if T.dtype != jnp.float32 or not sheet.linear or min(sheet.nx, sheet.ny) < 2:
        return False
    # Inputs and outputs are there twice, the next tile's as well.
    tables = (sheet.capacity, sheet.along, sheet.across, sheet.link, *sheet.emission)
    doubled = 2 * sheet.nx * sheet.ny * (5 + sum(a.shape[0] * a.shape[1] > sheet.nx for a in tables))
    scratch = sum(math.prod(axes) for axes in _scratch(Shape.of(sheet)))
    return fits(doubled + scratch + 4 * BLOCK)


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
        return _transient(T, source, load, dt, sheet, extremes, interpret)


class Laid:
    """Satellites as (8, 128) tiles; the last one stands in for those that fill up the last tile."""

    def __init__(self, b: int):
        self.b, self.tiles = b, -(-b // TILE)

    def __call__(self, a: Float[Array, "*n b"]) -> Float[Array, "*n r 128"]:
        a = jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, self.tiles * TILE - self.b)], mode="edge")
        return a.reshape(*a.shape[:-1], self.tiles * ROWS, LANES)

    def flat(self, a: Float[Array, "*n r 128"]) -> Float[Array, "*n b"]:
        return a.reshape(*a.shape[:-2], -1)[..., : self.b]

    def of_tile(self, *axes: int):
        return pl.BlockSpec((*axes, ROWS, LANES), lambda t, k: (*(0 for _ in axes), t, 0))

    def of_block(self, steps: int, *axes: int):
        """Rows of loads, some steps of them at a time."""
        return pl.BlockSpec((steps, *axes, ROWS, LANES), lambda t, k: (k, *(0 for _ in axes), t, 0))

    def out(self, *axes: int):
        return jax.ShapeDtypeStruct((*axes, self.tiles * ROWS, LANES), jnp.float32)


def blocks_of(steps: int, most: int) -> tuple[int, int]:
    """Blocks that steps are cut into, and the steps of each; some of no length fill up the last one."""
    blocks = -(-steps // most)
    return blocks, -(-steps // blocks)


def _transient(T, source, load, dt, sheet: Sheet, extremes: bool, interpret: bool):
    nx, ny, b = T.shape
    steps, laid, shape = load.shape[0], Laid(b), Shape.of(sheet)
    blocks, block = blocks_of(steps, BLOCK)
    glow, leak = sheet.emission[0] / sheet.capacity, sheet.link / sheet.capacity
    tables = (sheet.capacity, sheet.along, sheet.across, sheet.link, source, glow, leak, *sheet.emission)
    means = jnp.mean(source, (0, 1)), jnp.mean(sheet.emission[0], (0, 1)), jnp.max(glow, (0, 1))
    rows = [jnp.pad(a, [(0, blocks * block - steps), (0, 0)]) for a in (load, dt)]
    end, *seen = pl.pallas_call(
        partial(_kernel, shape=shape, emissions=len(sheet.emission), extremes=extremes, block=block),
        grid=(laid.tiles, blocks),
        in_specs=[
            laid.of_tile(nx, ny),
            *(laid.of_tile(*a.shape[:2]) for a in tables),
            *(laid.of_tile() for _ in means),
            *(laid.of_block(block) for _ in rows),
        ],
        out_specs=[laid.of_tile(nx, ny), laid.of_tile(4)][: 1 + extremes],
        out_shape=[laid.out(nx, ny), laid.out(4)][: 1 + extremes],
        scratch_shapes=[pltpu.VMEM((*axes, ROWS, LANES), jnp.float32) for axes in _scratch(shape)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VECTOR_MEMORY
        ),
        interpret=interpret,
        name="adi_transient",
    )(*(laid(a) for a in (T, *tables, *means, *rows)))
    if not seen:
        return laid.flat(end), None
    hottest, coldest, integral, _ = laid.flat(seen[0])
    return laid.flat(end), adi.Extremes(hottest, coldest, adi.time_mean(jnp.mean(T, (0, 1)), integral, dt))
