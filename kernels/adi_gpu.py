"""The march of `adi.transient` as one kernel of an NVIDIA GPU: whole panels stay in shared memory for all steps.

A block of 128 threads holds a few satellites, each of which some threads share, its parts. In the first half step,
which couples the cells of a column only, a part owns columns; in the second half and at the end of the step, rows.
Two barriers a step stand between. Elimination happens in registers, every loop over cells unrolled; global memory is
read for the loads of each step, and for tables of sheets whose cells are unlike.

Arrays in shared memory are (nx, ny, satellites), with an odd number of rows: so neighbouring parts' cells lie in
different banks both where parts are columns and where they are rows. As in `adi_tpu`, heat of the first half is
reckoned per second, h taken into its factors, and emission of the second half has 2 h in it.
"""

# References that a kernel's static choices leave out are None, which types cannot follow.
# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportAssignmentType=false, reportCallIssue=false

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import ds
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from . import adi, adi_step
from .sheet import Sheet

THREADS = 128
# That a block may have, of an H100 [bytes].
SHARED_MEMORY = 227 << 10
# Cells of a row and of a column that the registers of a thread hold, with their factors.
ROW, COLUMN = 64, 32
# A sheet's tables, in the order in which the kernel gets them; coefficients of the emission factor follow.
CAPACITY, ALONG, ACROSS, LINK, SOURCE, GLOW, LEAK, EMISSION = range(8)


def parts_of(nx: int, ny: int) -> int:
    """Threads that share a satellite: as many as can have equal shares of the columns and of the rows."""
    return next((n for n in (64, 32, 16, 8, 4) if nx % n == 0 and ny % n == 0), 0)


