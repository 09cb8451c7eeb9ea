"""The coupled step of `satellite`, the panel's cells left out, as numbers that a kernel emits where it needs them.

A kernel that marches satellites on the chip moves the panel itself and leaves all else to the functions that `step`
consists of, unrolled: nodes, coolant, bus, and what a search adds up. Between them stands what the panel reports:
its tube cells after the first elimination, and its means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import coolant as loop
from . import satellite, unrolled
from .march import Tally
from .pytree import pytree
from .revolution import Loads
from .satellite import Lumps, Params, State, Wall
from .unrolled import DESIGN, STEP, Emitter, Graph, Number


@pytree
class Carry:
    """What a march carries on besides the panel.

    Attributes:
        mean, mean4: Of the panel's T [K] and T^4 [K^4].
    """

    lumps: Lumps
    mean: Float[Array, " b"]
    mean4: Float[Array, " b"]
    tally: Tally


def _one(tree: Any) -> Any:
    """Shapes of the first satellite's."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((*a.shape[:-1], 1), a.dtype), tree)


def _numbers(tree: Any) -> list:
    return [x for a in jax.tree.leaves(tree) for x in a.ravel()]


def _values(tree: Any) -> list[Float[Array, " b"]]:
    return [row for a in jax.tree.leaves(tree) for row in a.reshape(-1, a.shape[-1])]


@dataclass(frozen=True)
class Tube:
    """A tube whose flow never changes, cell by cell.

    Attributes:
        design: Effectiveness of each cell, then exchange of each; see `coolant.tube_exchange`.
        cell: Of any one cell: start, alone, response, effectiveness, exchange, and the fluid that enters it.
        form: p and q of that cell, see `coolant.tube_response`.
        warmed: Its increment.
        kept: p and q of the whole tube.
        inlet: Fluid that enters the first cell [K].
    """

    design: list
    cell: list[Number]
    form: list
    warmed: Any
    kept: list
    inlet: Any


class Plan:
    """A satellite's step in numbers; arrays of them have one satellite.

    Attributes:
        design: What a march goes by all along.
        load: What it takes of each step's loads.
        carry, carried: What it carries, before and after a step.
        sheet: The panel's coefficients, `glow` and `leak` those of emission and link per capacity.
        opening: See `satellite.Opening`.
        start, alone, response: Of the tube cells, see `satellite.Wall`; the panel gives them. Empty without coolant.
        first: Increments of the tube cells to mid-step.
        more: Source of the second half step less that of the first [W/m^2].
        half: The panel's means of T and T^4 at mid-step, and `end` at the end; the panel gives them.
        mid4: T^4 that the second half step goes by [K^4].
        tube: For kernels that walk it cell by cell; None without coolant, or where a bypass changes its flow.
    """

    def __init__(self, params: Params, loads: Loads, state: State):
        graph = Graph()
        own = graph.inputs(_one(params), DESIGN)
        row = graph.inputs(
            jax.tree.map(lambda a: jax.ShapeDtypeStruct((*a.shape[1:-1], 1), a.dtype), loads), STEP
        )
        now = graph.inputs(_one(jax.eval_shape(start, state)), STEP)
        half, end = (graph.inputs((now.mean, now.mean4), STEP) for _ in range(2))
        lumps, wall = now.lumps, None
        self.start, self.alone, self.response = [], [], []
        if params.coolant is not None:
            line = np.empty((params.panel.nx, 1))
            of_cells = graph.inputs((line, line, line[:1]), STEP)
            self.start, self.alone, self.response = map(_numbers, of_cells)
            wall = Wall(*(np.broadcast_to(a, line.shape) for a in of_cells))

        self.sheet = sheet = graph.run(satellite.panel_sheet, own)
        self.glow = graph.run(jnp.divide, sheet.emission[0], sheet.capacity)
        self.leak = graph.run(jnp.divide, sheet.link, sheet.capacity)
        self.opening = graph.run(satellite.opening, own, row, lumps.nodes, now.mean4, sheet)
        stage = graph.run(
            satellite.implicit_stage, own, row, lumps.nodes, lumps.energy, now.mean, now.mean4, wall
        )
        self.first = _numbers(stage.wall)
        self.tube = None
        if params.coolant is not None and wall is not None and not params.coolant.bypass:
            self.tube = _tube(graph, own, wall, stage.inlet)
        more = graph.run(satellite.more_from_nodes, own, lumps.nodes, stage, self.opening.sent)
        mid4 = graph.run(jnp.maximum, half[1], self.opening.calm)
        rise = [graph.run(jnp.subtract, *pair) for pair in zip(half, (now.mean, now.mean4))]
        lumps = graph.run(satellite.closing, own, row, lumps, stage, *rise)
        tally = graph.run(Tally.add, now.tally, lumps, end[0], stage.power, stage.bypass, row.dt)
        [self.more], [self.mid4], self.half, self.end = map(_numbers, (more, mid4, half, end))
        self.carry, self.carried = _numbers(now), _numbers(Carry(lumps, end[0], end[1], tally))

        wanted = _numbers((sheet, self.glow, self.leak, self.opening))
        wanted = [*wanted, self.more, self.mid4, *self.first, *self.carried]
        self.design = unrolled.hoisted(wanted)
        self._own, self._row = own, row
        taken = unrolled.given(wanted)
        self.load = [n for n in _numbers(row) if n in taken]

    def design_values(self, params: Params, of: list | None = None) -> Float[Array, "k b"]:
        """Of `design`, or of others that follow from it; what is true or false as 1 or 0."""
        given = {n: (lambda value=value: value) for n, value in zip(_numbers(self._own), _values(params))}
        b = params.space_temperature.shape

        def full(x):
            return jnp.broadcast_to(x, b)

        emit = Emitter(given, full)
        return jnp.stack([full(emit(n)).astype(jnp.float32) for n in (self.design if of is None else of)])

    def load_values(self, loads: Loads) -> Float[Array, "t k b"]:
        """Of `load`, of each step."""
        taken = dict(zip(_numbers(self._row), _steps(loads)))
        return jnp.stack([taken[n] for n in self.load], axis=1)


