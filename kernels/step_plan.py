"""The coupled step of `satellite`, the panel's cells left out, as numbers that a kernel emits where it needs them.

A kernel that marches a satellite on the chip moves the panel itself and leaves all else to the functions that `step`
consists of, unrolled (`unrolled`): nodes, coolant, bus, and what a search adds up. Between them stand what the panel
reports: its tube cells after the first elimination, and its means.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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
        mean, mean4: Of the panel [K], [K^4].
    """

    lumps: Lumps
    mean: Float[Array, " b"]
    mean4: Float[Array, " b"]
    tally: Tally


def numbers(tree: Any) -> list:
    """All of a tree of arrays of them, in order."""
    return [x for a in jax.tree.leaves(tree) for x in a.ravel()]


class Plan:
    """Numbers of one satellite's step.

    Attributes:
        design: What a march reckons with all along, `design_values` in their order.
        load: What it takes of each step, `load_values` in their order.
        carry, carried: What it carries, before and after a step, `carry_values` in their order.
        sheet: The panel's coefficients.
        opening, more: See `satellite`.
        start, alone, response: Of the tube cells, given by the panel; see `satellite.Wall`. Empty without coolant.
        first: Increments of the tube cells to mid-step.
        half: The panel's mean T and T^4 at mid-step, and `end` at the end, given by the panel.
    """

    def __init__(self, params: Params, loads: Loads, state: State):
        one = partial(jax.tree.map, lambda a: jax.ShapeDtypeStruct((*a.shape[:-1], 1), a.dtype))
        graph = Graph()
        own = self._params = graph.inputs(one(params), DESIGN)
        row = graph.inputs(one(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), loads)), STEP)
        before = graph.inputs(one(jax.eval_shape(_carry, state)), STEP)
        self.half, self.end = (numbers(graph.inputs([before.mean] * 2, STEP)) for _ in range(2))
        sheet = graph.run(satellite.panel_sheet, own)
        opening = graph.run(satellite.opening, own, row, before.lumps.nodes, before.mean4, sheet)
        wall = None
        if params.coolant is not None:
            line, cell = (jax.ShapeDtypeStruct((k, 1), jnp.float32) for k in (params.panel.nx, 1))
            start, alone, response = graph.inputs((line, line, cell), STEP)
            wall = Wall(start, alone, np.broadcast_to(response, start.shape))
        self.start, self.alone, self.response = (
            ([], [], []) if wall is None else (numbers(a) for a in (wall.start, wall.alone, wall.response[:1]))
        )
        lumps = before.lumps
        stage = graph.run(
            satellite.implicit_stage, own, row, lumps.nodes, lumps.energy, before.mean, before.mean4, wall
        )
        rises = [_one(a) for a in self.half]
        rises = [graph.run(jnp.subtract, a, b) for a, b in zip(rises, (before.mean, before.mean4))]
        lumps = graph.run(satellite.closing, own, row, lumps, stage, *rises)
        mean, mean4 = map(_one, self.end)
        tally = graph.run(Tally.add, before.tally, lumps, mean, stage.power, stage.bypass, row.dt)
        self.opening, self.sheet = opening, sheet
        self.mid4 = graph.run(jnp.maximum, _one(self.half[1]), opening.calm).item()
        self.more = graph.run(satellite.more_from_nodes, own, lumps_nodes(before), stage, opening.sent).item()
        self.first = numbers(stage.wall)
        self.carry, self.carried = numbers(before), numbers(Carry(lumps, mean, mean4, tally))
        self.glow, self.leak = (graph.run(jnp.divide, a[0], sheet.capacity) for a in (sheet.emission, (sheet.link,)))
        wanted = [*numbers((sheet, self.glow, self.leak, opening)), self.mid4, self.more, *self.first, *self.carried]
        self.design = unrolled.hoisted(wanted)
        rows = set(numbers(row))
        taken = {n for n in unrolled.inputs(wanted) if n in rows}
        self._load, self.load = row, [n for n in numbers(row) if n in taken]
        self._state = jax.tree.map(lambda a: a.shape, state)

    def design_values(self, params: Params) -> Float[Array, "k b"]:
        given = {n: (lambda value=value: value) for n, value in _pairs(self._params, params)}
        emit = Emitter(given, lambda x: x)
        b = params.bus.base_load.shape
        return jnp.stack([jnp.broadcast_to(emit(n), b) for n in self.design])

    def load_values(self, loads: Loads) -> Float[Array, "t k b"]:
        taken = dict(_pairs(self._load, loads, axis=1))
        return jnp.stack([taken[n] for n in self.load], axis=1)
