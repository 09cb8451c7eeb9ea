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


def _parts(nx: int, ny: int) -> int:
    """Threads that share a satellite: as many as can have equal shares of the columns and of the rows."""
    return next((n for n in (64, 32, 16, 8, 4) if nx % n == 0 and ny % n == 0), 0)


def _shared(nx: int, ny: int) -> list[tuple[int, ...]]:
    """Shapes of T, S, heat of the second half and sums of T^4 over rows, in shared memory."""
    satellites = THREADS // _parts(nx, ny)
    panel = (nx, ny + (ny + 1) % 2, satellites)
    return [panel, panel, panel, (ny, satellites)]


def _layout(parts: int):
    """(parts, satellites) over the threads of a block, satellites side by side."""
    satellites = THREADS // parts
    if parts == 4:
        # A warp to each part.
        tiling = plgpu.Tiling(((4, 32), (1,)))
        return plgpu.Layout.TILED(tiling, warp_dims=(-3,), lane_dims=(-2,), vector_dim=-1)
    tiling = plgpu.Tiling(((parts, satellites), (parts // 4, satellites), (1,)))
    return plgpu.Layout.TILED(tiling, warp_dims=(-5,), lane_dims=(-3, -2), vector_dim=-1)


class _March:
    """What a block works on. Values are (parts, satellites), a number to each thread.

    Turns: a part owns column or row `turn * parts + part`.
    """

    def __init__(self, sheet: Sheet, extremes: bool, interpreted: bool, refs):
        self.nx, self.ny, self.extremes, self.interpreted = sheet.nx, sheet.ny, extremes, interpreted
        self.parts = _parts(self.nx, self.ny)
        self.satellites = THREADS // self.parts
        self.layout = _layout(self.parts)
        losing = sheet.capacity, sheet.link, sheet.emission[0], sheet.across
        self.wide = any(a.shape[0] > 1 for a in losing)
        self.sampled = range(0, self.ny, max(1, self.ny // 4))
        refs = iter(refs)
        self.T_in = next(refs)
        self.tables = [next(refs) for _ in range(EMISSION + len(sheet.emission))]
        means = [next(refs) for _ in range(3)]
        self.load, self.dt, self.T_out = (next(refs) for _ in range(3))
        self.seen_out = next(refs) if extremes else None
        self.T, self.S, self.Q, self.fourth = refs
        self.block = ds(lax.axis_index("block") * self.satellites, self.satellites)
        shape = (self.parts, self.satellites)
        self.zero = self.laid(jnp.zeros(shape, jnp.float32))
        self.part = self.laid(lax.broadcasted_iota(jnp.int32, shape, 0))
        self.lead, self.gray, self.quick = (self.common(ref, self.block) for ref in means)
        self.once = [
            self.common(ref, 0, 0, self.block) if ref.shape[:2] == (1, 1) else None for ref in self.tables
        ]

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

    def in_column(self, number: int, e: int):
        """A table in the parts' columns of a turn, by row."""
        if self.once[number] is not None:
            return lambda j: self.once[number]
        ref = self.tables[number]
        columns, rows = ref.shape[:2]
        if columns == 1:
            return lambda j: self.common(ref, 0, min(j, rows - 1), self.block)
        return lambda j: self.own(ref, self.turn(e), min(j, rows - 1), self.block)

    def in_row(self, number: int, e: int):
        """A table in the parts' rows of a turn, by column."""
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

    def losses(self, h, rate, table, e: int):
        """h r of both halves [J/m^2/K], in column or row."""
        capacity, glow, leak = (table(number, e) for number in (CAPACITY, GLOW, LEAK))

        def value(k):
            own = rate * glow(k)
            return [capacity(k) * y for y in adi_step.loss_pair(own, own, leak(k), h)]

        if any(self.once[number] is None for number in (CAPACITY, GLOW, LEAK)):
            return value
        shared = value(0)
        return lambda k: shared

    def start(self):
        """Hottest and coldest cell of each part's; rise of the mean in a step, since the start, its integral."""
        hottest = coldest = None
        for e in range(self.ny // self.parts):
            along = self.in_row(ALONG, e)
            t, flow, total = None, self.zero, self.zero
            for i in range(self.nx):
                before, t = t, self.own(self.T_in, i, self.turn(e), self.block)
                self.T[i, self.turn(e)] = t
                if i:
                    inward = along(i - 1) * (t - before)
                    self.S[i - 1, self.turn(e)] = inward - flow
                    flow = inward
                total = total + (t * t) * (t * t)
                hottest = t if hottest is None else jnp.maximum(hottest, t)
                coldest = t if coldest is None else jnp.minimum(coldest, t)
            self.S[self.nx - 1, self.turn(e)] = -flow
            self.fourth[self.turn(e)] = total
        plgpu.commit_smem()
        return (hottest, coldest, self.zero, self.zero, self.zero) if self.extremes else ()

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
            seen = self.second_half(e, h, rate, seen)
        plgpu.commit_smem()
        if not self.extremes:
            return ()
        hottest, coldest, rise, risen, integral = seen
        return hottest, coldest, self.zero, risen + rise, integral + dt * (risen + 0.5 * rise)

    def first_factors(self, e: int, h, rate):
        """c and h m of columns, and their losses."""
        capacity, across = self.in_column(CAPACITY, e), self.in_column(ACROSS, e)
        losses = self.losses(h, rate, self.in_column, e)
        factors = []
        after = c = self.zero
        for j in range(self.ny - 1, -1, -1):
            before = h * across(j - 1) if j else self.zero
            lost = losses(j)
            c, m = adi_step.pivot(before, after, capacity(j) + lost[0], c)
            factors.append((c, h * m, lost))
            after = before
        return factors[::-1]

    def first_half(self, e: int, h, load, factors):
        """The first half step of columns, and heat of the second."""
        ny, turn = self.ny, self.turn(e)
        capacity, across, link, source = (self.in_column(n, e) for n in (CAPACITY, ACROSS, LINK, SOURCE))
        emission = [self.in_column(n, e) for n in range(EMISSION, len(self.tables))]
        t = [self.own(self.T, turn, j) for j in range(ny)]
        flow = [across(j) * (t[j + 1] - t[j]) for j in range(ny - 1)]
        u: list = [None] * ny
        for j in range(ny - 1, -1, -1):
            half = adi_step.Half.of_cells(tuple(f(j) for f in emission), 1.0, link=link(j))
            q = adi_step.first_heat(
                t[j], adi_step.net(flow, j), self.own(self.S, turn, j), source(j) + load, half
            )
            u[j] = q if j == ny - 1 else adi_step.eliminate(q, factors[j + 1][0], u[j + 1])
        d = None
        for j, (c, m, lost) in enumerate(factors):
            d = m * u[j] if d is None else adi_step.substitute(m, u[j], c, d)
            gain = adi_step.second_gain(capacity(j), *lost, link(j), h)
            half = adi_step.Half.of_cells(tuple(2 * h * f(j) for f in emission), 0.5, gain=gain)
            self.Q[turn, j] = adi_step.second_heat(t[j], d, 0.0, half)

    def second_half(self, e: int, h, rate, seen):
        """The second half step of rows, and the end of the step; what has been seen."""
        nx, turn = self.nx, self.turn(e)
        capacity, along = self.in_row(CAPACITY, e), self.in_row(ALONG, e)
        losses = self.losses(h, rate, self.in_row, e)
        c, start = [self.zero] * (nx + 1), [self.zero] * nx
        after = v = self.zero
        for i in range(nx - 1, -1, -1):
            before = h * along(i - 1) if i else self.zero
            c[i], m = adi_step.pivot(before, after, capacity(i) + losses(i)[1], c[i + 1])
            q = self.own(self.Q, i, turn)
            v = q if i == nx - 1 else adi_step.eliminate(q, c[i + 1], v)
            # Where v and m would stay until substitution, their product takes half the registers.
            start[i] = m * v
            after = before
        D, flow, total = None, self.zero, self.zero
        for i in range(nx):
            before, D = D, start[0] if D is None else adi_step.substitute(1.0, start[i], c[i], D)
            if i:
                inward = along(i - 1) * (D - before)
                self.S[i - 1, turn] = self.own(self.S, i - 1, turn) + (inward - flow)
                flow = inward
            t = self.own(self.T, i, turn) + D
            self.T[i, turn] = t
            total = total + (t * t) * (t * t)
            if self.extremes:
                seen = jnp.maximum(seen[0], t), jnp.minimum(seen[1], t), seen[2] + D, *seen[3:]
        self.S[nx - 1, turn] = self.own(self.S, nx - 1, turn) - flow
        self.fourth[turn] = total
        return seen

    def finish(self, seen):
        for e in range(self.ny // self.parts):
            for i in range(self.nx):
                self.T_out[i, self.turn(e), self.block] = self.own(self.T, i, self.turn(e))
        for n, value in enumerate((*seen[:2], *seen[4:])):
            self.seen_out[n, :, self.block] = value


def _hopper_or_blackwell() -> bool:
    """Whether this machine's GPUs are of the kinds the kernel is written for; without any, those of others are."""
    try:
        found = jax.devices("cuda")
    except RuntimeError:
        return True
    return all(9 <= float(device.compute_capability) < 11 for device in found)


def supports(T: Float[Array, "nx ny b"], sheet: Sheet) -> bool:
    """Whether the kernel holds such sheets: in float32, of linear conduction, on a grid that can be shared out."""
    if not _hopper_or_blackwell():
        return False
    if T.dtype != jnp.float32 or not sheet.linear or not _parts(sheet.nx, sheet.ny):
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
    parts = _parts(nx, ny)
    satellites = THREADS // parts
    blocks = -(-b // satellites)

    def padded(a):
        """The last satellite stands in for those that fill up the last block."""
        return jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, blocks * satellites - b)], mode="edge")

    def out(*axes):
        return jax.ShapeDtypeStruct((*axes, blocks * satellites), jnp.float32)

    # The compiler names what it builds after this function.
    def adi_transient(*refs):
        march = _March(sheet, extremes, bool(interpret), refs)
        march.finish(lax.fori_loop(0, load.shape[0], march.step, march.start()))

    glow, leak = sheet.emission[0] / sheet.capacity, sheet.link / sheet.capacity
    tables = (sheet.capacity, sheet.along, sheet.across, sheet.link, source, glow, leak, *sheet.emission)
    means = jnp.mean(source, (0, 1)), jnp.mean(sheet.emission[0], (0, 1)), jnp.max(glow, (0, 1))
    end, *seen = plgpu.kernel(
        adi_transient,
        out_type=[out(nx, ny), out(3, parts)][: 1 + extremes],
        scratch_types=[plgpu.SMEM(shape, jnp.float32) for shape in _shared(nx, ny)],
        grid=(blocks,),
        grid_names=("block",),
        # The parts of a satellite meet at the two barriers of a step; else nobody reads what another has written.
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True),
        interpret=interpret,
    )(*(padded(a) for a in (T, *tables, *means, load, dt)))
    if not seen:
        return end[..., :b], None
    hottest, coldest, integral = seen[0][..., :b]
    mean = adi.time_mean(jnp.mean(T, (0, 1)), jnp.sum(integral, 0) / (nx * ny), dt)
    return end[..., :b], adi.Extremes(jnp.max(hottest, 0), jnp.min(coldest, 0), mean)