def _tube(graph: Graph, own: Params, wall: Wall, inlet: np.ndarray) -> Tube:
    def exchange(coolant, panel):
        return loop.tube_exchange(coolant, panel, jnp.zeros_like(panel.length))

    def form(wall, effectiveness, exchange):
        return loop.tube_response(wall.start + wall.alone, exchange * wall.response, effectiveness)

    def whole(*given):
        return [a[-1] for a in form(*given)]

    def warmed(wall, exchange, entering):
        return loop.warmed(wall.start, wall.alone, exchange * wall.response, entering)

    effectiveness, given_off = graph.run(exchange, own.coolant, own.panel)
    *one, e, x, entering = graph.inputs([np.empty((1, 1))] * 6, STEP)
    return Tube(
        design=_numbers((effectiveness, given_off)),
        cell=_numbers((*one, e, x, entering)),
        form=_numbers(graph.run(form, Wall(*one), e, x)),
        warmed=graph.run(warmed, Wall(*one), x, entering).item(),
        # The same operations as in the stage, and so the same numbers.
        kept=_numbers(graph.run(whole, wall, effectiveness, given_off)),
        inlet=inlet.item(),
    )


def _steps(loads: Loads) -> list[Float[Array, "t b"]]:
    steps, b = loads.dt.shape
    return [a.reshape(steps, -1, b)[:, k] for a in jax.tree.leaves(loads) for k in range(a[0].size // b)]


def start(state: State) -> Carry:
    """What a march carries at its start."""
    T = state.panel
    return Carry(Lumps.start(state), jnp.mean(T, (0, 1)), jnp.mean((T * T) ** 2, (0, 1)), Tally.start(state))


def pack(carry: Carry) -> Float[Array, "k b"]:
    """Values of `Plan.carry`."""
    return jnp.stack(_values(carry))


def unpack(like: Carry, values: Float[Array, "k b"]) -> Carry:
    """Back from them to the shape of `like`."""
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size // leaf.shape[-1] for leaf in leaves])
    parts = jnp.split(values, ends[:-1])
    return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves)])


class Cells:
    """A sheet's coefficients as an array of values, of cells along x and y."""

    def __init__(self, a: np.ndarray, value: Callable):
        self.a, self.value, self.shape = a, value, a.shape

    def __getitem__(self, at: tuple[int, int]):
        return self.value(self.a[(*at, 0)])


def tables(plan: Plan, value: Callable[[Number], Any]) -> list[Cells]:
    """In the order in which kernels of sheets take them; the source, which all cells share, is zero there."""
    sheet, zero = plan.sheet, np.zeros((1, 1, 1), object)
    found = sheet.capacity, sheet.along, sheet.across, sheet.link, zero, plan.glow, plan.leak, *sheet.emission
    return [Cells(a, value) for a in found]


def unrolls(params: Params, loads: Loads, state: State) -> bool:
    """Whether all that the step does has a rule to unroll it by."""
    try:
        Plan(params, loads, state)
    except NotImplementedError:
        return False
    return True


def of_one_kind(sheet: Any) -> bool:
    """Whether kernels hold such a panel: straight tubes, linear conduction, columns alike, rows but for one."""
    cells = sheet.capacity, sheet.along, sheet.across, sheet.link, *sheet.emission
    single = all(a.shape[0] == 1 and a.shape[1] <= 2 for a in cells)
    return (
        single
        and sheet.passes == 1
        and len(sheet.emission) == 1
        and sheet.linear
        and sheet.across.shape[1] == 1
    )
