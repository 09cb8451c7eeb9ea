"""A revolution's march of coupled satellites as one kernel of a TPU: 1,024 stay in vector memory for all steps.

A step makes four passes over the columns of the panel's cells, see `adi_tpu`, where the march of a panel by itself
makes two. The coolant meets the tube cells of all columns at once, and how implicit the second half is depends on the
whole panel at mid-step:

- each column is eliminated across the tubes, down to its tube cell; then come nodes, coolant and bus (`step_plan`);
- each column is substituted, to mid-step;
- backwards along the tubes, elimination of the second half;
- forwards, its substitution, temperatures and conduction along x at the end of the step.

One array holds in turn what the first elimination leaves, the increments to mid-step, and what the second leaves.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from . import adi_step, satellite, step_plan
from .adi_tpu import LANES, ROWS, VECTOR_MEMORY, Halves, Laid, Shape, Table, Tile, blocks_of, fits, in_turns
from .march import Tally
from .revolution import Loads
from .satellite import Params, State
from .step_plan import Plan
from .unrolled import Emitter

# Steps whose loads are in vector memory at a time.
BLOCK = 32
# Cells of a tube, all of which are unrolled, that a kernel is made for; and more numbers than a design of such has.
LONGEST, NUMBERS = 64, 1000
# Columns that one turn of the first and the second pass takes, whose chains of dependent operations run side by side,
# and that one of the third takes, which is short of registers instead.
CHAINS, BACKWARD = 8, 2


def _number(ref, i: int, truth: bool):
    return ref[i] > 0.5 if truth else ref[i]


class _March(Tile):
    """A tile of satellites. `first` holds the increments of the tube cells to mid-step."""

    def __init__(self, plan: Plan, refs):
        self.plan = plan
        self.T_in, self.design, self.load, self.carry_in, T, self.carry, self.first, *scratch = refs
        super().__init__(Shape.of(plan.sheet), T, *scratch)
        self.cells = self.shape.nx * self.shape.ny

    def look(self, j: int, t, D, sums):
        return sums[0] + t, sums[1] + (t * t) * (t * t)

    def emitter(self, k) -> Emitter:
        plan = self.plan
        given = {}
        for numbers, ref in (
            (plan.design, self.design),
            (plan.load, self.load.at[k]),
            (plan.carry, self.carry),
        ):
            given |= {n: partial(_number, ref, i, n.truth) for i, n in enumerate(numbers)}
        return Emitter(given, lambda x: jnp.broadcast_to(jnp.float32(x), (ROWS, LANES)))

    def start(self):
        along = Table(step_plan.tables(self.plan, self.emitter(0))[1])
        self.begin(self.T_in, along, (self.zero, self.zero))
        self.carry[...] = self.carry_in[...]

    def step(self, k, _):
        plan, shape, v = self.plan, self.shape, self.v
        nx, ny = shape.nx, shape.ny
        emit = self.emitter(k)
        opening = plan.opening
        h = emit(opening.h.item())
        rate = adi_step.radiation_rate(emit(opening.mean4.item()), 1.0)
        tables = list(map(Table, step_plan.tables(plan, emit)))
        first = Halves(self, tables, h, rate, rate, emit(opening.source.item()))
        first.first_factors(0)
        in_turns(nx, CHAINS, lambda i, _: first.eliminated(i, v.at[i]), None)

        emit.given |= {n: partial(lambda i: self.T[i, 0], i) for i, n in enumerate(plan.start)}
        emit.given |= {n: partial(lambda i: self.m1[0] * v[i, 0], i) for i, n in enumerate(plan.alone)}
        emit.given |= {n: lambda: self.m1[0] for n in plan.response}
        for i, value in enumerate([emit(number) for number in plan.first]):
            self.first[i] = value
        more = 2 * h * emit(plan.more)

        def substituted(i, sums):
            increments = first.substituted(
                [v[i, j] for j in range(ny)], self.first[i] if plan.first else None
            )
            for j, d in enumerate(increments):
                v[i, j] = d
                sums = self.look(j, self.T[i, j] + d, d, sums)
            return sums

        self.give_means(emit, plan.half, in_turns(nx, CHAINS, substituted, (self.zero, self.zero)))
        mid_rate = adi_step.radiation_rate(emit(plan.mid4), 1.0)
        second = Halves(self, tables, h, rate, mid_rate, self.zero)

        def eliminated(turn, _):
            i = nx - 1 - turn
            behind, gains = second.second_factors(i)
            # All read before any is written, which may be in the way for all that the compiler knows.
            d, after = [v[i, j] for j in range(ny)], [v[i + 1, j] for j in range(ny)]
            for j in range(ny):
                kind = shape.kind(j)
                q = second.second_heat(i, j, d[j], gains[kind], more)
                v[i, j] = adi_step.eliminate(q, behind[kind], after[j])

        in_turns(nx, BACKWARD, eliminated, None)
        self.give_means(emit, plan.end, self.forward(second.along, (self.zero, self.zero)))
        for i, value in enumerate([emit(number) for number in plan.carried]):
            self.carry[i] = value
        return 0

    def give_means(self, emit: Emitter, numbers, sums):
        emit.given |= {n: partial(lambda x: x, total * (1 / self.cells)) for n, total in zip(numbers, sums)}


def _kernel(*refs, plan: Plan, block: int):
    march = _March(plan, refs)
    pl.when(pl.program_id(1) == 0)(march.start)
    lax.fori_loop(0, block, march.step, 0)


def _scratch(shape: Shape) -> list[tuple[int, ...]]:
    return [(shape.nx,), *shape.scratch]


def supports(params: Params, loads: Loads, state: State) -> bool:
    """Whether the kernel holds such satellites: in float32, the panel's columns alike, not too large."""
    sheet = jax.eval_shape(satellite.panel_sheet, params)
    if state.panel.dtype != jnp.float32 or not step_plan.of_one_kind(sheet) or not loads.dt.shape[0]:
        return False
    if min(sheet.nx, sheet.ny) < 2 or sheet.nx > LONGEST:
        return False
    # Inputs and outputs are there twice, the next tile's as well.
    scratch = sum(math.prod(axes) for axes in _scratch(Shape.of(sheet)))
    small = fits(4 * sheet.nx * sheet.ny + scratch + 2 * (NUMBERS + 8 * BLOCK))
    return small and step_plan.unrolls(params, loads, state)