def panels(nx: int, ny: int) -> list[tuple[int, ...]]:
    """Shapes of T, S and what stands between the half steps, in shared memory."""
    return [(nx, ny + (ny + 1) % 2, THREADS // parts_of(nx, ny))] * 3


def _shared(nx: int, ny: int) -> list[tuple[int, ...]]:
    return [*panels(nx, ny), (ny, THREADS // parts_of(nx, ny))]


def _layout(parts: int):
    """(parts, satellites) over the threads of a block, satellites side by side."""
    satellites = THREADS // parts
    if parts == 4:
        # A warp to each part.
        tiling = plgpu.Tiling(((4, 32), (1,)))
        return plgpu.Layout.TILED(tiling, warp_dims=(-3,), lane_dims=(-2,), vector_dim=-1)
    tiling = plgpu.Tiling(((parts, satellites), (parts // 4, satellites), (1,)))
    return plgpu.Layout.TILED(tiling, warp_dims=(-5,), lane_dims=(-3, -2), vector_dim=-1)


class Laid:
    """Satellites in whole blocks."""

    def __init__(self, b: int, parts: int):
        satellites = THREADS // parts
        self.blocks = -(-b // satellites)
        self.full = self.blocks * satellites

    def __call__(self, a):
        """The last satellite stands in for those that fill up the last block."""
        return jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, self.full - a.shape[-1])], mode="edge")

    def out(self, *axes):
        return jax.ShapeDtypeStruct((*axes, self.full), jnp.float32)


class Block(ABC):
    """Satellites of a block, and the half steps of their panels. Values are (parts, satellites), one to a thread.

    Turns: a part owns column or row `turn * parts + part`.
    """

    def __init__(self, nx: int, ny: int, wide: bool, interpreted: bool, T, S, Q):
        self.nx, self.ny, self.wide, self.interpreted = nx, ny, wide, interpreted
        self.T, self.S, self.Q = T, S, Q
        self.parts = parts_of(nx, ny)
        self.satellites = THREADS // self.parts
        self.layout = _layout(self.parts)
        self.block = ds(lax.axis_index("block") * self.satellites, self.satellites)
        shape = (self.parts, self.satellites)
        self.zero = self.laid(jnp.zeros(shape, jnp.float32))
        self.part = self.laid(lax.broadcasted_iota(jnp.int32, shape, 0))

    # The interpreter knows no layouts.

    def laid(self, value):
        return value if self.interpreted else plgpu.layout_cast(value, self.layout)

    def loaded(self, ref, index, layout):
        return ref[index] if self.interpreted else plgpu.load(ref, index, layout=layout, optimized=False)

    def own(self, ref, *index):
        """A value to each thread."""
        return self.loaded(ref, index, self.layout)

    def common(self, ref, *index):
        """A value to each satellite, for all its parts."""
        value = self.loaded(ref, index, self.layout.reduce(0))
        return self.laid(lax.broadcast_in_dim(value, (self.parts, self.satellites), (1,)))

    def turn(self, e: int):
        return ds(e * self.parts, self.parts)

    @abstractmethod
    def in_column(self, number: int, e: int) -> Any:
        """A table in the parts' columns of a turn, by row."""

    @abstractmethod
    def in_row(self, number: int, e: int) -> Any:
        """A table in the parts' rows of a turn, by column."""

    @abstractmethod
    def alike(self, number: int) -> bool:
        """Whether all cells share a table's value."""

    def losses(self, h, rate, mid_rate, table, e: int):
        """h r of both halves [J/m^2/K], in column or row."""
        capacity, glow, leak = (table(number, e) for number in (CAPACITY, GLOW, LEAK))

        def value(k):
            pair = adi_step.loss_pair(rate * glow(k), mid_rate * glow(k), leak(k), h)
            return [capacity(k) * y for y in pair]

        if not all(map(self.alike, (CAPACITY, GLOW, LEAK))):
            return value
        shared = value(0)
        return lambda k: shared

    def begin(self, T_in, look, seen):
        """Take temperatures over; `look` sees each part's cells of a turn, as at the ends of steps."""
        for e in range(self.ny // self.parts):
            along = self.in_row(ALONG, e)
            t, flow, sums = None, self.zero, None
            for i in range(self.nx):
                before, t = t, self.own(T_in, i, self.turn(e), self.block)
                self.T[i, self.turn(e)] = t
                if i:
                    inward = along(i - 1) * (t - before)
                    self.S[i - 1, self.turn(e)] = inward - flow
                    flow = inward
                sums, seen = look(t, self.zero, sums, seen)
            self.S[self.nx - 1, self.turn(e)] = -flow
            self.note(e, sums)
        return seen

    @abstractmethod
    def note(self, e: int, sums):
        """Sums over the parts' rows of a turn."""

    def first_factors(self, e: int, h, rate):
        """c and h m of columns, and their losses."""
        capacity, across = self.in_column(CAPACITY, e), self.in_column(ACROSS, e)
        losses = self.losses(h, rate, rate, self.in_column, e)
        factors = []
        after = c = self.zero
        for j in range(self.ny - 1, -1, -1):
            before = h * across(j - 1) if j else self.zero
            lost = losses(j)
            c, m = adi_step.pivot(before, after, capacity(j) + lost[0], c)
            factors.append((c, h * m, lost))
            after = before
        return factors[::-1]

    def eliminated(self, e: int, load, factors) -> tuple[list, list]:
        """u of the first half step in columns, and their temperatures."""
        ny, turn = self.ny, self.turn(e)
        across, link, source = (self.in_column(n, e) for n in (ACROSS, LINK, SOURCE))
        emission = self.emission(self.in_column, e)
        t = [self.own(self.T, turn, j) for j in range(ny)]
        flow = [across(j) * (t[j + 1] - t[j]) for j in range(ny - 1)]
        u: list = [None] * ny
        for j in range(ny - 1, -1, -1):
            half = adi_step.Half.of_cells(tuple(f(j) for f in emission), 1.0, link=link(j))
            q = adi_step.first_heat(
                t[j], adi_step.net(flow, j), self.own(self.S, turn, j), source(j) + load, half
            )
            u[j] = q if j == ny - 1 else adi_step.eliminate(q, factors[j + 1][0], u[j + 1])
        return u, t

    @abstractmethod
    def emission(self, table, e: int) -> list:
        """Tables of the emission factor's coefficients."""

    def second_half(self, e: int, h, losses, heat, look, seen):
        """The second half step of rows from their heat, by column, and the end of the step; what has been seen."""
        nx, turn = self.nx, self.turn(e)
        capacity, along = self.in_row(CAPACITY, e), self.in_row(ALONG, e)
        c, start = [self.zero] * (nx + 1), [self.zero] * nx
        after = v = self.zero
        for i in range(nx - 1, -1, -1):
            before = h * along(i - 1) if i else self.zero
            c[i], m = adi_step.pivot(before, after, capacity(i) + losses(i)[1], c[i + 1])
            q = heat(i)
            v = q if i == nx - 1 else adi_step.eliminate(q, c[i + 1], v)
            # Where v and m would stay until substitution, their product takes half the registers.
            start[i] = m * v
            after = before
        D, flow, sums = None, self.zero, None
        for i in range(nx):
            before, D = D, start[0] if D is None else adi_step.substitute(1.0, start[i], c[i], D)
            if i:
                inward = along(i - 1) * (D - before)
                self.S[i - 1, turn] = self.own(self.S, i - 1, turn) + (inward - flow)
                flow = inward
            t = self.own(self.T, i, turn) + D
            self.T[i, turn] = t
            sums, seen = look(t, D, sums, seen)
        self.S[nx - 1, turn] = self.own(self.S, nx - 1, turn) - flow
        self.note(e, sums)
        return seen

    def finish(self, T_out):
        for e in range(self.ny // self.parts):
            for i in range(self.nx):
                T_out[i, self.turn(e), self.block] = self.own(self.T, i, self.turn(e))


class _March(Block):
    """The march of a sheet by itself. `fourth` holds sums of T^4 over rows."""

    def __init__(self, sheet: Sheet, extremes: bool, interpreted: bool, refs):
        self.extremes = extremes
        self.sampled = range(0, sheet.ny, max(1, sheet.ny // 4))
        refs = iter(refs)
        self.T_in = next(refs)
        self.tables = [next(refs) for _ in range(EMISSION + len(sheet.emission))]
        means = [next(refs) for _ in range(3)]
        self.load, self.dt, self.T_out = (next(refs) for _ in range(3))
        self.seen_out = next(refs) if extremes else None
        *panels, self.fourth = refs
        losing = sheet.capacity, sheet.link, sheet.emission[0], sheet.across
        super().__init__(sheet.nx, sheet.ny, any(a.shape[0] > 1 for a in losing), interpreted, *panels)
        self.lead, self.gray, self.quick = (self.common(ref, self.block) for ref in means)
        self.once = [
            self.common(ref, 0, 0, self.block) if ref.shape[:2] == (1, 1) else None for ref in self.tables
        ]

    def alike(self, number: int) -> bool:
        return self.once[number] is not None

    def in_column(self, number: int, e: int) -> Any:
        if self.once[number] is not None:
            return lambda j: self.once[number]
        ref = self.tables[number]
        columns, rows = ref.shape[:2]
        if columns == 1:
            return lambda j: self.common(ref, 0, min(j, rows - 1), self.block)
        return lambda j: self.own(ref, self.turn(e), min(j, rows - 1), self.block)

    def in_row(self, number: int, e: int) -> Any:
        if self.once[number] is not None:
            return lambda i: self.once[number]
        ref = self.tables[number]
        columns, rows = ref.shape[:2]
        if rows == 1:
            return lambda i: self.common(ref, i, 0, self.block)

        def value(i):
            i = i if columns > 1 else 0
            if rows > 2:
                return self.own(ref, i, self.turn(e), self.block)
            # The first row and all others.
            return jnp.where(self.part + e == 0, *(self.common(ref, i, j, self.block) for j in (0, 1)))

        shared = value(0) if columns == 1 else None
        return value if shared is None else lambda i: shared

    def emission(self, table, e: int) -> list:
        return [table(n, e) for n in range(EMISSION, len(self.tables))]

    def look(self, t, D, total, seen):
        """Sum of T^4; hottest and coldest cell of each part's; rise of the mean in a step, since the start, its
        integral."""
        total = (t * t) * (t * t) if total is None else total + (t * t) * (t * t)
        if not self.extremes:
            return total, ()
        if seen is None:
            return total, (t, t, self.zero, self.zero, self.zero)
        return total, (jnp.maximum(seen[0], t), jnp.minimum(seen[1], t), seen[2] + D, *seen[3:])

    def note(self, e: int, sums):
        self.fourth[self.turn(e)] = sums

    def start(self):
        seen = self.begin(self.T_in, self.look, None)
        plgpu.commit_smem()
        return seen

    def step(self, k, seen):
        load, dt = self.common(self.load, k, self.block), self.common(self.dt, k, self.block)
        total = sum((self.common(self.fourth, j) for j in self.sampled), self.zero)
        mean4 = total * (1 / (len(self.sampled) * self.nx))
        mean4 = jnp.maximum(mean4, adi_step.settled_fourth(self.lead + load, self.gray))
        rate = adi_step.radiation_rate(mean4, 1.0)
        h = adi_step.half_of(dt, rate * self.quick)
        factors = None if self.wide else self.first_factors(0, h, rate)
        for e in range(self.nx // self.parts):
            self.first_half(e, h, load, factors or self.first_factors(e, h, rate))
        plgpu.commit_smem()
        for e in range(self.ny // self.parts):
            losses = self.losses(h, rate, rate, self.in_row, e)
            heat = partial(lambda turn, i: self.own(self.Q, i, turn), self.turn(e))
            seen = self.second_half(e, h, losses, heat, self.look, seen)
        plgpu.commit_smem()
        if not self.extremes:
            return ()
        hottest, coldest, rise, risen, integral = seen
        return hottest, coldest, self.zero, risen + rise, integral + dt * (risen + 0.5 * rise)

    def first_half(self, e: int, h, load, factors):
        """The first half step of columns, and heat of the second."""
        capacity, link = self.in_column(CAPACITY, e), self.in_column(LINK, e)
        emission = self.emission(self.in_column, e)
        u, t = self.eliminated(e, load, factors)
        d = None
        for j, (c, m, lost) in enumerate(factors):
            d = m * u[j] if d is None else adi_step.substitute(m, u[j], c, d)
            gain = adi_step.second_gain(capacity(j), *lost, link(j), h)
            half = adi_step.Half.of_cells(tuple(2 * h * f(j) for f in emission), 0.5, gain=gain)
            self.Q[self.turn(e), j] = adi_step.second_heat(t[j], d, 0.0, half)

    def result(self, seen):
        self.finish(self.T_out)
        for n, value in enumerate((*seen[:2], *seen[4:])):
            self.seen_out[n, :, self.block] = value


def hopper_or_blackwell() -> bool:
    """Whether this machine's GPUs are of the kinds the kernel is written for; without any, those of others are."""
    try:
        found = jax.devices("cuda")
    except RuntimeError:
        return True
    return all(9 <= float(device.compute_capability) < 11 for device in found)


def supports(T: Float[Array, "nx ny b"], sheet: Sheet) -> bool:
    """Whether the kernel holds such sheets: in float32, of linear conduction, on a grid that can be shared out."""
    if not hopper_or_blackwell():
        return False
    if T.dtype != jnp.float32 or not sheet.linear or not parts_of(sheet.nx, sheet.ny):
        return False
    if sheet.nx > ROW or sheet.ny > COLUMN:
        return False
    return sum(4 * math.prod(shape) for shape in _shared(sheet.nx, sheet.ny)) <= SHARED_MEMORY - 2048


def transient(
    T: Float[Array, "nx ny b"],
    source: Float[Array, "i j b"],
    load: Float[Array, "k b"],
    dt: Float[Array, "k b"],
    sheet: Sheet,
    extremes: bool,
    interpret: Any = False,
) -> tuple[Float[Array, "nx ny b"], Any]:
    """`adi.transient` of sheets that it `supports`."""
    # Indices are 32 bits wide, whatever the caller's are.
    with jax.enable_x64(False):
        return _transient(T, source, load, dt, sheet, extremes, interpret)


def _transient(T, source, load, dt, sheet: Sheet, extremes: bool, interpret):
    nx, ny, b = T.shape
    parts = parts_of(nx, ny)
    laid = Laid(b, parts)

    # The compiler names what it builds after this function.
    def adi_transient(*refs):
        march = _March(sheet, extremes, bool(interpret), refs)
        march.result(lax.fori_loop(0, load.shape[0], march.step, march.start()))

    glow, leak = sheet.emission[0] / sheet.capacity, sheet.link / sheet.capacity
    tables = (sheet.capacity, sheet.along, sheet.across, sheet.link, source, glow, leak, *sheet.emission)
    means = jnp.mean(source, (0, 1)), jnp.mean(sheet.emission[0], (0, 1)), jnp.max(glow, (0, 1))
    end, *seen = plgpu.kernel(
        adi_transient,
        out_type=[laid.out(nx, ny), laid.out(3, parts)][: 1 + extremes],
        scratch_types=[plgpu.SMEM(shape, jnp.float32) for shape in _shared(nx, ny)],
        grid=(laid.blocks,),
        grid_names=("block",),
        # The parts of a satellite meet at the two barriers of a step; else nobody reads what another has written.
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True),
        interpret=interpret,
    )(*map(laid, (T, *tables, *means, load, dt)))
    if not seen:
        return end[..., :b], None
    hottest, coldest, integral = seen[0][..., :b]
    mean = adi.time_mean(jnp.mean(T, (0, 1)), jnp.sum(integral, 0) / (nx * ny), dt)
    return end[..., :b], adi.Extremes(jnp.max(hottest, 0), jnp.min(coldest, 0), mean)
