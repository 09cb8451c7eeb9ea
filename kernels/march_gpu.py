"""A revolution's march of coupled satellites as one kernel of an NVIDIA GPU, panels in shared memory for all steps.

As in `adi_gpu` some threads share a satellite, its parts: of columns in the first half step, of rows in the second.
Nodes, bus and fluid are few numbers that depend on each other: every part reckons them for itself, in registers, and
so are they carried on. A step has three barriers:

- parts eliminate their columns across the tubes and note what their tube cells do to the coolant; then each walks the
  whole tube and solves for nodes, bus and fluid (`step_plan`);
- parts substitute their columns, to mid-step, and note their means;
- parts take their rows to the end of the step, and note their means.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from . import adi_step, satellite, step_plan
from .adi_gpu import (
    CAPACITY,
    COLUMN,
    EMISSION,
    LINK,
    ROW,
    SHARED_MEMORY,
    THREADS,
    Block,
    Laid,
    hopper_or_blackwell,
    panels,
    parts_of,
)
from .march import Tally
from .revolution import Loads
from .satellite import Params, State
from .step_plan import Plan, Tube
from .unrolled import Emitter

# Numbers between two barriers within a stage: behind one the compiler fetches the design anew, which it would else
# keep in more registers than there are.
PAUSE = 400
# Numbers of the design that shared memory has room for.
DESIGN = 512


class _March(Block):
    """A block of satellites.

    `sums` holds those of T and T^4 over rows at the end of a step, `mids` over columns at mid-step, `walls` the tube
    cells' p and q, `factors` c and h m of the first half step.
    """

    def __init__(self, plan: Plan, nx: int, ny: int, interpreted: bool, refs):
        self.plan = plan
        (
            self.T_in,
            self.design_in,
            self.tube,
            self.load,
            self.carry_in,
            self.T_out,
            self.carry_out,
            *scratch,
        ) = refs
        *panels, self.design, self.sums, self.mids, self.walls, self.factors = scratch
        super().__init__(nx, ny, False, interpreted, *panels)
        self.cells = step_plan.tables(plan, lambda number: number)
        self.values: list[list] = []

    def alike(self, number: int) -> bool:
        return len(self.values[number]) == 1

    def in_column(self, number: int, e: int):
        values = self.values[number]
        return lambda j: values[min(j, len(values) - 1)]

    def in_row(self, number: int, e: int):
        values = self.values[number]
        # The first row and all others.
        value = values[0] if len(values) == 1 else jnp.where(self.part + e == 0, *values)
        return lambda i: value

    def emission(self, table, e: int) -> list:
        return [table(n, e) for n in range(EMISSION, len(self.values))]

    def emitter(self, k, carry) -> Emitter:
        plan = self.plan
        given = {n: partial(self.of_design, i, n.truth) for i, n in enumerate(plan.design)}
        given |= {n: partial(self.common, self.load, k, i, self.block) for i, n in enumerate(plan.load)}
        given |= {n: partial(lambda x: x, value) for n, value in zip(plan.carry, carry)}
        return Emitter(given, self.full, (PAUSE, plgpu.commit_smem))

    def of_design(self, i: int, truth: bool):
        value = self.common(self.design, i)
        return value > 0.5 if truth else value

    def full(self, x):
        return x if getattr(x, "shape", ()) else self.zero + x

    def read_tables(self, emit: Emitter):
        self.values = [[emit(cells[0, r]) for r in range(cells.shape[1])] for cells in self.cells]

    def look(self, t, D, sums, seen):
        fourth = (t * t) * (t * t)
        return ((t, fourth) if sums is None else (sums[0] + t, sums[1] + fourth)), seen

    def note(self, e: int, sums):
        self.put(self.sums, e, sums)

    def put(self, ref, e: int, values):
        for n, value in enumerate(values):
            ref[n, self.turn(e)] = value

    def mean(self, ref, n: int):
        total = sum((self.common(ref, n, k) for k in range(ref.shape[1])), self.zero)
        return total * (1 / (self.nx * self.ny))

    def start(self):
        for e in range(self.design.shape[0] // self.parts):
            self.design[self.turn(e)] = self.own(self.design_in, self.turn(e), self.block)
        plgpu.commit_smem()
        carry = [self.common(self.carry_in, n, self.block) for n in range(len(self.plan.carry))]
        self.read_tables(self.emitter(0, carry))
        self.begin(self.T_in, self.look, ())
        plgpu.commit_smem()
        return carry

    def step(self, k, carry):
        plan = self.plan
        emit = self.emitter(k, carry)
        self.read_tables(emit)
        opening = plan.opening
        h = emit(opening.h.item())
        rate = adi_step.radiation_rate(emit(opening.mean4.item()), 1.0)
        source = emit(opening.source.item())
        factors = self.first_factors(0, h, rate)
        turns = range(self.nx // self.parts)
        for e in turns:
            self.first_half(e, source, factors)
        self.keep(self.factors, [[c for c, _, _ in factors], [m for _, m, _ in factors]])
        plgpu.commit_smem()

        first = [None for _ in turns]
        if plan.tube is not None:
            first = self.walk(emit, plan.tube)
        more = 2 * h * emit(plan.more)
        for e in turns:
            self.to_middle(e, first[e])
        plgpu.commit_smem()

        emit.given |= {n: partial(lambda x: x, self.mean(self.mids, i)) for i, n in enumerate(plan.half)}
        mid_rate = adi_step.radiation_rate(emit(plan.mid4), 1.0)
        for e in range(self.ny // self.parts):
            losses = self.losses(h, rate, mid_rate, self.in_row, e)
            self.second_half(e, h, losses, self.second_heat(e, h, losses, more), self.look, ())
        plgpu.commit_smem()
        emit.given |= {n: partial(lambda x: x, self.mean(self.sums, i)) for i, n in enumerate(plan.end)}
        return [self.full(emit(number)) for number in plan.carried]

    def keep(self, ref, lines: list[list]):
        """What all parts of a satellite have, out of their registers: each writes its share."""
        for n, values in enumerate(lines):
            for e in range(len(values) // self.parts):
                own = values[e * self.parts]
                for k in range(1, self.parts):
                    own = jnp.where(self.part == k, values[e * self.parts + k], own)
                ref[n, self.turn(e)] = own

    def first_half(self, e: int, source, factors):
        """u of columns, and p and q of their tube cells."""
        for j, value in enumerate(self.eliminated(e, source, factors)[0]):
            self.Q[self.turn(e), j] = value
        tube = self.plan.tube
        if tube is not None:
            emit = self.of_cell(tube, e, factors[0][1])
            self.put(self.walls, e, [emit(number) for number in tube.form])

    def of_cell(self, tube: Tube, e: int, response, fluid=None) -> Emitter:
        """Numbers of the parts' tube cells, which the fluid enters at this temperature."""
        turn = self.turn(e)
        wall = [self.own(self.T, turn, 0), response * self.own(self.Q, turn, 0), response]
        values = [*wall, *(self.own(self.tube, n, turn, self.block) for n in range(2)), fluid]
        return Emitter({n: partial(lambda x: x, x) for n, x in zip(tube.cell, values)}, self.full)

    def walk(self, emit: Emitter, tube: Tube) -> list:
        """Nodes, bus and fluid; increments of the tube cells of columns."""
        forms = [
            (partial(self.common, self.walls, 0, i), partial(self.common, self.walls, 1, i))
            for i in range(self.nx)
        ]
        kept, taken = (f() for f in forms[0])
        for p, q in forms[1:]:
            p = p()
            kept, taken = p * kept, p * taken + q()
        emit.given |= {n: partial(lambda x: x, value) for n, value in zip(tube.kept, (kept, taken))}
        fluid = emit(tube.inlet)
        entering = [self.zero] * (self.nx // self.parts)
        for i, (p, q) in enumerate(forms):
            e, part = divmod(i, self.parts)
            entering[e] = jnp.where(self.part == part, fluid, entering[e])
            fluid = p() * fluid + q()
        response = self.common(self.factors, 1, 0)
        return [self.of_cell(tube, e, response, inlet)(tube.warmed) for e, inlet in enumerate(entering)]

    def to_middle(self, e: int, first):
        """Increments of columns to mid-step, in place of u, and their means."""
        d, sums = first, None
        for j in range(self.ny):
            if j or first is None:
                u, m = self.own(self.Q, self.turn(e), j), self.common(self.factors, 1, j)
                d = adi_step.substitute(m, u, self.common(self.factors, 0, j), d) if j else m * u
            self.Q[self.turn(e), j] = d
            sums, _ = self.look(self.own(self.T, self.turn(e), j) + d, d, sums, ())
        self.put(self.mids, e, sums)

    def second_heat(self, e: int, h, losses, more):
        turn = self.turn(e)
        capacity, link = self.in_row(CAPACITY, e), self.in_row(LINK, e)
        first, second = losses(0)
        gain = adi_step.second_gain(capacity(0), first, second, link(0), h)
        half = adi_step.Half.of_cells(
            tuple(2 * h * f(0) for f in self.emission(self.in_row, e)), 0.5, gain=gain
        )
        return lambda i: adi_step.second_heat(
            self.own(self.T, i, turn), self.own(self.Q, i, turn), more, half
        )

    def result(self, carry):
        self.finish(self.T_out)
        for n, value in enumerate(carry):
            self.carry_out[n, :, self.block] = value


def _shared(nx: int, ny: int, numbers: int) -> list[tuple[int, ...]]:
    satellites = THREADS // parts_of(nx, ny)
    return [*panels(nx, ny), (numbers, satellites), *((2, n, satellites) for n in (ny, nx, nx, ny))]


def supports(params: Params, loads: Loads, state: State) -> bool:
    """Whether the kernel holds such satellites: in float32, no bypass, columns alike, on a grid to be shared out."""
    if not hopper_or_blackwell() or state.panel.dtype != jnp.float32:
        return False
    if params.coolant is not None and params.coolant.bypass:
        return False
    sheet = jax.eval_shape(satellite.panel_sheet, params)
    if not step_plan.of_one_kind(sheet) or not parts_of(sheet.nx, sheet.ny):
        return False
    if sheet.nx > ROW or sheet.ny > COLUMN:
        return False
    shared = sum(4 * math.prod(shape) for shape in _shared(sheet.nx, sheet.ny, DESIGN))
    return shared <= SHARED_MEMORY - 2048 and step_plan.unrolls(params, loads, state)


def summary(params: Params, loads: Loads, state: State, interpret: Any = False) -> tuple[State, Tally]:
    """`march._summary_march` of satellites that it `supports`."""
    # Indices are 32 bits wide, whatever the caller's are.
    with jax.enable_x64(False):
        return _summary(params, loads, state, interpret)


def _summary(params, loads, state, interpret):
    nx, ny, b = state.panel.shape
    plan, parts = Plan(params, loads, state), parts_of(nx, ny)
    laid = Laid(b, parts)

    # The compiler names what it builds after this function.
    def satellite_march(*refs):
        march = _March(plan, nx, ny, bool(interpret), refs)
        march.result(lax.fori_loop(0, loads.dt.shape[0], march.step, march.start()))

    carry = step_plan.start(state)
    design, values = plan.design_values(params), step_plan.pack(carry)
    design = jnp.pad(design, [(0, -len(design) % parts), (0, 0)])
    tube = jnp.zeros((2, nx, b)) if plan.tube is None else plan.design_values(params, plan.tube.design)
    end, values = plgpu.kernel(
        satellite_march,
        out_type=[laid.out(nx, ny), laid.out(len(values), parts)],
        scratch_types=[plgpu.SMEM(shape, jnp.float32) for shape in _shared(nx, ny, len(design))],
        grid=(laid.blocks,),
        grid_names=("block",),
        # The parts of a satellite meet at the barriers of a step; else nobody reads what another has written.
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True),
        interpret=interpret,
    )(*map(laid, (state.panel, design, tube.reshape(2, nx, b), plan.load_values(loads), values)))
    now = step_plan.unpack(carry, values[:, 0, :b])
    return State(end[..., :b], now.lumps.nodes, now.lumps.energy), now.tally