def summary(params: Params, loads: Loads, state: State, interpret: Any = False) -> tuple[State, Tally]:
    """`march._summary_march` of satellites that it `supports`."""
    # Indices are 32 bits wide, whatever the caller's are.
    with jax.enable_x64(False):
        return _summary(params, loads, state, interpret)


def _summary(params, loads, state, interpret):
    nx, ny, b = state.panel.shape
    plan, laid = Plan(params, loads, state), Laid(b)
    carry = step_plan.start(state)
    design, rows = plan.design_values(params), plan.load_values(loads)
    blocks, block = blocks_of(rows.shape[0], BLOCK)
    rows = jnp.pad(rows, [(0, blocks * block - rows.shape[0]), (0, 0), (0, 0)])
    values = step_plan.pack(carry)
    end, values = pl.pallas_call(
        partial(_kernel, plan=plan, block=block),
        grid=(laid.tiles, blocks),
        in_specs=[
            laid.of_tile(nx, ny),
            laid.of_tile(len(design)),
            laid.of_block(block, rows.shape[1]),
            laid.of_tile(len(values)),
        ],
        out_specs=[laid.of_tile(nx, ny), laid.of_tile(len(values))],
        out_shape=[laid.out(nx, ny), laid.out(len(values))],
        scratch_shapes=[
            pltpu.VMEM((*axes, ROWS, LANES), jnp.float32) for axes in _scratch(Shape.of(plan.sheet))
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VECTOR_MEMORY
        ),
        interpret=interpret,
        name="satellite_march",
    )(*map(laid, (state.panel, design, rows, values)))
    now = step_plan.unpack(carry, laid.flat(values))
    return State(laid.flat(end), now.lumps.nodes, now.lumps.energy), now.tally
